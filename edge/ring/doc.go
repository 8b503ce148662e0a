// Package ring keeps what an edge has measured on its disk, before any filter:
// slow samples and waveforms, for so many hours and bytes. A trigger lets through
// what was before it, a question of later is answered from it, and new filters are
// tried on it.
//
// It is no outbox: nothing waits in it for anybody, and it yields where the disk
// is short. What it holds at a sync survives a power cut; a damaged record costs
// that record. The format is documented in docs/formats/ring.md.
package ring
