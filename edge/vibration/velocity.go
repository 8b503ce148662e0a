package vibration

import (
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/headrace/headrace/internal/strictyaml"
)

// Velocity is the RMS velocity in mm/s, made of acceleration: ".velocity". With
// Group and Mounting of the machine it has a zone, ".zone", a text A to D.
type Velocity struct {
	Group    string `yaml:"group" json:"group,omitempty"`
	Mounting string `yaml:"mounting" json:"mounting,omitempty"`
	// Low and High are the band in Hz; 0 and 0 are ISO's: 10 to 1,000, and from 2
	// where the shaft turns at less than 600 rpm.
	Low  float64 `yaml:"low" json:"low,omitempty"`
	High float64 `yaml:"high" json:"high,omitempty"`
}

// ISO 10816-3:2009, 4: the range of frequencies.
const (
	velocityLow     = 10.0   // Hz
	velocitySlowLow = 2.0    // Hz, below slowShaft
	velocityHigh    = 1000.0 // Hz
	slowShaft       = 10.0   // Hz: 600 rpm
)

// standardGravity in mm/s² is 1 [g] exactly (BIPM, The International System of Units).
const standardGravity = 9806.65

// millimetres is the acceleration of one unit in mm/s²; 0 for what is none.
func millimetres(unit string) float64 {
	switch unit {
	case "[g]":
		return standardGravity
	case "m/s2":
		return 1000
	}
	return 0
}

func (v *Velocity) zoned() bool { return v.Group != "" || v.Mounting != "" }

func (v *Velocity) check(unit string, zones *Zones) error {
	if unit != "" && millimetres(unit) == 0 {
		return fmt.Errorf("velocity of a channel in %q; it is made of acceleration in [g] or m/s2 alone", unit)
	}
	if v.Low != 0 || v.High != 0 {
		if !(v.Low > 0 && v.High > v.Low && v.High <= maxHz) {
			return fmt.Errorf("velocity is from %v to %v Hz; want 0 < low < high, or neither", v.Low, v.High)
		}
	}
	if v.zoned() && zones.find(v.Group, v.Mounting) == nil {
		return fmt.Errorf("velocity: the table of zones %q has no group %q mounted %q; it has %s", zones.Version, v.Group, v.Mounting, zones.known())
	}
	return nil
}

// band is from where to where velocity counts at a shaft's frequency, 0 if that
// is not known.
func (v *Velocity) band(shaft float64) (low, high float64) {
	if v.High > 0 {
		return v.Low, v.High
	}
	if shaft > 0 && shaft < slowShaft {
		return velocitySlowLow, velocityHigh
	}
	return velocityLow, velocityHigh
}

// Zones are limits of velocity, mm/s RMS, by machine.
type Zones struct {
	Version  string `yaml:"version" json:"version"`
	Source   string `yaml:"source" json:"source,omitempty"`
	Machines []Zone `yaml:"machines" json:"machines"`
}

// Zone is a machine's: A is up to AB, B up to BC, C up to CD, D above.
type Zone struct {
	Group    string  `yaml:"group" json:"group"`
	Mounting string  `yaml:"mounting" json:"mounting"`
	AB       float64 `yaml:"ab" json:"ab"`
	BC       float64 `yaml:"bc" json:"bc"`
	CD       float64 `yaml:"cd" json:"cd"`
}

//go:embed zones.yaml
var shippedZones []byte

var parseShipped = sync.OnceValue(func() *Zones {
	z := &Zones{}
	if err := strictyaml.Decode("zones.yaml", shippedZones, z); err != nil {
		panic(err) // a constant that tests read
	}
	return z
})

// ShippedZones are the criteria of ISO 10816-3:2009; nobody may change them.
func ShippedZones() *Zones { return parseShipped() }

func (z *Zones) check() error {
	if z.Version == "" {
		return fmt.Errorf("give the table a version")
	}
	for i, m := range z.Machines {
		if m.Group == "" || m.Mounting == "" {
			return fmt.Errorf("machine %d: give group and mounting", i+1)
		}
		if !(m.AB > 0 && m.BC > m.AB && m.CD > m.BC) || math.IsInf(m.CD, 0) {
			return fmt.Errorf("group %s mounted %s: limits are %v, %v, %v; want 0 < ab < bc < cd", m.Group, m.Mounting, m.AB, m.BC, m.CD)
		}
		if slices.ContainsFunc(z.Machines[:i], func(o Zone) bool { return o.Group == m.Group && o.Mounting == m.Mounting }) {
			return fmt.Errorf("group %s mounted %s is there twice", m.Group, m.Mounting)
		}
	}
	return nil
}

func (z *Zones) find(group, mounting string) *Zone {
	for i := range z.Machines {
		if m := &z.Machines[i]; m.Group == group && m.Mounting == mounting {
			return m
		}
	}
	return nil
}

func (z *Zones) known() string {
	var out []string
	for _, m := range z.Machines {
		out = append(out, m.Group+" "+m.Mounting)
	}
	return strings.Join(out, ", ")
}

// Of is the zone of a velocity in mm/s; a limit belongs to the zone below it.
func (z *Zone) Of(velocity float64) string {
	switch {
	case velocity <= z.AB:
		return "A"
	case velocity <= z.BC:
		return "B"
	case velocity <= z.CD:
		return "C"
	}
	return "D"
}

// velocity is the mean square in (mm/s)² of lines of acceleration, unit mm/s² in
// one of theirs: V(f) = A(f) / 2πf, with f a line's middle. Lines over an edge
// count in part, as in band.
func velocity(lines []float64, step, unit, low, high float64) float64 {
	sum := 0.0
	from, to := max(int(math.Floor(low/step+0.5)), 1), min(int(math.Floor(high/step+0.5)), len(lines)-1)
	for k := from; k <= to; k++ {
		part := lines[k] / (float64(k) * float64(k))
		if k == from || k == to {
			inside := min(float64(k)+0.5, high/step) - max(float64(k)-0.5, low/step)
			part *= max(inside, 0)
		}
		sum += part
	}
	w := unit / (2 * math.Pi * step)
	return sum * w * w
}
