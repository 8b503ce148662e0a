package vibration

import (
	"fmt"
	"math"

	"github.com/headrace/headrace/signal"
)

// speedMaxAge is how long a reading of the speed counts, in event time.
const speedMaxAge signal.Micros = 60_000_000

// What is kept of a speed that is followed within windows.
const (
	maxSpeeds             = 256
	speedKept             = 2 * speedMaxAge
	maxProfile            = 1000
	slowest               = 0.5 // of the mean speed, above which a window can be sampled by angle
	maxProfileAge float64 = 1e6 // s
)

// ProfilePoint is the speed so many seconds after a window's first sample; between
// points it changes evenly, before the first and after the last it stays.
type ProfilePoint struct {
	Seconds float64 `yaml:"seconds" json:"seconds"`
	RPM     float64 `yaml:"rpm" json:"rpm"`
}

func checkProfile(profile []ProfilePoint) error {
	if len(profile) > maxProfile {
		return fmt.Errorf("speed_profile has %d points; want at most %d", len(profile), maxProfile)
	}
	for i, p := range profile {
		if !(p.Seconds >= 0 && p.Seconds <= maxProfileAge) || i > 0 && !(p.Seconds > profile[i-1].Seconds) {
			return fmt.Errorf("speed_profile: point %d is at %v s; want 0 or more, each later than the one before", i+1, p.Seconds)
		}
		if !(p.RPM > 0) || math.IsInf(p.RPM, 0) {
			return fmt.Errorf("speed_profile: point %d is %v rpm; want more than 0", i+1, p.RPM)
		}
	}
	return nil
}

// speed is the newest reading of a sensor, and those before it where they matter.
type speed struct {
	RPM    float64       `json:"rpm"`
	At     signal.Micros `json:"at"`
	Before []speedAt     `json:"before,omitempty"`
}

type speedAt struct {
	RPM float64       `json:"rpm"`
	At  signal.Micros `json:"at"`
}

func (s *speed) take(rpm float64, at signal.Micros, follow bool) {
	if follow && at > s.At {
		drop := 0
		for drop < len(s.Before) && (len(s.Before)-drop >= maxSpeeds || s.Before[drop].At < at-speedKept) {
			drop++
		}
		s.Before = append(s.Before[:copy(s.Before, s.Before[drop:])], speedAt{s.RPM, s.At})
	}
	s.RPM, s.At = rpm, at
}

// shaftSpeed is the shaft's frequency over a window, Hz.
type shaftSpeed struct {
	known    bool
	measured bool // not only declared
	varies   bool
	mean     float64
	lowest   float64
	highest  float64
	// knots are where the speed bends: seconds after the first sample, Hz there,
	// and revolutions since. Only where it varies.
	knots  []knot
	placed bool // [Stage].place is for it
}

type knot struct{ at, hz, turns float64 }

// shaft is the speed of a window from start on, of so many seconds.
func (s *Stage) shaft(asset signal.Asset, rule *Rule, end signal.Micros, seconds float64) *shaftSpeed {
	sp := &s.speed
	*sp = shaftSpeed{knots: sp.knots[:0]}
	if len(rule.SpeedProfile) > 0 {
		sp.measured = true
		for _, p := range rule.SpeedProfile {
			sp.add(p.Seconds, p.RPM/60, seconds)
		}
		sp.finish(seconds)
		return sp
	}
	sp.mean = rule.RPM / 60
	v := s.speeds[key{asset, rule.SpeedSensor}]
	if v != nil && rule.SpeedSensor != "" && end-v.At <= speedMaxAge {
		sp.measured, sp.mean = true, v.RPM/60
		if rule.OrderTracking {
			start := float64(end) - seconds*1e6
			for _, b := range v.Before {
				sp.add((float64(b.At)-start)/1e6, b.RPM/60, seconds)
			}
			sp.add((float64(v.At)-start)/1e6, v.RPM/60, seconds)
			sp.finish(seconds)
			return sp
		}
	}
	sp.known = sp.mean > 0
	sp.lowest, sp.highest = sp.mean, sp.mean
	return sp
}

// add appends a point, cut off at the window's beginning and end.
func (sp *shaftSpeed) add(at, hz, seconds float64) {
	n := len(sp.knots)
	if n == 0 {
		sp.knots = append(sp.knots, knot{at: at, hz: hz})
		return
	}
	last := &sp.knots[n-1]
	switch {
	case last.at >= seconds:
		return
	case at <= 0: // only the last before the beginning matters
		last.at, last.hz = at, hz
		return
	}
	if last.at < 0 {
		last.hz += (hz - last.hz) * -last.at / (at - last.at)
		last.at = 0
	}
	if at > seconds {
		hz = last.hz + (hz-last.hz)*(seconds-last.at)/(at-last.at)
		at = seconds
	}
	if at > last.at {
		sp.knots = append(sp.knots, knot{at: at, hz: hz})
	}
}

