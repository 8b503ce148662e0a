package vibration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
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
	// Zones are the limits of velocity by machine; none are [ShippedZones].
	Zones *Zones `yaml:"zones" json:"zones,omitempty"`
}

// Rule is for the channels that it fits.
type Rule struct {
	Asset  string `yaml:"asset" json:"asset,omitempty"`   // glob over the asset's last name, "" fits all
	Sensor string `yaml:"sensor" json:"sensor,omitempty"` // glob over the sensor's name, "" fits all
	// Window is in samples, a power of two; 0 is [DefaultWindow]. Blocks of any
	// size are put together to windows.
	Window int `yaml:"window" json:"window,omitempty"`
	// Overlap is the part of a window that the next one has too, 0 to 0.95.
	Overlap float64 `yaml:"overlap" json:"overlap,omitempty"`
	// Average is how many windows in a row make one set of features; 0 is 1.
	Average int `yaml:"average" json:"average,omitempty"`
	// Unit and Rate, in samples per second, are what the channel has; they are
	// for checking. A channel of another unit than the declared has no velocity.
	Unit string  `yaml:"unit" json:"unit,omitempty"`
	Rate float64 `yaml:"rate" json:"rate,omitempty"`
	// EverySeconds, in event time, is how far apart windows are looked at; 0
	// looks at all.
	EverySeconds float64 `yaml:"every_seconds" json:"every_seconds,omitempty"`
	// RPM is the shaft's speed; SpeedSensor, if given, is the asset's sensor (in
	// "/min") that says it better while it is younger than a minute.
	RPM         float64 `yaml:"rpm" json:"rpm,omitempty"`
	SpeedSensor string  `yaml:"speed_sensor" json:"speed_sensor,omitempty"`
	// OrderTracking follows the speed sensor within a window: what is counted in
	// orders is sampled anew by angle.
	OrderTracking bool `yaml:"order_tracking" json:"order_tracking,omitempty"`
	// SpeedProfile is the speed in each window where it is known beforehand; it
	// is followed as a sensor's.
	SpeedProfile []ProfilePoint `yaml:"speed_profile" json:"speed_profile,omitempty"`
	// Regimes are when features are made; none are always.
	Regimes []Regime `yaml:"regimes" json:"regimes,omitempty"`
	// Statistics are made beside the standard ones: [PeakToPeak], [Skewness].
	Statistics []string `yaml:"statistics" json:"statistics,omitempty"`
	// Bands stand beside the shipped ones, and one of a shipped name in its
	// place; with BandsOnly there are no others.
	Bands     []Band `yaml:"bands" json:"bands,omitempty"`
	BandsOnly bool   `yaml:"bands_only" json:"bands_only,omitempty"`
	// Velocity is made if it is given.
	Velocity *Velocity `yaml:"velocity" json:"velocity,omitempty"`
	Bearing  Orders    `yaml:"bearing" json:"bearing"`
	// Harmonics is how many multiples of an order count, 0 is 3; EachHarmonic
	// also makes a feature of each.
	Harmonics    int  `yaml:"harmonics" json:"harmonics,omitempty"`
	EachHarmonic bool `yaml:"each_harmonic" json:"each_harmonic,omitempty"`
	// EnvelopeLow and EnvelopeHigh, in Hz, are the band whose envelope is taken;
	// 0 and 0 are [DefaultEnvelopeLow] and [DefaultEnvelopeHigh], or as far as
	// the sampling rate goes.
	EnvelopeLow  float64 `yaml:"envelope_low" json:"envelope_low,omitempty"`
	EnvelopeHigh float64 `yaml:"envelope_high" json:"envelope_high,omitempty"`
	Trigger      Trigger `yaml:"trigger" json:"trigger"`
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

// Bounds of a [Rule].
const (
	minWindow    = 64
	maxWindow    = 1 << 17
	maxOverlap   = 0.95
	maxAverage   = 10_000
	maxHarmonics = 20
	most         = 1e12
)

// Set is a checked configuration.
type Set struct {
	cfg     Config
	hash    string
	watched map[string]watch // sensors whose readings matter
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
	zones, zoned := c.Zones, false
	if zones == nil {
		zones = ShippedZones()
	} else if err := zones.check(); err != nil {
		return nil, fmt.Errorf("vibration set %q: zones: %w", c.Name, err)
	}
	for i, r := range c.Rules {
		if r.Window == 0 {
			r.Window = DefaultWindow
		}
		if r.EnvelopeLow == 0 && r.EnvelopeHigh == 0 {
			r.EnvelopeLow, r.EnvelopeHigh = DefaultEnvelopeLow, DefaultEnvelopeHigh
		}
		err := r.check()
		if err == nil && r.Velocity != nil {
			zoned = zoned || r.Velocity.zoned()
			err = r.Velocity.check(r.Unit, zones)
		}
		if err == nil {
			r.Bearing, err = r.Bearing.complete()
		}
		if err != nil {
			return nil, fmt.Errorf("vibration set %q: rule %d: %w", c.Name, i+1, err)
		}
		rules[i] = r
	}
	c.Rules = rules
	if zoned {
		c.Zones = zones // the hash names the limits too
	}
	if len(rules) == 0 {
		return &Set{cfg: c}, nil
	}
	// The fields in this order, defaults filled in, are the canonical form.
	canonical, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("vibration set %q: %w", c.Name, err)
	}
	sum := sha256.Sum256(canonical)
	return &Set{cfg: c, hash: hex.EncodeToString(sum[:8]), watched: watched(rules)}, nil
}

