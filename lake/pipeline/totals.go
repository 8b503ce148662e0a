package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// EdgeTally is what silver left out or found late of one edge's readings, as
// its commits tell it. What it kept and quarantined is in the tables.
type EdgeTally struct {
	Dropped    int64 `json:"dropped,omitempty"`
	Duplicates int64 `json:"duplicates,omitempty"`
	Late       int64 `json:"late,omitempty"`
}

func (e EdgeTally) plus(o EdgeTally) EdgeTally {
	return EdgeTally{e.Dropped + o.Dropped, e.Duplicates + o.Duplicates, e.Late + o.Late}
}

// Tally sums the counts of all silver commits by edge ("group/edge node") in
// the lake at dir. A lake without silver has none.
func Tally(ctx context.Context, dir string) (map[string]EdgeTally, error) {
	out := make(map[string]EdgeTally)
	t, err := delta.Open(ctx, tableDir(dir, tableSilver), delta.Options{})
	if err != nil {
		return nil, fmt.Errorf("adding up the counts of %s: %w", tableSilver, err)
	}
	err = eachCommit(ctx, t, func(v delta.Version) error {
		text := v.Info.Parameters["edges"]
		if text == "" {
			return nil
		}
		var edges map[string]EdgeTally
		if err := json.Unmarshal([]byte(text), &edges); err != nil {
			return fmt.Errorf("reading the counts in version %d of %s: %w", v.Version, tableSilver, err)
		}
		for edge, e := range edges {
			out[edge] = out[edge].plus(e)
		}
		return nil
	})
	return out, err
}

func eachCommit(ctx context.Context, t *delta.Table, fn func(delta.Version) error) error {
	const stride = 256
	for from := int64(0); from < t.Last().Version(); from += stride {
		changes, err := t.Changes(ctx, from, min(from+stride, t.Last().Version()))
		if err != nil {
			return fmt.Errorf("adding up the counts of %s: %w", t.Dir(), err)
		}
		for _, v := range changes {
			if err := fn(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// totals are the counters that the tables do not hold: of the lake's life where
// commits tell them, else of this process.
type totals struct {
	mu               sync.Mutex
	repeats, skipped int64
	rawRepeats       int64
	edges            EdgeTally
	rules            map[string]int64
	changedWindows   int64
	files            int64            // that compaction has replaced
	commits          map[string]int64 // by station
}

func (t *totals) load(ctx context.Context, w *Worker) error {
	t.rules, t.commits = make(map[string]int64), make(map[string]int64)
	edges, err := Tally(ctx, w.Dir)
	if err != nil {
		return err
	}
	for _, e := range edges {
		t.edges = t.edges.plus(e)
	}
	return nil
}

func (t *totals) bronze(kind spineTable, n tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kind.name == tableRaw {
		t.commits["raw"]++
		t.rawRepeats += n.repeats
		return
	}
	t.repeats += n.repeats
	t.skipped += n.skipped
	t.commits["bronze"]++
}

func (t *totals) silver(r *result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.edges = t.edges.plus(EdgeTally{r.dropped, r.duplicates, r.late})
	for rule, n := range r.rules {
		t.rules[rule] += n
	}
	t.commits["silver"]++
}

func (t *totals) gold(windows int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changedWindows += windows
	t.commits["gold"]++
}

func (t *totals) compacted(c Compacted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files += int64(c.Files)
}

// Counters are the figures of the stations bronze, silver and gold. Rows are
// those of the tables, whoever wrote them.
func (w *Worker) Counters() []signal.Counter {
	var out []signal.Counter
	add := func(station, name string, v int64) {
		out = append(out, signal.Counter{Station: station, Name: name, Value: v})
	}
	rows := func(table string) int64 {
		n, _ := w.tables[table].Last().Rows()
		return n
	}
	t := &w.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	add("bronze", "rows", rows(tableBronze))
	add("bronze", "repeats", t.repeats)
	add("bronze", "not_readings", t.skipped)
	add("bronze", "commits", t.commits["bronze"])
	add("bronze", "version_now", w.tables[tableBronze].Last().Version())
	add("bronze", "raw_blocks", rows(tableRaw))
	add("bronze", "raw_repeats", t.rawRepeats)
	add("bronze", "raw_commits", t.commits["raw"])
	add("silver", "rows", rows(tableSilver))
	add("silver", "quarantined", rows(tableQuarantine))
	add("silver", "dropped", t.edges.Dropped)
	add("silver", "duplicates", t.edges.Duplicates)
	add("silver", "late", t.edges.Late)
	for _, rule := range slices.Sorted(maps.Keys(t.rules)) {
		add("silver", "failed_"+rule, t.rules[rule])
	}
	add("silver", "commits", t.commits["silver"])
	add("gold", "files_compacted", t.files)
	add("gold", "windows", rows(tableWindows))
	add("gold", "windows_written", t.changedWindows)
	add("gold", "commits", t.commits["gold"])
	for _, f := range w.followers {
		_, table, _ := strings.Cut(f.name, ".")
		station, _, _ := strings.Cut(f.name, ".")
		add(station, table+"_lag_now", f.lag())
	}
	return out
}

// lag is how many source versions the shard that is furthest behind lacks.
func (f *follower) lag() int64 {
	last := len(f.tables) - 1
	snap, to := f.tables[last].Last(), f.source.Last().Version()
	var lag int64
	for _, s := range f.w.heldShards() {
		lag = max(lag, to-max(snap.Txn(f.appID(last, s)), f.idleAt(s)))
	}
	return lag
}
