package vibration

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/headrace/headrace/signal"
)

// envelopeLow and envelopeHigh bound the envelope's total, in Hz: below it is
// slow modulation by load, above it nothing strikes.
const (
	envelopeLow      = 5.0
	envelopeHigh     = 1000.0
	defaultHarmonics = 3
	tolerance        = 0.02 // slip of a bearing is 1 to 2 percent
)

// The names in [Rule].Statistics.
const (
	PeakToPeak = "peak_to_peak"
	Skewness   = "skewness"
)

// Where the numbers of a window stand in a row; those of bands, velocity and
// envelope follow.
const (
	atM2 = iota
	atM3
	atM4
	atPeak
	atSpan
	atBands
)

// plan is what a rule makes of a channel. The numbers of a window stand in a row:
// they are mean squares and mean powers, so that the sums over windows are those of
// an average, except for the peaks, of which the largest counts. NaN is unknown.
type plan struct {
	bands    []bandPlan
	velocity int // place in the row, or -1
	total    int // of the envelope
	orders   []orderPlan
	size     int
	zone     *Zone
	names    []named
	regime   string // name of the reading, "" without regimes
	zoneName string
}

// orderPlan is a defect's order; its harmonics stand from at on.
type orderPlan struct {
	order float64
	at    int
	cage  bool // turns slowly and strikes nothing
}

// named is a reading that is made of a row.
type named struct {
	sensor string
	from   kind
	at, n  int // numbers of the row
	one    bool
}

type kind int

const (
	kindRoot   kind = iota // square root of a mean square
	kindValue              // as it is
	kindCrest              // peak / rms
	kindFlat               // kurtosis
	kindSkew               // skewness
	kindFourth             // fourth root of a sum
	kindSpeed              // velocity, mm/s
)

func orderNames() [4]string { return [4]string{".env.bpfo", ".env.bpfi", ".env.bsf", ".env.ftf"} }

func (s *Set) plan(rule *Rule, sensor string) *plan {
	p := &plan{bands: rule.bands(), velocity: -1}
	add := func(suffix string, from kind, at, n int, one bool) {
		p.names = append(p.names, named{sensor + suffix, from, at, n, one})
	}
	add(".rms", kindRoot, atM2, 1, false)
	add(".peak", kindValue, atPeak, 1, false)
	add(".crest", kindCrest, 0, 0, true)
	add(".kurtosis", kindFlat, 0, 0, true)
	if slices.Contains(rule.Statistics, PeakToPeak) {
		add(".p2p", kindValue, atSpan, 1, false)
	}
	if slices.Contains(rule.Statistics, Skewness) {
		add(".skewness", kindSkew, 0, 0, true)
	}
	at := atBands
	for _, b := range p.bands {
		add(".band."+b.name, kindRoot, at, 1, false)
		at++
	}
	p.total = at
	add(".env.total", kindFourth, at, 1, false)
	at++
	h := rule.harmonics()
	for i, order := range rule.Bearing.list() {
		if order == 0 {
			continue
		}
		name := orderNames()[i]
		p.orders = append(p.orders, orderPlan{order, at, name == ".env.ftf"})
		add(name, kindFourth, at, h, false)
		for k := range h {
			if rule.EachHarmonic {
				add(fmt.Sprintf("%s.h%d", name, k+1), kindFourth, at+k, 1, false)
			}
		}
		at += h
	}
	if v := rule.Velocity; v != nil {
		p.velocity = at
		add(".velocity", kindSpeed, at, 1, false)
		at++
		if v.zoned() {
			p.zone = s.cfg.Zones.find(v.Group, v.Mounting)
			p.zoneName = sensor + ".zone"
		}
	}
	if len(rule.Regimes) > 0 {
		p.regime = sensor + ".regime"
	}
	p.size = at
	return p
}

