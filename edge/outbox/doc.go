// Package outbox is the edge's durable log of messages that Kafka does not
// have yet.
//
// A commit freezes messages together with the position of their source, the
// state of the filter and the counters, so that a restart goes on exactly
// where the disk stands; nothing is sent before. Acknowledgements take
// messages out again, and a segment file whose messages are all acknowledged
// is deleted. In memory there is an index of about 40 bytes for each
// unacknowledged message, never their bodies.
//
// It decides neither what to send nor when to send it again: that is the
// publisher's. The format is documented in docs/formats/outbox.md.
package outbox
