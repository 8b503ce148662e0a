// Package pipeline keeps the lake's tables: it reads declared pipelines (SQL
// in the words of Delta Live Tables), plans batches, and runs them exactly once
// from the spine to bronze, from bronze to silver and its quarantine, and from
// silver to gold.
//
// It is not a query service and not a general streaming engine. It runs the
// shapes that the medallion tables need (a declared table fed by the spine, row
// by row refinement with expectations, keyed one-minute windows, latest state
// by key) and refuses any other by name.
//
// # Exactly once
//
// A batch is a range of its source: spine offsets, or Delta versions. The range
// and everything else the result depends on is written to a plan record,
// put-if-absent, before work starts; a retry follows the record. Every commit
// carries transaction steps "stored version is my start, becomes my end", one
// for each spine partition or shard, and is refused when another worker was
// first. So it does not matter who runs a batch, how often, or when it wakes.
package pipeline
