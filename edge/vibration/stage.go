package vibration

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/headrace/headrace/edge/vibration/fft"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Stage runs a set over the channels of one edge. It is not safe for concurrent
// use.
type Stage struct {
	set      *Set
	log      *slog.Logger
	channels map[key]*channel
	speeds   map[key]*speed
	values   map[key]value
	counts   Counts

	analyser analyser
	speed    shaftSpeed // of the window in hand
	row      []float64
	block    []float64
	bend     []float64
	place    []float64
}

type key struct {
	asset  signal.Asset
	sensor string
}

// channel is what is remembered of one; its exported fields are the state.
type channel struct {
	rule    *Rule
	plan    *plan
	samples []float64 // of Wave, those that wait for their window
	blocks  []uint64  // where the blocks of those begin
	sums    []float64 // of the windows of an average so far
	refused bool      // the log has it
	// Next is when a window is looked at again.
	Next signal.Micros `json:"next,omitempty"`
	// Shipped is the index of the sample after the last that was let through.
	Shipped uint64 `json:"shipped,omitempty"`
	// Post is how many windows are still let through, Taken how many of this
	// capture were, Armed when the next capture may begin.
	Post  int           `json:"post,omitempty"`
	Taken int           `json:"taken,omitempty"`
	Armed signal.Micros `json:"armed,omitempty"`
	// Wave is what has come and has not become features yet.
	Wave *stretch `json:"wave,omitempty"`
	// Regime is that of the last window, by name.
	Regime string `json:"regime,omitempty"`
}

// state is the form in which a stage is frozen.
type state struct {
	Hash     string              `json:"hash"`
	Channels map[string]*channel `json:"channels,omitempty"`
	Speeds   map[string]*speed   `json:"speeds,omitempty"`
	Values   map[string]value    `json:"values,omitempty"`
}

// Open starts a stage where another of the same set stopped; [Stage.Refill] gives
// it back the samples that it had. After a change of the set the state is of no
// use, and nothing is remembered.
func (s *Set) Open(frozen []byte) (*Stage, error) {
	st := &Stage{
		set: s, log: slog.New(slog.DiscardHandler), channels: map[key]*channel{}, speeds: map[key]*speed{}, values: map[key]value{},
		analyser: analyser{plans: plans{real: map[int]*fft.Real{}, complex: map[int]*fft.Complex{}}},
	}
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
	if err := st.recall(&old); err != nil {
		return nil, fmt.Errorf("opening vibration set %q: reading its state: %w", s.cfg.Name, err)
	}
	return st, nil
}

func (s *Stage) recall(old *state) error {
	for name, c := range old.Channels {
		p, err := signal.ParsePath(name)
		if err == nil && c == nil {
			err = errors.New("it is empty")
		}
		if err == nil {
			if rule := s.set.rule(p.Asset(), p.Sensor()); rule != nil {
				err = c.recall(rule, s.set.plan(rule, p.Sensor()))
				s.channels[key{p.Asset(), p.Sensor()}] = c
			}
		}
		if err != nil {
			return fmt.Errorf("channel %q: %w", name, err)
		}
	}
	for name, v := range old.Speeds {
		p, err := signal.ParsePath(name)
		if err == nil && v == nil {
			err = errors.New("it is empty")
		}
		if err == nil {
			err = v.check()
		}
		if err != nil {
			return fmt.Errorf("speed %q: %w", name, err)
		}
		s.speeds[key{p.Asset(), p.Sensor()}] = v
	}
	for name, v := range old.Values {
		p, err := signal.ParsePath(name)
		if err != nil {
			return err
		}
		s.values[key{p.Asset(), p.Sensor()}] = v
	}
	return nil
}

// State is what the stage remembers, for [Set.Open]: no samples.
func (s *Stage) State() []byte {
	if len(s.channels) == 0 && len(s.speeds) == 0 && len(s.values) == 0 {
		return nil
	}
	st := state{
		Hash: s.set.hash, Channels: make(map[string]*channel, len(s.channels)), Speeds: make(map[string]*speed, len(s.speeds)),
		Values: make(map[string]value, len(s.values)),
	}
	for k, c := range s.channels {
		st.Channels[string(k.asset.Sensor(k.sensor))] = c.frozen()
	}
	for k, v := range s.speeds {
		st.Speeds[string(k.asset.Sensor(k.sensor))] = v
	}
	for k, v := range s.values {
		st.Values[string(k.asset.Sensor(k.sensor))] = v
	}
	b, _ := json.Marshal(st) // numbers and names cannot fail
	return b
}

// Pass says what leaves as it is.
type Pass struct {
	// Ship: every block of the channel from index From on, up to and with this
	// one. From lies before this block where a capture begins.
	Ship bool
	From uint64
}

// Window looks at one block of a channel, of any size. For each window that is
// complete with it, or each average of windows, it appends the features to out,
// readings at the window's end, and it says whether blocks leave as they are.
func (s *Stage) Window(asset signal.Asset, r *signal.Reading, w *record.Waveform, out []signal.Reading) ([]signal.Reading, Pass, error) {
	k := key{asset, r.Sensor}
	c := s.channels[k]
	if c == nil {
		rule := s.set.rule(asset, r.Sensor)
		if rule == nil {
			return out, Pass{}, nil
		}
		c = newChannel(rule, s.set.plan(rule, r.Sensor))
		s.channels[k] = c
	}
	out, hot := s.take(asset, c, r, w, out)
	return out, c.pass(hot, r.EventTime, w.First, w.Len()), nil
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
