package ring

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/headrace/headrace/signal"
)

// run is a sensor's samples in columns, as they came: differences of differences
// of times, tokens of values, and what else of a sample is not as of the one
// before it.
type run struct {
	number uint64 // by which the journal knows the sensor; 0 if it does not yet

	n     int
	first signal.Micros // of the first sample
	least signal.Micros
	most  signal.Micros
	last  signal.Micros
	step  int64

	times, values, metas []byte

	scale scale
	prev  int64 // scaled
	text  string
	meta  meta
}

// meta is what is usually the same for all samples of a sensor.
type meta struct {
	quality    signal.Quality
	unit       string
	rescued    string
	historical bool
	hold       int64 // alive − event
}

// scale says how a number is an integer: divided by a power of ten, or multiplied
// with its inverse; which of them is exact depends on how the number was made.
type scale int8

const (
	greatestPower       = 6
	multiplied    scale = 16 // added to the power
)

func power(p scale) float64 {
	return [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6}[p]
}

func (s scale) value(i int64) float64 {
	if s >= multiplied {
		return float64(i) * (1 / power(s-multiplied))
	}
	return float64(i) / power(s)
}

func (s scale) valid() bool {
	return s >= 0 && s <= greatestPower || s >= multiplied && s <= multiplied+greatestPower
}

// integer is v at the scale, if that is exact to the bit.
func (s scale) integer(v float64) (int64, bool) {
	i := math.Round(v * power(s&^multiplied))
	if !(math.Abs(i) < 1<<53) {
		return 0, false
	}
	return int64(i), math.Float64bits(s.value(int64(i))) == math.Float64bits(v)
}

// scaled finds a scale for v.
func scaled(v float64) (s scale, i int64, ok bool) {
	for p := scale(0); p <= greatestPower; p++ {
		for _, s := range [2]scale{p, p + multiplied} {
			if i, ok := s.integer(v); ok {
				return s, i, true
			}
		}
	}
	return 0, 0, false
}

// The tokens of values: even ones are differences at the present scale.
const (
	tokenRaw   = 0<<1 | 1 // eight bytes follow
	tokenScale = 1<<1 | 1 // a scale and an integer follow
	tokenFalse = 2<<1 | 1
	tokenTrue  = 3<<1 | 1
	tokenNull  = 4<<1 | 1
	tokenText  = 5<<1 | 1 // length and bytes follow
	tokenSame  = 6<<1 | 1 // the text before
)

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// add appends a sample and tells by how many bytes the run grew.
func (r *run) add(v *signal.Reading) int {
	before := len(r.times) + len(r.values) + len(r.metas)
	t := v.EventTime
	if r.n == 0 {
		r.first, r.least, r.most = t, t, t
	} else {
		step := int64(t - r.last)
		r.times = binary.AppendUvarint(r.times, zigzag(step-r.step))
		r.step = step
		r.least, r.most = min(r.least, t), max(r.most, t)
	}
	r.last = t
	m := meta{v.Quality, v.Unit, v.Rescued, v.Historical, int64(v.AliveAt - v.EventTime)}
	if r.n == 0 || m != r.meta {
		r.meta = m
		r.metas = m.append(binary.AppendUvarint(r.metas, uint64(r.n)))
	}
	r.addValue(&v.Value)
	r.n++
	return len(r.times) + len(r.values) + len(r.metas) - before
}

func (r *run) addValue(v *signal.Value) {
	switch v.Kind {
	case signal.Number:
		r.addNumber(v.Number)
	case signal.Bool:
		token := uint64(tokenFalse)
		if v.Number != 0 {
			token = tokenTrue
		}
		r.values = binary.AppendUvarint(r.values, token)
	case signal.Text:
		if v.Text == r.text {
			r.values = binary.AppendUvarint(r.values, tokenSame)
			return
		}
		r.text = v.Text
		r.values = appendText(binary.AppendUvarint(r.values, tokenText), v.Text)
	default:
		r.values = binary.AppendUvarint(r.values, tokenNull)
	}
}

func (r *run) addNumber(v float64) {
	if i, ok := r.scale.integer(v); ok {
		r.values = binary.AppendUvarint(r.values, zigzag(i-r.prev)<<1)
		r.prev = i
		return
	}
	if s, i, ok := scaled(v); ok {
		r.scale, r.prev = s, i
		r.values = append(binary.AppendUvarint(r.values, tokenScale), byte(s))
		r.values = binary.AppendUvarint(r.values, zigzag(i))
		return
	}
	r.values = binary.LittleEndian.AppendUint64(binary.AppendUvarint(r.values, tokenRaw), math.Float64bits(v))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (m *meta) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(m.quality))
	b = appendText(appendText(b, m.unit), m.rescued)
	flags := byte(0)
	if m.historical {
		flags = 1
	}
	return binary.AppendUvarint(append(b, flags), zigzag(m.hold))
}

var errDamaged = errors.New("it is damaged")

// cursor reads what the functions above append; a failed read leaves it at bad.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	u, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return u
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (c *cursor) text() string { return string(c.take(c.uvarint())) }

func (c *cursor) meta() meta {
	m := meta{quality: signal.Quality(c.uvarint())}
	m.unit, m.rescued = c.text(), c.text()
	m.historical = c.byte()&1 != 0
	m.hold = unzigzag(c.uvarint())
	return m
}

// samples calls visit with the samples of a run in the order in which they came;
// n, first and the columns must be set.
func (r *run) samples(sensor string, visit func(signal.Reading) error) error {
	times, values, metas := cursor{b: r.times}, cursor{b: r.values}, cursor{b: r.metas}
	v := signal.Reading{Sensor: sensor, EventTime: r.first}
	var s run // the state of the values
	var m meta
	next := metas.uvarint()
	step := int64(0)
	for i := range r.n {
		if i > 0 {
			step += unzigzag(times.uvarint())
			v.EventTime += signal.Micros(step)
		}
		if uint64(i) == next && !metas.bad {
			m = metas.meta()
			next = math.MaxUint64
			if len(metas.b) > 0 {
				next = metas.uvarint()
			}
		}
		v.AliveAt = v.EventTime + signal.Micros(m.hold)
		v.Quality, v.Unit, v.Rescued, v.Historical = m.quality, m.unit, m.rescued, m.historical
		v.Value = s.value(&values)
		if times.bad || values.bad || metas.bad {
			return errDamaged
		}
		if err := visit(v); err != nil {
			return err
		}
	}
	return nil
}

// value reads the next value.
func (r *run) value(c *cursor) signal.Value {
	token := c.uvarint()
	if token&1 == 0 {
		r.prev += unzigzag(token >> 1)
		return signal.NumberValue(r.scale.value(r.prev))
	}
	switch token {
	case tokenRaw:
		b := c.take(8)
		if b == nil {
			return signal.Value{}
		}
		return signal.NumberValue(math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case tokenScale:
		if r.scale = scale(c.byte()); !r.scale.valid() {
			r.scale, c.bad = 0, true
		}
		r.prev = unzigzag(c.uvarint())
		return signal.NumberValue(r.scale.value(r.prev))
	case tokenFalse, tokenTrue:
		return signal.BoolValue(token == tokenTrue)
	case tokenNull:
		return signal.Value{}
	case tokenText:
		r.text = c.text()
		return signal.TextValue(r.text)
	case tokenSame:
		return signal.TextValue(r.text)
	}
	c.bad = true
	return signal.Value{}
}
