package delta_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/test/need"
)

const suite = "interop"

type spec struct {
	With    string      `json:"with"`
	Path    string      `json:"path"`
	Version *int64      `json:"version,omitempty"`
	Apps    []string    `json:"apps,omitempty"`
	Filters [][3]string `json:"filters,omitempty"`
}

type answer struct {
	Version int64
	Types   map[string]string
	Txns    map[string]int64
	Rows    []map[string]any
	History []string
	Files   int
}

// ask runs testdata/read.py once for all questions.
func ask(t *testing.T, python string, specs ...spec) []answer {
	t.Helper()
	in, err := json.Marshal(specs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, filepath.Join("testdata", "read.py"))
	cmd.Stdin = bytes.NewReader(in)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("running read.py: %v\n%s", err, stderr.String())
	}
	var a []answer
	dec := json.NewDecoder(&stdout)
	dec.UseNumber()
	if err := dec.Decode(&a); err != nil || len(a) != len(specs) {
		t.Fatalf("%d answers to %d questions, %v", len(a), len(specs), err)
	}
	return a
}

func session(t *testing.T) *duck.Session {
	t.Helper()
	db, err := duck.Open(t.Context(), duck.Options{TempDir: filepath.Join(t.TempDir(), "spill")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.Session(t.Context())
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

// lake is a table of all types, partitioned, with four versions after its
// creation: two appends, an update (remove and add) and a compaction.
func lake(t *testing.T, s *duck.Session) (dir string, table *delta.Table) {
	t.Helper()
	dir = t.TempDir()
	table, err := delta.Create(t.Context(), filepath.Join(dir, "silver", "read ings"), delta.Definition{
		Name: "readings", Schema: delta.Schema{Fields: []delta.Field{
			{Name: "shard", Type: delta.Integer},
			{Name: "n", Type: delta.Long},
			{Name: "path", Type: delta.String},
			{Name: "event_time", Type: delta.Timestamp},
			{Name: "value", Type: delta.Double},
			{Name: "i", Type: delta.Integer},
			{Name: "good", Type: delta.Boolean},
			{Name: "day", Type: delta.Date},
			{Name: "raw", Type: delta.Binary},
			{Name: "rules", Type: delta.ArrayOf(delta.String)},
		}},
		PartitionColumns: []string{"shard"},
	}, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := duck.NewAppender([]duck.Column{
		{Name: "n", Type: duck.Int64},
		{Name: "path", Type: duck.Dict},
		{Name: "event_time", Type: duck.Timestamp},
		{Name: "value", Type: duck.Float64},
		{Name: "i", Type: duck.Int32},
		{Name: "good", Type: duck.Bool},
		{Name: "rules", Type: duck.StringList},
	})
	defer a.Release()
	start := time.Date(2024, 2, 29, 23, 59, 59, 999_600_000, time.UTC).UnixMicro()
	write := func(shard string, from, to int64) delta.AddFile {
		t.Helper()
		for n := from; n < to; n++ {
			a.Int64(0, n)
			a.String(1, []string{"site/línea/pump/de_acceleration.rms-of-a-long-name", "", "a'b\"c\\%20"}[n%3])
			a.Timestamp(2, start+n*333)
			if n%5 == 0 {
				a.Null(3)
			} else {
				a.Float64(3, float64(n)/3)
			}
			a.Int32(4, int32(-n))
			a.Bool(5, n%2 == 0)
			if n%4 == 0 {
				a.Null(6)
			} else {
				a.StringList(6, []string{"possible_value", "registered"}[:n%3])
			}
			if err := a.EndRow(); err != nil {
				t.Fatal(err)
			}
		}
		b, err := a.Finish()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		if err := s.Load(t.Context(), "rows", b); err != nil {
			t.Fatal(err)
		}
		name := "shard=" + shard + "/" + delta.NewDataPath()
		if shard == "" {
			name = delta.NewDataPath()
		}
		path := filepath.Join(table.Dir(), filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := s.CopyParquet(t.Context(), `SELECT n, path, event_time, value, i, good, DATE '2024-02-28' + i AS day,
			CASE WHEN n % 6 > 0 THEN CAST('\x00\xFF' AS BLOB) END AS raw, rules FROM rows ORDER BY path, event_time`, path)
		if err != nil {
			t.Fatal(err)
		}
		return delta.AddFile{Path: name, Size: info.Bytes, StatsJSON: info.StatsJSON, PartitionValues: map[string]string{"shard": shard}}
	}
	commit := func(c delta.Commit) {
		t.Helper()
		if _, err := table.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	one, two := write("1", 0, 10), write("12", 10, 20)
	commit(delta.Commit{
		ReadVersion: 0, Operation: "STREAMING UPDATE", Adds: []delta.AddFile{one, two}, Parameters: map[string]string{"plan": "silver/0"},
		Txns: []delta.TxnStep{{AppID: "headrace/silver.readings/1", From: 0, To: 20}},
	})
	commit(delta.Commit{
		ReadVersion: 1, Operation: "STREAMING UPDATE", Adds: []delta.AddFile{write("", 20, 30), write("1", 30, 40)},
		Txns: []delta.TxnStep{{AppID: "headrace/silver.readings/1", From: 20, To: 30}, {AppID: "headrace/silver.readings/2", From: 0, To: 5}},
	})
	commit(delta.Commit{ReadVersion: 2, Operation: "MERGE", Adds: []delta.AddFile{write("12", 12, 20)}, Removes: []string{two.Path}})
	commit(delta.Commit{ReadVersion: 3, Operation: "OPTIMIZE", Rearranges: true, Adds: []delta.AddFile{write("1", 0, 10)}, Removes: []string{one.Path}})
	return dir, table
}

// ours reads the table with the catalog, in the form that read.py has.
func ours(t *testing.T, dir, where string, version int64) []map[string]any {
	t.Helper()
	s := session(t)
	c, err := catalog.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mount(t.Context(), s, map[string]int64{"silver.read ings": version}); err != nil {
		t.Fatal(err)
	}
	var text string
	// repr(float) of Python writes what DuckDB does, in this range.
	if err := s.QueryRow(t.Context(), `SELECT coalesce('[' || string_agg(CAST(r AS VARCHAR), ',' ORDER BY n) || ']', '[]') FROM (SELECT n, json_object('shard', shard, 'n', n, 'path', path, 'event_time', epoch_us(event_time),
		'value', CAST(value AS VARCHAR), 'i', i, 'good', good, 'day', CAST(day AS VARCHAR), 'raw', lower(hex(raw)), 'rules', rules) AS r
		FROM silver."read ings" WHERE `+where+`)`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	if err := dec.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestOthersReadOurs(t *testing.T) {
	python := need.Python(t, suite)
	dir, table := lake(t, session(t))
	apps := []string{"headrace/silver.readings/1", "headrace/silver.readings/2"}

	want := ours(t, dir, "true", 4)
	if len(want) != 38 {
		t.Fatalf("we read %d rows", len(want))
	}
	answers := ask(t, python, spec{With: "rs", Path: table.Dir(), Apps: apps}, spec{With: "duck", Path: table.Dir()})
	rs, ext := answers[0], answers[1]
	if diff := cmp.Diff(want, rs.Rows); diff != "" {
		t.Errorf("delta-rs reads other rows:\n%s", diff)
	}
	if rs.Version != 4 || rs.Files != 4 {
		t.Errorf("delta-rs: version %d, %d files", rs.Version, rs.Files)
	}
	if diff := cmp.Diff(map[string]int64{apps[0]: 30, apps[1]: 5}, rs.Txns); diff != "" {
		t.Errorf("delta-rs: %s", diff)
	}
	types := map[string]string{}
	for _, f := range table.Last().Schema().Fields {
		types[f.Name] = string(f.Type)
	}
	if diff := cmp.Diff(types, rs.Types); diff != "" {
		t.Errorf("delta-rs: %s", diff)
	}
	if diff := cmp.Diff([]string{"OPTIMIZE", "MERGE", "STREAMING UPDATE", "STREAMING UPDATE", "CREATE TABLE"}, rs.History); diff != "" {
		t.Errorf("delta-rs: %s", diff)
	}

	if diff := cmp.Diff(want, ext.Rows); diff != "" {
		t.Errorf("DuckDB's extension reads other rows:\n%s", diff)
	}
	for name, sqlType := range ext.Types {
		if duck.DeltaType(sqlType) != types[name] {
			t.Errorf("DuckDB's extension: %s is %s, not %s", name, sqlType, types[name])
		}
	}

	// Old versions, and filters that are cut along the statistics: bounds that
	// are too tight would lose rows.
	var specs []spec
	var wants [][]map[string]any
	for v := range int64(5) {
		specs, wants = append(specs, spec{Path: table.Dir(), Version: &v}), append(wants, ours(t, dir, "true", v))
	}
	for _, f := range [][3]string{
		{"event_time", ">=", "2024-03-01T00:00:00.002597+00:00"},
		{"event_time", "=", "2024-03-01T00:00:00.012587+00:00"},
		{"event_time", "<=", "2024-02-29T23:59:59.999600+00:00"},
		{"path", ">=", "site/línea/pump/de_acceleration.rms-of-a-long-name"},
		{"path", "<=", ""},
	} {
		want := ours(t, dir, fmt.Sprintf("%s %s '%s'", f[0], f[1], f[2]), 4)
		if len(want) == 0 {
			t.Errorf("%v: we read nothing", f)
		}
		specs, wants = append(specs, spec{Path: table.Dir(), Filters: [][3]string{f}}), append(wants, want)
	}
	for _, with := range []string{"rs", "duck"} {
		for i := range specs {
			specs[i].With = with
		}
		for i, got := range ask(t, python, specs...) {
			if diff := cmp.Diff(wants[i], got.Rows, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%+v:\n%s", specs[i], diff)
			}
		}
	}
}

// TestWritersTakeTurns lets delta-rs append between two commits of ours.
func TestWritersTakeTurns(t *testing.T) {
	python := need.Python(t, suite)
	dir, table := lake(t, session(t))
	if a := ask(t, python, spec{With: "append", Path: table.Dir()}); a[0].Version != 5 {
		t.Fatalf("delta-rs wrote version %d", a[0].Version)
	}
	// Our knowledge is a version old: the race is lost and run again.
	if v, err := table.Commit(t.Context(), delta.Commit{ReadVersion: 4, Operation: "WRITE", Txns: []delta.TxnStep{{AppID: "headrace/silver.readings/2", From: 5, To: 6}}}); err != nil || v != 6 {
		t.Fatalf("version %d, %v", v, err)
	}
	rows := ours(t, dir, "n = 1000", 6)
	if len(rows) != 1 || rows[0]["path"] != "from delta-rs" || fmt.Sprint(rows[0]["shard"]) != "3" {
		t.Errorf("we read %v", rows)
	}
	rs := ask(t, python, spec{With: "rs", Path: table.Dir(), Apps: []string{"headrace/silver.readings/2"}})[0]
	if rs.Version != 6 || rs.Txns["headrace/silver.readings/2"] != 6 || len(rs.Rows) != 39 {
		t.Errorf("delta-rs: version %d, %v, %d rows", rs.Version, rs.Txns, len(rs.Rows))
	}
	c, err := catalog.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	files, err := c.Files("silver.read ings", catalog.Range{Column: "event_time", Min: at, Max: at})
	if err != nil || len(files) != 1 {
		t.Errorf("%d files by delta-rs's statistics, %v", len(files), err)
	}
}

// TestCheckpoints reads a table whose log before the checkpoint is gone, with
// others' readers, and a checkpoint that delta-rs wrote with ours.
func TestCheckpoints(t *testing.T) {
	python := need.Python(t, suite)
	dir, table := lake(t, session(t))
	apps := []string{"headrace/silver.readings/1", "headrace/silver.readings/2"}
	want := ours(t, dir, "true", 4)
	if v, err := table.Checkpoint(t.Context(), 0); err != nil || v != 4 {
		t.Fatalf("checkpoint of version %d, %v", v, err)
	}
	if n, err := table.CleanLog(t.Context(), -time.Hour, 4); err != nil || n != 4 {
		t.Fatalf("%d files of the log went, %v; want entries 0 to 3", n, err)
	}
	if _, err := table.Commit(t.Context(), delta.Commit{ReadVersion: 4, Operation: "WRITE", Txns: []delta.TxnStep{{AppID: apps[1], From: 5, To: 9}}}); err != nil {
		t.Fatal(err)
	}
	check := func(version int64) {
		t.Helper()
		answers := ask(t, python, spec{With: "rs", Path: table.Dir(), Apps: apps}, spec{With: "duck", Path: table.Dir()})
		for i, a := range answers {
			if diff := cmp.Diff(want, a.Rows); diff != "" {
				t.Errorf("reader %d: %s", i, diff)
			}
		}
		if diff := cmp.Diff(map[string]int64{apps[0]: 30, apps[1]: 9}, answers[0].Txns); diff != "" || answers[0].Version != version {
			t.Errorf("delta-rs: version %d, %s", answers[0].Version, diff)
		}
		fresh, err := delta.Open(t.Context(), table.Dir(), delta.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int64{apps[0]: 30, apps[1]: 9}, fresh.Last().Txns()); diff != "" || fresh.Last().Version() != version {
			t.Errorf("ours: version %d, %s", fresh.Last().Version(), diff)
		}
		if diff := cmp.Diff(want, ours(t, dir, "true", version)); diff != "" {
			t.Errorf("ours: %s", diff)
		}
	}
	check(5)
	// delta-rs writes the next checkpoint, and ours is gone.
	if a := ask(t, python, spec{With: "checkpoint", Path: table.Dir()}); a[0].Version != 5 {
		t.Fatalf("delta-rs made a checkpoint of version %d", a[0].Version)
	}
	for _, name := range []string{"00000000000000000004.checkpoint.parquet", "00000000000000000004.json", "00000000000000000005.json"} {
		if err := os.Remove(filepath.Join(table.Dir(), "_delta_log", name)); err != nil {
			t.Fatal(err)
		}
	}
	check(5)
}
