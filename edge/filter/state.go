package filter

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/signal"
)

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
		if l.hasPrev {
			b = appendNumber(b, 12, uint64(l.prev.EventTime))
			b = appendNumber(b, 13, uint64(l.prev.AliveAt))
			b = appendNumber(b, 14, math.Float64bits(l.prev.Value.Number))
			b = appendText(b, 15, l.prev.Value.Text)
		}
		if l.door.open {
			b = appendNumber(b, 16, math.Float64bits(l.door.low))
			b = appendNumber(b, 17, math.Float64bits(l.door.high))
		}
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
	return protofield.Each(p, func(num protowire.Number, _ uint64, b []byte, _ int) error {
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
	prev := &l.prev
	var d door
	err := protofield.Each(p, func(num protowire.Number, u uint64, b []byte, _ int) error {
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
		case 12:
			prev.EventTime, l.hasPrev = signal.Micros(u), true
		case 13:
			prev.AliveAt = signal.Micros(u)
		case 14:
			prev.Value.Number = math.Float64frombits(u)
		case 15:
			prev.Value.Text = string(b)
		case 16:
			d.low, d.open = math.Float64frombits(u), true
		case 17:
			d.high = math.Float64frombits(u)
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
	// What was held back last is of the same kind as what was sent.
	held, hasPrev := l.prev, l.hasPrev
	l.ruled(f.set, l.sent.Sensor, l.sent.Unit)
	if l.hasPrev = hasPrev && (l.swings || l.previous); l.hasPrev {
		l.prev = l.sent
		l.prev.EventTime, l.prev.AliveAt, l.prev.Value.Number, l.prev.Value.Text = held.EventTime, held.AliveAt, held.Value.Number, held.Value.Text
	}
	if l.swings {
		l.door.low, l.door.high, l.door.open = d.low, d.high, d.open
	}
	f.paths[sensor{path.Asset(), path.Sensor()}] = l
	return nil
}