func (r *Rule) check() error {
	for _, glob := range []string{r.Asset, r.Sensor} {
		if _, err := path.Match(glob, "x"); err != nil {
			return fmt.Errorf("%q is no glob", glob)
		}
	}
	if r.Window < minWindow || r.Window > maxWindow || r.Window&(r.Window-1) != 0 {
		return fmt.Errorf("window is %d samples, want a power of two from %d to %d", r.Window, minWindow, maxWindow)
	}
	if !(r.Overlap >= 0 && r.Overlap <= maxOverlap) {
		return fmt.Errorf("overlap is %v; want a part of the window, 0 to %v", r.Overlap, maxOverlap)
	}
	if r.Average < 0 || r.Average > maxAverage {
		return fmt.Errorf("average is %d windows; want 0 to %d", r.Average, maxAverage)
	}
	if r.Harmonics < 0 || r.Harmonics > maxHarmonics {
		return fmt.Errorf("harmonics is %d; want 0 to %d", r.Harmonics, maxHarmonics)
	}
	b, t := r.Bearing, r.Trigger
	for name, v := range map[string]float64{
		"every_seconds": r.EverySeconds, "rate": r.Rate, "rpm": r.RPM, "bpfo": b.BPFO, "bpfi": b.BPFI, "bsf2": b.BSF2, "ftf": b.FTF,
		"kurtosis": t.Kurtosis, "envelope_share": t.EnvelopeShare, "rearm_seconds": t.RearmSeconds, "envelope_low": r.EnvelopeLow,
		"pre_windows": float64(t.PreWindows), "post_windows": float64(t.PostWindows), "max_windows": float64(t.MaxWindows),
	} {
		if !(v >= 0 && v <= most) {
			return fmt.Errorf("%s is %v; want 0 to %g", name, v, most)
		}
	}
	if !(r.EnvelopeHigh > r.EnvelopeLow) {
		return fmt.Errorf("the envelope's band ends at %v Hz, before its start at %v Hz", r.EnvelopeHigh, r.EnvelopeLow)
	}
	if err := checkBands(r.Bands); err != nil {
		return err
	}
	for _, name := range r.Statistics {
		if name != PeakToPeak && name != Skewness {
			return fmt.Errorf("statistics: there is no %q; want %s or %s", name, PeakToPeak, Skewness)
		}
	}
	if r.OrderTracking && r.SpeedSensor == "" {
		return errors.New("order_tracking needs a speed_sensor to follow; for a speed known beforehand give speed_profile")
	}
	if err := checkProfile(r.SpeedProfile); err != nil {
		return err
	}
	return checkRegimes(r)
}

// hop is how far apart windows begin, in samples.
func (r *Rule) hop() int { return max(r.Window-int(math.Round(r.Overlap*float64(r.Window))), 1) }

func (r *Rule) harmonics() int {
	if r.Harmonics == 0 {
		return defaultHarmonics
	}
	return r.Harmonics
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
