package vibration

import (
	"cmp"
	"fmt"
	"math"
)

// leastLines is how many lines of a spectrum must lie below a band, or between two:
// the main lobe of the Hann window reaches two to each side.
const leastLines = 2

// Lint tells what a rule that [New] takes may say by mistake, a line each. Most of
// it needs the rate that the rule declares.
func (r *Rule) Lint() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Velocity != nil && r.Unit == "" {
		say("velocity, but no unit; declare [g] or m/s2, a channel of another unit has none")
	}
	if r.Rate == 0 {
		if len(r.Bands) > 0 || r.Velocity != nil || r.EnvelopeHigh > 0 {
			say("no rate; bands cannot be checked against half of it, nor the window")
		}
		return out
	}
	window := cmp.Or(r.Window, DefaultWindow)
	line, nyquist := r.Rate/float64(window), r.Rate/2
	slow, fast := r.speeds()

	check := func(what string, low, high, least float64) {
		if high > nyquist {
			say("%s ends at %g Hz, above half the rate of %g samples/s; it has no value", what, high, r.Rate)
		}
		if low > 0 && low < leastLines*line || least < line {
			say("%s: a window of %d samples has lines of %.3g Hz, too wide for it; %s", what, window, line, r.longer(min(positive(low)/leastLines, least)))
		}
	}
	for _, b := range r.bands() {
		switch {
		case b.clip: // the shipped ones end where the rate does
		case !b.orders:
			check("band "+b.name, b.low, b.high, b.high-b.low)
		case fast > 0:
			check("band "+b.name, b.low*slow, b.high*fast, (b.high-b.low)*slow)
		}
	}
	if r.Velocity != nil {
		low, high := r.Velocity.band(slow)
		check("velocity", low, high, high-low)
	}
	low, high := r.EnvelopeLow, r.EnvelopeHigh
	if high > nyquist {
		say("the envelope's band ends at %g Hz, above half the rate of %g samples/s", high, r.Rate)
	}
	if low, high = cmp.Or(low, DefaultEnvelopeLow), min(cmp.Or(high, DefaultEnvelopeHigh), nyquist); low >= high {
		say("the envelope's band begins at %g Hz, where nothing is sampled; there will be no envelope", low)
	}
	r.lintOrders(line, slow, say)
	return out
}

// lintOrders says which of the bearing's orders a window cannot tell apart.
func (r *Rule) lintOrders(line, slow float64, say func(string, ...any)) {
	o, err := r.Bearing.complete()
	if err != nil || slow == 0 {
		return
	}
	window := cmp.Or(r.Window, DefaultWindow)
	orders := o.list()
	for i, a := range orders {
		if a > 0 && a*slow < leastLines*line {
			say("bearing: order %.4g is %.3g Hz, less than two lines of %.3g Hz of a window of %d samples; %s", a, a*slow, line, window, r.longer(a*slow/leastLines))
		}
		for _, b := range orders[:i] {
			if apart := math.Abs(a-b) * slow; a > 0 && b > 0 && apart < leastLines*line {
				say("bearing: orders %.4g and %.4g are %.3g Hz apart, less than two lines of %.3g Hz of a window of %d samples; %s", b, a, apart, line, window, r.longer(apart/leastLines))
			}
		}
	}
}

// speeds are the lowest and the highest that the rule declares, Hz; 0 are unknown.
func (r *Rule) speeds() (slow, fast float64) {
	slow, fast = r.RPM/60, r.RPM/60
	for i, p := range r.SpeedProfile {
		if i == 0 {
			slow, fast = p.RPM/60, p.RPM/60
		}
		slow, fast = min(slow, p.RPM/60), max(fast, p.RPM/60)
	}
	return slow, fast
}

// longer is the remedy: the shortest window whose lines are no wider.
func (r *Rule) longer(line float64) string {
	n := minWindow
	for float64(n)*line < r.Rate && n <= maxWindow {
		n *= 2
	}
	if n > maxWindow {
		return "no window is long enough, sample more slowly"
	}
	return fmt.Sprintf("take %d", n)
}

func positive(v float64) float64 {
	if v > 0 {
		return v
	}
	return math.Inf(1)
}
