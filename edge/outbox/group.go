package outbox

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/signal"
)

// format is the version of what stands in the segments.
const format = 1

// Counters are the edge's sums, in readings, since the outbox was made. They
// commit together with the messages they count.
type Counters struct {
	Emitted  uint64 // taken from the source
	Derived  uint64 // computed from them
	Held     uint64 // added as heartbeats
	Filtered uint64 // held back by the filter
	Shipped  uint64 // in messages of this outbox, acknowledged or not
	Evicted  uint64 // given up because the outbox was full
	Retried  uint64 // sent again; not part of the sum
	Lost     uint64 // of Shipped: unacknowledged when the disk gave them back damaged

	// Waveforms have their own line, in samples; streams of class raw are in
	// none of the sums above.
	Samples        uint64 // taken from the source
	SamplesShipped uint64 // in messages of this outbox, acknowledged or not

	// What was given up because the outbox was full, beside the sums.
	EvictedEvents   uint64 // of Evicted, of class event
	SamplesEvicted  uint64
	EvictedMessages uint64
	// What was asked for afterwards and sent from the ring.
	Replayed        uint64 // readings
	SamplesReplayed uint64
}

// Check tells whether the sum holds: what came in went out, or is counted.
func (c Counters) Check() error {
	in, out := c.Emitted+c.Derived+c.Held+c.Replayed, c.Filtered+c.Shipped+c.Evicted
	if in != out {
		return fmt.Errorf("emitted %d + derived %d + held %d + replayed %d is not filtered %d + shipped %d + evicted %d",
			c.Emitted, c.Derived, c.Held, c.Replayed, c.Filtered, c.Shipped, c.Evicted)
	}
	if c.SamplesShipped+c.SamplesEvicted > c.Samples+c.SamplesReplayed {
		return fmt.Errorf("samples shipped %d and evicted %d are more than were taken and replayed, %d", c.SamplesShipped, c.SamplesEvicted, c.Samples+c.SamplesReplayed)
	}
	return nil
}

func (c Counters) list() []uint64 {
	return []uint64{c.Emitted, c.Derived, c.Held, c.Filtered, c.Shipped, c.Evicted, c.Retried, c.Lost, c.Samples, c.SamplesShipped, c.Replayed, c.SamplesReplayed}
}

func (c *Counters) evicted(events, samples, messages uint64) {
	c.EvictedEvents, c.SamplesEvicted, c.EvictedMessages = events, samples, messages
}

func countersOf(v []uint64) Counters {
	v = append(v, make([]uint64, 12)...)
	return Counters{
		Emitted: v[0], Derived: v[1], Held: v[2], Filtered: v[3], Shipped: v[4], Evicted: v[5], Retried: v[6], Lost: v[7],
		Samples: v[8], SamplesShipped: v[9], Replayed: v[10], SamplesReplayed: v[11],
	}
}

// group is the payload of one frame.
type group struct {
	format   uint64 // in the first frame of a segment
	edge     string // in the first frame of a segment
	boot     string
	messages []frozen
	state    *state
	acks     []ack
}

// frozen is a message as it stands in a frame.
type frozen struct {
	stream   signal.Stream
	seq      uint64
	readings uint64
	from     signal.Micros // earliest proof of life in it
	boot     string        // "" is the frame's; what is written again names its own
	record   []byte        // the Kafka record's value without edge and boot
	at       int64         // of record in the payload
}

// state is where source, filter and counters stand after a frame.
type state struct {
	position, filter []byte
	counters         Counters
	streams          []Progress
	sourceEnded      bool
	replays          []byte
}

// Progress says how far a stream has been taken from its source.
type Progress struct {
	Stream signal.Stream
	SeenTo signal.Micros

	hole *Hole // what was given up of it and not told, as it is now
}

type ack struct {
	boot   string
	ranges []signal.Range
}

func appendBytes[B ~[]byte | ~string](dst []byte, num protowire.Number, v B) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(v)))
	return append(dst, v...)
}

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

// appendMessageHead appends field 4 up to the record, whose size bytes the
// caller appends next.
func appendMessageHead(dst []byte, m *frozen, size int) []byte {
	var head []byte
	head = appendBytes(head, 1, string(m.stream))
	head = appendUint(head, 2, m.seq)
	head = appendUint(head, 3, m.readings)
	head = appendUint(head, 4, protowire.EncodeZigZag(int64(m.from)))
	head = appendBytes(head, 6, m.boot)
	head = protowire.AppendVarint(protowire.AppendTag(head, 5, protowire.BytesType), uint64(size))
	dst = protowire.AppendTag(dst, 4, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(head)+size))
	return append(dst, head...)
}

