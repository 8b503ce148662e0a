package registry

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// points is the model's time: day 0 to 7; the validity of a row is a run of them.
const points = 8

// timelineModel says, per path and day, which owner holds ("-": none).
type timelineModel map[signal.Path][points]string

func instant(day int) signal.Micros {
	switch day {
	case 0:
		return signal.MinTime
	case points:
		return signal.MaxTime
	}
	return signal.MicrosOf(start.AddDate(0, 0, day))
}

// expand reads a version pointwise and refuses two rows at one point.
func expand(t *rapid.T, sensors []signal.SensorMeta) timelineModel {
	m := timelineModel{}
	for _, s := range sensors {
		at := m[s.Path]
		for day := range points {
			if s.ValidFrom <= instant(day) && instant(day) < s.ValidTo {
				if at[day] != "" {
					t.Fatalf("%s: two rows on day %d", s.Path, day)
				}
				at[day] = "owner " + s.Owner
			}
		}
		m[s.Path] = at
	}
	return m
}

// TestBitemporalRules compares the registry with a log that is replayed day by
// day: what was known at each version stays readable, validity never overlaps,
// a version is made exactly when something changes.
func TestBitemporalRules(t *testing.T) {
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		file := filepath.Join(dir, fmt.Sprint(runs, ".db"))
		defer os.Remove(file)
		r, err := Open(t.Context(), file, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		known := map[int64]timelineModel{1: {}} // by version
		last := int64(1)
		paths := []signal.Path{"s/l/a/x", "s/l/a/y", "s/l/b/x"}

		for range rapid.IntRange(1, 8).Draw(rt, "changes") {
			want := maps.Clone(known[last])
			op := rapid.SampledFrom([]string{"add", "correct", "replace", "ensure"}).Draw(rt, "op")
			p := rapid.SampledFrom(paths).Draw(rt, "path")
			from := rapid.IntRange(0, points-1).Draw(rt, "from")
			to := rapid.IntRange(from+1, points).Draw(rt, "to")
			owner := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "owner")
			ch := Change{Sensors: []signal.SensorMeta{{Path: p, MinPossible: math.Inf(-1), MaxPossible: math.Inf(1), Owner: owner, ValidFrom: instant(from), ValidTo: instant(to)}}}

			at, registered := want[p]
			refused := false
			if op == "replace" {
				at = [points]string{}
			}
			if op == "ensure" {
				from, to, owner = 0, points, ""
			}
			if op != "ensure" || !registered {
				for day := from; day < to; day++ {
					refused = refused || op == "add" && at[day] != ""
					at[day] = "owner " + owner
				}
			}
			if !refused {
				want[p] = at
			}

			var v int64
			switch op {
			case "add":
				v, err = r.Add(t.Context(), ch)
			case "correct":
				v, err = r.Correct(t.Context(), ch)
			case "replace":
				v, err = r.apply(t.Context(), replace, ch)
			case "ensure":
				if err = r.Ensure(t.Context(), []signal.Path{p}); err == nil {
					v, err = r.Version(t.Context())
				}
			}
			var overlap *OverlapError
			if refused != errors.As(err, &overlap) || err != nil && !refused {
				rt.Fatalf("%s: refused %v, want %v", op, err, refused)
			}
			if refused {
				if v, err = r.Version(t.Context()); err != nil {
					rt.Fatal(err)
				}
			}
			step := last
			if !cmp.Equal(known[last], want) {
				step++
			}
			if v != step {
				rt.Fatalf("%s of %s led from version %d to %d, want %d", op, p, last, v, step)
			}
			last = v
			known[v] = want
		}
		for v := int64(1); v <= last; v++ {
			assets, sensors, err := r.Rows(t.Context(), v)
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(known[v], expand(rt, sensors)); d != "" {
				rt.Fatalf("version %d of %d: %s", v, last, d)
			}
			for _, s := range sensors {
				found := false
				for _, a := range assets {
					found = found || a.Asset == s.Path.Asset()
				}
				if !found {
					rt.Fatalf("version %d: %s has no asset", v, s.Path)
				}
			}
		}
	})
}
