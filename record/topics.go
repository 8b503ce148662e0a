package record

import (
	"strconv"

	"github.com/headrace/headrace/signal"
)

// The topics of the spine.
const (
	TopicReadings   = "headrace.readings"
	TopicEvents     = "headrace.events" // states, alarms, births, deaths
	TopicRaw        = "headrace.raw"    // waveforms
	TopicDeadletter = "headrace.deadletter"
	TopicBridges    = "headrace.bridges" // always empty: its partitions are the shares of bridges
	TopicRoutes     = "headrace.routes"  // compacted: a stream's name, and the topic it has for good
)

// The headers of a Kafka record.
const (
	HeaderEdge   = "edge"
	HeaderBoot   = "boot"
	HeaderStream = "stream"
	HeaderN      = "n" // decimal
	HeaderConfig = "config"
	HeaderKind   = "kind"   // on TopicEvents only: one of the kinds below
	HeaderReason = "reason" // on TopicDeadletter only
	HeaderTopic  = "topic"  // on TopicDeadletter only: where the bytes came from
	// HeaderSource, on TopicDeadletter only, is the kind of an edge's source that
	// refused the bytes; HeaderUncarried is how many more the edge refused before
	// and only counted, decimal.
	HeaderSource    = "source"
	HeaderUncarried = "uncarried"
)

// The kinds of messages on [TopicEvents]: a Record, or an Event of that kind.
const (
	KindRecord = "record"
	KindNBirth = "nbirth"
	KindDBirth = "dbirth"
	KindNDeath = "ndeath"
	KindDDeath = "ddeath"
)

// IsEvent tells whether a kind is that of an Event, which carries no readings.
func IsEvent(kind string) bool {
	switch kind {
	case KindNBirth, KindDBirth, KindNDeath, KindDDeath:
		return true
	}
	return false
}

// Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// Topic is where a stream's records go unless a route says otherwise.
func Topic(c signal.Class) string {
	switch c {
	case signal.Event:
		return TopicEvents
	case signal.Raw:
		return TopicRaw
	case signal.Refused:
		return TopicDeadletter
	}
	return TopicReadings
}

// Key is the Kafka key of a batch: its asset.
func Key(b *signal.Batch) []byte {
	a, _ := b.Stream.Split()
	return []byte(a)
}

// Headers repeats the batch's identity, so that it can be routed and counted
// without decoding the value.
func Headers(b *signal.Batch) []Header {
	h := []Header{
		{HeaderEdge, []byte(b.Edge)},
		{HeaderBoot, []byte(b.Boot)},
		{HeaderStream, []byte(b.Stream)},
		{HeaderN, strconv.AppendUint(nil, b.N, 10)},
		{HeaderConfig, []byte(b.Config)},
	}
	if _, c := b.Stream.Split(); c == signal.Event {
		h = append(h, Header{HeaderKind, []byte(KindRecord)})
	}
	return h
}
