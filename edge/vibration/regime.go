package vibration

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/headrace/headrace/signal"
)

// Regime is a way in which a machine runs. Where a rule has regimes, features are
// made only of windows in one of them: in the first that fits, whose name is the
// reading ".regime". All that a regime names must be so.
type Regime struct {
	Name string `yaml:"name" json:"name"`
	// RPM is from and to, over the whole window.
	RPM []float64 `yaml:"rpm" json:"rpm,omitempty"`
	// Load is what a sensor of the asset said last, and State the same of a text
	// or a truth value ("true", "false").
	Load  *LoadRange `yaml:"load" json:"load,omitempty"`
	State *StateIn   `yaml:"state" json:"state,omitempty"`
}

// LoadRange is from Low to High of a sensor, in its unit.
type LoadRange struct {
	Sensor string  `yaml:"sensor" json:"sensor"`
	Low    float64 `yaml:"low" json:"low"`
	High   float64 `yaml:"high" json:"high"`
	// MaxAgeSeconds, in event time, is how long a reading counts; 0 is 60.
	MaxAgeSeconds float64 `yaml:"max_age_seconds" json:"max_age_seconds,omitempty"`
}

// StateIn is a sensor whose newest good value is one of a list, however old.
type StateIn struct {
	Sensor string   `yaml:"sensor" json:"sensor"`
	Values []string `yaml:"values" json:"values"`
}

// Outside is the regime of windows that are in none.
const Outside = "outside"

const maxRegimes = 100

func checkRegimes(r *Rule) error {
	if len(r.Regimes) > maxRegimes {
		return fmt.Errorf("%d regimes; want at most %d", len(r.Regimes), maxRegimes)
	}
	seen := map[string]bool{Outside: true}
	for _, g := range r.Regimes {
		if !plainName(g.Name) || seen[g.Name] {
			return fmt.Errorf("regime %q: a name is made of letters, digits and _, is there once, and is not %q", g.Name, Outside)
		}
		seen[g.Name] = true
		if err := g.check(r); err != nil {
			return fmt.Errorf("regime %s: %w", g.Name, err)
		}
	}
	return nil
}

func (g *Regime) check(r *Rule) error {
	if g.RPM == nil && g.Load == nil && g.State == nil {
		return errors.New("it fits always; give rpm, load or state")
	}
	if g.RPM != nil {
		if len(g.RPM) != 2 || !(g.RPM[0] >= 0 && g.RPM[1] >= g.RPM[0]) || math.IsInf(g.RPM[1], 0) {
			return fmt.Errorf("rpm is %v; want [from, to]", g.RPM)
		}
		if r.RPM == 0 && r.SpeedSensor == "" && r.SpeedProfile == nil {
			return errors.New("rpm needs a speed; give the rule rpm, speed_sensor or speed_profile")
		}
	}
	if l := g.Load; l != nil {
		if l.Sensor == "" || !(l.High >= l.Low) || math.IsInf(l.High, 0) || math.IsInf(l.Low, 0) {
			return fmt.Errorf("load is from %v to %v of sensor %q; want low <= high and a sensor", l.Low, l.High, l.Sensor)
		}
		if !(l.MaxAgeSeconds >= 0 && l.MaxAgeSeconds <= 1e8) {
			return fmt.Errorf("load: max_age_seconds is %v; want 0 to 100 million", l.MaxAgeSeconds)
		}
	}
	if s := g.State; s != nil && (s.Sensor == "" || len(s.Values) == 0) {
		return errors.New("state needs a sensor and values")
	}
	return nil
}

// miss is why a window is in no regime.
type miss int

const (
	missNone    miss = iota
	missUnknown      // speed, load or state is not known, or too old
	missSpeed
	missLoad
	missState
)

// regime finds the window's, or why there is none: what the regime that came
// nearest did not have.
func (s *Stage) regime(asset signal.Asset, rule *Rule, end signal.Micros, sp *shaftSpeed) (name string, why miss) {
	for i := range rule.Regimes {
		g := &rule.Regimes[i]
		m := s.misses(asset, rule, g, end, sp)
		if m == missNone {
			return g.Name, missNone
		}
		why = max(why, m)
	}
	return "", why
}

func (s *Stage) misses(asset signal.Asset, rule *Rule, g *Regime, end signal.Micros, sp *shaftSpeed) miss {
	if g.RPM != nil {
		if !sp.known || rule.SpeedSensor != "" && !sp.measured {
			return missUnknown
		}
		if 60*sp.lowest < g.RPM[0] || 60*sp.highest > g.RPM[1] {
			return missSpeed
		}
	}
	if l := g.Load; l != nil {
		age := speedMaxAge
		if l.MaxAgeSeconds > 0 {
			age = signal.Micros(l.MaxAgeSeconds * 1e6)
		}
		v, ok := s.values[key{asset, l.Sensor}]
		if !ok || v.Kind != signal.Number || end-v.At > age {
			return missUnknown
		}
		if !(v.Number >= l.Low && v.Number <= l.High) {
			return missLoad
		}
	}
	if in := g.State; in != nil {
		v, ok := s.values[key{asset, in.Sensor}]
		if !ok || v.Kind != signal.Text {
			return missUnknown
		}
		if !slices.Contains(in.Values, v.Text) {
			return missState
		}
	}
	return missNone
}
