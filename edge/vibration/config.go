package vibration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"path"

	"github.com/headrace/headrace/signal"
)

// Config says what is made of which channels. The first rule that fits a
// channel counts; a channel without one is only kept in the ring.
type Config struct {
	Name  string `yaml:"name" json:"name"`
	Rules []Rule `yaml:"rules" json:"rules,omitempty"`
}

// Rule is for the channels that it fits.
type Rule struct {
	Asset  string `yaml:"asset" json:"asset,omitempty"`   // glob over the asset's last name, "" fits all
	Sensor string `yaml:"sensor" json:"sensor,omitempty"` // glob over the sensor's name, "" fits all
	// Window is in samples, a power of two; 0 is [DefaultWindow].
	Window int `yaml:"window" json:"window,omitempty"`
	// EverySeconds, in event time, is how far apart windows are looked at; 0
	// looks at all.
	EverySeconds float64 `yaml:"every_seconds" json:"every_seconds,omitempty"`
	// RPM is the shaft's speed; SpeedSensor, if given, is the asset's sensor (in
	// "/min") that says it better while it is younger than a minute.
	RPM         float64 `yaml:"rpm" json:"rpm,omitempty"`
	SpeedSensor string  `yaml:"speed_sensor" json:"speed_sensor,omitempty"`
	Bearing     Orders  `yaml:"bearing" json:"bearing"`
	// EnvelopeLow and EnvelopeHigh, in Hz, are the band whose envelope is taken;
	// 0 and 0 are [DefaultEnvelopeLow] and [DefaultEnvelopeHigh], or as far as
	// the sampling rate goes.
	EnvelopeLow  float64 `yaml:"envelope_low" json:"envelope_low,omitempty"`
	EnvelopeHigh float64 `yaml:"envelope_high" json:"envelope_high,omitempty"`
	Trigger      Trigger `yaml:"trigger" json:"trigger"`
}

// Orders are impacts per revolution of the shaft; see [signal.Bearing]. An order
// of 0 is unknown, and has no feature.
type Orders struct {
	BPFO float64 `yaml:"bpfo" json:"bpfo,omitempty"`
	BPFI float64 `yaml:"bpfi" json:"bpfi,omitempty"`
	BSF2 float64 `yaml:"bsf2" json:"bsf2,omitempty"`
	FTF  float64 `yaml:"ftf" json:"ftf,omitempty"`
}

// Trigger lets raw windows through. All its levels are ratios, so that the gain
// of a channel does not matter.
type Trigger struct {
	// Kurtosis at or above which a window is of interest; 0 never.
	Kurtosis float64 `yaml:"kurtosis" json:"kurtosis,omitempty"`
	// EnvelopeShare is the same for the share of a defect order in the energy
	// of the envelope, 0..1; 0 never.
	EnvelopeShare float64 `yaml:"envelope_share" json:"envelope_share,omitempty"`
	// PreWindows and PostWindows go with the window of interest.
	PreWindows  int `yaml:"pre_windows" json:"pre_windows,omitempty"`
	PostWindows int `yaml:"post_windows" json:"post_windows,omitempty"`
	// MaxWindows is how many leave in one capture, 0 without limit; the next
	// begins RearmSeconds, in event time, after the start of the last.
	MaxWindows   int     `yaml:"max_windows" json:"max_windows,omitempty"`
	RearmSeconds float64 `yaml:"rearm_seconds" json:"rearm_seconds,omitempty"`
}

// Defaults of a [Rule].
const (
	DefaultWindow       = 4096
	DefaultEnvelopeLow  = 2000.0 // Hz
	DefaultEnvelopeHigh = 5500.0 // Hz
)

const maxWindow = 1 << 17

// Set is a checked configuration.
type Set struct {
	cfg  Config
	hash string
}

// None makes nothing of nothing.
func None() *Set { return &Set{} }

// CWRU is for the recordings of the Case Western Reserve University Bearing
// Data Center at 1797 rpm, bearing 6205-2RS JEM. A healthy bearing's kurtosis is
// about 3 whatever the gain; the level leaves room for chance.
func CWRU() *Set {
	s, err := New(Config{Name: "cwru", Rules: []Rule{{
		RPM: 1797, Bearing: Orders{BPFO: 3.5848, BPFI: 5.4152, BSF2: 4.7135, FTF: 0.3983},
		Trigger: Trigger{Kurtosis: 4, PreWindows: 4, PostWindows: 4},
	}}})
	if err != nil {
		panic(err) // a constant that tests build
	}
	return s
}

// New checks a configuration.
func New(c Config) (*Set, error) {
	rules := make([]Rule, len(c.Rules))
	for i, r := range c.Rules {
		if r.Window == 0 {
			r.Window = DefaultWindow
		}
		if r.EnvelopeLow == 0 && r.EnvelopeHigh == 0 {
			r.EnvelopeLow, r.EnvelopeHigh = DefaultEnvelopeLow, DefaultEnvelopeHigh
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("vibration set %q: rule %d: %w", c.Name, i+1, err)
		}
		rules[i] = r
	}
	c.Rules = rules
	if len(rules) == 0 {
		return &Set{cfg: c}, nil
	}
	// The fields in this order, defaults filled in, are the canonical form.
	canonical, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("vibration set %q: %w", c.Name, err)
	}
	sum := sha256.Sum256(canonical)
	return &Set{cfg: c, hash: hex.EncodeToString(sum[:8])}, nil
}

func (r *Rule) check() error {
	for _, glob := range []string{r.Asset, r.Sensor} {
		if _, err := path.Match(glob, "x"); err != nil {
			return fmt.Errorf("%q is no glob", glob)
		}
	}
	if r.Window < 64 || r.Window > maxWindow || r.Window&(r.Window-1) != 0 {
		return fmt.Errorf("window is %d samples, want a power of two from 64 to %d", r.Window, maxWindow)
	}
	b, t := r.Bearing, r.Trigger
	for name, v := range map[string]float64{
		"every_seconds": r.EverySeconds, "rpm": r.RPM, "bpfo": b.BPFO, "bpfi": b.BPFI, "bsf2": b.BSF2, "ftf": b.FTF,
		"kurtosis": t.Kurtosis, "envelope_share": t.EnvelopeShare, "rearm_seconds": t.RearmSeconds, "envelope_low": r.EnvelopeLow,
		"pre_windows": float64(t.PreWindows), "post_windows": float64(t.PostWindows), "max_windows": float64(t.MaxWindows),
	} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v; want 0 or more", name, v)
		}
	}
	if !(r.EnvelopeHigh > r.EnvelopeLow) {
		return fmt.Errorf("the envelope's band ends at %v Hz, before its start at %v Hz", r.EnvelopeHigh, r.EnvelopeLow)
	}
	return nil
}

// Hash names the content, 16 hex digits; it is empty for a set without rules.
func (s *Set) Hash() string { return s.hash }

// Matches tells whether a rule fits a channel.
func (s *Set) Matches(asset signal.Asset, sensor string) bool { return s.rule(asset, sensor) != nil }

func (s *Set) rule(asset signal.Asset, sensor string) *Rule {
	_, _, name := asset.Split()
	fits := func(glob, s string) bool {
		ok, err := path.Match(glob, s)
		return glob == "" || ok && err == nil
	}
	for i := range s.cfg.Rules {
		if r := &s.cfg.Rules[i]; fits(r.Asset, name) && fits(r.Sensor, sensor) {
			return r
		}
	}
	return nil
}
