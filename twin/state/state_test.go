package state

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

func genRow(paths []signal.Path) *rapid.Generator[Row] {
	return rapid.Custom(func(t *rapid.T) Row {
		event := signal.Micros(rapid.Int64Range(0, 3).Draw(t, "event"))
		return Row{
			Path:      rapid.SampledFrom(paths).Draw(t, "path"),
			EventTime: event,
			AliveAt:   event + signal.Micros(rapid.Int64Range(0, 2).Draw(t, "alive")),
			Edge:      rapid.SampledFrom([]string{"s/a", "s/b"}).Draw(t, "edge"),
			Boot:      rapid.SampledFrom([]string{"0", "1"}).Draw(t, "boot"),
			Stream:    rapid.SampledFrom([]string{"x:event", "x:telemetry"}).Draw(t, "stream"),
			N:         rapid.Uint64Range(0, 2).Draw(t, "n"),
			I:         rapid.IntRange(0, 2).Draw(t, "i"),
		}
	})
}

// identify gives equal keys equal contents, as the lake's dedupe does.
func identify(r Row) Row {
	key := fmt.Sprint(r.Path, r.EventTime, r.AliveAt, r.Edge, r.Boot, r.Stream, r.N, r.I)
	r.Value = signal.TextValue(key)
	r.Unit = key[len(key)-1:]
	r.Good = r.N%2 == 0
	r.Quality = signal.Quality(r.I)
	return r
}

func TestAnyOrderOfArrivalGivesTheSameState(t *testing.T) {
	paths := []signal.Path{"s/l/a/x", "s/l/a/y", "s/l/b/x"}
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.Map(genRow(paths), identify), 0, 60).Draw(t, "rows")
		want := map[signal.Path]Row{}
		for _, p := range paths {
			own := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Path != p })
			if len(own) > 0 {
				slices.SortFunc(own, Compare)
				want[p] = own[len(own)-1]
			}
		}
		shuffled := rapid.Permutation(slices.Concat(rows, rows)).Draw(t, "arrival")
		twin := New()
		sub := twin.Subscribe(nil)
		defer sub.Close()
		heard := map[signal.Path]Row{}
		listen := func() {
			for rows := sub.Take(3); len(rows) > 0; rows = sub.Take(3) {
				for _, r := range rows {
					heard[r.Path] = r
				}
			}
		}
		for len(shuffled) > 0 {
			n := rapid.IntRange(1, len(shuffled)).Draw(t, "batch")
			twin.Apply(shuffled[:n])
			shuffled = shuffled[n:]
			if rapid.Bool().Draw(t, "listen") {
				listen()
			}
		}
		listen()
		got := map[signal.Path]Row{}
		for _, a := range twin.Assets() {
			for _, r := range twin.OfAsset(a) {
				got[r.Path] = r
			}
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Fatal("state: " + d)
		}
		if d := gocmp.Diff(want, heard); d != "" {
			t.Fatal("what a subscriber heard: " + d)
		}
	})
}

func TestGet(t *testing.T) {
	twin := New()
	row := Row{Path: "s/l/a/x", EventTime: 5, AliveAt: 5, Value: signal.NumberValue(math.NaN()), Unit: "A", Quality: 192, Good: true, Edge: "s/a", Boot: "b", Stream: "s/l/a:telemetry", N: 7, I: 1}
	twin.Apply([]Row{row})
	got, ok := twin.Get(row.Path)
	if d := gocmp.Diff(row, got, cmpopts.EquateNaNs()); !ok || d != "" {
		t.Error(ok, d)
	}
	if _, ok := twin.Get("s/l/a/y"); ok {
		t.Error("a sensor without a value has one")
	}
	if twin.Len() != 1 {
		t.Errorf("Len = %d", twin.Len())
	}
}

