// Package edge is the edge agent: it takes readings from a source, filters
// them, freezes them in its outbox, and sends them by Sparkplug B until a
// bridge says that Kafka has them.
//
// [Agent] joins two halves that share nothing but the outbox. Intake goes from
// the source to the outbox and stops when that is full. The publisher goes
// from the outbox to the broker, keeps a window unacknowledged, and sends
// again what was not acknowledged in time.
//
// The package holds no broker, bridge or Kafka; see spine.
package edge
