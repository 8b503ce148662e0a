package features

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// The as-of read against one that looks at every pair of rows.
func TestAsOfAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	looked := 0
	for looked < 100_000 {
		rows := make([]Row, rng.IntN(30))
		for i := range rows {
			rows[i] = Row{Event: signal.Micros(rng.IntN(12)), Retracted: rng.IntN(4) == 0, Seq: int64(i)}
			rows[i].Available = rows[i].Event + signal.Micros(rng.IntN(8))
		}
		at, k, ttl := signal.Micros(rng.IntN(16)), signal.Micros(rng.IntN(20)), signal.Micros(1+rng.IntN(10))
		got, status := AsOf(rows, at, k, ttl)
		want := -1
		for i, r := range rows {
			if r.Available > min(k, at) || r.Event > at || r.Event <= at-ttl || r.Retracted {
				continue
			}
			beaten := false
			for j, o := range rows {
				if o.Event == r.Event && o.Available <= min(k, at) && (o.Available > r.Available || o.Available == r.Available && j > i) {
					beaten = true
				}
			}
			if !beaten && (want < 0 || r.Event > rows[want].Event) {
				want = i
			}
		}
		if got != want || (status == Found) != (want >= 0) {
			t.Fatalf("rows %+v at %d known %d ttl %d: %d %s, want %d", rows, at, k, ttl, got, status, want)
		}
		looked += len(rows)
	}
}

// What comes to be known later, and what lies later, changes no answer.
func TestTheFutureChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		time := func(name string) signal.Micros { return signal.Micros(rapid.Int64Range(0, 20).Draw(t, name)) }
		var rows []Row
		for i := range rapid.IntRange(0, 20).Draw(t, "n") {
			e := time("event")
			rows = append(rows, Row{Event: e, Available: e + time("delay"), Retracted: rapid.Bool().Draw(t, "op"), Seq: int64(i)})
		}
		at := time("t")
		k := min(time("k"), at)
		before, s1 := AsOf(rows, at, k, 10)
		poisoned := append([]Row(nil), rows...)
		for range 5 {
			e := time("poison")
			p := Row{Event: e, Available: k + 1 + time("later"), Seq: 99}
			if rapid.Bool().Draw(t, "ahead") {
				p = Row{Event: at + 1 + e, Available: e, Seq: 99}
			}
			poisoned = append(poisoned, p)
		}
		if after, s2 := AsOf(poisoned, at, k, 10); after != before || s1 != s2 {
			t.Fatalf("%d %s became %d %s", before, s1, after, s2)
		}
	})
}

// The rolling mean against one over a plain list, whatever the order of arrival.
func TestRollingAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		var h History
		values := make([][12]float64, n)
		unused := map[signal.Micros]bool{}
		for _, i := range rapid.Permutation(seq(n*12)).Draw(t, "order") {
			w, place := i/12, i%12
			v := 0.1 + float64((w*7+place*3)%10)
			values[w][place] = v
			if !h.Put(signal.Micros(w+1)*30_000_000, place, v) || h.Put(signal.Micros(w+1)*30_000_000, place, v) {
				t.Fatal("news is not told from repeats")
			}
		}
		for w := range n {
			unused[signal.Micros(w+1)*30_000_000] = rapid.Bool().Draw(t, "unused")
		}
		use := func(e signal.Micros) bool { return !unused[e] }
		for w := range n {
			end := signal.Micros(w+1) * 30_000_000
			var want Vector
			count := 0.0
			for o := w; o >= 0 && w-o < 4; o-- { // 120 s hold four ends
				if o != w && unused[signal.Micros(o+1)*30_000_000] {
					continue
				}
				for k, x := range vectorOf(&values[o]) {
					want[k] += x
				}
				count++
			}
			got, windows := h.At(end, use)
			if float64(windows) != count {
				t.Fatalf("window %d: of %d, want %v", w, windows, count)
			}
			for k := range want {
				if math.Abs(got[k]-want[k]/count) > 1e-12 {
					t.Fatalf("window %d, %s: %v, want %v", w, Names()[k], got[k], want[k]/count)
				}
			}
		}
	})
}

func seq(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestChannel(t *testing.T) {
	for sensor, want := range map[string]string{"de.rms": "de", "de.env.bpfo": "de", "de": "", "de.other": "", ".rms": ""} {
		if c, _, ok := Channel(sensor); ok && c != want || ok != (want != "" || sensor == ".rms") {
			t.Errorf("%q: %q, %v", sensor, c, ok)
		}
	}
	if len(Names()) != len(Vector{}) || len(suffixes()) != 12 {
		t.Error("names and values differ in number")
	}
}
