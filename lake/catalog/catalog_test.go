package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

func session(t testing.TB) *duck.Session {
	t.Helper()
	db, err := duck.Open(context.Background(), duck.Options{TempDir: filepath.Join(t.TempDir(), "spill")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.Session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t testing.TB, dir string, fields []delta.Field, partition ...string) *delta.Table {
	t.Helper()
	table, err := delta.Create(context.Background(), dir, delta.Definition{Schema: delta.Schema{Fields: fields}, PartitionColumns: partition}, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// write writes the rows of a query as one file and returns its action.
func write(t testing.TB, s *duck.Session, table *delta.Table, query string, partition map[string]string) delta.AddFile {
	t.Helper()
	name := delta.NewDataPath()
	info, err := s.CopyParquet(context.Background(), query, filepath.Join(table.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return delta.AddFile{Path: name, Size: info.Bytes, StatsJSON: info.StatsJSON, PartitionValues: partition}
}

func commit(t testing.TB, table *delta.Table, adds ...delta.AddFile) {
	t.Helper()
	if _, err := table.Commit(context.Background(), delta.Commit{ReadVersion: delta.Latest, Operation: "WRITE", Adds: adds}); err != nil {
		t.Fatal(err)
	}
}

func number(t testing.TB, s *duck.Session, query string) int64 {
	t.Helper()
	var n int64
	if err := s.QueryRow(context.Background(), query).Scan(&n); err != nil {
		t.Fatal(query[:min(len(query), 200)], err)
	}
	return n
}

func readings() []delta.Field {
	return []delta.Field{{Name: "event_time", Type: delta.Timestamp}, {Name: "path", Type: delta.String}, {Name: "value", Type: delta.Double}}
}

// tenMinutes is a query of rows i, one a second.
func tenMinutes(from int) string {
	return fmt.Sprintf("SELECT TIMESTAMPTZ '2024-01-01 00:00:00.0005+00' + to_seconds(i) AS event_time, 'a/b/c/s' || (i // 600) AS path, CAST(i AS DOUBLE) AS value FROM range(%d, %d) r(i)", from, from+600)
}

func TestMount(t *testing.T) {
	lake := t.TempDir()
	s, w := session(t), session(t)
	bronze := create(t, filepath.Join(lake, "bronze", "readings"), readings())
	commit(t, bronze, write(t, w, bronze, tenMinutes(0), nil))
	if err := os.MkdirAll(filepath.Join(lake, "_plans", "bronze"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(lake, "silver", "on_its_way", "_delta_log"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), lake)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Mount(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := number(t, s, "SELECT count(*) FROM bronze.readings"); n != 600 {
		t.Errorf("%d rows", n)
	}
	if changed, err := m.Refresh(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("nothing new: %v %v", changed, err)
	}

	// A new version, a new table with partitions, and an empty one.
	commit(t, bronze, write(t, w, bronze, tenMinutes(600), nil))
	gold := create(t, filepath.Join(lake, "gold", "twin_state"), append([]delta.Field{{Name: "shard", Type: delta.Integer}}, readings()...), "shard")
	commit(t, gold, write(t, w, gold, tenMinutes(0), map[string]string{"shard": "7"}), write(t, w, gold, tenMinutes(600), map[string]string{"shard": "12"}), write(t, w, gold, tenMinutes(1200), map[string]string{"shard": ""}))
	create(t, filepath.Join(lake, "silver", "readings"), readings())
	changed, err := m.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bronze.readings", "gold.twin_state", "silver.readings"}, changed); diff != "" {
		t.Error(diff)
	}
	for query, want := range map[string]int64{
		"SELECT count(*) FROM bronze.readings": 1200, "SELECT count(*) FROM silver.readings": 0,
		"SELECT count(*) FROM gold.twin_state": 1800, "SELECT count(*) FROM gold.twin_state WHERE shard = 12 AND value >= 600 AND value < 1200": 600,
		"SELECT count(*) FROM gold.twin_state WHERE shard IS NULL": 600,
	} {
		if n := number(t, s, query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	var got []string
	for _, table := range c.ListTables() {
		got = append(got, fmt.Sprint(table.Name, " v", table.Version, " ", table.Files, " files ", table.Rows, " rows ", len(table.Columns), " columns"))
	}
	if diff := cmp.Diff([]string{"bronze.readings v2 2 files 1200 rows 3 columns", "gold.twin_state v1 3 files 1800 rows 4 columns", "silver.readings v0 0 files 0 rows 3 columns"}, got); diff != "" {
		t.Error(diff)
	}

	// An older version in another session.
	old := session(t)
	om, err := c.Mount(t.Context(), old, map[string]int64{"bronze.readings": 1})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, bronze, write(t, w, bronze, tenMinutes(1200), nil))
	if changed, err := om.Refresh(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("refresh of pinned tables: %v %v", changed, err)
	}
	if n := number(t, old, "SELECT count(*) FROM bronze.readings"); n != 600 {
		t.Errorf("%d rows at version 1", n)
	}
	if v, ok := om.Version("bronze.readings"); !ok || v != 1 {
		t.Errorf("mounted at %d", v)
	}
	if _, err := c.Mount(t.Context(), session(t), map[string]int64{"bronze.nothing": 1}); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "bronze.readings") {
		t.Errorf("got %v", err)
	}

	// A table that is taken away.
	if err := os.RemoveAll(gold.Dir()); err != nil {
		t.Fatal(err)
	}
	if changed, err := m.Refresh(t.Context()); err != nil || len(changed) != 2 {
		t.Errorf("after a removal: %v %v", changed, err)
	}
	if err := s.Exec(t.Context(), "SELECT * FROM gold.twin_state"); err == nil {
		t.Error("the view of a removed table is still there")
	}
}

func TestAddedColumn(t *testing.T) {
	lake := t.TempDir()
	s := session(t)
	table := create(t, filepath.Join(lake, "silver", "readings"), readings())
	commit(t, table, write(t, s, table, tenMinutes(0), nil))
	def := delta.Definition{Schema: delta.Schema{Fields: append([]delta.Field{{Name: "unit", Type: delta.String}}, readings()...)}}
	if _, err := table.Commit(t.Context(), delta.Commit{ReadVersion: 1, Operation: "ADD COLUMNS", Metadata: &def}); err != nil {
		t.Fatal(err)
	}
	commit(t, table, write(t, s, table, "SELECT *, 'bar' AS unit FROM ("+tenMinutes(600)+")", nil))
	c, err := Open(t.Context(), lake)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mount(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	if n := number(t, s, "SELECT count(*) FROM silver.readings WHERE (unit IS NULL) = (value < 600) AND event_time IS NOT NULL"); n != 1200 {
		t.Errorf("%d rows fit", n)
	}
}

func TestBrokenTableIsNamed(t *testing.T) {
	lake := t.TempDir()
	table := create(t, filepath.Join(lake, "silver", "readings"), readings())
	if err := os.WriteFile(filepath.Join(table.Dir(), "_delta_log", fmt.Sprintf("%020d.json", 1)), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), lake); !errors.Is(err, delta.ErrCorrupt) || !strings.Contains(err.Error(), "silver.readings") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyLake(t *testing.T) {
	c, err := Open(t.Context(), filepath.Join(t.TempDir(), "lake"))
	if err != nil || len(c.ListTables()) != 0 {
		t.Fatal(err)
	}
	if _, err := c.Files("bronze.readings"); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "none") {
		t.Errorf("got %v", err)
	}
}

func TestFiles(t *testing.T) {
	lake := t.TempDir()
	w := session(t)
	table := create(t, filepath.Join(lake, "gold", "w"), append([]delta.Field{{Name: "shard", Type: delta.Integer}, {Name: "day", Type: delta.Date}}, readings()...), "shard", "day")
	var adds []delta.AddFile
	name := map[string]string{}
	for i := range 4 {
		a := write(t, w, table, tenMinutes(600*i), map[string]string{"shard": fmt.Sprint(i * 5), "day": fmt.Sprintf("2024-01-0%d", i+1)})
		name[a.Path] = fmt.Sprint(i)
		adds = append(adds, a)
	}
	null := write(t, w, table, "SELECT CAST(NULL AS TIMESTAMPTZ) AS event_time, 'a/b/c/s2' AS path, CAST('nan' AS DOUBLE) AS value", map[string]string{"shard": "", "day": ""})
	name[null.Path] = "null"
	blank := write(t, w, table, tenMinutes(0), map[string]string{"shard": "0", "day": "2024-01-01"})
	blank.StatsJSON = ""
	name[blank.Path] = "?"
	commit(t, table, append(adds, null, blank)...)
	c, err := Open(t.Context(), lake)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, r := range map[string][]Range{
		"0 1 2 3 null ?": {},
		"2 ?":            {{"event_time", start.Add(25 * time.Minute), start.Add(26 * time.Minute)}},
		"1 2 ?":          {{"event_time", signal.MicrosOf(start.Add(599*time.Second + 600*time.Second)), start.Add(1200*time.Second + time.Millisecond).UnixMicro()}},
		"2 3 ?":          {{"event_time", start.Add(20 * time.Minute), nil}},
		"1 ?":            {{"path", "a/b/c/s1", "a/b/c/s1"}, {"shard", nil, nil}, {"value", 600, nil}},
		"3":              {{"shard", 15, nil}},
		"0 1 ?":          {{"shard", nil, 5}},
		"1 2":            {{"shard", int64(5), int64(10)}},
		"2 3":            {{"day", start.AddDate(0, 0, 2), nil}},
		"null ?":         {{"value", nil, -1.0}}, // NaN has no bounds
		"":               {{"shard", 99, nil}},
	} {
		files, err := c.Files("gold.w", r...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, name[f.Path])
		}
		want := strings.Fields(text)
		if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
			t.Errorf("%v: %s", r, diff)
		}
	}
	rel, err := c.Relation("gold.w", Range{"shard", 5, 5})
	if err != nil {
		t.Fatal(err)
	}
	if n := number(t, w, "SELECT count(*) FROM "+rel+" WHERE shard = 5 AND day = DATE '2024-01-02'"); n != 600 {
		t.Errorf("%d rows", n)
	}
	for _, r := range []Range{{"gone", 1, 2}, {"path", 1, 2}, {"value", math.NaN(), nil}, {"shard", nil, "x"}, {"event_time", nil, 1.5}} {
		if files, err := c.Files("gold.w", r); err == nil {
			t.Errorf("%v: %d files", r, len(files))
		}
	}
}

// TestPruningLosesNothing compares a filtered read of the picked files with
// one of all files.
func TestPruningLosesNothing(t *testing.T) {
	lake := t.TempDir()
	s := session(t)
	table := create(t, filepath.Join(lake, "bronze", "readings"), readings())
	for i := range 12 {
		commit(t, table, write(t, s, table, fmt.Sprintf(`SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_microseconds(i * 700 + %d) AS event_time, 'p' || (i %% 3 + %d) AS path,
			CASE WHEN i %% 5 = 0 THEN NULL WHEN i %% 7 = 0 THEN CAST('nan' AS DOUBLE) ELSE i - 3 END AS value FROM range(%d, %d) r(i)`, i, i/2, i*10, i*10+15), nil))
	}
	c, err := Open(t.Context(), lake)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Relation("bronze.readings")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Exec(t.Context(), "CREATE TABLE everything AS SELECT * FROM "+all); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	rapid.Check(t, func(rt *rapid.T) {
		from := start + rapid.Int64Range(-1000, 100_000).Draw(rt, "from")
		to := from + rapid.Int64Range(0, 5000).Draw(rt, "length")
		path := fmt.Sprint("p", rapid.IntRange(0, 9).Draw(rt, "path"))
		above := rapid.Float64Range(-5, 130).Draw(rt, "above")
		rel, err := c.Relation("bronze.readings", Range{"event_time", from, to}, Range{"path", path, path}, Range{"value", above, nil})
		if err != nil {
			rt.Fatal(err)
		}
		const q = "SELECT count(*) FROM %s WHERE event_time BETWEEN make_timestamptz(%d) AND make_timestamptz(%d) AND path = '%s' AND value >= %v"
		if got, want := number(t, s, fmt.Sprintf(q, rel, from, to, path, above)), number(t, s, fmt.Sprintf(q, "everything", from, to, path, above)); got != want {
			rt.Fatalf("%d rows of the picked files, %d of all", got, want)
		}
	})
}
