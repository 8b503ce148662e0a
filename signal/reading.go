package signal

import (
	"math"
	"time"
)

// Micros is a time as microseconds since the Unix epoch, UTC: the resolution
// of every table. Zero means "not given".
type Micros int64

// MicrosOf converts a time, rounding down.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time converts back.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// Quality is an OPC quality code; 192 is good.
type Quality uint16

// The qualities that Headrace itself assigns.
const (
	QualityBad   Quality = 0
	QualityGood  Quality = 192
	QualityStale Quality = 500
)

// Good tells whether the OPC quality bits say good (code & 0xC0 == 0xC0, as
// the low byte carries them; 500 is Sparkplug's STALE and is not good).
func (q Quality) Good() bool { return q != QualityStale && q&0xC0 == 0xC0 }

// Kind says what a value is.
type Kind uint8

// The kinds. Null is a value that the sender declared unknown; Wave is a block
// of samples, in streams of class [Raw] alone.
const (
	Null Kind = iota
	Number
	Bool
	Text
	Wave
)

// Value is a number, a truth value, a text, a block of samples or nothing.
type Value struct {
	Kind   Kind
	Number float64 // Kind Number; for Bool 0 or 1
	Text   string  // Kind Text; for Wave the encoded block, any bytes
}

// NumberValue returns a number.
func NumberValue(v float64) Value { return Value{Kind: Number, Number: v} }

// BoolValue returns a truth value.
func BoolValue(v bool) Value {
	if v {
		return Value{Kind: Bool, Number: 1}
	}
	return Value{Kind: Bool}
}

// TextValue returns a text.
func TextValue(s string) Value { return Value{Kind: Text, Text: s} }

// WaveValue returns an encoded block of samples; package record has its format.
func WaveValue(block string) Value { return Value{Kind: Wave, Text: block} }

// Equal compares values; NaN equals NaN, so that repeats are recognised.
func (v Value) Equal(w Value) bool {
	return v.Kind == w.Kind && v.Text == w.Text &&
		(v.Number == w.Number || math.IsNaN(v.Number) && math.IsNaN(w.Number))
}

// Reading is one value of one sensor. Sensor is the last name of its path; the
// asset stands with the batch.
type Reading struct {
	Sensor    string
	EventTime Micros // when it was measured
	AliveAt   Micros // last proof of life, >= EventTime; moved by heartbeats
	Value     Value
	Unit      string // UCUM, "" if the sender gives none
	Quality   Quality
	// Historical marks a value that was sent again or late: it must not move a
	// live display.
	Historical bool
	// Rescued holds, as JSON, what the sender added and no column takes.
	Rescued string
}

// Held tells whether the reading is a heartbeat: an old value proven alive.
func (r Reading) Held() bool { return r.AliveAt > r.EventTime }

// Origin is the frozen identity of a message: given once, when the edge's
// outbox commits it, and kept by every resend.
type Origin struct {
	Edge       string // "group/edge node"
	Boot       string // UUIDv7 of the edge's start that froze the message
	Seq        uint64 // number in the outbox, 1, 2, … per boot; what acknowledgements name
	Stream     Stream
	N          uint64 // 0, 1, 2 … per (edge, boot, stream); what dedupe keys on
	Config     string // content hash of the filter set that produced it
	CompleteTo Micros // nothing of the stream before it is unacknowledged
}

// Batch is one message: readings of one stream, in the order they were taken.
type Batch struct {
	Origin
	Readings []Reading
}
