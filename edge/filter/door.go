package filter

import (
	"math"

	"github.com/headrace/headrace/signal"
)

// maxSkipped bounds what a door remembers; with more between two values sent
// the line ends there.
const maxSkipped = 1024

// door is the state of a swinging door: the slopes, per µs, of lines from the
// last value sent that are no further than the band from each sample since but
// the newest.
//
// The classic door (E. H. Bristol, Swinging door trending, 1990) ends a line at
// a sample that its slopes need not allow, and is then off by up to twice the
// band. This one asks of each sample whether the line to it is allowed.
type door struct {
	low, high float64
	open      bool // low and high bound something
	skipped   []sample
}

// sample is one that was not sent, for the largest error.
type sample struct {
	at    signal.Micros
	value float64
}

func (d *door) reset() { d.open, d.skipped = false, d.skipped[:0] }

// opens tells whether lines make sense between the last value sent and r.
func (d *door) opens(l *last, r *signal.Reading) bool {
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	return r.Value.Kind == signal.Number && r.EventTime > l.sent.EventTime && (!l.hasPrev || r.EventTime > l.prev.EventTime) &&
		finite(r.Value.Number) && finite(l.sent.Value.Number)
}

// narrow has the door allow only lines that pass p within the band.
func (d *door) narrow(from, p *signal.Reading, band float64) {
	dt := float64(p.EventTime - from.EventTime)
	low, high := (p.Value.Number-band-from.Value.Number)/dt, (p.Value.Number+band-from.Value.Number)/dt
	if d.open {
		low, high = max(low, d.low), min(high, d.high)
	}
	d.low, d.high, d.open = low, high, true
}

// allows tells whether the line to r is one of the door's.
func (d *door) allows(from, r *signal.Reading) bool {
	slope := (r.Value.Number - from.Value.Number) / float64(r.EventTime-from.EventTime)
	return !d.open || slope >= d.low && slope <= d.high
}

// swing takes a reading of a sensor whose sent values are ends of lines.
func (f *Filter) swing(out []signal.Reading, key sensor, l *last, r *signal.Reading, t *Tally) ([]signal.Reading, Verdict) {
	d := &l.door
	if l.hasPrev {
		d.narrow(&l.sent, &l.prev, l.band)
		d.skipped = append(d.skipped, sample{l.prev.EventTime, l.prev.Value.Number})
	}
	now := max(r.EventTime, r.AliveAt)
	if !d.allows(&l.sent, r) || len(d.skipped) >= maxSkipped {
		// The line ends where it was last allowed, and a new one begins there.
		p := l.prev
		out = l.addPrevious(out, t, f, key)
		l.send(&p, max(p.EventTime, p.AliveAt))
	}
	if now-l.alive < l.beat {
		l.prev, l.hasPrev, l.seen = *r, true, now
		t.Filtered++
		return out, Verdict{false, l.band}
	}
	f.line(key, l, r)
	l.send(r, now)
	return append(out, *r), Verdict{true, l.band}
}
