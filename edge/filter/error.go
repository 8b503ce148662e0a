package filter

import (
	"math"

	"github.com/headrace/headrace/signal"
)

// Error is the largest difference between a value measured and what the far end
// makes of the values sent, by bands, since units differ.
type Error struct {
	Path  signal.Path `json:"path"`
	Unit  string      `json:"unit"`
	Value float64     `json:"value"` // in Unit
	Bands float64     `json:"bands"` // Value / the sensor's band; 0 without one
}

// Worst is the largest one since the filter was opened.
func (f *Filter) Worst() Error { return f.worst }

// err notes what a reading that is not sent differs by from what is shown.
func (f *Filter) err(key sensor, l *last, r *signal.Reading, shown float64) {
	if r.Value.Kind == signal.Number {
		f.note(key, l, r.Value.Number-shown)
	}
}

// line notes how far the samples since the last value sent are from the line
// that ends at p.
func (f *Filter) line(key sensor, l *last, p *signal.Reading) {
	slope := (p.Value.Number - l.sent.Value.Number) / float64(p.EventTime-l.sent.EventTime)
	for _, s := range l.door.skipped {
		if s.at < p.EventTime {
			f.note(key, l, s.value-l.sent.Value.Number-slope*float64(s.at-l.sent.EventTime))
		}
	}
}

func (f *Filter) note(key sensor, l *last, d float64) {
	d = math.Abs(d)
	bands := 0.0
	if l.band > 0 {
		bands = d / l.band
	}
	if bands > f.worst.Bands || bands == f.worst.Bands && d > f.worst.Value {
		f.worst = Error{Path: key.asset.Sensor(key.name), Unit: l.sent.Unit, Value: d, Bands: bands}
	}
}