// appendGroup appends everything of g but its messages.
func appendGroup(dst []byte, g *group) []byte {
	dst = appendUint(dst, 1, g.format)
	dst = appendBytes(dst, 2, g.edge)
	dst = appendBytes(dst, 3, g.boot)
	if g.state != nil {
		var s []byte
		s = appendBytes(s, 1, g.state.position)
		s = appendBytes(s, 2, g.state.filter)
		s = appendBytes(s, 3, appendVarints(nil, g.state.counters.list()...))
		for _, p := range g.state.streams {
			var b []byte
			b = appendBytes(b, 1, string(p.Stream))
			b = appendUint(b, 2, protowire.EncodeZigZag(int64(p.SeenTo)))
			if h := p.hole; h != nil {
				b = appendBytes(b, 3, appendVarints(nil, h.Readings, h.Samples, protowire.EncodeZigZag(int64(h.From)), protowire.EncodeZigZag(int64(h.To))))
			}
			s = appendBytes(s, 4, b)
		}
		s = appendUint(s, 5, protowire.EncodeBool(g.state.sourceEnded))
		if c := g.state.counters; c.EvictedMessages > 0 {
			s = appendBytes(s, 6, appendVarints(nil, c.EvictedEvents, c.SamplesEvicted, c.EvictedMessages))
		}
		s = appendBytes(s, 7, g.state.replays)
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 5, protowire.BytesType), s)
	}
	for _, a := range g.acks {
		b := appendBytes(nil, 1, a.boot)
		var ranges []byte
		for _, r := range a.ranges {
			ranges = protowire.AppendVarint(ranges, r.From)
			ranges = protowire.AppendVarint(ranges, r.To-r.From)
		}
		b = appendBytes(b, 2, ranges)
		dst = appendBytes(dst, 6, b)
	}
	return dst
}

func appendVarints(dst []byte, list ...uint64) []byte {
	for _, v := range list {
		dst = protowire.AppendVarint(dst, v)
	}
	return dst
}

// parseGroup reads a payload; what it returns shares the payload's memory.
func parseGroup(p []byte) (*group, error) {
	g := &group{}
	err := protofield.Each(p, func(num protowire.Number, u uint64, b []byte, at int) (err error) {
		switch num {
		case 1:
			g.format = u
		case 2:
			g.edge = string(b)
		case 3:
			g.boot = string(b)
		case 4:
			var m frozen
			m, err = parseMessage(b, at)
			g.messages = append(g.messages, m)
		case 5:
			g.state, err = parseState(b)
		case 6:
			var a ack
			a, err = parseAck(b)
			g.acks = append(g.acks, a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decoding outbox frame: %w", err)
	}
	return g, nil
}

func parseMessage(p []byte, at int) (m frozen, err error) {
	err = protofield.Each(p, func(num protowire.Number, u uint64, b []byte, inner int) error {
		switch num {
		case 1:
			m.stream = signal.Stream(b)
		case 2:
			m.seq = u
		case 3:
			m.readings = u
		case 4:
			m.from = signal.Micros(protowire.DecodeZigZag(u))
		case 5:
			m.record, m.at = b, int64(at+inner)
		case 6:
			m.boot = string(b)
		}
		return nil
	})
	if err == nil && (m.seq == 0 || len(m.record) == 0) {
		err = errors.New("message without seq or record")
	}
	return m, err
}

func parseState(p []byte) (*state, error) {
	s := &state{}
	err := protofield.Each(p, func(num protowire.Number, u uint64, b []byte, _ int) error {
		switch num {
		case 1:
			s.position = append([]byte(nil), b...)
		case 2:
			s.filter = append([]byte(nil), b...)
		case 3:
			v, err := varints(b)
			if err != nil {
				return err
			}
			before := s.counters
			s.counters = countersOf(v)
			s.counters.evicted(before.EvictedEvents, before.SamplesEvicted, before.EvictedMessages)
		case 4:
			pr, err := parseProgress(b)
			if err != nil {
				return err
			}
			s.streams = append(s.streams, pr)
		case 5:
			s.sourceEnded = u != 0
		case 6:
			v, err := varints(b)
			if err != nil {
				return err
			}
			v = append(v, 0, 0, 0)
			s.counters.evicted(v[0], v[1], v[2])
		case 7:
			s.replays = append([]byte(nil), b...)
		}
		return nil
	})
	return s, err
}

func parseProgress(p []byte) (pr Progress, err error) {
	err = protofield.Each(p, func(num protowire.Number, u uint64, b []byte, _ int) error {
		switch num {
		case 1:
			pr.Stream = signal.Stream(b)
		case 2:
			pr.SeenTo = signal.Micros(protowire.DecodeZigZag(u))
		case 3:
			v, err := varints(b)
			if err != nil {
				return err
			}
			v = append(v, make([]uint64, 4)...)
			pr.hole = &Hole{v[0], v[1], signal.Micros(protowire.DecodeZigZag(v[2])), signal.Micros(protowire.DecodeZigZag(v[3]))}
		}
		return nil
	})
	return pr, err
}

func parseAck(p []byte) (a ack, err error) {
	err = protofield.Each(p, func(num protowire.Number, _ uint64, b []byte, _ int) error {
		switch num {
		case 1:
			a.boot = string(b)
		case 2:
			v, err := varints(b)
			if err != nil {
				return err
			}
			if len(v)%2 != 0 {
				return errors.New("ranges do not come in pairs")
			}
			for i := 0; i < len(v); i += 2 {
				if v[i]+v[i+1] < v[i] {
					return fmt.Errorf("range from %d overflows", v[i])
				}
				a.ranges = append(a.ranges, signal.Range{From: v[i], To: v[i] + v[i+1]})
			}
		}
		return nil
	})
	return a, err
}

func varints(p []byte) ([]uint64, error) {
	var out []uint64
	for len(p) > 0 {
		v, n := protowire.ConsumeVarint(p)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		out = append(out, v)
		p = p[n:]
	}
	return out, nil
}
