package config

import (
	"fmt"

	"github.com/headrace/headrace/edge/filter"
)

// freshness is how old a value may be that a twin shows as live, in seconds: a
// heartbeat must come within it.
const freshness = 300.0

// Lint tells what a checked configuration may say by mistake, a line each.
func (c *Config) Lint() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	f := &c.Filters
	if f.HeartbeatSeconds > freshness {
		say("filters: heartbeat_seconds is %g; values are taken for stale after %g s", f.HeartbeatSeconds, freshness)
	}
	all := ""
	for i := range f.Rules {
		r := &f.Rules[i]
		at := fmt.Sprintf("filters: rule %d", i+1)
		if all != "" {
			say("%s never fits: %s fits every sensor", at, all)
		}
		if r.Sensor == "" && r.Unit == "" || r.Sensor == "*" && r.Unit == "" {
			all = fmt.Sprintf("rule %d", i+1)
		}
		span := r.SpanHigh - r.SpanLow
		switch {
		case r.Percent >= 50:
			say("%s: a deadband of %g %% of the span lets next to nothing through", at, r.Percent)
		case span > 0 && r.Deadband > span:
			say("%s: the deadband of %g is wider than the span of %g", at, r.Deadband, span)
		}
		if r.MaxIntervalSeconds > freshness {
			say("%s: max_interval_seconds is %g; values are taken for stale after %g s", at, r.MaxIntervalSeconds, freshness)
		}
		if r.Method == filter.SwingingDoor && (r.MaxIntervalSeconds > freshness || r.MaxIntervalSeconds == 0 && f.HeartbeatSeconds > freshness) {
			say("%s: a line of the swinging door may span more than the %g s after which values are stale", at, freshness)
		}
	}
	for i := range c.Vibration.Rules {
		r := &c.Vibration.Rules[i]
		at := fmt.Sprintf("vibration: rule %d", i+1)
		t := r.Trigger
		if hours := c.Ring.Hours; hours > 0 && r.EverySeconds > 0 && float64(t.PreWindows)*r.EverySeconds > hours*3600 {
			say("%s: %d windows before a trigger reach back further than the ring's %g hours", at, t.PreWindows, hours)
		}
		if r.RPM == 0 && r.SpeedSensor == "" && len(r.SpeedProfile) == 0 {
			say("%s: neither rpm nor speed_sensor; there will be no orders", at)
		}
		if t.Kurtosis > 0 && t.Kurtosis <= 3 {
			say("%s: the trigger's kurtosis of %g is that of plain noise; everything would leave", at, t.Kurtosis)
		}
		for _, finding := range r.Lint() {
			say("%s: %s", at, finding)
		}
	}
	return out
}