// features writes the numbers of a window into row.
func (s *Stage) features(c *channel, x []float64, sp *shaftSpeed, row []float64) {
	p, rule, a := c.plan, c.rule, &s.analyser
	n := len(x)
	a.centred = sized(a.centred, n)
	m := centre(x, a.centred)
	if !(m.m4 <= math.MaxFloat64) || !(m.span <= math.MaxFloat64) { // a sample that is no number, or too large to be one
		for i := range row {
			row[i] = math.NaN()
		}
		return
	}
	row[atM2], row[atM3], row[atM4], row[atPeak], row[atSpan] = m.m2, m.m3, m.m4, m.peak, m.span

	hz := c.Wave.Rate / float64(n)
	a.transform(a.centred)
	last := 0
	for i := range p.bands {
		b := &p.bands[i]
		high := b.high
		if b.orders {
			high *= sp.mean
		}
		last = max(last, lineAfter(high, hz))
	}
	if v := rule.Velocity; v != nil {
		_, high := v.band(sp.mean)
		last = max(last, lineAfter(high, hz))
	}
	power := a.spectrum(n, last)
	for i := range p.bands {
		row[atBands+i] = p.bands[i].hertz(power, hz, c.Wave.Rate/2, sp)
	}
	if v := rule.Velocity; v != nil {
		row[p.velocity] = math.NaN()
		low, high := v.band(sp.mean)
		if unit := millimetres(c.Wave.Unit); unit > 0 && high <= c.Wave.Rate/2 && (rule.Unit == "" || rule.Unit == c.Wave.Unit) {
			row[p.velocity] = velocity(power, hz, unit, low, high)
		} else {
			s.refuse(c)
		}
	}
	s.strikes(c, sp, hz, row)
	if sp.known && sp.varies && slices.ContainsFunc(p.bands, func(b bandPlan) bool { return b.orders }) {
		o := s.orders(sp, a.centred, 1/c.Wave.Rate)
		for i := range p.bands {
			// The lowest speed bounds what was sampled.
			if b := &p.bands[i]; b.orders && (b.clip || b.high*sp.highest <= c.Wave.Rate/2) {
				low := b.low
				if low == 0 && !b.clip {
					low = -o.step / 2
				}
				row[atBands+i] = band(o.v, o.step, low, b.high)
			}
		}
	}
}

// hertz is the mean square of a band at one speed; NaN where it cannot be said.
func (b *bandPlan) hertz(power []float64, hz, nyquist float64, sp *shaftSpeed) float64 {
	low, high := b.low, b.high
	if b.orders {
		if !sp.known {
			return math.NaN()
		}
		if sp.varies {
			return math.NaN() // until it is sampled by angle
		}
		low, high = low*sp.mean, high*sp.mean
	}
	if math.Abs(high-nyquist) < 1e-12*nyquist {
		high = nyquist // but for rounding
	}
	if high > nyquist {
		if !b.clip {
			return math.NaN()
		}
		return band(power, hz, low, max(nyquist, low))
	}
	if !b.clip {
		// The first and the last line have no other half beyond 0 and half the rate.
		if low == 0 {
			low = -hz / 2
		}
		if high == nyquist {
			high += hz / 2
		}
	}
	return band(power, hz, low, high)
}

// strikes are the energies of the squared envelope: all of it, and at the orders at
// which the bearing's parts strike.
func (s *Stage) strikes(c *channel, sp *shaftSpeed, hz float64, row []float64) {
	p, rule, a := c.plan, c.rule, &s.analyser
	n := rule.Window
	row[p.total] = math.NaN()
	for _, o := range p.orders {
		for h := range rule.harmonics() {
			row[o.at+h] = math.NaN()
		}
	}
	from, to := math.Ceil(rule.EnvelopeLow/hz), math.Floor(min(rule.EnvelopeHigh, c.Wave.Rate/2-hz)/hz)
	if !sp.known || !(from <= to && to <= float64(n/2)) {
		return
	}
	low, high := int(from), int(to)
	top := envelopeHigh
	for _, o := range p.orders {
		at := o.order * float64(rule.harmonics()) * sp.mean
		top = max(top, at+max(tolerance*at, hz))
	}
	last := min(lineAfter(top, hz), n/2)
	var env lines
	if sp.varies {
		squared := a.envelope(n, low, high, n) // unthinned, for it is sampled between
		mean := 0.0
		for _, v := range squared {
			mean += v
		}
		mean /= float64(n)
		for i := range squared {
			squared[i] -= mean
		}
		env = s.orders(sp, squared, 1/c.Wave.Rate)
	} else {
		env = lines{a.envelopeSpectrum(a.envelope(n, low, high, last), last), hz / sp.mean}
	}
	row[p.total] = band(env.v, env.step, envelopeLow/sp.mean, envelopeHigh/sp.mean)
	for _, o := range p.orders {
		for h := range rule.harmonics() {
			at := o.order * float64(h+1)
			half := max(tolerance*at, env.step)
			row[o.at+h] = band(env.v, env.step, at-half, at+half)
		}
	}
}

