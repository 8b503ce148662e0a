package plant

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Config is a simulated plant.
type Config struct {
	Seed     uint64
	Duration time.Duration // 0 is without end
	Faults   bool          // a bearing that fails, sensors that lie
	Outage   bool          // an edge without network for a while
	// Duty is how far apart the channels acquire one window each; 0 is without pause.
	Duty time.Duration
}

// Parse reads "demo" or "demo:seed=7,duration=15m,faults=off,outage=off,duty=10s".
func Parse(spec string) (Config, error) {
	c := Config{Seed: 1, Faults: true, Outage: true}
	kind, rest, _ := strings.Cut(spec, ":")
	if kind != "demo" {
		return c, fmt.Errorf("plant %q is not known; the one there is is demo", kind)
	}
	for pair := range strings.SplitSeq(rest, ",") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		var err error
		switch key {
		case "seed":
			c.Seed, err = strconv.ParseUint(value, 10, 64)
		case "duration":
			c.Duration, err = duration(value)
		case "duty":
			c.Duty, err = duration(value)
		case "faults":
			c.Faults, err = onOff(value)
		case "outage":
			c.Outage, err = onOff(value)
		default:
			return c, fmt.Errorf("plant %q: %q is not known; there are seed, duration, faults, outage and duty", spec, key)
		}
		if err != nil || !ok {
			return c, fmt.Errorf("plant %q: %s %q cannot be read; write like demo:seed=7,duration=15m,faults=off,outage=off,duty=10s", spec, key, value)
		}
	}
	return c, nil
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && (d < 0 || d > 366*24*time.Hour) {
		return 0, fmt.Errorf("%s is out of range", s)
	}
	return d, err
}

func onOff(s string) (bool, error) {
	switch s {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", s)
}

// String is the canonical form of the configuration.
func (c Config) String() string {
	word := func(b bool) string {
		if b {
			return "on"
		}
		return "off"
	}
	return fmt.Sprintf("demo:seed=%d,duration=%s,faults=%s,outage=%s,duty=%s", c.Seed, c.Duration, word(c.Faults), word(c.Outage), c.Duty)
}
