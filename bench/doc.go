// Package bench measures stations of the product on this machine: what they
// carry per core, what they write, what they keep in memory.
//
// It measures and judges; it is no test of correctness, and a load generator is
// never counted as the station's own work.
package bench
