// Package ring keeps the last raw waveforms of an edge on its disk, so that a
// trigger can let through what was before it, and so that what happened can be
// looked at later. It is bounded in bytes: the oldest segment goes when the
// newest needs its room.
//
// It is no outbox: nothing waits in it for anybody. The format is documented in
// docs/formats/ring.md.
package ring