// add adds the row of another window to that of an average.
func add(sums, row []float64) {
	for i, v := range row {
		if i == atPeak || i == atSpan {
			sums[i] = max(sums[i], v)
		} else {
			sums[i] += v
		}
	}
}

// outcome is what a trigger looks at.
type outcome struct {
	ok       bool // all samples are numbers
	kurtosis float64
	share    float64 // the greatest part of a strike (not the cage's slow turn) in the envelope
}

// outcome is that of the sums over windows, however many.
func (p *plan) outcome(sums []float64, rule *Rule, windows float64) (o outcome) {
	o.ok = !math.IsNaN(sums[atM2])
	o.kurtosis = sums[atM4] * windows / (sums[atM2] * sums[atM2])
	for _, d := range p.orders {
		if d.cage {
			continue
		}
		e := 0.0
		for _, v := range sums[d.at : d.at+rule.harmonics()] {
			e += v
		}
		if share := e / sums[p.total]; sums[p.total] > 0 && share > o.share {
			o.share = share
		}
	}
	return o
}

// value is a feature of the sums over so many windows; NaN is unknown.
func (f *named) value(sums []float64, windows float64) float64 {
	switch f.from {
	case kindRoot, kindSpeed:
		return math.Sqrt(sums[f.at] / windows)
	case kindCrest:
		return sums[atPeak] / math.Sqrt(sums[atM2]/windows)
	case kindFlat:
		return sums[atM4] * windows / (sums[atM2] * sums[atM2])
	case kindSkew:
		m2 := sums[atM2] / windows
		return sums[atM3] / windows / (m2 * math.Sqrt(m2))
	case kindFourth:
		// The fourth root of the energy of a squared envelope is in the signal's unit.
		e := 0.0
		for _, v := range sums[f.at : f.at+f.n] {
			e += v
		}
		return math.Sqrt(math.Sqrt(e / windows))
	}
	return sums[f.at]
}

// readings are the features by name. What cannot be said is null and bad.
func (p *plan) readings(out []signal.Reading, r *signal.Reading, sums []float64, windows float64, end signal.Micros, regime string) []signal.Reading {
	base := signal.Reading{EventTime: end, AliveAt: end, Quality: r.Quality, Historical: r.Historical}
	if p.regime != "" {
		d := base
		d.Sensor, d.Value = p.regime, signal.TextValue(regime)
		out = append(out, d)
	}
	for i := range p.names {
		f := &p.names[i]
		d := base
		d.Sensor, d.Unit = f.sensor, r.Unit
		switch {
		case f.one:
			d.Unit = "1"
		case f.from == kindSpeed:
			d.Unit = "mm/s"
		}
		v := f.value(sums, windows)
		known := !math.IsNaN(v) && !math.IsInf(v, 0)
		if known {
			d.Value = signal.NumberValue(v)
		} else {
			d.Quality = signal.QualityBad
		}
		out = append(out, d)
		if f.from == kindSpeed && p.zone != nil {
			d.Sensor, d.Unit = p.zoneName, ""
			if known {
				d.Value = signal.TextValue(p.zone.Of(v))
			}
			out = append(out, d)
		}
	}
	return out
}

// packRow and unpackRow are the form of numbers in a state: JSON has no NaN.
func packRow(row []float64) []byte {
	b := make([]byte, 0, 8*len(row))
	for _, v := range row {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

func unpackRow(b []byte, row []float64) bool {
	if len(b) != 8*len(row) {
		return false
	}
	for i := range row {
		row[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return true
}
