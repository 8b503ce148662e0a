// Package kafkac is the one place that speaks to Kafka, or to anything that
// speaks its protocol: a [Producer] that never gives a record up, a [Consumer]
// in a group whose start offsets are the caller's, [Read] over fixed offset
// ranges, and an [Admin].
//
// It decides the client's settings and nothing else: what a record means is
// the record package's business, and where to start reading is known by the
// tables that were written from it, not by the group's committed offsets,
// which are kept for lag display only.
package kafkac
