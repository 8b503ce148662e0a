package vibration

import (
	"errors"
	"fmt"
	"math"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// stretch is samples of a channel without a gap, of one rate, unit and quality.
type stretch struct {
	// From is the index of the first sample that waits for its window, and End the
	// one after the last; Block is that of the first sample of the block that holds
	// From. So the samples can be read again.
	From  uint64 `json:"from"`
	End   uint64 `json:"end"`
	Block uint64 `json:"block"`
	// Time is that of End.
	Time    signal.Micros  `json:"time"`
	Rate    float64        `json:"rate"`
	Unit    string         `json:"unit,omitempty"`
	Quality signal.Quality `json:"quality,omitempty"`
	// Windows are those of an average so far, whose numbers are Sums.
	Windows int    `json:"windows,omitempty"`
	Sums    []byte `json:"sums,omitempty"`
}

func newChannel(rule *Rule, p *plan) *channel {
	return &channel{rule: rule, plan: p, sums: make([]float64, p.size), Wave: &stretch{}}
}

// frozen is the channel as it is remembered: of samples only where they are.
func (c *channel) frozen() *channel {
	f := *c
	f.Wave = nil
	if w := c.Wave; w.From != w.End || w.Windows > 0 {
		v := *w
		switch {
		case len(c.blocks) > 0:
			v.Block = c.blocks[0]
		case v.From == v.End:
			v.Block = v.From
		}
		if v.Windows > 0 {
			v.Sums = packRow(c.sums)
		}
		f.Wave = &v
	}
	return &f
}

func (c *channel) recall(rule *Rule, p *plan) error {
	c.rule, c.plan, c.sums = rule, p, make([]float64, p.size)
	if c.Post < 0 || c.Taken < 0 {
		return errors.New("it counts windows below 0")
	}
	w := c.Wave
	if w == nil {
		c.Wave = &stretch{}
		return nil
	}
	switch {
	case w.From > w.End || w.End-w.From >= uint64(rule.Window) || w.Block > w.From || w.From-w.Block > record.MaxSamples:
		return fmt.Errorf("samples from %d of the block at %d to %d cannot wait", w.From, w.Block, w.End)
	case !(w.Rate > 0) || math.IsInf(w.Rate, 0):
		return fmt.Errorf("its rate is %v", w.Rate)
	case w.Windows < 0 || w.Windows >= max(rule.Average, 1):
		return fmt.Errorf("%d windows of %d", w.Windows, rule.Average)
	case w.Windows > 0 && !unpackRow(w.Sums, c.sums):
		return errors.New("its sums are not those of the rule")
	}
	w.Sums = nil
	return nil
}

// Refill reads the samples again that waited when the state was frozen. read calls
// visit with the kept blocks of a channel from index from up to before, that left
// out, in order. What is not there anymore is a gap.
func (s *Stage) Refill(read func(asset signal.Asset, sensor string, from, before uint64, visit func(block []byte) error) error) error {
	var w record.Waveform
	for k, c := range s.channels {
		at := c.Wave.From
		if at == c.Wave.End {
			continue
		}
		err := read(k.asset, k.sensor, c.Wave.Block, c.Wave.End, func(block []byte) error {
			if record.DecodeWaveform(block, &w) != nil {
				return nil // missed below
			}
			end := w.First + uint64(w.Len())
			if w.First > at || end <= at || end > c.Wave.End {
				return nil
			}
			s.block = w.Floats(s.block)
			c.samples = append(c.samples, s.block[at-w.First:]...)
			c.blocks = append(c.blocks, w.First)
			at = end
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading samples of %s again: %w", k.asset.Sensor(k.sensor), err)
		}
		if at != c.Wave.End {
			s.log.Warn("samples that waited for their window are not in the ring anymore", "channel", string(k.asset.Sensor(k.sensor)), "from", c.Wave.From, "to", c.Wave.End)
			s.breakOff(c)
		}
	}
	return nil
}

// breakOff gives up what waited.
func (s *Stage) breakOff(c *channel) {
	if c.Wave.From != c.Wave.End || c.Wave.Windows > 0 {
		s.counts.Gaps++
	}
	s.counts.Broken += int64(c.Wave.Windows)
	c.samples, c.blocks = c.samples[:0], c.blocks[:0]
	c.Wave.From, c.Wave.Windows = c.Wave.End, 0
}

// take puts a block behind those that wait, and looks at the windows that are then
// complete.
func (s *Stage) take(asset signal.Asset, c *channel, r *signal.Reading, w *record.Waveform, out []signal.Reading) ([]signal.Reading, bool) {
	count := w.Len()
	if count == 0 || w.First > math.MaxUint64-uint64(count) { // no sensor has so many samples
		return out, false
	}
	v := c.Wave
	seconds := func(samples float64) float64 { return samples / w.Rate * 1e6 }
	if late := math.Abs(float64(r.EventTime - v.Time)); v.End != w.First || v.Rate != w.Rate || v.Unit != r.Unit || v.Quality != r.Quality ||
		late > seconds(float64(count))/2 || uint64(len(c.samples)) != v.End-v.From {
		s.breakOff(c)
		*v = stretch{From: w.First, End: w.First, Rate: w.Rate, Unit: r.Unit, Quality: r.Quality}
	}
	// The time of a sample is counted from the beginning of its own block.
	after := func(index uint64) signal.Micros {
		return r.EventTime + signal.Micros(math.Round(seconds(float64(index-w.First))))
	}
	v.End, v.Time = w.First+uint64(count), after(w.First+uint64(count))
	var x []float64
	if len(c.samples) == 0 {
		s.block = w.Floats(s.block)
		x = s.block
	} else {
		had := len(c.samples)
		if cap(c.samples) < had+count {
			c.samples = append(make([]float64, 0, had+max(count, c.rule.Window)), c.samples...)
		}
		x = c.samples[:had+count]
		w.Floats(x[had:])
	}
	c.blocks = append(c.blocks, w.First)

	hot, n, hop := false, c.rule.Window, c.rule.hop()
	for len(x) >= n {
		var h bool
		out, h = s.window(asset, c, r, x[:n], after(v.From+uint64(n)), out)
		hot = hot || h
		x = x[hop:]
		v.From += uint64(hop)
	}
	// x may lie in the same memory, further on.
	if cap(c.samples) < len(x) {
		c.samples = make([]float64, 0, max(len(x), n))
	}
	c.samples = c.samples[:copy(c.samples[:len(x)], x)]
	drop := 0
	for drop < len(c.blocks) && (drop+1 < len(c.blocks) && c.blocks[drop+1] <= v.From || v.From == v.End) {
		drop++
	}
	c.blocks = c.blocks[:copy(c.blocks, c.blocks[drop:])]
	return out, hot
}

// window looks at one window, if it is due, and appends the features of an average
// that is complete with it. It tells whether the trigger fires.
func (s *Stage) window(asset signal.Asset, c *channel, r *signal.Reading, x []float64, end signal.Micros, out []signal.Reading) ([]signal.Reading, bool) {
	v, rule := c.Wave, c.rule
	seconds := float64(len(x)) / v.Rate
	start := end - signal.Micros(math.Round(seconds*1e6))
	if v.Windows == 0 && start < c.Next {
		return out, false
	}
	s.counts.Windows++
	sp := s.shaft(asset, rule, end, seconds)
	regime := ""
	if len(rule.Regimes) > 0 {
		name, why := s.regime(asset, rule, end, sp)
		if name == "" {
			s.counts.outside(why)
			name = Outside
		}
		if name != c.Regime || name == Outside {
			s.counts.Broken += int64(v.Windows)
			v.Windows = 0
		}
		if name == Outside {
			if c.Regime != Outside {
				c.Regime = Outside
				out = append(out, signal.Reading{Sensor: c.plan.regime, EventTime: end, AliveAt: end, Value: signal.TextValue(Outside), Quality: r.Quality, Historical: r.Historical})
			}
			return out, false
		}
		c.Regime, regime = name, name
	}
	if v.Windows == 0 && rule.EverySeconds > 0 {
		c.Next = start + signal.Micros(rule.EverySeconds*1e6)
	}
	s.row = sized(s.row, c.plan.size)
	s.features(c, x, sp, s.row)
	if v.Windows == 0 {
		copy(c.sums, s.row)
	} else {
		add(c.sums, s.row)
	}
	v.Windows++
	if v.Windows < rule.Average {
		return out, false
	}
	windows := float64(v.Windows)
	v.Windows = 0
	out = c.plan.readings(out, r, c.sums, windows, end, regime)
	o, t := c.plan.outcome(c.sums, rule, windows), rule.Trigger
	return out, o.ok && (t.Kurtosis > 0 && o.kurtosis >= t.Kurtosis || t.EnvelopeShare > 0 && o.share >= t.EnvelopeShare)
}
