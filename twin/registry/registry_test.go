package registry

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/internal/sqlite"
	"github.com/headrace/headrace/signal"
)

// testClock is a plant's clock that tests move.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func (c *testClock) WaitUntil(ctx context.Context, _ time.Time) error { return ctx.Err() }

var start = time.Date(2020, 3, 9, 10, 0, 0, 0, time.UTC)

func open(t *testing.T) (*Registry, *testClock) {
	t.Helper()
	clock := &testClock{at: start}
	r, err := Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, clock
}

func version(t *testing.T, r *Registry) int64 {
	t.Helper()
	v, err := r.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func rows(t *testing.T, r *Registry, v int64) ([]signal.AssetMeta, []signal.SensorMeta) {
	t.Helper()
	a, s, err := r.Rows(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}

func TestEnsureRegistersWhatIsUnknown(t *testing.T) {
	r, clock := open(t)
	if v := version(t, r); v != 1 {
		t.Errorf("a new registry has version %d, want 1", v)
	}
	clock.add(time.Minute)
	paths := []signal.Path{"s/l/a/x", "s/l/a/y", "s/l/a/x", "s/l/a", "s/l/a/#"}
	for range 2 { // the second time changes nothing
		if err := r.Ensure(t.Context(), paths); err != nil {
			t.Fatal(err)
		}
	}
	if v := version(t, r); v != 2 {
		t.Errorf("version %d, want 2", v)
	}
	assets, sensors := rows(t, r, 2)
	always := func(p signal.Path) signal.SensorMeta {
		return signal.SensorMeta{Path: p, MinPossible: math.Inf(-1), MaxPossible: math.Inf(1), Interpolation: "step", MaxHoldMicros: 300e6, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime}
	}
	ids := cmpopts.IgnoreFields(signal.SensorMeta{}, "SensorID")
	if d := cmp.Diff([]signal.SensorMeta{always("s/l/a/x"), always("s/l/a/y")}, sensors, ids); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]signal.AssetMeta{{Asset: "s/l/a", ValidFrom: signal.MinTime, ValidTo: signal.MaxTime}}, assets, cmpopts.IgnoreFields(signal.AssetMeta{}, "AssetID")); d != "" {
		t.Error(d)
	}
	if sensors[0].SensorID == "" || sensors[0].SensorID == sensors[1].SensorID || assets[0].AssetID == "" {
		t.Errorf("ids %q, %q, %q", sensors[0].SensorID, sensors[1].SensorID, assets[0].AssetID)
	}
	got, err := r.Unclaimed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	since := start.Add(time.Minute)
	if d := cmp.Diff([]Unclaimed{{"s/l/a/x", since, 2}, {"s/l/a/y", since, 2}}, got); d != "" {
		t.Error(d)
	}
	// The same plant set up again has the same ids.
	again, _ := open(t)
	if err := again.Ensure(t.Context(), paths); err != nil {
		t.Fatal(err)
	}
	_, twice := rows(t, again, 2)
	if d := cmp.Diff(sensors, twice); d != "" {
		t.Error(d)
	}
}

func TestAReopenedRegistryGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	var want []signal.SensorMeta
	for range 2 {
		r, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Ensure(t.Context(), []signal.Path{"s/l/a/x"}); err != nil {
			t.Fatal(err)
		}
		v := version(t, r)
		_, sensors := rows(t, r, v)
		if v != 2 || want != nil && !cmp.Equal(want, sensors) {
			t.Errorf("version %d, %v", v, sensors)
		}
		want = sensors
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCorrectionKeepsWhatWasKnown(t *testing.T) {
	r, clock := open(t)
	day := func(d int) signal.Micros { return signal.MicrosOf(start.AddDate(0, 0, d)) }
	sensor := signal.SensorMeta{Path: "s/l/a/x", SensorID: "id-1", Unit: "A", MaxPossible: 50, Interpolation: "linear", MaxHoldMicros: 1, Claimed: true}
	one, err := r.Add(t.Context(), Change{Reason: "first", Sensors: []signal.SensorMeta{sensor}})
	if err != nil {
		t.Fatal(err)
	}
	clock.add(time.Hour)
	fixed := sensor
	fixed.SensorID = "" // keeps the id of the path
	fixed.Unit, fixed.ValidFrom, fixed.ValidTo = "mA", day(1), day(3)
	two, err := r.Correct(t.Context(), Change{Reason: "wrong unit", Sensors: []signal.SensorMeta{fixed}})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := r.Correct(t.Context(), Change{Sensors: []signal.SensorMeta{fixed}}); err != nil || same != two {
		t.Errorf("the same correction again made version %d (%v), want %d", same, err, two)
	}
	type span struct {
		Unit     string
		From, To signal.Micros
	}
	spans := func(v int64) (out []span) {
		_, sensors := rows(t, r, v)
		for _, m := range sensors {
			if m.SensorID != "id-1" {
				t.Errorf("version %d: id %q", v, m.SensorID)
			}
			out = append(out, span{m.Unit, m.ValidFrom, m.ValidTo})
		}
		return out
	}
	if d := cmp.Diff([]span{{"A", signal.MinTime, signal.MaxTime}}, spans(one)); d != "" {
		t.Error("as known before: ", d)
	}
	if d := cmp.Diff([]span{{"A", signal.MinTime, day(1)}, {"mA", day(1), day(3)}, {"A", day(3), signal.MaxTime}}, spans(two)); d != "" {
		t.Error("as known after: ", d)
	}
	for _, c := range []struct {
		at   time.Time
		want int64
	}{{start, one}, {start.Add(59 * time.Minute), one}, {start.Add(time.Hour), two}, {start.AddDate(1, 0, 0), two}} {
		if v, err := r.VersionAt(t.Context(), c.at); err != nil || v != c.want {
			t.Errorf("version at %s is %d (%v), want %d", c.at, v, err, c.want)
		}
	}
	if _, err := r.VersionAt(t.Context(), start.Add(-time.Second)); err == nil {
		t.Error("a version before the first")
	}
	if _, _, err := r.Rows(t.Context(), two+1); err == nil {
		t.Error("rows of a version to come")
	}
	snap, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := snap.Sensor("s/l/a/x", day(2)); !ok || m.Unit != "mA" {
		t.Errorf("on day 2: %v %v", m, ok)
	}
	if n := len(snap.SensorsOf("s/l/a", day(0))); n != 1 {
		t.Errorf("%d sensors on day 0, want 1", n)
	}
}

func TestRefusals(t *testing.T) {
	day := func(d int) signal.Micros { return signal.MicrosOf(start.AddDate(0, 0, d)) }
	sensor := func(p signal.Path, from, to signal.Micros) signal.SensorMeta {
		return signal.SensorMeta{Path: p, ValidFrom: from, ValidTo: to}
	}
	with := func(edit func(*signal.SensorMeta)) Change {
		m := sensor("s/l/b/x", day(0), day(9))
		edit(&m)
		return Change{Sensors: []signal.SensorMeta{m}}
	}
	r, _ := open(t)
	if _, err := r.Add(t.Context(), Change{Sensors: []signal.SensorMeta{{Path: "s/l/a/x", SensorID: "id", ValidFrom: day(2), ValidTo: day(4)}}}); err != nil {
		t.Fatal(err)
	}
	before := version(t, r)
	for name, c := range map[string]struct {
		change Change
		want   string
	}{
		"overlaps":      {Change{Sensors: []signal.SensorMeta{sensor("s/l/new/x", 0, 0), sensor("s/l/a/x", day(3), day(5))}}, "validity [2020-03-12T10:00:00Z, 2020-03-14T10:00:00Z) overlaps [2020-03-11T10:00:00Z, 2020-03-13T10:00:00Z)"},
		"equals":        {Change{Sensors: []signal.SensorMeta{sensor("s/l/a/x", day(2), day(4))}}, "overlaps"},
		"within itself": {Change{Sensors: []signal.SensorMeta{sensor("s/l/b/x", day(0), day(2)), sensor("s/l/b/x", day(1), day(3))}}, "overlaps"},
		"asset":         {Change{Assets: []signal.AssetMeta{{Asset: "s/l/a"}}}, "overlaps"},
		"id":            {with(func(m *signal.SensorMeta) { m.SensorID = "id" }), "id id is at s/l/b/x and at s/l/a/x at the same time"},
		"path":          {with(func(m *signal.SensorMeta) { m.Path = "s/l/b" }), "has 3 names"},
		"empty":         {with(func(m *signal.SensorMeta) { m.ValidTo = m.ValidFrom }), "is empty"},
		"NaN":           {with(func(m *signal.SensorMeta) { m.MinPossible = math.NaN() }), "not a number"},
		"limits":        {with(func(m *signal.SensorMeta) { m.MinPossible = 1 }), "min 1 is above max 0"},
		"kind":          {with(func(m *signal.SensorMeta) { m.Kind = "float" }), `kind "float"`},
		"interpolation": {with(func(m *signal.SensorMeta) { m.Interpolation = "cubic" }), "cubic"},
		"hold":          {with(func(m *signal.SensorMeta) { m.MaxHoldMicros = -1 }), "max_hold"},
		"time":          {with(func(m *signal.SensorMeta) { m.ValidTo = signal.MaxTime + 1 }), "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Add(t.Context(), c.change)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			var overlap *OverlapError
			if errors.As(err, &overlap) != strings.Contains(c.want, "overlaps") {
				t.Errorf("error %v is of the wrong type", err)
			}
			if v := version(t, r); v != before {
				t.Errorf("a refused change made version %d", v)
			}
		})
	}
}

