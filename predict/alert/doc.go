// Package alert makes episodes of predictions: one begins when several windows
// of a channel in a row pass their limit and ends when many do not. An episode
// and the request for its work order become durable together.
//
// It scores nothing and knows no order book; it hands requests out and is told
// which are delivered.
package alert
