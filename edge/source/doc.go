// Package source is where an edge's readings come from: what a source is, the
// replay of recordings from CSV files, and the plant's clock of a replay.
//
// A source delivers readings in its own order with a position after each
// delivery, from which it can be opened again. It neither filters nor stores
// what it delivers, and it knows nothing of where the readings go.
package source
