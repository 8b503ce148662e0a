package filter

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// Tally counts readings.
type Tally struct {
	Filtered uint64 // held back
	Held     uint64 // heartbeats added
}

// Filter runs a set over the readings of one edge. It is not safe for
// concurrent use.
type Filter struct {
	set   *Set
	paths map[sensor]*last
}

type sensor struct {
	asset signal.Asset
	name  string
}

// last is what is remembered of one sensor.
type last struct {
	sent  signal.Reading // the last one let through, or added to as a heartbeat
	alive signal.Micros  // its last proof of life that was sent
	seen  signal.Micros  // newest time seen
	band  float64
}

// Open starts a filter where another of the same set stopped. After a change
// of the set the state is of no use: every sensor's next reading is sent.
func (s *Set) Open(state []byte) (*Filter, error) {
	f := &Filter{set: s, paths: map[sensor]*last{}}
	if err := f.restore(state); err != nil {
		return nil, fmt.Errorf("opening filter set %q: reading its state: %w", s.cfg.Name, err)
	}
	return f, nil
}

// Apply appends to out what is to be sent of one reading: nothing, the reading,
// or a heartbeat of the one that is held.
func (f *Filter) Apply(out []signal.Reading, asset signal.Asset, r signal.Reading, t *Tally) []signal.Reading {
	if f.set.cfg.PassAll {
		return append(out, r)
	}
	now := max(r.EventTime, r.AliveAt)
	key := sensor{asset, r.Sensor}
	l := f.paths[key]
	switch {
	case l == nil:
		l = &last{}
		f.paths[key] = l
	case now < l.seen:
		// Late: it says nothing about the present, and is sent for the record.
		return append(out, r)
	case !l.differs(&r):
		l.seen = now
		t.Filtered++
		if now-l.alive < f.set.heartbeat {
			return out
		}
		l.alive = now
		t.Held++
		beat := l.sent
		beat.AliveAt = now
		return append(out, beat)
	}
	l.sent, l.alive, l.seen = r, now, now
	l.band = f.set.band(r.Sensor, r.Unit)
	return append(out, r)
}

// differs tells whether a reading must be sent after the last one that was.
func (l *last) differs(r *signal.Reading) bool {
	s := &l.sent
	if s.Quality != r.Quality || s.Unit != r.Unit || s.Value.Kind != r.Value.Kind || r.Historical || r.Rescued != "" || s.Rescued != "" {
		return true
	}
	if r.Value.Kind != signal.Number || r.Value.Equal(s.Value) {
		return !r.Value.Equal(s.Value)
	}
	d := math.Abs(r.Value.Number - s.Value.Number)
	return !(d <= l.band) // also when one of them is NaN
}

// State is what the filter remembers, for [Set.Open].
func (f *Filter) State() []byte {
	if len(f.paths) == 0 {
		return nil
	}
	out := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(f.set.hash))
	var b []byte
	byPath := func(a, b sensor) int {
		return cmp.Or(cmp.Compare(a.asset, b.asset), cmp.Compare(a.name, b.name))
	}
	for _, key := range slices.SortedFunc(maps.Keys(f.paths), byPath) {
		l := f.paths[key]
		b = appendText(b[:0], 1, string(key.asset.Sensor(key.name)))
		b = appendNumber(b, 2, uint64(l.sent.EventTime))
		b = appendNumber(b, 3, uint64(l.sent.AliveAt))
		b = appendNumber(b, 4, uint64(l.sent.Value.Kind))
		b = appendNumber(b, 5, math.Float64bits(l.sent.Value.Number))
		b = appendText(b, 6, l.sent.Value.Text)
		b = appendText(b, 7, l.sent.Unit)
		b = appendNumber(b, 8, uint64(l.sent.Quality))
		b = appendText(b, 9, l.sent.Rescued)
		b = appendNumber(b, 10, uint64(l.alive))
		b = appendNumber(b, 11, uint64(l.seen))
		out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), b)
	}
	return out
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), v)
}

func (f *Filter) restore(p []byte) error {
	other := false
	return fields(p, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			other = string(b) != f.set.hash
		case 2:
			if other {
				return nil
			}
			return f.restoreOne(b)
		}
		return nil
	})
}

func (f *Filter) restoreOne(p []byte) error {
	var path signal.Path
	l := &last{}
	err := fields(p, func(num protowire.Number, u uint64, b []byte) error {
		r := &l.sent
		switch num {
		case 1:
			path = signal.Path(b)
		case 2:
			r.EventTime = signal.Micros(u)
		case 3:
			r.AliveAt = signal.Micros(u)
		case 4:
			r.Value.Kind = signal.Kind(u)
		case 5:
			r.Value.Number = math.Float64frombits(u)
		case 6:
			r.Value.Text = string(b)
		case 7:
			r.Unit = string(b)
		case 8:
			r.Quality = signal.Quality(u)
		case 9:
			r.Rescued = string(b)
		case 10:
			l.alive = signal.Micros(u)
		case 11:
			l.seen = signal.Micros(u)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := signal.ParsePath(string(path)); err != nil {
		return err
	}
	l.sent.Sensor = path.Sensor()
	l.band = f.set.band(l.sent.Sensor, l.sent.Unit)
	f.paths[sensor{path.Asset(), path.Sensor()}] = l
	return nil
}

func fields(p []byte, visit func(num protowire.Number, u uint64, b []byte) error) error {
	for len(p) > 0 {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		var u uint64
		var b []byte
		switch typ {
		case protowire.Fixed64Type:
			u, n = protowire.ConsumeFixed64(p)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(p)
		default:
			return errors.New("unexpected field")
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		if err := visit(num, u, b); err != nil {
			return err
		}
	}
	return nil
}
