package record

import (
	"fmt"

	"github.com/headrace/headrace/signal"
)

// Event is a birth or a death, as it stands on [TopicEvents].
type Event struct {
	Edge   string // "group/edge node"
	Device string // "line:asset"; "" for the node itself
	Kind   string // KindNBirth, KindDBirth, KindNDeath or KindDDeath
	Time   signal.Micros
	BdSeq  uint64
	Seq    uint64
	Held   []signal.Reading // the values a birth repeats; they are not readings
}

// AppendEvent appends the value of e's Kafka record to dst.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = appendString(dst, 1, e.Edge)
	dst = appendString(dst, 2, e.Device)
	dst = appendString(dst, 3, e.Kind)
	dst = appendUint(dst, 4, uint64(e.Time))
	dst = appendUint(dst, 5, e.BdSeq)
	dst = appendUint(dst, 6, e.Seq)
	return appendReadings(dst, e.Held)
}

// DecodeEvent reads the value of an event's Kafka record, using the memory of
// into again. After an error it holds nothing of use.
func DecodeEvent(p []byte, into *Event) error {
	if len(p) > MaxValueBytes {
		return fmt.Errorf("decoding event: value of %d bytes is larger than %d", len(p), MaxValueBytes)
	}
	held, err := makeRoom(p, into.Held)
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	old := *into
	*into = Event{Held: held}
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return fmt.Errorf("decoding event: %w", err)
		}
		switch tag {
		case 1<<3 | bytes:
			err = setText(&into.Edge, b, old.Edge)
		case 2<<3 | bytes:
			err = setText(&into.Device, b, old.Device)
		case 3<<3 | bytes:
			err = setText(&into.Kind, b, old.Kind)
		case 4<<3 | varint:
			into.Time = signal.Micros(u)
		case 5<<3 | varint:
			into.BdSeq = u
		case 6<<3 | varint:
			into.Seq = u
		case 7<<3 | bytes:
			into.Held, err = appendDecoded(into.Held, b)
		}
		if err != nil {
			return fmt.Errorf("decoding event: field %d: %w", tag>>3, err)
		}
	}
	return nil
}

// Headers returns the event's header.
func (e *Event) Headers() []Header {
	return []Header{{HeaderEdge, []byte(e.Edge)}, {HeaderKind, []byte(e.Kind)}}
}
