// Package bench measures stations of the product on this machine: what they
// carry per core, what they write, what they keep in memory, the rival beside it.
//
// It measures and judges; it is no test of correctness, though a loss is a result
// like any other. A load generator is never counted as the station's own work.
package bench
