// Package record is the value, key and headers of the messages that Headrace
// writes to Kafka, and the names of its topics.
//
// A record is exactly one message of one edge: a [signal.Batch]. An event is a
// birth or a death of an edge node or device. Both are Protobuf, described by
// docs/formats/record.proto and coded here by hand, without reflection.
//
// It opens no connection and knows no Kafka client, no MQTT and no table.
package record
