package filter

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"github.com/headrace/headrace/signal"
)

// Config is what a set of filters says. The first rule that fits a sensor
// counts; a sensor without a rule is sent on change.
type Config struct {
	Name string `yaml:"name" json:"name"`
	// PassAll sends every reading; there are no rules then.
	PassAll bool `yaml:"pass_all" json:"pass_all,omitempty"`
	// HeartbeatSeconds, in event time, is how long a value that is held back
	// goes without a proof of life; 0 is [DefaultHeartbeat].
	HeartbeatSeconds float64 `yaml:"heartbeat_seconds" json:"heartbeat_seconds,omitempty"`
	Rules            []Rule  `yaml:"rules" json:"rules,omitempty"`
}

// The methods of a [Rule].
const (
	// Deadband holds the last value sent until one differs by more than the band.
	Deadband = "deadband"
	// SwingingDoor draws a line from each value sent to the next, of which no
	// sample in between is further away than the band.
	SwingingDoor = "swinging_door"
)

// Rule is for the sensors that it fits.
type Rule struct {
	// Sensor is a glob over the sensor's name ("accelerometer*"), "" fits all.
	Sensor string `yaml:"sensor" json:"sensor,omitempty"`
	// Unit, if given, is the unit that the reading must have.
	Unit string `yaml:"unit" json:"unit,omitempty"`
	// Deadband is in the reading's unit; Percent is of the span. One of them,
	// or neither for every change.
	Deadband float64 `yaml:"deadband" json:"deadband,omitempty"`
	Percent  float64 `yaml:"percent" json:"percent,omitempty"`
	SpanLow  float64 `yaml:"span_low" json:"span_low,omitempty"`
	SpanHigh float64 `yaml:"span_high" json:"span_high,omitempty"`
	// Method is [Deadband] (or "") or [SwingingDoor].
	Method string `yaml:"method" json:"method,omitempty"`
	// Previous sends with a value beyond the band the one measured before it, so
	// that a step is not smeared over the time since the last value sent.
	Previous bool `yaml:"previous" json:"previous,omitempty"`
	// MinIntervalSeconds, in event time, is how long after a value was sent none
	// is for its value alone; what differs by then is off by more than the band.
	MinIntervalSeconds float64 `yaml:"min_interval_seconds" json:"min_interval_seconds,omitempty"`
	// MaxIntervalSeconds is a heartbeat of the rule's own; 0 is the set's.
	MaxIntervalSeconds float64 `yaml:"max_interval_seconds" json:"max_interval_seconds,omitempty"`
}

// band is the rule's band in the reading's unit.
func (r *Rule) band() float64 {
	if r.Percent > 0 {
		return r.Percent / 100 * (r.SpanHigh - r.SpanLow)
	}
	return r.Deadband
}

func (r *Rule) check(heartbeat float64) error {
	if _, err := path.Match(r.Sensor, "x"); err != nil {
		return fmt.Errorf("sensor %q is no glob", r.Sensor)
	}
	for _, v := range []float64{r.Deadband, r.Percent} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("a deadband of %v; want 0 or more", v)
		}
	}
	for name, v := range map[string]float64{"min_interval_seconds": r.MinIntervalSeconds, "max_interval_seconds": r.MaxIntervalSeconds} {
		if !(v >= 0 && v <= maxInterval) {
			return fmt.Errorf("%s is %v, want 0 to a year", name, v)
		}
	}
	span := r.SpanHigh - r.SpanLow
	switch {
	case r.Deadband > 0 && r.Percent > 0:
		return errors.New("has deadband and percent; give one")
	case r.Percent > 100:
		return fmt.Errorf("percent is %v, want at most 100", r.Percent)
	case r.Percent > 0 && !(span > 0 && !math.IsInf(span, 0)):
		return errors.New("percent needs a span; give span_low < span_high")
	case r.Method != "" && r.Method != Deadband && r.Method != SwingingDoor:
		return fmt.Errorf("method %q is not known; take %s or %s", r.Method, Deadband, SwingingDoor)
	case r.MinIntervalSeconds >= cmp.Or(r.MaxIntervalSeconds, heartbeat):
		return fmt.Errorf("min_interval_seconds is %v, want less than the heartbeat of %v s", r.MinIntervalSeconds, cmp.Or(r.MaxIntervalSeconds, heartbeat))
	case r.Method == SwingingDoor && r.band() == 0:
		return errors.New("a swinging door needs a band; give deadband or percent")
	case r.Method == SwingingDoor && (r.Previous || r.MinIntervalSeconds > 0):
		return errors.New("a swinging door sends the value before a bend as it is; previous and min_interval_seconds go with a deadband")
	}
	return nil
}

// maxInterval bounds every interval, in seconds.
const maxInterval = 366 * 24 * 3600

// DefaultHeartbeat is how long a held value goes without a proof of life.
const DefaultHeartbeat = 60 * time.Second

