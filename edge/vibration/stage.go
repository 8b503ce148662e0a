package vibration

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// speedMaxAge is how long a reading of the speed counts, in event time.
const speedMaxAge signal.Micros = 60_000_000

// Stage runs a set over the channels of one edge. It is not safe for concurrent
// use.
type Stage struct {
	set       *Set
	channels  map[key]*channel
	speeds    map[key]speed
	analysers map[int]*analyser
	values    []float64
	centred   []float64
}

type key struct {
	asset  signal.Asset
	sensor string
}

// channel is what is remembered of one; its exported fields are the state.
type channel struct {
	rule *Rule
	// Next is when a window is looked at again.
	Next signal.Micros `json:"next,omitempty"`
	// Shipped is the index of the sample after the last that was let through.
	Shipped uint64 `json:"shipped,omitempty"`
	// Post is how many windows are still let through, Taken how many of this
	// capture were, Armed when the next capture may begin.
	Post  int           `json:"post,omitempty"`
	Taken int           `json:"taken,omitempty"`
	Armed signal.Micros `json:"armed,omitempty"`
}

type speed struct {
	RPM float64       `json:"rpm"`
	At  signal.Micros `json:"at"`
}

// state is the form in which a stage is frozen.
type state struct {
	Hash     string              `json:"hash"`
	Channels map[string]*channel `json:"channels,omitempty"`
	Speeds   map[string]speed    `json:"speeds,omitempty"`
}

// Open starts a stage where another of the same set stopped. After a change of
// the set the state is of no use, and nothing is remembered.
func (s *Set) Open(frozen []byte) (*Stage, error) {
	st := &Stage{set: s, channels: map[key]*channel{}, speeds: map[key]speed{}, analysers: map[int]*analyser{}}
	if len(frozen) == 0 {
		return st, nil
	}
	var old state
	if err := json.Unmarshal(frozen, &old); err != nil {
		return nil, fmt.Errorf("opening vibration set %q: reading its state: %w", s.cfg.Name, err)
	}
	if old.Hash != s.hash {
		return st, nil
	}
	for name, c := range old.Channels {
		p, err := signal.ParsePath(name)
		if err != nil || c == nil {
			return nil, fmt.Errorf("opening vibration set %q: reading its state: channel %q: %w", s.cfg.Name, name, cmp.Or(err, fmt.Errorf("it is empty")))
		}
		if c.rule = s.rule(p.Asset(), p.Sensor()); c.rule != nil {
			st.channels[key{p.Asset(), p.Sensor()}] = c
		}
	}
	for name, v := range old.Speeds {
		p, err := signal.ParsePath(name)
		if err != nil {
			return nil, fmt.Errorf("opening vibration set %q: reading its state: %w", s.cfg.Name, err)
		}
		st.speeds[key{p.Asset(), p.Sensor()}] = v
	}
	return st, nil
}

// State is what the stage remembers, for [Set.Open]: no samples.
func (s *Stage) State() []byte {
	if len(s.channels) == 0 && len(s.speeds) == 0 {
		return nil
	}
	st := state{Hash: s.set.hash, Channels: make(map[string]*channel, len(s.channels)), Speeds: make(map[string]speed, len(s.speeds))}
	for k, c := range s.channels {
		st.Channels[string(k.asset.Sensor(k.sensor))] = c
	}
	for k, v := range s.speeds {
		st.Speeds[string(k.asset.Sensor(k.sensor))] = v
	}
	b, _ := json.Marshal(st) // numbers and names cannot fail
	return b
}

// Reading notes what the asset says of its speed.
func (s *Stage) Reading(asset signal.Asset, r *signal.Reading) {
	if r.Value.Kind != signal.Number || r.Unit != "/min" || !r.Quality.Good() || !(r.Value.Number >= 0) || math.IsInf(r.Value.Number, 0) {
		return
	}
	k := key{asset, r.Sensor}
	if old, ok := s.speeds[k]; !ok || r.EventTime >= old.At {
		s.speeds[k] = speed{r.Value.Number, r.EventTime}
	}
}

// Pass says what leaves as it is.
type Pass struct {
	// Ship: every block of the channel from index From on, up to and with this
	// one. From lies before this block where a capture begins.
	Ship bool
	From uint64
}

// Window looks at one block of a channel. It appends the window's features to
// out, readings at the window's end, and says whether blocks leave as they are.
// A block that is shorter than the window has no features; it leaves with the
// capture that is under way.
func (s *Stage) Window(asset signal.Asset, r *signal.Reading, w *record.Waveform, out []signal.Reading) ([]signal.Reading, Pass, error) {
	k := key{asset, r.Sensor}
	c := s.channels[k]
	if c == nil {
		rule := s.set.rule(asset, r.Sensor)
		if rule == nil {
			return out, Pass{}, nil
		}
		c = &channel{rule: rule}
		s.channels[k] = c
	}
	n := w.Len()
	if n > c.rule.Window {
		return out, Pass{}, fmt.Errorf("%s: a block of %d samples is longer than its window of %d; have the source deliver windows", asset.Sensor(r.Sensor), n, c.rule.Window)
	}
	end := r.EventTime + signal.Micros(math.Round(float64(n)/w.Rate*1e6))
	hot := false
	if n == c.rule.Window && r.EventTime >= c.Next {
		if c.rule.EverySeconds > 0 {
			c.Next = r.EventTime + signal.Micros(c.rule.EverySeconds*1e6)
		}
		f := s.features(asset, c.rule, r, w, end)
		out = append(out, f.readings(r, end)...)
		t := c.rule.Trigger
		hot = f.ok && (t.Kurtosis > 0 && f.kurtosis >= t.Kurtosis || t.EnvelopeShare > 0 && f.share() >= t.EnvelopeShare)
	}
	return out, c.pass(hot, r.EventTime, w.First, n), nil
}

// pass decides what of a channel leaves with the block at first.
func (c *channel) pass(hot bool, at signal.Micros, first uint64, n int) Pass {
	t, from := c.rule.Trigger, first
	if c.Post == 0 {
		if !hot || at < c.Armed {
			return Pass{}
		}
		size := uint64(c.rule.Window)
		from = min(max(first-min(first, uint64(t.PreWindows)*size), c.Shipped), first)
		c.Taken, c.Armed = int((first-from)/size), at+signal.Micros(t.RearmSeconds*1e6)
	}
	if hot {
		c.Post = t.PostWindows + 1
	}
	c.Post--
	c.Taken++
	if t.MaxWindows > 0 && c.Taken >= t.MaxWindows {
		c.Post = 0
	}
	c.Shipped = first + uint64(n)
	return Pass{Ship: true, From: from}
}
