package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// sent is a reading as the property sends it.
type sent struct {
	path signal.Path
	e    *edge
	r    signal.Reading
	n    uint64
}

type windowKey struct {
	path  string
	start int64
}

type windowRow struct {
	mean, least, greatest, last, coverage, good float64
	count                                       int64
}

// bruteWindows calculates the windows of readings one microsecond range at a
// time, from the definition and without looking at the query.
func bruteWindows(rows []sent, hold int64) map[windowKey]windowRow {
	type moment struct {
		at, alive int64
		r         sent
	}
	byPath := map[signal.Path][]sent{}
	for _, r := range rows {
		byPath[r.path] = append(byPath[r.path], r)
	}
	out := map[windowKey]windowRow{}
	for path, rs := range byPath {
		slices.SortFunc(rs, func(a, b sent) int {
			return cmp.Or(cmp.Compare(a.r.EventTime, b.r.EventTime), cmp.Compare(a.r.AliveAt, b.r.AliveAt),
				cmp.Compare(a.e.name, b.e.name), cmp.Compare(a.e.boot, b.e.boot), cmp.Compare(a.n, b.n))
		})
		var moments []moment
		for _, r := range rs {
			m := moment{int64(r.r.EventTime), int64(r.r.AliveAt), r}
			if k := len(moments); k > 0 && moments[k-1].at == m.at {
				moments[k-1] = m
			} else {
				moments = append(moments, m)
			}
		}
		type sum struct {
			area, good, held float64
			windowRow
			any, number bool
		}
		sums := map[int64]*sum{}
		for i, m := range moments {
			to := m.alive + hold
			if i+1 < len(moments) {
				to = min(to, moments[i+1].at)
			}
			number := m.r.r.Value.Kind == signal.Number
			counts := number && m.r.r.Quality.Good()
			for w := m.at - m.at%60e6; w == m.at-m.at%60e6 || w < to; w += 60e6 {
				s := sums[w]
				if s == nil {
					s = &sum{windowRow: windowRow{least: math.NaN(), greatest: math.NaN(), last: math.NaN(), mean: math.NaN(), good: math.NaN()}}
					sums[w] = s
				}
				micros := float64(min(to, w+60e6) - max(m.at, w))
				s.number = s.number || number
				if number {
					s.held += micros
					if m.at >= w {
						s.count++
					}
				}
				if !counts {
					continue
				}
				v := m.r.r.Value.Number
				s.good += micros
				s.area += v * micros
				s.last = v
				if !s.any || v < s.least {
					s.least = v
				}
				if !s.any || v > s.greatest {
					s.greatest = v
				}
				s.any = true
			}
		}
		for w, s := range sums {
			if !s.number {
				continue
			}
			if s.good > 0 {
				s.mean = max(s.least, min(s.greatest, s.area/s.good))
			}
			s.coverage = s.held / 60e6
			if s.held > 0 {
				s.windowRow.good = s.good / s.held
			}
			out[windowKey{string(path), w}] = s.windowRow
		}
	}
	return out
}

