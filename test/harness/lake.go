package harness

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// CSV runs a query over a data directory and returns its rows, the header aside.
func CSV(t testing.TB, bin, dir, query string) [][]string {
	t.Helper()
	r := Run(t, bin, "sql", query, "--dir", dir, "--output", "csv")
	if r.Code != 0 {
		t.Fatalf("sql %s: exit %d\n%s", query, r.Code, r.Stderr)
	}
	rows, err := csv.NewReader(strings.NewReader(r.Stdout)).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("sql %s: %v\n%.2000s", query, err, r.Stdout)
	}
	return rows[1:]
}

// Count runs a query that answers one number.
func Count(t testing.TB, bin, dir, query string) int {
	t.Helper()
	rows := CSV(t, bin, dir, query)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("sql %s: %v", query, rows)
	}
	n, err := strconv.Atoi(rows[0][0])
	if err != nil {
		t.Fatalf("sql %s: %v", query, err)
	}
	return n
}

// Verify proves the ledger of a data directory; flags say where Kafka is, if
// it is outside.
func Verify(t testing.TB, bin, dir string, flags ...string) {
	t.Helper()
	r := Run(t, bin, append([]string{"ledger", "verify", "--dir", dir, "--output", "json"}, flags...)...)
	if r.Code == 0 {
		return
	}
	var answer struct {
		Broken []string `json:"broken"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &answer); err != nil {
		t.Errorf("ledger verify: %v\n%s", err, r.Stdout)
	}
	t.Errorf("ledger verify: exit %d\n%s%s", r.Code, r.Stderr, strings.Join(answer.Broken, "\n"))
}

// Exact proves that the tables hold every value of the recordings once: bronze
// all of them under dense message numbers, silver those that are possible,
// quarantine the impossible ones.
func Exact(t testing.TB, bin, dir string, want map[Cell]int, impossible func(Cell) bool) {
	t.Helper()
	rows := CSV(t, bin, dir, `
		SELECT 'bronze' AS t, path, epoch_us(event_time) AS us, value, edge, boot, stream, n, i FROM bronze.readings
		UNION ALL SELECT 'silver', path, epoch_us(event_time), value_raw, edge, boot, stream, n, i FROM silver.readings
		UNION ALL SELECT 'quarantine', path, epoch_us(event_time), value, edge, boot, stream, n, i FROM silver.readings_quarantine`)
	got := map[string]map[Cell]int{"bronze": {}, "silver": {}, "quarantine": {}}
	seen := map[string]bool{}
	messages := map[string]map[uint64]bool{}
	for _, row := range rows {
		us, err1 := strconv.ParseInt(row[2], 10, 64)
		v, err2 := strconv.ParseFloat(row[3], 64)
		n, err3 := strconv.ParseUint(row[7], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatalf("row %v: %v %v %v", row, err1, err2, err3)
		}
		got[row[0]][Cell{row[1], us, v}]++
		id := strings.Join(slices.Concat(row[:1], row[4:]), "|")
		if seen[id] {
			t.Errorf("%s holds (edge, boot, stream, n, i) twice: %v", row[0], row)
		}
		seen[id] = true
		if row[0] == "bronze" {
			stream := strings.Join(row[4:7], "|")
			if messages[stream] == nil {
				messages[stream] = map[uint64]bool{}
			}
			messages[stream][n] = true
		}
	}
	possible, quarantined := map[Cell]int{}, map[Cell]int{}
	for c, k := range want {
		if impossible != nil && impossible(c) {
			quarantined[c] = k
		} else {
			possible[c] = k
		}
	}
	SameCells(t, "bronze.readings", got["bronze"], want)
	SameCells(t, "silver.readings", got["silver"], possible)
	SameCells(t, "silver.readings_quarantine", got["quarantine"], quarantined)
	for stream, ns := range messages {
		if top := slices.Max(slices.Collect(maps.Keys(ns))); top+1 != uint64(len(ns)) {
			t.Errorf("stream %s has %d messages in bronze, the last is n=%d", stream, len(ns), top)
		}
	}
}

// SameCells compares what is somewhere with what the files hold.
func SameCells(t testing.TB, where string, got, want map[Cell]int) {
	t.Helper()
	var wrong []string
	missing, extra := 0, 0
	for c, k := range want {
		if d := k - got[c]; d > 0 {
			missing += d
			wrong = append(wrong, fmt.Sprintf("missing %v ×%d", c, d))
		}
	}
	for c, k := range got {
		if d := k - want[c]; d > 0 {
			extra += d
			wrong = append(wrong, fmt.Sprintf("too many %v ×%d", c, d))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		t.Errorf("%s: %d values of the files are missing, %d are too many:\n  %s",
			where, missing, extra, strings.Join(wrong[:min(len(wrong), 8)], "\n  "))
	}
}

// Gold is what the gold tables say, without the columns that tell how a row
// came about: equal for equal readings, however they arrived.
func Gold(t testing.TB, bin, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, query := range []string{
		`SELECT path, window_start, mean, min, max, last, count, coverage, good_fraction, unit, interpolation FROM gold.windows_1m ORDER BY ALL`,
		`SELECT path, event_time, alive_at, value, text, unit, quality, good FROM gold.twin_state ORDER BY ALL`,
	} {
		for _, row := range CSV(t, bin, dir, query) {
			b.WriteString(strings.Join(row, ";") + "\n")
		}
	}
	return b.String()
}

// SameText compares two texts line by line and shows the first differences.
func SameText(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := map[string]bool{}, map[string]bool{}
	for l := range strings.Lines(got) {
		g[l] = true
	}
	for l := range strings.Lines(want) {
		w[l] = true
	}
	var diff []string
	for l := range w {
		if !g[l] {
			diff = append(diff, "- "+l)
		}
	}
	for l := range g {
		if !w[l] {
			diff = append(diff, "+ "+l)
		}
	}
	slices.SortFunc(diff, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	t.Errorf("%s differs in %d lines (- want, + got):\n%s", what, len(diff), strings.Join(diff[:min(len(diff), 12)], ""))
}
