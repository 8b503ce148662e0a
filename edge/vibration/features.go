package vibration

import (
	"math"
	"slices"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// envelopeLow and envelopeHigh bound the envelope's total, in Hz: below it is
// slow modulation by load, above it nothing strikes.
const (
	envelopeLow  = 5.0
	envelopeHigh = 1000.0
	harmonics    = 3
	tolerance    = 0.02 // slip of a bearing is 1 to 2 percent
)

// features are the numbers of one window.
type features struct {
	ok                  bool // all samples are numbers
	rms, peak, kurtosis float64
	bands               [5]float64 // RMS, in the order of bandNames
	speedKnown          bool
	envTotal            float64    // energy of the squared envelope
	env                 [4]float64 // of it at the orders, in the order of orderNames
	known               [4]bool
}

func bandNames() [5]string {
	return [5]string{".band.1x", ".band.2x", ".band.low", ".band.mid", ".band.high"}
}

func orderNames() [4]string { return [4]string{".env.bpfo", ".env.bpfi", ".env.bsf", ".env.ftf"} }

// share is the greatest part of a strike (not the cage's slow turn) in the
// energy of the envelope.
func (f *features) share() float64 {
	if !(f.envTotal > 0) {
		return 0
	}
	return max(f.env[0], f.env[1], f.env[2]) / f.envTotal
}

func (s *Stage) features(asset signal.Asset, rule *Rule, r *signal.Reading, w *record.Waveform, end signal.Micros) (f features) {
	n := rule.Window
	a := s.analysers[n]
	if a == nil {
		a = newAnalyser(n)
		s.analysers[n] = a
	}
	s.values = w.Floats(s.values)
	if slices.ContainsFunc(s.values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
		return f
	}
	f.ok = true
	s.centred = slices.Grow(s.centred[:0], n)[:n]
	f.rms, f.peak, f.kurtosis = moments(s.values, s.centred)

	hz := w.Rate / float64(n)
	shaft := rule.RPM / 60
	if v, ok := s.speeds[key{asset, rule.SpeedSensor}]; ok && rule.SpeedSensor != "" && end-v.At <= speedMaxAge {
		shaft = v.RPM / 60
	}
	a.spectrum(s.centred, a.power)
	edges := [5][2]float64{{0.8 * shaft, 1.2 * shaft}, {1.8 * shaft, 2.2 * shaft}, {10, 1000}, {1000, 3000}, {3000, min(6000, w.Rate/2)}}
	for i, e := range edges {
		if e[1] > e[0] {
			f.bands[i] = math.Sqrt(band(a.power, hz, e[0], e[1]))
		}
	}
	f.speedKnown = shaft > 0
	if !f.speedKnown {
		return f
	}
	low, high := int(math.Ceil(rule.EnvelopeLow/hz)), int(math.Floor(min(rule.EnvelopeHigh, w.Rate/2-hz)/hz))
	if low > high {
		return f
	}
	a.envelope(s.centred, low, high)
	f.envTotal = band(a.env, hz, envelopeLow, envelopeHigh)
	for i, order := range [4]float64{rule.Bearing.BPFO, rule.Bearing.BPFI, rule.Bearing.BSF2, rule.Bearing.FTF} {
		f.known[i] = order > 0
		for h := 1; h <= harmonics && order > 0; h++ {
			at := order * float64(h) * shaft
			half := max(tolerance*at, hz)
			f.env[i] += band(a.env, hz, at-half, at+half)
		}
	}
	return f
}

// readings are the features by name. What cannot be said is null and bad.
func (f *features) readings(r *signal.Reading, end signal.Micros) []signal.Reading {
	out := make([]signal.Reading, 0, 14)
	add := func(name, unit string, v float64, known bool) {
		d := signal.Reading{Sensor: r.Sensor + name, EventTime: end, AliveAt: end, Unit: unit, Quality: r.Quality, Historical: r.Historical}
		if f.ok && known && !math.IsNaN(v) && !math.IsInf(v, 0) {
			d.Value = signal.NumberValue(v)
		} else {
			d.Quality = signal.QualityBad
		}
		out = append(out, d)
	}
	// The fourth root of the energy of a squared envelope is in the signal's unit.
	root := func(e float64) float64 { return math.Sqrt(math.Sqrt(e)) }
	add(".rms", r.Unit, f.rms, true)
	add(".peak", r.Unit, f.peak, true)
	add(".crest", "1", f.peak/f.rms, true)
	add(".kurtosis", "1", f.kurtosis, true)
	for i, name := range bandNames() {
		add(name, r.Unit, f.bands[i], i > 1 || f.speedKnown)
	}
	add(".env.total", r.Unit, root(f.envTotal), f.speedKnown)
	for i, name := range orderNames() {
		if f.known[i] || !f.speedKnown {
			add(name, r.Unit, root(f.env[i]), f.known[i])
		}
	}
	return out
}
