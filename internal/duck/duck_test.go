package duck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t testing.TB, o Options) *DB {
	t.Helper()
	if o.TempDir == "" {
		o.TempDir = filepath.Join(t.TempDir(), "spill")
	}
	db, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func session(t testing.TB, db *DB) *Session {
	t.Helper()
	s, err := db.Session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// table runs a query and returns its rows as text.
func table(t testing.TB, s *Session, query string, args ...any) [][]string {
	t.Helper()
	rows, err := s.Query(context.Background(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	out := [][]string{}
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, len(names))
		for i, v := range values {
			if tm, ok := v.(time.Time); ok {
				v = tm.UTC().Format(time.RFC3339Nano)
			}
			row[i] = fmt.Sprint(v)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSessionsAreApart(t *testing.T) {
	db := open(t, Options{Init: []string{"CREATE MACRO twice(x) AS 2 * x"}})
	one, two := session(t, db), session(t, db)
	for i, s := range []*Session{one, two} {
		for _, q := range []string{"CREATE SCHEMA bronze", fmt.Sprintf("CREATE VIEW bronze.readings AS SELECT twice(%d) AS v", i), "CREATE TEMP TABLE x AS SELECT 1"} {
			if err := s.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range []*Session{one, two} {
		if got := table(t, s, "SELECT v FROM bronze.readings"); got[0][0] != fmt.Sprint(2*i) {
			t.Errorf("session %d sees %v", i, got)
		}
	}
	if got := table(t, one, "SELECT current_setting('TimeZone'), version()"); got[0][0] != "UTC" {
		t.Error(got)
	}
}

func TestErrorsNameTheStatement(t *testing.T) {
	s := session(t, open(t, Options{}))
	err := s.Exec(t.Context(), "\n  SELECT nonsense\nFROM nowhere")
	if err == nil || !strings.Contains(err.Error(), `"SELECT nonsense"`) || strings.Contains(err.Error(), `nonsense\nFROM`) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Query(t.Context(), "SELECT "+strings.Repeat("é", 200)); err == nil || !strings.Contains(err.Error(), "…") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Exec(ctx, "SELECT 1"); err == nil {
		t.Error("ran with a cancelled context")
	}
}

func TestAllowedDirs(t *testing.T) {
	in, out := t.TempDir(), t.TempDir()
	db := open(t, Options{AllowedDirs: []string{in}})
	s := session(t, db)
	if _, err := s.CopyParquet(t.Context(), "SELECT 1 AS a", filepath.Join(in, "a.parquet")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CopyParquet(t.Context(), "SELECT 1 AS a", filepath.Join(out, "a.parquet")); err == nil {
		t.Error("wrote outside the allowed directories")
	}
	for _, q := range []string{"SELECT * FROM read_csv('/etc/hostname')", "SET memory_limit = '10GB'", "INSTALL httpfs", "ATTACH '" + out + "/x.db'"} {
		if err := s.Exec(t.Context(), q); err == nil {
			t.Errorf("%s is allowed", q)
		}
	}
	session(t, db) // another session opens under the lock
}

// TestSpill sorts more than the memory limit, with and without the lock.
func TestSpill(t *testing.T) {
	for _, dirs := range [][]string{nil, {t.TempDir()}} {
		s := session(t, open(t, Options{MemoryLimit: "16MB", Threads: 1, AllowedDirs: dirs}))
		got := table(t, s, "SELECT count(*), max(n) FROM (SELECT i, md5(CAST(i AS VARCHAR)) AS h, row_number() OVER (ORDER BY md5(CAST(i AS VARCHAR))) AS n FROM range(200000) r(i))")
		if diff := cmp.Diff([][]string{{"200000", "200000"}}, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDescribe(t *testing.T) {
	s := session(t, open(t, Options{}))
	got, err := s.Describe(t.Context(), "SELECT 1 AS i, CAST(1 AS BIGINT) AS l, now() AS t, ['a'] AS a, 1.5 AS d, CAST(1 AS DOUBLE) AS f; ")
	if err != nil {
		t.Fatal(err)
	}
	want := []Field{
		{"i", "INTEGER", "integer"},
		{"l", "BIGINT", "long"},
		{"t", "TIMESTAMP WITH TIME ZONE", "timestamp"},
		{"a", "VARCHAR[]", "array<string>"},
		{"d", "DECIMAL(2,1)", ""},
		{"f", "DOUBLE", "double"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Describe(t.Context(), "SELECT a FROM nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("got %v", err)
	}
	for _, f := range want {
		if f.DeltaType != "" && SQLType(f.DeltaType) != f.SQLType {
			t.Errorf("%s comes back as %s", f.SQLType, SQLType(f.DeltaType))
		}
	}
	if DeltaType("INTEGER[][]") != "" || SQLType("array<array<long>>") != "" || SQLType("decimal(3,1)") != "" {
		t.Error("a type that tables cannot have is mapped")
	}
}

func TestAggregates(t *testing.T) {
	s := session(t, open(t, Options{}))
	aggregates, err := s.Aggregates(t.Context())
	if err != nil || !aggregates["sum"] || !aggregates["arg_max"] || aggregates["lower"] {
		t.Errorf("%v %v", aggregates, err)
	}
}

func columns() []Column {
	return []Column{{"s", String}, {"d", Dict}, {"f", Float64}, {"l", Int64}, {"i", Int32}, {"b", Bool}, {"t", Timestamp}, {"x", StringList}}
}

func appendRow(t testing.TB, a *Appender, n int) {
	t.Helper()
	a.String(0, fmt.Sprint("row ", n))
	a.String(1, []string{"red", "green", ""}[n%3])
	a.Float64(2, float64(n)/2)
	a.Int64(3, int64(n))
	a.Int32(4, int32(n))
	a.Bool(5, n%2 == 0)
	a.Timestamp(6, int64(n)*1_000_001)
	a.StringList(7, []string{"a", fmt.Sprint(n)}[:n%3%2+1])
	if err := a.EndRow(); err != nil {
		t.Fatal(err)
	}
}

func TestAppenderAndLoad(t *testing.T) {
	s := session(t, open(t, Options{}))
	a := NewAppender(columns())
	const rows = 2*chunkRows + 10
	for range 2 { // the appender is reused
		for n := range rows {
			appendRow(t, a, n)
		}
		for i := range columns() {
			a.Null(i)
		}
		if err := a.EndRow(); err != nil {
			t.Fatal(err)
		}
		b, err := a.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if b.Rows() != rows+1 || a.Rows() != 0 {
			t.Errorf("batch has %d rows, appender keeps %d", b.Rows(), a.Rows())
		}
		for range 2 { // so is the batch
			if err := s.Load(t.Context(), "in put", b); err != nil {
				t.Fatal(err)
			}
		}
		b.Release()
		// A reading that filters and picks columns, twice.
		for range 2 {
			got := table(t, s, `SELECT t, s, x FROM "in put" WHERE d = 'green' AND l > 65536 AND b`)
			want := [][]string{{"1970-01-01T18:12:22.065542Z", "row 65542", "[a 65542]"}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal(diff)
			}
		}
		got := table(t, s, `SELECT count(*), count(s), count(x), sum(f), sum(i), count(DISTINCT d), min(rowid = coalesce(l, rowid)) FROM "in put"`)
		sum := rows * (rows - 1) / 2
		if diff := cmp.Diff([][]string{{fmt.Sprint(rows + 1), fmt.Sprint(rows), fmt.Sprint(rows), fmt.Sprint(float64(sum) / 2), fmt.Sprint(sum), "3", "true"}}, got); diff != "" {
			t.Error(diff)
		}
	}
	a.Release()
	if n := a.memory.AllocatedBytes(); n != 0 {
		t.Errorf("%d bytes are not released", n)
	}
}

func TestLoadEmpty(t *testing.T) {
	s := session(t, open(t, Options{}))
	a := NewAppender(columns())
	defer a.Release()
	b, err := a.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context(), "none", b); err != nil {
		t.Fatal(err)
	}
	fields, err := s.Describe(t.Context(), "SELECT * FROM none")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fields {
		got = append(got, f.DeltaType)
	}
	if diff := cmp.Diff([]string{"string", "string", "double", "long", "integer", "boolean", "timestamp", "array<string>"}, got); diff != "" {
		t.Error(diff)
	}
	if got := table(t, s, "SELECT * FROM none"); len(got) != 0 {
		t.Error(got)
	}
}

func TestAppenderRefusesHalfRows(t *testing.T) {
	two := []Column{{"a", Int64}, {"b", Int64}}
	a := NewAppender(two)
	a.Int64(0, 1)
	if err := a.EndRow(); err == nil {
		t.Error("a row with one of two values ended")
	}
	a.Release()
	a = NewAppender(two)
	defer a.Release()
	a.Int64(0, 1)
	a.Int64(0, 1)
	if err := a.EndRow(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Finish(); err == nil || !strings.Contains(err.Error(), "column a") {
		t.Errorf("got %v", err)
	}
}

// TestAppenderAllocates nothing per value.
func TestAppenderAllocates(t *testing.T) {
	a := NewAppender(columns()[:7])
	defer a.Release()
	row := func() {
		a.String(0, "some text")
		a.String(1, "red")
		a.Float64(2, 1)
		a.Int64(3, 1)
		a.Int32(4, 1)
		a.Bool(5, true)
		a.Timestamp(6, 1)
		if err := a.EndRow(); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		row()
	}
	if n := testing.AllocsPerRun(5000, row); n > 0 {
		t.Errorf("%v allocations per row", n)
	}
}

func TestCopyParquetZeroRows(t *testing.T) {
	s := session(t, open(t, Options{}))
	path := filepath.Join(t.TempDir(), "a.parquet")
	info, err := s.CopyParquet(t.Context(), "SELECT 1 AS a WHERE false", path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(FileInfo{}, info); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty file is left")
	}
}

func BenchmarkAppendLoad(b *testing.B) {
	s := session(b, open(b, Options{}))
	a := NewAppender(columns()[:7])
	defer a.Release()
	for b.Loop() {
		for range 100_000 {
			a.String(0, "some text")
			a.String(1, "red")
			a.Float64(2, 1)
			a.Int64(3, 1)
			a.Int32(4, 1)
			a.Bool(5, true)
			a.Timestamp(6, 1)
			if err := a.EndRow(); err != nil {
				b.Fatal(err)
			}
		}
		batch, err := a.Finish()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Load(b.Context(), "t", batch); err != nil {
			b.Fatal(err)
		}
		batch.Release()
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "rows/s")
}
