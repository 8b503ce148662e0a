package server

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// silver writes rows, given as SQL values, as one file of silver.readings.
func silver(t *testing.T, db *duck.DB, lake, rows string) {
	t.Helper()
	def := delta.Definition{Name: "readings", Schema: delta.Schema{Fields: []delta.Field{
		{Name: "path", Type: delta.String},
		{Name: "event_time", Type: delta.Timestamp},
		{Name: "alive_at", Type: delta.Timestamp},
		{Name: "kind", Type: delta.String},
		{Name: "value", Type: delta.Double},
		{Name: "text", Type: delta.String},
		{Name: "good", Type: delta.Boolean},
		{Name: "edge", Type: delta.String},
		{Name: "boot", Type: delta.String},
		{Name: "stream", Type: delta.String},
		{Name: "n", Type: delta.Long},
		{Name: "i", Type: delta.Integer},
	}}}
	dir := filepath.Join(lake, "silver", "readings")
	table, err := delta.OpenOrCreate(t.Context(), dir, def, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	session, err := db.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	name := delta.NewDataPath()
	info, err := session.CopyParquet(t.Context(), `SELECT path, make_timestamptz(us) AS event_time, make_timestamptz(alive) AS alive_at, kind,
		value::DOUBLE AS value, text, good, 's/e' AS edge, '0' AS boot, 's' AS stream, n::BIGINT AS n, 0::INTEGER AS i
		FROM (`+rows+`) AS v(path, us, alive, kind, value, text, good, n)`, filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = table.Commit(t.Context(), delta.Commit{
		ReadVersion: delta.Latest, Operation: "WRITE",
		Adds: []delta.AddFile{{Path: name, Size: info.Bytes, StatsJSON: info.StatsJSON}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLakeSeries(t *testing.T) {
	ctx := t.Context()
	db, err := duck.Open(ctx, duck.Options{MemoryLimit: "96MB", Threads: 1, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	lake := filepath.Join(t.TempDir(), "lake")
	series := NewLakeSeries(lake, db)
	read := func(path signal.Path, from, to signal.Micros, limit int) Points {
		t.Helper()
		p, err := series.Series(ctx, path, from, to, limit)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	equal := func(what string, want, got Points) {
		t.Helper()
		if d := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	const x = signal.Path("s/l/a's/x")
	const day = signal.Micros(1_583_700_000_000_000)
	equal("no lake yet", Points{}, read(x, day, day+100, 10))

	// Ten numbers, a heartbeat that repeats the first, one without quality, others' values.
	at := func(n int) string { return fmt.Sprint(int64(day) + int64(n)) }
	var rows []string
	for n := range 10 {
		rows = append(rows, "('s/l/a''s/x', "+at(10*n)+", "+at(10*n)+", 'number', "+fmt.Sprintf("%d, NULL, %t, %d)", n*n, n != 9, n))
	}
	rows = append(rows,
		"('s/l/a''s/x', "+at(0)+", "+at(60)+", 'number', 0.5, NULL, true, 20)",
		"('s/l/a''s/y', "+at(1)+", "+at(1)+", 'text', NULL, 'open', true, 0)",
		"('s/l/a''s/y', "+at(2)+", "+at(2)+", 'bool', 1, NULL, true, 0)",
		"('s/l/a''s/y', "+at(3)+", "+at(3)+", 'null', NULL, NULL, true, 0)",
		"('s/l/a''s/y', "+at(4)+", "+at(4)+", 'number', 'inf'::DOUBLE, NULL, true, 0)")
	silver(t, db, lake, "VALUES "+strings.Join(rows, ", "))

	number := signal.NumberValue
	equal("single readings", Points{
		T: []signal.Micros{day, day + 10, day + 20}, Values: []signal.Value{number(0.5), number(1), number(4)}, Good: []bool{true, true, true},
	}, read(x, day, day+30, 3))
	equal("a part", Points{T: []signal.Micros{day + 90}, Values: []signal.Value{number(81)}, Good: []bool{false}}, read(x, day+81, day+1000, 3))
	equal("kinds", Points{
		T:      []signal.Micros{day + 1, day + 2, day + 3, day + 4},
		Values: []signal.Value{signal.TextValue("open"), signal.BoolValue(true), {}, number(math.Inf(1))}, Good: []bool{true, true, true, true},
	}, read("s/l/a's/y", day, day+1000, 10))
	equal("nothing", Points{}, read("s/l/a's/z", day, day+1000, 10))
	nan := math.NaN()
	equal("buckets", Points{
		Bucket: 30, T: []signal.Micros{day, day + 30, day + 60, day + 90},
		Min: []float64{0.5, 9, 36, nan}, Max: []float64{4, 25, 64, nan}, Mean: []float64{5.5 / 3, 50.0 / 3, 149.0 / 3, nan},
		N: []int64{3, 3, 3, 1}, GoodN: []int64{3, 3, 3, 0},
	}, read(x, day, day+120, 4))
	equal("buckets of other kinds", Points{
		Bucket: 4, T: []signal.Micros{day, day + 4}, Min: []float64{1, nan}, Max: []float64{1, nan}, Mean: []float64{1, nan}, N: []int64{3, 1}, GoodN: []int64{3, 1},
	}, read("s/l/a's/y", day, day+8, 2))

	// What is committed later is seen.
	silver(t, db, lake, "VALUES ('s/l/a''s/x', "+at(2000)+", "+at(2000)+", 'number', 7, NULL, true, 30)")
	equal("a later commit", Points{T: []signal.Micros{day + 2000}, Values: []signal.Value{number(7)}, Good: []bool{true}}, read(x, day+1000, day+3000, 3))

	// A day of a sensor at 10 Hz among others, as buckets.
	silver(t, db, lake, fmt.Sprintf(`SELECT 's/l/b/' || (n %% 2), us, us, 'number', n, NULL, true, n FROM (SELECT n, %d + n * 50000 AS us FROM range(400000) AS r(n))`, day))
	began := time.Now()
	p := read("s/l/b/0", day, day+20_000_000_000, 1200)
	t.Logf("200,000 readings as %d buckets in %s", len(p.T), time.Since(began))
	total := int64(0)
	for _, n := range p.N {
		total += n
	}
	if total != 200_000 || len(p.T) != 1200 {
		t.Errorf("%d readings in %d buckets", total, len(p.T))
	}
}
