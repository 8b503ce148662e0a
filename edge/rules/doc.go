// Package rules is an edge's own judgement: a sensor beyond a level for long
// enough raises an alarm, and clears it when it is back, whether anybody else can
// be reached or not.
//
// It sees every sample, before any filter. It shows and sends nothing; package
// edge does. What the centre makes of an alarm is package alert's.
package rules
