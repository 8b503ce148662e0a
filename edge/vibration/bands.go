package vibration

import (
	"fmt"
	"math"
)

// Band is one whose RMS is a feature, ".band." and its name: from and to either
// in Hz or in multiples of the shaft's frequency. Bands side by side add up to
// the band over both.
type Band struct {
	Name   string    `yaml:"name" json:"name"`
	Hz     []float64 `yaml:"hz" json:"hz,omitempty"`
	Orders []float64 `yaml:"orders" json:"orders,omitempty"`
}

const (
	maxBands    = 100
	maxNameSize = 64
	maxHz       = 1e9
)

func checkBands(bands []Band) error {
	if len(bands) > maxBands {
		return fmt.Errorf("%d bands; want at most %d", len(bands), maxBands)
	}
	seen := map[string]bool{}
	for _, b := range bands {
		if !plainName(b.Name) {
			return fmt.Errorf("band %q: a name is made of letters, digits and _", b.Name)
		}
		if seen[b.Name] {
			return fmt.Errorf("band %q is there twice", b.Name)
		}
		seen[b.Name] = true
		edges, unit := b.Hz, "hz"
		if edges == nil {
			edges, unit = b.Orders, "orders"
		}
		if b.Hz != nil && b.Orders != nil || len(edges) != 2 {
			return fmt.Errorf("band %s: give either hz or orders, as [from, to]", b.Name)
		}
		if !(edges[0] >= 0 && edges[1] > edges[0] && edges[1] <= maxHz) {
			return fmt.Errorf("band %s: %s are %v to %v; want 0 <= from < to", b.Name, unit, edges[0], edges[1])
		}
	}
	return nil
}

func plainName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxNameSize
}

// bandPlan is a band as it is computed.
type bandPlan struct {
	name      string
	low, high float64
	orders    bool
	clip      bool // to half the sampling rate; else a band above it has no value
}

func shippedBands() []bandPlan {
	return []bandPlan{
		{name: "1x", low: 0.8, high: 1.2, orders: true, clip: true},
		{name: "2x", low: 1.8, high: 2.2, orders: true, clip: true},
		{name: "low", low: 10, high: 1000, clip: true},
		{name: "mid", low: 1000, high: 3000, clip: true},
		{name: "high", low: 3000, high: 6000, clip: true},
	}
}

// bands are a rule's: the shipped ones first.
func (r *Rule) bands() []bandPlan {
	var out []bandPlan
	if !r.BandsOnly {
		out = shippedBands()
	}
next:
	for _, b := range r.Bands {
		p := bandPlan{name: b.Name}
		if b.Hz != nil {
			p.low, p.high = b.Hz[0], b.Hz[1]
		} else {
			p.low, p.high, p.orders = b.Orders[0], b.Orders[1], true
		}
		for i := range out {
			if out[i].name == p.name {
				out[i] = p
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// band adds up the lines of [low, high]; lines are step apart. A line stands for
// what lies half a step to each side; one over an edge counts with the part that
// lies inside, so that bands side by side add up.
func band(lines []float64, step, low, high float64) float64 {
	last := len(lines) - 1
	// Positions in lines, moved by half a one: line k is from k to k+1.
	a, b := max(low/step+0.5, 0), min(high/step+0.5, float64(last+1))
	if !(b > a) {
		return 0
	}
	first, end := int(math.Floor(a)), int(math.Floor(b))
	if first == end {
		return (b - a) * lines[first]
	}
	sum := (float64(first+1) - a) * lines[first]
	for _, v := range lines[first+1 : end] {
		sum += v
	}
	if end <= last {
		sum += (b - float64(end)) * lines[end]
	}
	return sum
}
