package vibration

import (
	"errors"
	"log/slog"
	"math"

	"github.com/headrace/headrace/signal"
)

// watch says for what a sensor's readings matter.
type watch struct{ speed, follow, load, state bool }

// watched are the sensors that rules name.
func watched(rules []Rule) map[string]watch {
	out := map[string]watch{}
	for i := range rules {
		r := &rules[i]
		if r.SpeedSensor != "" {
			w := out[r.SpeedSensor]
			w.speed, w.follow = true, w.follow || r.OrderTracking
			out[r.SpeedSensor] = w
		}
		for _, g := range r.Regimes {
			if g.Load != nil {
				w := out[g.Load.Sensor]
				w.load = true
				out[g.Load.Sensor] = w
			}
			if g.State != nil {
				w := out[g.State.Sensor]
				w.state = true
				out[g.State.Sensor] = w
			}
		}
	}
	return out
}

// value is what a sensor of load or state said last; of kind Null it is not known.
type value struct {
	Kind   signal.Kind   `json:"kind,omitempty"`
	Number float64       `json:"number,omitempty"`
	Text   string        `json:"text,omitempty"`
	At     signal.Micros `json:"at"`
}

// Reading notes what the asset says of its speed, load and state.
func (s *Stage) Reading(asset signal.Asset, r *signal.Reading) {
	w, ok := s.set.watched[r.Sensor]
	if !ok {
		return
	}
	k := key{asset, r.Sensor}
	number := r.Value.Kind == signal.Number && r.Quality.Good() && !math.IsNaN(r.Value.Number) && !math.IsInf(r.Value.Number, 0)
	if w.speed && number && r.Unit == "/min" && r.Value.Number >= 0 {
		if old := s.speeds[k]; old == nil {
			s.speeds[k] = &speed{RPM: r.Value.Number, At: r.EventTime}
		} else if r.EventTime >= old.At {
			old.take(r.Value.Number, r.EventTime, w.follow)
		}
	}
	if !w.load && !w.state {
		return
	}
	// A heartbeat says that a value still is what it was.
	at := max(r.EventTime, r.AliveAt)
	if old, ok := s.values[k]; ok && at < old.At {
		return
	}
	v := value{At: at}
	switch {
	case number:
		v.Kind, v.Number = signal.Number, r.Value.Number
	case r.Quality.Good() && r.Value.Kind == signal.Text:
		v.Kind, v.Text = signal.Text, r.Value.Text
	case r.Quality.Good() && r.Value.Kind == signal.Bool:
		v.Kind, v.Text = signal.Text, "false"
		if r.Value.Number != 0 {
			v.Text = "true"
		}
	}
	s.values[k] = v
}

func (s *speed) check() error {
	bad := func(rpm float64) bool { return !(rpm >= 0) || math.IsInf(rpm, 0) }
	if bad(s.RPM) || len(s.Before) > maxSpeeds {
		return errors.New("it is no speed")
	}
	for i, b := range s.Before {
		next := s.At
		if i+1 < len(s.Before) {
			next = s.Before[i+1].At
		}
		if bad(b.RPM) || b.At >= next {
			return errors.New("its past is out of order")
		}
	}
	return nil
}

// LogTo has the stage say what is wrong with a channel, once each.
func (s *Stage) LogTo(log *slog.Logger) { s.log = log }

// Counts are what became of windows since the stage was opened.
type Counts struct {
	Windows        int64 // that were due
	OutsideSpeed   int64 // of those, in no regime because of the speed
	OutsideLoad    int64
	OutsideState   int64
	OutsideUnknown int64 // because speed, load or state were not known
	Broken         int64 // windows of an average that a gap or a regime's end cut short
	Gaps           int64 // samples or blocks were missing between those that waited
	NoVelocity     int64 // windows of a unit or rate that has none
}

// Counts are those so far.
func (s *Stage) Counts() Counts { return s.counts }

func (c *Counts) outside(why miss) {
	switch why {
	case missSpeed:
		c.OutsideSpeed++
	case missLoad:
		c.OutsideLoad++
	case missState:
		c.OutsideState++
	case missUnknown:
		c.OutsideUnknown++
	case missNone:
	}
}

// refuse counts a window without velocity, and says why at the first.
func (s *Stage) refuse(c *channel) {
	s.counts.NoVelocity++
	if c.refused {
		return
	}
	c.refused = true
	s.log.Warn("a channel has no velocity: it is made of acceleration in [g] or m/s2, of the unit that the rule declares, sampled at twice the band's end or more",
		"feature", c.plan.names[len(c.plan.names)-1].sensor, "unit", c.Wave.Unit, "declared", c.rule.Unit, "rate", c.Wave.Rate)
}
