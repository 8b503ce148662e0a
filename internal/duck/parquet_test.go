package duck

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCopyParquet(t *testing.T) {
	s := session(t, open(t, Options{}))
	path := filepath.Join(t.TempDir(), "it's.parquet")
	info, err := s.CopyParquet(t.Context(), `
		SELECT CAST(i AS INTEGER) AS i, CAST(9007199254740993 AS BIGINT) AS l, CASE WHEN i = 3 THEN NULL ELSE i / 4 END AS d,
			CASE WHEN i = 4 THEN CAST('nan' AS DOUBLE) ELSE -1 END AS n, CASE WHEN i = 5 THEN CAST('inf' AS DOUBLE) ELSE 1 END AS f,
			repeat('é', 31) || chr(CAST(65 + i AS INTEGER)) || 'tail' AS s, TIMESTAMPTZ '1969-12-31 23:59:59.123456+00' + to_microseconds(i) AS t,
			i > 2 AS b, DATE '2020-02-28' + CAST(i AS INTEGER) AS y, CAST('ab\x00' AS BLOB) AS r, CASE WHEN i > 0 THEN ['x', NULL] END AS a,
			CAST(NULL AS VARCHAR) AS u, 'a"b,{}=''' || chr(10) AS "we""ird" -- a comment at the end
		FROM range(10) g(i)`, path)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Size() != info.Bytes || info.Rows != 10 || info.Path != path {
		t.Errorf("%+v, %v, %v", info, stat, err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(info.StatsJSON), &got); err != nil {
		t.Fatal(err)
	}
	weird := "a\"b,{}='\n"
	want := map[string]any{
		"numRecords": 10.0,
		"minValues": map[string]any{
			"i": 0.0, "l": 9007199254740993.0, "d": 0.0, "n": -1.0, "f": 1.0, "s": strings.Repeat("é", 31) + "A",
			"t": "1969-12-31T23:59:59.123Z", "y": "2020-02-28", `we"ird`: weird,
		},
		"maxValues": map[string]any{
			"i": 9.0, "l": 9007199254740993.0, "d": 2.25, "s": strings.Repeat("é", 31) + "K",
			"t": "1969-12-31T23:59:59.124Z", "y": "2020-03-08", `we"ird`: weird,
		},
		"nullCount": map[string]any{"i": 0.0, "l": 0.0, "d": 1.0, "n": 0.0, "f": 0.0, "s": 0.0, "t": 0.0, "b": 0.0, "y": 0.0, "r": 0.0, "u": 10.0, `we"ird`: 0.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(info.StatsJSON, "9007199254740993") {
		t.Error("a long lost digits: " + info.StatsJSON)
	}
	var types []string
	for _, c := range info.Columns {
		types = append(types, c.DeltaType)
	}
	if diff := cmp.Diff([]string{"integer", "long", "double", "double", "double", "string", "timestamp", "boolean", "date", "binary", "array<string>", "string", "string"}, types); diff != "" {
		t.Error(diff)
	}
	if _, err := s.CopyParquet(t.Context(), "SELECT 1 AS a", path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that exists: %v", err)
	}
}

func TestCopyParquetRefusesTypes(t *testing.T) {
	s := session(t, open(t, Options{}))
	for _, expr := range []string{"TIMESTAMP '2020-01-01'", "1.5", "CAST(1 AS FLOAT)", "CAST(1 AS UTINYINT)", "CAST(1 AS SMALLINT)", "CAST(1 AS HUGEINT)", "{'a': 1}", "[[1]]", "uuid()", "TIME '10:00'", "INTERVAL 1 DAY", "CAST(1 AS UBIGINT)", "'{}'::JSON"} {
		path := filepath.Join(t.TempDir(), "a.parquet")
		_, err := s.CopyParquet(t.Context(), "SELECT 1 AS ok, "+expr+" AS odd", path)
		if expr == "CAST(1 AS HUGEINT)" { // becomes a double, as DuckDB's users know
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "odd") {
			t.Errorf("%s: %v", expr, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a file is left", expr)
		}
	}
	if _, err := s.CopyParquet(t.Context(), "SELECT error('stop') AS a", filepath.Join(t.TempDir(), "a.parquet")); err == nil || !strings.Contains(err.Error(), "stop") {
		t.Errorf("got %v", err)
	}
}

func TestRelation(t *testing.T) {
	s := session(t, open(t, Options{}))
	dir := filepath.Join(t.TempDir(), "it's")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, query string) ParquetFile {
		p := filepath.Join(dir, name)
		if _, err := s.CopyParquet(t.Context(), query, p); err != nil {
			t.Fatal(err)
		}
		return ParquetFile{Path: p}
	}
	rel := Parquet{Columns: []Field{{Name: "a", SQLType: "BIGINT"}, {Name: "b'\"", SQLType: "VARCHAR"}, {Name: "late", SQLType: "DOUBLE"}}}
	read := func() [][]string {
		t.Helper()
		text, err := rel.SQL()
		if err != nil {
			t.Fatal(err)
		}
		return table(t, s, "SELECT * FROM "+text+" ORDER BY a")
	}
	if got := read(); len(got) != 0 {
		t.Error(got)
	}
	// Columns in another order, one missing, one wider than asked.
	rel.Files = []ParquetFile{put("1.parquet", `SELECT CAST(1 AS BIGINT) AS a, 'x' AS "b'""", 9 AS gone`), put("shard=7.parquet", `SELECT 2.5::DOUBLE AS late, 'y' AS "b'""", CAST(2 AS BIGINT) AS a`)}
	if diff := cmp.Diff([][]string{{"1", "x", "<nil>"}, {"2", "y", "2.5"}}, read()); diff != "" {
		t.Error(diff)
	}
	rel.Columns = append([]Field{{Name: "shard", SQLType: "INTEGER"}}, rel.Columns...)
	rel.PartitionColumns = []string{"shard"}
	rel.Files[0].Partition, rel.Files[1].Partition = []string{"12"}, []string{""}
	if diff := cmp.Diff([][]string{{"12", "1", "x", "<nil>"}, {"<nil>", "2", "y", "2.5"}}, read()); diff != "" {
		t.Error(diff)
	}
	rel.Files[0].Partition = nil
	if _, err := rel.SQL(); err == nil {
		t.Error("a file without its partition value is taken")
	}
}

// TestBoundsHold writes random values and checks that none is outside the
// bounds in the statistics.
func TestBoundsHold(t *testing.T) {
	s := session(t, open(t, Options{}))
	dir := t.TempDir()
	var k int
	rapid.Check(t, func(rt *rapid.T) {
		k++
		a := NewAppender([]Column{{"s", String}, {"f", Float64}, {"t", Timestamp}, {"l", Int64}})
		defer a.Release()
		type row struct {
			s string
			f float64
			t int64
			l int64
		}
		rows := make([]row, rapid.IntRange(1, 5).Draw(rt, "rows"))
		for i := range rows {
			rows[i] = row{
				rapid.OneOf(rapid.StringN(0, 40, -1), rapid.StringOfN(rapid.SampledFrom([]rune{'a', 0xD7FF, utf8.MaxRune}), 30, 40, -1)).Draw(rt, "s"),
				rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1)})).Draw(rt, "f"),
				rapid.Int64Range(-62_135_596_800_000_000, 253_402_300_799_999_999).Draw(rt, "t"), rapid.Int64().Draw(rt, "l"),
			}
			a.String(0, rows[i].s)
			a.Float64(1, rows[i].f)
			a.Timestamp(2, rows[i].t)
			a.Int64(3, rows[i].l)
			if err := a.EndRow(); err != nil {
				rt.Fatal(err)
			}
		}
		b, err := a.Finish()
		if err != nil {
			rt.Fatal(err)
		}
		defer b.Release()
		if err := s.Load(t.Context(), "x", b); err != nil {
			rt.Fatal(err)
		}
		info, err := s.CopyParquet(t.Context(), "FROM x", filepath.Join(dir, fmt.Sprint(k)))
		if err != nil {
			rt.Fatal(err)
		}
		at := func(v any) int64 {
			tm, err := time.Parse(time.RFC3339Nano, v.(string))
			if err != nil {
				rt.Fatal(err)
			}
			return tm.UnixMicro()
		}
		c := info.Columns
		for _, r := range rows {
			if lo, ok := c[0].Min.(string); ok && r.s < lo {
				rt.Errorf("%q is below %q", r.s, lo)
			}
			if hi, ok := c[0].Max.(string); ok && (r.s > hi || utf8.RuneCountInString(hi) > statsRunes) {
				rt.Errorf("%q is above %q", r.s, hi)
			}
			if lo, ok := c[1].Min.(float64); ok && r.f < lo {
				rt.Errorf("%v is below %v", r.f, lo)
			}
			if hi, ok := c[1].Max.(float64); ok && (r.f > hi || math.IsNaN(r.f)) {
				rt.Errorf("%v is above %v", r.f, hi)
			}
			if c[2].Min != nil && r.t < at(c[2].Min) || c[2].Max != nil && r.t > at(c[2].Max) {
				rt.Errorf("%v is not in %v … %v", r.t, c[2].Min, c[2].Max)
			}
			if c[3].Min != nil && r.l < c[3].Min.(int64) || c[3].Max != nil && r.l > c[3].Max.(int64) {
				rt.Errorf("%v is not in %v … %v", r.l, c[3].Min, c[3].Max)
			}
		}
	})
}

func FuzzBound(f *testing.F) {
	for _, s := range []string{"", "1", "-0.0", "inf", "nan", "2024-01-01", "2024-01-01 00:00:00.123456+00", "0044-03-15 (BC)", "infinity", strings.Repeat("é", 40), "294247-01-10 04:00:54.775807+00", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, d := range deltaTypes() {
			for _, upper := range []bool{false, true} {
				v := bound(s, d[0], upper)
				if _, err := json.Marshal(v); err != nil {
					t.Errorf("%s bound of %q: %v", d[0], s, err)
				}
				if text, ok := v.(string); ok && d[0] == "string" && (upper && text < s || !upper && text > s) {
					t.Errorf("bound %q of %q is on the wrong side", text, s)
				}
			}
		}
	})
}
