package delta

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestLogAgainstModel commits random adds, removes and transaction steps
// through two Tables and compares every version with a model.
func TestLogAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		ctx := t.Context()
		one, err := Create(ctx, dir, definition(), Options{})
		if err != nil {
			rt.Fatal(err)
		}
		two, err := Open(ctx, dir, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		type state struct {
			files map[string]bool
			txns  map[string]int64
		}
		versions := []state{{map[string]bool{}, map[string]int64{}}}
		for step := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			last := versions[len(versions)-1]
			next := state{maps.Clone(last.files), maps.Clone(last.txns)}
			c := Commit{ReadVersion: Latest, Operation: "WRITE", Rearranges: rapid.Bool().Draw(rt, "rearranges")}
			for i := range rapid.IntRange(0, 3).Draw(rt, "adds") {
				// Names in no order, so that merging is put to work.
				name := fmt.Sprintf("%c-%d-%d.parquet", 'a'+rune(rapid.IntRange(0, 25).Draw(rt, "letter")), step, i)
				c.Adds = append(c.Adds, file(t, dir, name))
				next.files[name] = true
			}
			for _, p := range slices.Sorted(maps.Keys(last.files)) {
				if rapid.IntRange(0, 3).Draw(rt, "remove") == 0 {
					c.Removes = append(c.Removes, p)
					delete(next.files, p)
				}
			}
			for _, app := range []string{"x", "y", "z"} {
				if rapid.Bool().Draw(rt, app) {
					from := last.txns[app]
					to := from + rapid.Int64Range(1, 9).Draw(rt, "step")
					c.Txns = append(c.Txns, TxnStep{app, from, to})
					next.txns[app] = to
				}
			}
			table := one
			if rapid.Bool().Draw(rt, "writer") {
				table = two
			}
			v, err := table.Commit(ctx, c)
			if len(c.Adds)+len(c.Removes)+len(c.Txns) == 0 {
				if err == nil {
					rt.Fatal("an empty commit was taken")
				}
				continue
			}
			if err != nil || v != int64(len(versions)) {
				rt.Fatalf("version %d, %v; want %d", v, err, len(versions))
			}
			versions = append(versions, next)
			if rapid.IntRange(0, 2).Draw(rt, "checkpoint") == 0 {
				if at, err := table.Checkpoint(ctx, 0); err != nil || at != v {
					rt.Fatalf("checkpoint of version %d, %v; want %d", at, err, v)
				}
			}
		}
		check := func(s *Snapshot, err error) {
			if err != nil {
				rt.Fatal(err)
			}
			want := versions[s.Version()]
			if diff := cmp.Diff(slices.Sorted(maps.Keys(want.files)), paths(s)); diff != "" && len(want.files)+len(s.Files()) > 0 {
				rt.Fatalf("files at version %d: %s", s.Version(), diff)
			}
			if !maps.Equal(want.txns, s.Txns()) {
				rt.Fatalf("txns at version %d: %v, want %v", s.Version(), s.Txns(), want.txns)
			}
		}
		for v := range versions {
			check(one.SnapshotAt(ctx, int64(v)))
		}
		check(one.Refresh(ctx))
		check(two.Refresh(ctx))
		if one.Last().Version() != int64(len(versions)-1) {
			rt.Fatalf("newest is %d", one.Last().Version())
		}
		// Who comes new begins at a checkpoint; the log before it may be gone.
		first := int64(0)
		if rapid.Bool().Draw(rt, "clean") {
			if _, err := two.CleanLog(ctx, -time.Hour, int64(len(versions))); err != nil {
				rt.Fatal(err)
			}
			found, err := listLog(dir)
			if err != nil {
				rt.Fatal(err)
			}
			if len(found.classic) > 0 {
				first = found.classic[0]
			}
		}
		three, err := Open(ctx, dir, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		check(three.Last(), nil)
		for v := range versions {
			s, err := three.SnapshotAt(ctx, int64(v))
			if int64(v) < first {
				if !errors.Is(err, ErrNoVersion) {
					rt.Fatalf("version %d, which was cleaned away: %v", v, err)
				}
				continue
			}
			check(s, err)
		}
		if temps, _ := filepath.Glob(filepath.Join(dir, logDir, ".*.tmp")); len(temps) > 0 {
			rt.Fatalf("left %v", temps)
		}
	})
}
