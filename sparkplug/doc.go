// Package sparkplug speaks Sparkplug B 3.0: its topics, its payloads, and the
// two state machines of its conversation, the edge node ([EdgeNode]) and the
// host's view of one edge node ([HostSession]). It also holds what Headrace
// adds: the body that carries a message's frozen identity, and the
// acknowledgement of what Kafka has.
//
// It does no I/O, starts nothing and reads no clock: bytes and times are
// arguments, bytes and decisions are results. It is written from the
// specification; docs/formats/sparkplug.md has the wire tables.
package sparkplug