// finish holds the speed to both ends and counts revolutions.
func (sp *shaftSpeed) finish(seconds float64) {
	k := sp.knots
	if k[0].at <= 0 || len(k) == 1 {
		k[0].at = 0
	} else {
		k = append(k, knot{})
		copy(k[1:], k)
		k[0] = knot{at: 0, hz: k[1].hz}
	}
	if last := k[len(k)-1]; last.at < seconds {
		k = append(k, knot{at: seconds, hz: last.hz})
	}
	sp.lowest, sp.highest = k[0].hz, k[0].hz
	for i := range k[1:] {
		a, b := &k[i], &k[i+1]
		b.turns = a.turns + (a.hz+b.hz)/2*(b.at-a.at)
		sp.lowest, sp.highest = min(sp.lowest, b.hz), max(sp.highest, b.hz)
	}
	sp.knots = k
	sp.mean = k[len(k)-1].turns / seconds
	sp.varies = sp.highest > sp.lowest
	sp.known = sp.lowest > 0 && !math.IsInf(sp.mean, 0) && sp.lowest >= slowest*sp.mean // false for NaN
}

// turns is how many revolutions a time after the first sample are.
func (sp *shaftSpeed) turns(at float64) float64 {
	i := 1
	for i < len(sp.knots)-1 && sp.knots[i].at < at {
		i++
	}
	a, b := sp.knots[i-1], sp.knots[i]
	d := at - a.at
	return a.turns + a.hz*d + (b.hz-a.hz)/(b.at-a.at)*d*d/2
}

// resample writes x, whose samples are dt seconds apart, at angles that are evenly
// apart from the first sample to before the last, by a natural cubic spline. It
// returns the revolutions over out.
func (s *Stage) resample(sp *shaftSpeed, x []float64, dt float64, out []float64) float64 {
	n := len(x)
	bend := s.spline(x)
	total := sp.turns(float64(n-1) * dt)
	for j, p := range s.places(sp, n, dt, total, len(out)) {
		i := min(max(int(p), 0), n-2)
		u := p - float64(i)
		v := 1 - u
		out[j] = v*x[i] + u*x[i+1] + ((v*v*v-v)*bend[i]+(u*u*u-u)*bend[i+1])/6
	}
	return total
}

// places are the angles as positions among the samples; once a window.
func (s *Stage) places(sp *shaftSpeed, n int, dt, total float64, count int) []float64 {
	if sp.placed {
		return s.place
	}
	sp.placed = true
	s.place = sized(s.place, count)
	seg := 1
	for j := range s.place {
		turns := total * float64(j) / float64(count)
		for seg < len(sp.knots)-1 && sp.knots[seg].turns < turns {
			seg++
		}
		a, b := &sp.knots[seg-1], &sp.knots[seg]
		d, slope := turns-a.turns, (b.hz-a.hz)/(b.at-a.at)
		// The root of hz·t + slope·t²/2 = d that does not cancel.
		s.place[j] = (a.at + 2*d/(a.hz+math.Sqrt(max(a.hz*a.hz+2*slope*d, 0)))) / dt
	}
	return s.place
}

// spline is the second derivatives of the natural cubic spline through x at 0, 1,
// 2 … (Press et al., Numerical Recipes, 3rd ed., 3.3). The factors of the sweep are
// those of any x, and reach their limit within settled steps.
func (s *Stage) spline(x []float64) []float64 {
	const settled = 32
	n := len(x)
	s.bend = sized(s.bend, n)
	bend := s.bend
	var factors [settled]float64
	for i := 1; i < settled; i++ {
		factors[i] = 1 / (4 - factors[i-1])
	}
	bend[0], bend[n-1] = 0, 0
	before := 0.0
	for i := 1; i < n-1; i++ {
		before = (6*(x[i+1]-2*x[i]+x[i-1]) - before) * factors[min(i, settled-1)]
		bend[i] = before
	}
	after := 0.0
	for i := n - 2; i > 0; i-- {
		after = bend[i] - factors[min(i, settled-1)]*after
		bend[i] = after
	}
	return bend
}

// sized is a slice of n numbers, of the same memory if that is enough.
func sized(x []float64, n int) []float64 {
	if cap(x) < n {
		return make([]float64, n)
	}
	return x[:n]
}