func (k windowKey) line(r windowRow) string {
	f := func(v float64) string {
		if math.IsNaN(v) {
			return "<nil>"
		}
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%s|%d|%s|%s|%s|%s|%d|%s|%s", k.path, k.start, f(r.mean), f(r.least), f(r.greatest), f(r.last), r.count, f(r.coverage), f(r.good))
}

// drawReadings draws a story: several sensors, late and repeated rows,
// heartbeats, bad quality, values of other kinds.
func drawReadings(t *rapid.T, edges []*edge) [][]sent {
	var batches [][]sent
	clock := int64(0) // seconds
	var all []sent
	for range rapid.IntRange(1, 6).Draw(t, "batches") {
		var batch []sent
		for range rapid.IntRange(1, 12).Draw(t, "rows") {
			e := rapid.SampledFrom(edges).Draw(t, "edge")
			path := rapid.SampledFrom([]signal.Path{"s/l/a/x", "s/l/a/y", "s/l/b/x"}).Draw(t, "path")
			clock += rapid.Int64Range(0, 40).Draw(t, "pause")
			event := day + signal.Micros(1e6*clock)
			switch rapid.IntRange(0, 9).Draw(t, "how") {
			case 0, 1: // late
				event -= signal.Micros(1e6 * rapid.Int64Range(0, 600).Draw(t, "late"))
			case 2: // at the time of another row
				if len(all) > 0 {
					event = rapid.SampledFrom(all).Draw(t, "same").r.EventTime
				}
			}
			s := sent{path: path, e: e, r: at(path.Sensor(), event, float64(rapid.IntRange(-3, 3).Draw(t, "value"))/10)}
			switch rapid.IntRange(0, 11).Draw(t, "kind") {
			case 0:
				s.r.Quality = signal.QualityBad
			case 1:
				s.r.Value, s.r.Quality = signal.Value{}, signal.QualityStale
			case 2:
				s.r.Value = signal.TextValue("fault")
			case 3, 4, 5: // heartbeat of an earlier row of its path
				same := slices.DeleteFunc(slices.Clone(all), func(o sent) bool { return o.path != path })
				if len(same) > 0 {
					s.r = rapid.SampledFrom(same).Draw(t, "beats").r
					s.r.AliveAt = max(s.r.AliveAt, s.r.EventTime+signal.Micros(1e6*rapid.Int64Range(1, 900).Draw(t, "alive")))
				}
			case 6: // a repeat, to be recognised
				if len(all) > 0 {
					o := rapid.SampledFrom(all).Draw(t, "repeat")
					s.path, s.r = o.path, o.r
				}
			}
			batch, all = append(batch, s), append(all, s)
		}
		batches = append(batches, batch)
	}
	return batches
}

// unique keeps the first of readings that silver takes for repeats, in its
// order.
func unique(l *lake) []sent {
	var out []sent
	for _, line := range l.table(tableSilver, "path, epoch_us(event_time), epoch_us(alive_at), kind, coalesce(value, 0), quality, edge, boot, n") {
		var s sent
		f := strings.Split(line, "|")
		s.path = signal.Path(f[0])
		s.e = &edge{name: f[6], boot: f[7]}
		kind := f[3]
		fmt.Sscan(f[1], &s.r.EventTime)
		fmt.Sscan(f[2], &s.r.AliveAt)
		fmt.Sscan(f[4], &s.r.Value.Number)
		fmt.Sscan(f[5], &s.r.Quality)
		fmt.Sscan(f[8], &s.n)
		if kind == "number" {
			s.r.Value.Kind = signal.Number
		}
		out = append(out, s)
	}
	return out
}

const windowColumns = "path, epoch_us(window_start), mean, min, max, last, count, coverage, good_fraction"

func TestWindowsAndStateFollowSilver(t *testing.T) {
	db := openDB(t)
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		l := newLakeIn(t, fmt.Sprint(dir, "/", run), db, 2)
		l.spine.now = day + 30*86400e6
		l.rows = rapid.SampledFrom([]int64{5, 20, 1000}).Draw(rt, "batch rows")
		edges := []*edge{newEdge("s/e1", "b1"), newEdge("s/e2", "b1")}
		keys := map[string]bool{}
		r := l.start(nil)
		for _, batch := range drawReadings(rt, edges) {
			for _, s := range batch {
				l.spine.send(s.e.message(s.path.Asset(), s.r))
				v := s.r.Value
				keys[fmt.Sprint(s.path, s.r.EventTime, s.r.AliveAt, v.Kind == signal.Null || v.Kind == signal.Text, v.Number, v.Text, s.r.Quality)] = true
			}
			if rapid.Bool().Draw(rt, "drain") {
				l.drain(r)
			}
			if rapid.IntRange(0, 5).Draw(rt, "restart") == 0 {
				if err := r.end(); err != nil {
					rt.Fatal(err)
				}
				r = l.start(nil)
			}
		}
		l.drain(r)
		if err := r.end(); err != nil {
			rt.Fatal(err)
		}
		rows := unique(l)
		if len(rows) != len(keys) {
			rt.Fatalf("silver has %d rows of %d different readings", len(rows), len(keys))
		}
		l.checkGold(rt, rows)
	})
}

// checkGold compares windows with the view's query over all of silver and with
// a calculation of its own, and the state with the last row of each path.
func (l *lake) checkGold(t interface{ Fatal(...any) }, rows []sent) {
	got := l.table(tableWindows, windowColumns)
	body := l.pipeline.Table(tableWindows).Body
	whole := l.whole("SELECT " + windowColumns + " FROM (" + body + ") ORDER BY ALL")
	if diff := gocmp.Diff(whole, got); diff != "" {
		t.Fatal("windows differ from the query over all of silver (-whole +kept)", diff)
	}
	var want []string
	for k, r := range bruteWindows(rows, l.registry.hold) {
		want = append(want, k.line(r))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatal("windows differ from the definition (-definition +kept)", diff)
	}
	last := map[signal.Path]sent{}
	for _, r := range rows {
		o, ok := last[r.path]
		if !ok || cmp.Or(cmp.Compare(o.r.EventTime, r.r.EventTime), cmp.Compare(o.r.AliveAt, r.r.AliveAt), cmp.Compare(o.e.name, r.e.name), cmp.Compare(o.e.boot, r.e.boot), cmp.Compare(o.n, r.n)) < 0 {
			last[r.path] = r
		}
	}
	var state []string
	for p, r := range last {
		state = append(state, fmt.Sprintf("%s|%d|%d|%s|%d", p, r.r.EventTime, r.r.AliveAt, r.e.name, r.n))
	}
	slices.Sort(state)
	if diff := gocmp.Diff(state, l.table(tableState, "path, epoch_us(event_time), epoch_us(alive_at), edge, n")); diff != "" {
		t.Fatal("state (-want +got)", diff)
	}
}

// whole runs a query with silver.readings as it is on disk.
func (l *lake) whole(sql string) []string {
	l.t.Helper()
	w := &Worker{Options: Options{DB: l.db}}
	s, err := w.session(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Close()
	if err := s.Exec(context.Background(), "CREATE VIEW "+tableSilver+" AS SELECT * FROM "+l.relation(tableSilver)); err != nil {
		l.t.Fatal(err)
	}
	return queryText(l.t, s, sql)
}
