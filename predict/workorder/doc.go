// Package workorder is the way from an episode to a maintenance planner: the
// built-in order book, the courier that carries requests into it exactly once,
// and the spectrum picture that an order shows.
//
// The book is a system of its own, as a plant's maintenance system would be: it
// knows an episode by its key alone and shares no transaction with the alerts.
package workorder
