package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/headrace/headrace/signal"
)

// Config is a list of rules, each of which judges for itself.
type Config struct {
	Rules []Rule `yaml:"rules" json:"rules,omitempty"`
}

// Rule raises an alarm on each sensor that it fits.
type Rule struct {
	// Name stands in the alarm: lower-case letters, digits and hyphens.
	Name   string `yaml:"name" json:"name"`
	Asset  string `yaml:"asset" json:"asset,omitempty"` // glob over the asset's last name, "" fits all
	Sensor string `yaml:"sensor" json:"sensor"`         // glob over the sensor's name; what is derived of a waveform has one too
	// Of is what is compared: [Value] (or ""), or [Rate], the change per second
	// between one sample and the next.
	Of string `yaml:"of" json:"of,omitempty"`
	// Above or Below is the level that sets the alarm, in the sensor's unit, or
	// that per second; beyond it, not at it.
	Above *float64 `yaml:"above" json:"above,omitempty"`
	Below *float64 `yaml:"below" json:"below,omitempty"`
	// Clear is the level at which it clears; without it that is the level of setting.
	Clear *float64 `yaml:"clear" json:"clear,omitempty"`
	// ForSeconds, in event time, is how long a sensor must be beyond the level.
	ForSeconds float64 `yaml:"for_seconds" json:"for_seconds,omitempty"`
	Severity   string  `yaml:"severity" json:"severity,omitempty"` // low, medium (or ""), high, critical
	// FailureMode, of ISO 14224, is what the alarm stands for; "" is VIB for what is
	// derived of a channel and PDE, a parameter's deviation, for the rest. The centre
	// takes an alarm and what it finds itself for one if mode and channel agree.
	FailureMode string `yaml:"failure_mode" json:"failure_mode,omitempty"`
}

// What a rule compares.
const (
	Value = "value"
	Rate  = "rate"
)

// The failure modes of rules that name none.
const (
	Vibration          = "VIB"
	ParameterDeviation = "PDE"
)

const (
	maxRules = 1000
	maxFor   = 7 * 24 * 3600
)

func severities() []string { return []string{"low", "medium", "high", "critical"} }

func (r *Rule) check() error {
	plain := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' }
	if r.Name == "" || len(r.Name) > 64 || strings.IndexFunc(r.Name, func(c rune) bool { return !plain(c) }) >= 0 {
		return fmt.Errorf("name %q; take lower-case letters, digits and hyphens", r.Name)
	}
	for _, glob := range []string{r.Asset, r.Sensor} {
		if _, err := path.Match(glob, "x"); err != nil {
			return fmt.Errorf("%q is no glob", glob)
		}
	}
	if r.Sensor == "" {
		return errors.New(`no sensor; name one, or "*" for all`)
	}
	if (r.Above == nil) == (r.Below == nil) {
		return errors.New("give either above or below")
	}
	level, clear := r.levels()
	switch {
	case math.IsNaN(level) || math.IsInf(level, 0) || math.IsNaN(clear) || math.IsInf(clear, 0):
		return errors.New("a level is no finite number")
	case r.Above != nil && clear > level:
		return fmt.Errorf("clears at %v, above the level of %v that sets it", clear, level)
	case r.Below != nil && clear < level:
		return fmt.Errorf("clears at %v, below the level of %v that sets it", clear, level)
	case r.Of != "" && r.Of != Value && r.Of != Rate:
		return fmt.Errorf("of %q is not known; take %s or %s", r.Of, Value, Rate)
	case !(r.ForSeconds >= 0 && r.ForSeconds <= maxFor):
		return fmt.Errorf("for_seconds is %v, want 0 to a week", r.ForSeconds)
	case r.Severity != "" && !slices.Contains(severities(), r.Severity):
		return fmt.Errorf("severity %q is not known; take one of %s", r.Severity, strings.Join(severities(), ", "))
	}
	if r.FailureMode != "" {
		return signal.CheckName(r.FailureMode)
	}
	return nil
}

// levels are those that set and clear.
func (r *Rule) levels() (set, clear float64) {
	set = *cmpOr(r.Above, r.Below)
	if r.Clear == nil {
		return set, set
	}
	return set, *r.Clear
}

func cmpOr(a, b *float64) *float64 {
	if a != nil {
		return a
	}
	return b
}

// beyond tells whether a value is beyond a level.
func (r *Rule) beyond(v, level float64) bool {
	if r.Above != nil {
		return v > level
	}
	return v < level
}

func (r *Rule) fits(asset signal.Asset, sensor string) bool {
	_, _, machine := asset.Split()
	match := func(glob, name string) bool {
		ok, err := path.Match(glob, strings.ReplaceAll(name, "/", "%2F"))
		return err == nil && ok
	}
	return (r.Asset == "" || match(r.Asset, machine)) && match(r.Sensor, sensor)
}

// Set is a checked configuration.
type Set struct {
	rules []Rule
	hash  string
}

// None has no rules.
func None() *Set { return &Set{} }

// New checks a configuration.
func New(c Config) (*Set, error) {
	if len(c.Rules) > maxRules {
		return nil, fmt.Errorf("%d rules; take at most %d", len(c.Rules), maxRules)
	}
	names := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		if names[r.Name] {
			return nil, fmt.Errorf("rule %d: there is another of name %s", i+1, r.Name)
		}
		names[r.Name] = true
		if r.Of == "" {
			r.Of = Value
		}
		if r.Severity == "" {
			r.Severity = "medium"
		}
	}
	s := &Set{rules: c.Rules}
	if len(c.Rules) > 0 {
		canonical, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(canonical)
		s.hash = hex.EncodeToString(sum[:8])
	}
	return s, nil
}

// Hash names the content; "" without rules.
func (s *Set) Hash() string { return s.hash }
