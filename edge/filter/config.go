package filter

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// Rule is the deadband of the sensors that it fits.
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
}

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
	if !(c.HeartbeatSeconds > 0 && c.HeartbeatSeconds <= 366*24*3600) {
		return fail("heartbeat_seconds is %v, want more than 0 and at most a year", c.HeartbeatSeconds)
	}
	if c.PassAll && len(c.Rules) > 0 {
		return fail("pass_all leaves no room for rules")
	}
	for i, r := range c.Rules {
		if _, err := path.Match(r.Sensor, "x"); err != nil {
			return fail("rule %d: sensor %q is no glob", i+1, r.Sensor)
		}
		for _, v := range []float64{r.Deadband, r.Percent} {
			if !(v >= 0) || math.IsInf(v, 0) {
				return fail("rule %d: a deadband of %v; want 0 or more", i+1, v)
			}
		}
		span := r.SpanHigh - r.SpanLow
		switch {
		case r.Deadband > 0 && r.Percent > 0:
			return fail("rule %d: has deadband and percent; give one", i+1)
		case r.Percent > 100:
			return fail("rule %d: percent is %v, want at most 100", i+1, r.Percent)
		case r.Percent > 0 && !(span > 0 && !math.IsInf(span, 0)):
			return fail("rule %d: percent needs a span; give span_low < span_high", i+1)
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

// Deadband is the deadband of a sensor, in its unit; 0 sends every change.
func (s *Set) Deadband(sensor, unit string) float64 {
	if s.cfg.PassAll {
		return 0
	}
	return s.band(sensor, unit)
}

// band is the deadband of a sensor, in its unit.
func (s *Set) band(sensor, unit string) float64 {
	for _, r := range s.cfg.Rules {
		if r.Unit != "" && r.Unit != unit {
			continue
		}
		if r.Sensor != "" {
			if ok, err := path.Match(r.Sensor, strings.ReplaceAll(sensor, "/", "%2F")); err != nil || !ok {
				continue
			}
		}
		if r.Percent > 0 {
			return r.Percent / 100 * (r.SpanHigh - r.SpanLow)
		}
		return r.Deadband
	}
	return 0
}