// Set is a checked configuration.
type Set struct {
	cfg       Config
	hash      string
	heartbeat signal.Micros
}

// None sends everything.
func None() *Set { return mustNew(Config{Name: "none", PassAll: true}) }

// Default is the shipped set: deadbands of a part of the usual span of known
// sensors, everything else on change.
func Default() *Set {
	return mustNew(Config{Name: "default", Rules: []Rule{
		{Sensor: "accelerometer*", Unit: "[g]", Percent: 0.1, SpanLow: 0, SpanHigh: 2},
		{Unit: "A", Percent: 1, SpanLow: 0, SpanHigh: 10},
		{Unit: "bar", Percent: 2, SpanLow: -1, SpanHigh: 9},
		{Sensor: "thermocouple*", Unit: "Cel", Percent: 0.1, SpanLow: 0, SpanHigh: 100},
		{Unit: "Cel", Percent: 0.25, SpanLow: 0, SpanHigh: 150},
		{Unit: "V", Percent: 1, SpanLow: 0, SpanHigh: 400},
		{Unit: "L/min", Percent: 0.5, SpanLow: 0, SpanHigh: 150},
		{Unit: "/min", Percent: 0.5, SpanLow: 0, SpanHigh: 3600},
		{Unit: "%", Percent: 1, SpanLow: 0, SpanHigh: 100},
	}})
}

// ByName returns one of the shipped sets: "none" or "default".
func ByName(name string) (*Set, error) {
	switch name {
	case "none":
		return None(), nil
	case "default":
		return Default(), nil
	}
	return nil, fmt.Errorf("filter set %q is not known; take none or default", name)
}

// mustNew is for the sets above, which tests build.
func mustNew(c Config) *Set {
	s, err := New(c)
	if err != nil {
		panic(err)
	}
	return s
}

// New checks a configuration.
func New(c Config) (*Set, error) {
	fail := func(format string, args ...any) (*Set, error) {
		return nil, fmt.Errorf("filter set %q: %w", c.Name, fmt.Errorf(format, args...))
	}
	if c.HeartbeatSeconds == 0 {
		c.HeartbeatSeconds = DefaultHeartbeat.Seconds()
	}
	if !(c.HeartbeatSeconds > 0 && c.HeartbeatSeconds <= maxInterval) {
		return fail("heartbeat_seconds is %v, want more than 0 and at most a year", c.HeartbeatSeconds)
	}
	if c.PassAll && len(c.Rules) > 0 {
		return fail("pass_all leaves no room for rules")
	}
	for i := range c.Rules {
		if err := c.Rules[i].check(c.HeartbeatSeconds); err != nil {
			return fail("rule %d: %w", i+1, err)
		}
	}
	s := &Set{cfg: c, heartbeat: signal.Micros(c.HeartbeatSeconds * 1e6)}
	// The fields in this order, defaults filled in, are the canonical form.
	canonical, err := json.Marshal(c)
	if err != nil {
		return fail("%w", err)
	}
	sum := sha256.Sum256(canonical)
	s.hash = hex.EncodeToString(sum[:8])
	return s, nil
}

// Hash names the content: equal for equal configurations, 16 hex digits.
func (s *Set) Hash() string { return s.hash }

// Linear tells whether a sensor's sent values are ends of lines; otherwise each
// holds until the next.
func (s *Set) Linear(sensor, unit string) bool {
	r := s.rule(sensor, unit)
	return r != nil && r.Method == SwingingDoor
}

// Alike tells whether two sets treat a sensor the same.
func (s *Set) Alike(other *Set, sensor, unit string) bool {
	a, b := s.rule(sensor, unit), other.rule(sensor, unit)
	if s.cfg.PassAll != other.cfg.PassAll || s.cfg.HeartbeatSeconds != other.cfg.HeartbeatSeconds || (a == nil) != (b == nil) {
		return false
	}
	if a == nil {
		return true
	}
	x, y := *a, *b
	x.Sensor, x.Unit, y.Sensor, y.Unit = "", "", "", "" // how it was found is no matter
	return x == y
}

// rule is the one for a sensor, nil without any.
func (s *Set) rule(sensor, unit string) *Rule {
	for i := range s.cfg.Rules {
		r := &s.cfg.Rules[i]
		if r.Unit != "" && r.Unit != unit {
			continue
		}
		if r.Sensor != "" {
			if ok, err := path.Match(r.Sensor, strings.ReplaceAll(sensor, "/", "%2F")); err != nil || !ok {
				continue
			}
		}
		return r
	}
	return nil
}

// Span is the range that a sensor's rule gives it.
func (s *Set) Span(sensor, unit string) (low, high float64, ok bool) {
	r := s.rule(sensor, unit)
	if r == nil || !(r.SpanHigh > r.SpanLow) {
		return 0, 0, false
	}
	return r.SpanLow, r.SpanHigh, true
}
