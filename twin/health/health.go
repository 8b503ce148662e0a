// Package health tells a sensor's fault from a machine's: a sensor that shows
// one value for too long (stuck), that has gone silent while others of its asset
// speak (dead), or that says what cannot be (impossible).
//
// All of it is in event time: an edge without network makes nobody dead, and
// what comes late changes what was found only if it belongs there. Silence
// counts only as far as the sender promises that nothing of it is outstanding.
// It reads no table and raises no work order.
package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/headrace/headrace/signal"
)

// The kinds of faults.
const (
	Stuck      = "stuck"
	Dead       = "dead"
	Impossible = "impossible"
)

// Row is what the monitor needs of a row of silver.
type Row struct {
	Path               signal.Path
	EventTime, AliveAt signal.Micros
	Value              signal.Value
	// Stream is the one that the row came in, and CompleteTo its sender's promise
	// that nothing of it before that time is outstanding; 0 without a promise.
	Stream     signal.Stream
	CompleteTo signal.Micros
}

// Refused is a row that silver refused because its value cannot be.
type Refused struct {
	Path               signal.Path
	EventTime, AliveAt signal.Micros
	Value              float64
}

// Finding is a fault of a sensor.
type Finding struct {
	Path     signal.Path
	Kind     string
	Since    signal.Micros // when it began
	Until    signal.Micros // when it ended; 0 if it has not
	Detected signal.Micros // the time up to which its stream was known when it was clear
	Evidence string
	Owner    string
}

// Lookup is the registry's word on a sensor at a time.
type Lookup func(signal.Path, signal.Micros) (signal.SensorMeta, bool)

// Monitor follows rows as they come. It is not safe for concurrent use.
type Monitor struct {
	lookup Lookup
	assets map[signal.Asset]*asset
	closed []Finding
}

type asset struct {
	streams map[signal.Stream]signal.Micros // how far each is complete
	sensors map[string]*sensor
}

// lateness is how far behind its newest row a stream without a promise is taken
// to be complete.
const lateness = signal.Micros(60_000_000)

// reach moves a stream's completeness on.
func (a *asset) reach(r *Row) {
	to := r.CompleteTo
	if to == 0 {
		to = r.AliveAt - lateness
	}
	a.streams[r.Stream] = max(a.streams[r.Stream], to)
}

type sensor struct {
	stream  signal.Stream
	value   signal.Value
	changed signal.Micros // since when it shows the value
	alive   signal.Micros // newest proof of life
	open    map[string]*Finding
}

// New returns a monitor.
func New(lookup Lookup) *Monitor {
	return &Monitor{lookup: lookup, assets: map[signal.Asset]*asset{}}
}

func (m *Monitor) sensor(p signal.Path) (*asset, *sensor) {
	a := m.assets[p.Asset()]
	if a == nil {
		a = &asset{streams: map[signal.Stream]signal.Micros{}, sensors: map[string]*sensor{}}
		m.assets[p.Asset()] = a
	}
	s := a.sensors[p.Sensor()]
	if s == nil {
		s = &sensor{open: map[string]*Finding{}}
		a.sensors[p.Sensor()] = s
	}
	return a, s
}

// Silver takes rows of silver, in any order.
func (m *Monitor) Silver(rows []Row) {
	for i := range rows {
		r := &rows[i]
		a, s := m.sensor(r.Path)
		a.reach(r)
		s.stream = r.Stream
		if r.AliveAt < s.alive {
			continue // late: it says nothing of the present
		}
		if s.alive == 0 || !r.Value.Equal(s.value) {
			s.value, s.changed = r.Value, r.EventTime
		}
		s.alive = r.AliveAt
		if f := s.open[Impossible]; f != nil && r.EventTime > f.Since {
			m.end(s, f, r.EventTime)
		}
	}
}

// Refused takes rows that silver refused for their value.
func (m *Monitor) Refused(rows []Refused) {
	for _, r := range rows {
		_, s := m.sensor(r.Path)
		if r.AliveAt <= s.alive {
			continue // a possible value came after it
		}
		s.alive = r.AliveAt // it speaks, if nonsense
		s.changed, s.value = r.AliveAt, signal.Value{}
		if s.open[Impossible] != nil {
			continue
		}
		meta, _ := m.lookup(r.Path, r.EventTime)
		s.open[Impossible] = &Finding{
			Path: r.Path, Kind: Impossible, Since: r.EventTime, Detected: r.EventTime, Owner: meta.Owner,
			Evidence: fmt.Sprintf("says %.6g %s; possible are %g to %g", r.Value, meta.Unit, meta.MinPossible, meta.MaxPossible),
		}
	}
}

func (m *Monitor) end(s *sensor, f *Finding, at signal.Micros) {
	f.Until = at
	m.closed = append(m.closed, *f)
	delete(s.open, f.Kind)
}

// Findings are the faults as the rows so far show them, sorted by path, kind and
// beginning: those that are open, and those that have ended.
func (m *Monitor) Findings() []Finding {
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(m.assets)) {
		a := m.assets[name]
		for _, sensorName := range slices.Sorted(maps.Keys(a.sensors)) {
			m.judge(name.Sensor(sensorName), a, a.sensors[sensorName])
			for _, f := range a.sensors[sensorName].open {
				out = append(out, *f)
			}
		}
	}
	out = append(out, m.closed...)
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Since, b.Since), cmp.Compare(a.Until, b.Until))
	})
	return out
}

// judge opens and ends what depends on how time goes on.
func (m *Monitor) judge(path signal.Path, a *asset, s *sensor) {
	meta, known := m.lookup(path, s.alive)
	if !known || s.alive == 0 {
		return
	}
	complete := a.streams[s.stream]
	set := func(kind string, is bool, since, ended signal.Micros, evidence string) {
		f := s.open[kind]
		switch {
		case is && f == nil:
			s.open[kind] = &Finding{Path: path, Kind: kind, Since: since, Detected: max(complete, s.alive), Owner: meta.Owner, Evidence: evidence}
		case !is && f != nil:
			m.end(s, f, ended)
		}
	}
	silent := complete - s.alive
	// A state that is said once is not dead: only what is sent over and over can be.
	dead := meta.Kind == "number" && int64(silent) > meta.MaxHoldMicros
	set(Dead, dead, s.alive, s.alive, fmt.Sprintf("says nothing since %s while other sensors of %s do", s.alive.Time().Format("15:04:05"), path.Asset()))
	still := s.alive - s.changed
	stuck := meta.StuckAfterMicros > 0 && int64(still) >= meta.StuckAfterMicros
	set(Stuck, stuck, s.changed, s.changed, fmt.Sprintf("shows %.6g %s since %s and is alive; it usually moves within %g s",
		s.value.Number, meta.Unit, s.changed.Time().Format("15:04:05"), float64(meta.StuckAfterMicros)/1e6))
}

// Faulty tells whether a sensor, or a channel of which the sensor was made, has
// an open fault.
func (m *Monitor) Faulty(path signal.Path) bool {
	a := m.assets[path.Asset()]
	if a == nil {
		return false
	}
	s := a.sensors[path.Sensor()]
	return s != nil && len(s.open) > 0
}