func TestRename(t *testing.T) {
	r, _ := open(t)
	ctx := t.Context()
	day := signal.MicrosOf(start)
	if err := r.Ensure(ctx, []signal.Path{"s/l/a/old"}); err != nil {
		t.Fatal(err)
	}
	_, was := rows(t, r, 2)
	id := was[0].SensorID
	// The old name ends where the new one begins, in one change.
	doc := `
assets:
  - {asset: s/l/a, sensors: {new: {id: ` + id + `}}, valid_from: 2020-03-09T10:00:00Z}
  - {asset: s/l/a, sensors: {old: {id: ` + id + `}}, valid_to: 2020-03-09T10:00:00Z}
`
	if _, err := r.Load(ctx, "rename.yaml", []byte(doc)); err != nil {
		t.Fatal(err)
	}
	// Another thing at the old name's later time gets an id of its own.
	if _, err := r.Add(ctx, Change{Sensors: []signal.SensorMeta{{Path: "s/l/a/old", SensorID: "other", ValidFrom: day}}}); err != nil {
		t.Fatal(err)
	}
	snap, err := r.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range []signal.Path{"s/l/a/old", "s/l/a/new"} {
		before, _ := snap.Sensor(p, day-1)
		after, _ := snap.Sensor(p, day)
		got[p.Sensor()] = before.SensorID + "→" + after.SensorID
	}
	if d := cmp.Diff(map[string]string{"old": id + "→other", "new": "→" + id}, got); d != "" {
		t.Error(d)
	}
	if !snap.Known("s/l/a/new") || snap.Known("s/l/a/never") {
		t.Error("Known")
	}
	// A name whose derived id went elsewhere can be registered again.
	doc = `assets: [{asset: s/l/b, sensors: {moved: {id: ` + newID("sensor", "s/l/c/x", 0) + `}}}]`
	if _, err := r.Load(ctx, "moved.yaml", []byte(doc)); err != nil {
		t.Fatal(err)
	}
	if err := r.Ensure(ctx, []signal.Path{"s/l/c/x"}); err != nil {
		t.Error(err)
	}
}

func TestTheFileKeepsTheRules(t *testing.T) {
	r, _ := open(t)
	if err := r.Ensure(t.Context(), []signal.Path{"s/l/a/x"}); err != nil {
		t.Fatal(err)
	}
	for _, sabotage := range []string{
		`DELETE FROM sensor`,
		`UPDATE sensor SET unit = 'V'`,
		`UPDATE asset SET recorded_from = 1`,
		`INSERT INTO sensor SELECT * FROM sensor`,
		`INSERT INTO asset SELECT * FROM asset`,
	} {
		err := r.db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(sabotage)
			return err
		})
		if err == nil {
			t.Errorf("%s was done", sabotage)
		}
	}
}

func TestOpenRefusesANewerFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	db, err := sqlite.Open(t.Context(), path, append(migrations(), `CREATE TABLE later (x INTEGER)`))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = Open(t.Context(), path, Options{})
	if _, ok := errors.AsType[*sqlite.NewerError](err); !ok {
		t.Errorf("error %v, want NewerError", err)
	}
}

func TestReadersAndWritersTogether(t *testing.T) {
	r, _ := open(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 10 {
				p := signal.Asset("s/l/a").Sensor(string(rune('a'+w)) + string(rune('0'+n)))
				if err := r.Ensure(t.Context(), []signal.Path{p, "s/l/a/shared"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			last := int64(0)
			for range 50 {
				s, err := r.Snapshot(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, sensors, err := r.Rows(t.Context(), s.Version)
				if err != nil || len(sensors) != len(s.Sensors) || s.Version < last {
					t.Errorf("version %d after %d: %d and %d sensors, %v", s.Version, last, len(s.Sensors), len(sensors), err)
				}
				last = s.Version
			}
		})
	}
	wg.Wait()
	_, sensors := rows(t, r, version(t, r))
	if len(sensors) != 41 {
		t.Errorf("%d sensors, want 41", len(sensors))
	}
}
