// Package state is the live twin in memory: per sensor the newest checked
// value, and who wants to hear of changes.
//
// It is told rows in any order and ends in the same state. It is not a history
// and not an authority: it is rebuilt from the lake at each start.
package state

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unique"

	"github.com/headrace/headrace/signal"
)

// Row is one checked reading with the frozen identity that orders it.
type Row struct {
	Path      signal.Path
	EventTime signal.Micros
	AliveAt   signal.Micros
	Value     signal.Value
	Unit      string
	Quality   signal.Quality
	Good      bool
	Edge      string
	Boot      string
	Stream    string
	N         uint64
	I         int // index in the message
}

// Compare orders two rows of one path, as every table does: by event time,
// proof of life, edge, boot, stream, message and place in it.
func Compare(a, b Row) int {
	return cmp.Or(
		cmp.Compare(a.EventTime, b.EventTime),
		cmp.Compare(a.AliveAt, b.AliveAt),
		strings.Compare(a.Edge, b.Edge),
		strings.Compare(a.Boot, b.Boot),
		strings.Compare(a.Stream, b.Stream),
		cmp.Compare(a.N, b.N),
		cmp.Compare(a.I, b.I),
	)
}

// entry is a Row as it is kept: what many rows share is stored once.
type entry struct {
	path                     signal.Path
	event, alive             signal.Micros
	value                    signal.Value
	unit, edge, boot, stream unique.Handle[string]
	n                        uint64
	i                        int
	quality                  signal.Quality
	good                     bool
}

func (e *entry) row() Row {
	return Row{
		Path: e.path, EventTime: e.event, AliveAt: e.alive, Value: e.value, Unit: e.unit.Value(),
		Quality: e.quality, Good: e.good,
		Edge: e.edge.Value(), Boot: e.boot.Value(), Stream: e.stream.Value(), N: e.n, I: e.i,
	}
}

func (e *entry) set(r *Row) {
	e.event, e.alive, e.value, e.n, e.i, e.quality, e.good = r.EventTime, r.AliveAt, r.Value, r.N, r.I, r.Quality, r.Good
	share(&e.unit, r.Unit)
	share(&e.edge, r.Edge)
	share(&e.boot, r.Boot)
	share(&e.stream, r.Stream)
}

// share keeps the handle that is there where it says the same: nearly always.
func share(h *unique.Handle[string], s string) {
	if *h == (unique.Handle[string]{}) || h.Value() != s {
		*h = unique.Make(s)
	}
}

const (
	slabSize  = 1024 // entries are kept in slabs: growing never copies them
	applySize = 512  // rows applied under one lock, so that readers get their turn
)

// Twin is the newest row of each sensor. It is safe for concurrent use.
type Twin struct {
	mu      sync.RWMutex
	slabs   []*[slabSize]entry
	index   map[signal.Path]int32
	byAsset map[signal.Asset][]int32
	subs    []*Subscription
}

// New returns an empty twin.
func New() *Twin {
	return &Twin{index: map[signal.Path]int32{}, byAsset: map[signal.Asset][]int32{}}
}

func (t *Twin) at(k int32) *entry { return &t.slabs[k/slabSize][k%slabSize] }

// Apply takes rows in any order, with repeats, and keeps per path the newest.
// It never waits for a subscriber.
func (t *Twin) Apply(rows []Row) {
	changed := make([]int32, 0, min(len(rows), applySize))
	for chunk := range slices.Chunk(rows, applySize) {
		changed = t.apply(chunk, changed[:0])
	}
}

func (t *Twin) apply(rows []Row, changed []int32) []int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range rows {
		r := &rows[n]
		k, known := t.index[r.Path]
		if !known {
			k = t.add(r.Path)
		} else if e := t.at(k); r.EventTime < e.event || r.EventTime == e.event && Compare(*r, e.row()) <= 0 {
			continue
		}
		t.at(k).set(r)
		changed = append(changed, k)
	}
	for _, s := range t.subs {
		s.mark(t, changed)
	}
	return changed
}

func (t *Twin) add(path signal.Path) int32 {
	path = signal.Path(strings.Clone(string(path))) // the caller's may be a part of something big
	k := int32(len(t.index))
	if int(k) == len(t.slabs)*slabSize {
		t.slabs = append(t.slabs, new([slabSize]entry))
	}
	t.at(k).path = path
	t.index[path] = k
	a := path.Asset()
	t.byAsset[a] = append(t.byAsset[a], k)
	return k
}

// Len is the number of sensors that have a value.
func (t *Twin) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.index)
}

// Get returns the newest row of a sensor.
func (t *Twin) Get(path signal.Path) (Row, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	k, ok := t.index[path]
	if !ok {
		return Row{}, false
	}
	return t.at(k).row(), true
}

// OfAsset returns the newest rows of an asset's sensors, sorted by path.
func (t *Twin) OfAsset(a signal.Asset) []Row {
	t.mu.RLock()
	rows := make([]Row, 0, len(t.byAsset[a]))
	for _, k := range t.byAsset[a] {
		rows = append(rows, t.at(k).row())
	}
	t.mu.RUnlock()
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Path, b.Path) })
	return rows
}

// Assets returns the assets that have a value, sorted.
func (t *Twin) Assets() []signal.Asset {
	t.mu.RLock()
	assets := make([]signal.Asset, 0, len(t.byAsset))
	for a := range t.byAsset {
		assets = append(assets, a)
	}
	t.mu.RUnlock()
	slices.Sort(assets)
	return assets
}