func TestASlowSubscriberCoalescesAndNeverBlocks(t *testing.T) {
	twin := New()
	twin.Apply([]Row{{Path: "s/l/a/before"}})
	slow := twin.Subscribe(func(p signal.Path) bool { return p.Asset() == "s/l/a" })
	for n := range 1000 {
		twin.Apply([]Row{
			{Path: "s/l/a/x", EventTime: signal.Micros(n)},
			{Path: "s/l/b/x", EventTime: signal.Micros(n)},
			{Path: "s/l/a/y", EventTime: signal.Micros(n)},
		})
	}
	if n := len(slow.queue); n != 3 {
		t.Errorf("%d entries wait for the slow subscriber, want one per sensor it wants", n)
	}
	ready := func() bool {
		select {
		case <-slow.Ready():
			return true
		default:
			return false
		}
	}
	var told []Row
	for ready() {
		told = append(told, slow.Take(2)...)
	}
	want := []Row{{Path: "s/l/a/before"}, {Path: "s/l/a/x", EventTime: 999}, {Path: "s/l/a/y", EventTime: 999}}
	if d := gocmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	twin.Apply([]Row{{Path: "s/l/b/x", EventTime: 1000}, {Path: "s/l/a/x", EventTime: 998}})
	if ready() {
		t.Error("ready after changes that it does not want and one that is none")
	}
	slow.Close()
	slow.Close()
	twin.Apply([]Row{{Path: "s/l/a/z"}})
	if len(twin.subs) != 0 || ready() || len(slow.Take(1)) != 0 {
		t.Error("a closed subscription is still told")
	}
}

func TestReadersDuringApply(t *testing.T) {
	twin := New()
	sub := twin.Subscribe(nil)
	defer sub.Close()
	const rounds = 200
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range rounds {
			rows := make([]Row, 100)
			for k := range rows {
				rows[k] = Row{Path: signal.Asset("s/l/a").Sensor(fmt.Sprint(k)), EventTime: signal.Micros(n)}
			}
			twin.Apply(rows)
		}
	})
	wg.Go(func() {
		last := signal.Micros(-1)
		for last < rounds-1 {
			if r, ok := twin.Get("s/l/a/7"); ok {
				if r.EventTime < last {
					t.Errorf("time went back from %d to %d", last, r.EventTime)
				}
				last = r.EventTime
			}
			twin.OfAsset("s/l/a")
		}
	})
	wg.Go(func() {
		done := map[signal.Path]bool{}
		for len(done) < 100 {
			<-sub.Ready()
			for _, r := range sub.Take(30) {
				if r.EventTime == rounds-1 {
					done[r.Path] = true
				}
			}
		}
	})
	wg.Wait()
}

func TestMemoryIsFlat(t *testing.T) {
	const sensors = 100_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	twin := New()
	before := heap()
	round := func(event int) {
		rows := make([]Row, 0, 1000)
		for k := range sensors {
			asset := k / 10
			rows = append(rows, Row{
				Path:      signal.Path(fmt.Sprintf("plant/line-%02d/press-%05d/sensor_%d", asset%50, asset, k%10)),
				EventTime: signal.Micros(event), AliveAt: signal.Micros(event), Value: signal.NumberValue(float64(k)),
				Unit: fmt.Sprint("mm/", "s"), Quality: 192, Good: true,
				Edge: fmt.Sprint("plant/edge-", asset/100), Boot: fmt.Sprint("boot-", asset/100, "-", event/4),
				Stream: fmt.Sprintf("plant/line-%02d/press-%05d:telemetry", asset%50, asset), N: uint64(event),
			})
			if len(rows) == cap(rows) {
				twin.Apply(rows)
				rows = rows[:0]
			}
		}
	}
	round(0)
	full := heap()
	for event := 1; event < 4; event++ {
		round(event)
	}
	after := heap()
	perPath := float64(full-before) / sensors
	t.Logf("%.0f bytes per path; %+.1f after three more rounds", perPath, (float64(after)-float64(full))/sensors)
	if perPath > 400 {
		t.Errorf("%.0f bytes per path, want at most 400", perPath)
	}
	if float64(after) > 1.05*float64(full) {
		t.Errorf("the heap grew from %d to %d bytes with no new path", full, after)
	}
	runtime.KeepAlive(twin)
}

func BenchmarkApply(b *testing.B) {
	twin := New()
	sub := twin.Subscribe(nil)
	defer sub.Close()
	rows := make([]Row, 10_000)
	for k := range rows {
		rows[k] = Row{Path: signal.Path(fmt.Sprintf("s/l/a%d/x%d", k/10, k%10)), Edge: "s/e", Boot: "boot", Stream: "s"}
	}
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	event := signal.Micros(0)
	for b.Loop() {
		event++
		for k := range rows {
			rows[k].EventTime = event
		}
		twin.Apply(rows)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
}
