package filter

import (
	"fmt"
	"math"

	"github.com/headrace/headrace/signal"
)

// Tally counts readings.
type Tally struct {
	Filtered uint64 // held back
	Held     uint64 // added: heartbeats, and readings that were held back before
}

// Verdict is what became of a reading.
type Verdict struct {
	Sent bool
	Band float64 // in the reading's unit, 0 without one
}

// Filter runs a set over the readings of one edge. It is not safe for
// concurrent use.
type Filter struct {
	set   *Set
	paths map[sensor]*last
	worst Error
}

type sensor struct {
	asset signal.Asset
	name  string
}

// last is what is remembered of one sensor.
type last struct {
	sent  signal.Reading // the last one let through, or added to as a heartbeat
	alive signal.Micros  // its last proof of life that was sent
	seen  signal.Micros  // newest time seen
	// prev is the newest reading held back since, if the rule may want it.
	prev    signal.Reading
	hasPrev bool
	door    door

	// What the rule says of readings in sent's unit.
	band             float64
	swings, previous bool
	least, beat      signal.Micros
}

// Open starts a filter where another of the same set stopped. After a change
// of the set the state is of no use: every sensor's next reading is sent.
func (s *Set) Open(state []byte) (*Filter, error) {
	f := &Filter{set: s, paths: map[sensor]*last{}}
	if err := f.restore(state); err != nil {
		return nil, fmt.Errorf("opening filter set %q: reading its state: %w", s.cfg.Name, err)
	}
	return f, nil
}

// ruled looks the rule up again where the unit has changed.
func (l *last) ruled(s *Set, sensor, unit string) {
	*l = last{sent: l.sent, alive: l.alive, seen: l.seen, beat: s.heartbeat, door: door{skipped: l.door.skipped[:0]}}
	r := s.rule(sensor, unit)
	if r == nil {
		return
	}
	l.band, l.swings, l.previous = r.band(), r.Method == SwingingDoor, r.Previous
	l.least = signal.Micros(r.MinIntervalSeconds * 1e6)
	if r.MaxIntervalSeconds > 0 {
		l.beat = signal.Micros(r.MaxIntervalSeconds * 1e6)
	}
}

// Apply appends to out what is to be sent of one reading: nothing, the reading,
// a heartbeat of the one that is held, or the one that was held back before it.
func (f *Filter) Apply(out []signal.Reading, asset signal.Asset, r signal.Reading, t *Tally) ([]signal.Reading, Verdict) {
	if f.set.cfg.PassAll {
		return append(out, r), Verdict{Sent: true}
	}
	now := max(r.EventTime, r.AliveAt)
	key := sensor{asset, r.Sensor}
	l := f.paths[key]
	if l == nil {
		l = &last{}
		l.ruled(f.set, r.Sensor, r.Unit)
		f.paths[key] = l
		l.send(&r, now)
		return append(out, r), Verdict{true, l.band}
	}
	if now < l.seen {
		// Late: it says nothing about the present, and is sent for the record.
		return append(out, r), Verdict{true, l.band}
	}
	l.seen = now
	if l.other(&r) {
		out = l.addPrevious(out, t, f, key)
		if r.Unit != l.sent.Unit {
			l.ruled(f.set, r.Sensor, r.Unit)
		}
		l.send(&r, now)
		return append(out, r), Verdict{true, l.band}
	}
	if l.swings && l.door.opens(l, &r) {
		return f.swing(out, key, l, &r, t)
	}
	if !l.differs(&r) || l.least > 0 && r.EventTime-l.sent.EventTime < l.least {
		f.err(key, l, &r, l.sent.Value.Number)
		t.Filtered++
		if l.previous {
			l.prev, l.hasPrev = r, true
		}
		if now-l.alive < l.beat {
			return out, Verdict{false, l.band}
		}
		l.alive = now
		t.Held++
		beat := l.sent
		beat.AliveAt = now
		return append(out, beat), Verdict{false, l.band}
	}
	out = l.addPrevious(out, t, f, key)
	l.send(&r, now)
	return append(out, r), Verdict{true, l.band}
}

// send remembers a reading that is sent.
func (l *last) send(r *signal.Reading, now signal.Micros) {
	l.sent, l.alive, l.seen, l.hasPrev = *r, now, now, false
	l.door.reset()
}

// addPrevious sends what was held back last and is remembered.
func (l *last) addPrevious(out []signal.Reading, t *Tally, f *Filter, key sensor) []signal.Reading {
	if !l.hasPrev {
		return out
	}
	if l.swings {
		f.line(key, l, &l.prev)
	}
	t.Held++
	return append(out, l.prev)
}

// other tells whether a reading is of another kind than the last one sent, so
// that no band compares them.
func (l *last) other(r *signal.Reading) bool {
	s := &l.sent
	return s.Quality != r.Quality || s.Unit != r.Unit || s.Value.Kind != r.Value.Kind || r.Historical || r.Rescued != "" || s.Rescued != ""
}

// differs tells whether a reading must be sent after the last one that was.
func (l *last) differs(r *signal.Reading) bool {
	s := &l.sent
	if r.Value.Kind != signal.Number || r.Value.Equal(s.Value) {
		return !r.Value.Equal(s.Value)
	}
	d := math.Abs(r.Value.Number - s.Value.Number)
	return !(d <= l.band) // also when one of them is NaN
}
