// Package filter decides at the edge which readings are worth sending.
//
// A deadband holds a reading back that differs from the last one sent by no
// more than its band; a heartbeat then proves the held value alive without
// moving its time of measurement. Whoever holds each sent value until the next
// is never wrong by more than the band, for readings that come in order.
//
// A [Set] is a versioned configuration: its hash travels with every message
// that it let through. The package neither reads clocks nor stores anything;
// its state is frozen with the messages by the outbox.
package filter
