package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// everything is what equality is judged by.
func (l *lake) everything() map[string][]string {
	return map[string][]string{
		tableBronze:  l.table(tableBronze, "path, event_time, value, edge, boot, stream, n, i, kafka_topic, kafka_partition, kafka_offset, shard"),
		tableSilver:  l.table(tableSilver, "path, event_time, alive_at, value, edge, boot, stream, n, i, shard"),
		tableWindows: l.table(tableWindows, "path, window_start, mean, min, max, last, count, coverage, shard"),
		tableState:   l.table(tableState, "path, event_time, value, shard"),
	}
}

// rounds sends readings of some assets, a bit out of order, in commits of their own.
func (l *lake) rounds(r *running, e *edge, from, to int) {
	l.t.Helper()
	for k := from; k < to; k++ {
		for a := range 3 {
			when := day + signal.Micros(k)*7e6 - signal.Micros(k%5)*20e6
			l.spine.send(e.message(signal.NewAsset("s", "l", fmt.Sprint("a", a)), at("x", when, float64(k*10+a)), at("y", when+1e6, float64(k))))
		}
		l.drain(r)
	}
}

// Small files become large ones; no table holds other rows, followers read nothing
// twice, and what comes after it is as it would have been.
func TestCompactionChangesNothing(t *testing.T) {
	want := func() map[string][]string {
		l := newLake(t, 2)
		l.spine.now = day + 3600e6
		r := l.start(nil)
		l.rounds(r, newEdge("s/e", "b"), 0, 10)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		return l.everything()
	}()
	l := newLake(t, 2)
	l.spine.now = day + 3600e6
	e := newEdge("s/e", "b")
	r := l.start(nil)
	l.rounds(r, e, 0, 6)
	before := l.everything()
	s, err := r.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files := 0
	for name, table := range r.tables {
		giveBack, err := r.Turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		old, version := len(table.Last().Files()), table.Last().Version()
		c, err := Compact(t.Context(), s, table, name, 2, nil)
		giveBack()
		if err != nil {
			t.Fatal(err)
		}
		now := table.Last()
		if len(now.Files()) != old-c.Files+c.Into || c.Files > 0 && now.Version() != version+int64(c.Into) {
			t.Errorf("%s: %d files of %d became %d at version %d, %d are there", name, c.Files, old, c.Into, now.Version(), len(now.Files()))
		}
		files += c.Files
		if again, err := Compact(t.Context(), s, table, name, 2, nil); err != nil || again.Files != 0 {
			t.Errorf("%s: a second time %+v, %v", name, again, err)
		}
	}
	if files < 12 {
		t.Fatalf("only %d files were small", files)
	}
	if diff := cmp.Diff(before, l.everything()); diff != "" {
		t.Errorf("after compaction: %s", diff)
	}
	for name, table := range r.tables {
		if v, err := table.Checkpoint(t.Context(), 0); err != nil || v != table.Last().Version() {
			t.Errorf("%s: checkpoint %d, %v", name, v, err)
		}
	}
	l.rounds(r, e, 6, 8)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	// Files that nobody names any more go; a new worker reads the rest.
	for name := range r.tables {
		table, err := delta.Open(t.Context(), tableDir(l.dir, name), delta.Options{Now: func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := table.Vacuum(t.Context(), time.Hour, false, false); err == nil {
			t.Errorf("%s: vacuum within the hour was not refused", name)
		}
		gone, err := table.Vacuum(t.Context(), delta.MinVacuum, false, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range gone {
			if _, live := table.Last().File(path); live {
				t.Errorf("%s: %s went and is live", name, path)
			}
		}
		for _, f := range table.Last().Files() {
			if _, err := os.Stat(filepath.Join(table.Dir(), filepath.FromSlash(f.Path))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	r = l.start(nil)
	l.rounds(r, e, 8, 10)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.everything()); diff != "" {
		t.Errorf("beside a lake that was never compacted: %s", diff)
	}
}

// A commit that takes the small files away itself wins.
func TestCompactionGivesWay(t *testing.T) {
	l := newLake(t, 2)
	l.spine.now = day + 3600e6
	r := l.start(nil)
	l.rounds(r, newEdge("s/e", "b"), 0, 3)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	s, err := r.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	table := r.tables[tableBronze]
	snap := table.Last()
	groups := smallGroups(snap, 1, func(map[string]string) bool { return true })
	if len(groups) != 1 {
		t.Fatalf("%d partitions with small files", len(groups))
	}
	theirs := delta.Commit{ReadVersion: snap.Version(), Operation: "OPTIMIZE", Rearranges: true, Removes: []string{groups[0].files[0].Path}}
	if _, err := table.Commit(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(table.Dir(), "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compactGroup(t.Context(), s, table, snap, groups[0]); !errors.Is(err, delta.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if now, _ := filepath.Glob(filepath.Join(table.Dir(), "*.parquet")); len(now) != len(files) {
		t.Errorf("%d files before, %d after", len(files), len(now))
	}
}
