package filter_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/signal"
)

// numbers draws readings in order, now and then of bad quality, late or no number.
func numbers(rt *rapid.T) (out []signal.Reading) {
	at, value := 0.0, 0.0
	for range rapid.IntRange(1, 150).Draw(rt, "n") {
		at += rapid.Float64Range(0.001, 15).Draw(rt, "step")
		value += rapid.Float64Range(-3, 3).Draw(rt, "change")
		r := reading(at, signal.NumberValue(value))
		switch rapid.IntRange(0, 40).Draw(rt, "what") {
		case 0:
			r.Quality = signal.QualityBad
		case 1:
			r.Value = signal.NumberValue(math.NaN())
		}
		out = append(out, r)
	}
	return out
}

// run is what a set makes of readings; it is closed and opened again after stop.
func run(t *rapid.T, s *filter.Set, in []signal.Reading, stop int) (out []signal.Reading, sent []bool, tally filter.Tally, worst filter.Error) {
	f, err := s.Open(nil)
	for i, r := range in {
		if i == stop && err == nil {
			f, err = s.Open(f.State())
		}
		if err != nil {
			t.Fatal(err)
		}
		var v filter.Verdict
		out, v = f.Apply(out, asset, r, &tally)
		sent = append(sent, v.Sent)
	}
	return out, sent, tally, f.Worst()
}

// Lines between the values that a swinging door sends are never further from a
// sample than the band; each value that is sent is one that was measured; no more
// than a heartbeat and a sample go by without one; and a restart changes nothing.
func TestDoorErrsByNoMoreThanTheBand(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		band := rapid.Float64Range(0.01, 5).Draw(rt, "band")
		s, err := filter.New(filter.Config{HeartbeatSeconds: 60, Rules: []filter.Rule{{Deadband: band, Method: filter.SwingingDoor}}})
		if err != nil {
			rt.Fatal(err)
		}
		in := numbers(rt)
		out, _, tally, worst := run(rt, s, in, -1)
		if len(in)+int(tally.Held) != len(out)+int(tally.Filtered) {
			rt.Fatalf("%d in + %d added is not %d out + %d filtered", len(in), tally.Held, len(out), tally.Filtered)
		}
		again, _, _, _ := run(rt, s, in, rapid.IntRange(0, len(in)).Draw(rt, "stop"))
		if d := cmp.Diff(out, again, cmp.Comparer(signal.Value.Equal)); d != "" {
			rt.Fatalf("a restart: %s", d)
		}
		measured := map[signal.Micros]signal.Reading{}
		for _, r := range in {
			measured[r.EventTime] = r
		}
		var most float64
		for i, o := range out {
			if m, ok := measured[o.EventTime]; !ok || !m.Value.Equal(o.Value) || m.Quality != o.Quality {
				rt.Fatalf("%v was never measured", o)
			}
			if i == 0 {
				continue
			}
			a := out[i-1]
			if o.EventTime < a.EventTime {
				rt.Fatalf("%v comes after %v", o.EventTime, a.EventTime)
			}
			line := a.Quality == o.Quality && !math.IsNaN(a.Value.Number) && !math.IsNaN(o.Value.Number)
			for _, r := range in {
				if r.EventTime <= a.EventTime || r.EventTime >= o.EventTime {
					continue
				}
				if !line && r.Quality == a.Quality && r.Value.Equal(a.Value) {
					continue // no number, again and again
				}
				if !line {
					rt.Fatalf("%v between %v and %v is on no line", r, a, o)
				}
				part := float64(r.EventTime-a.EventTime) / float64(o.EventTime-a.EventTime)
				d := math.Abs(a.Value.Number + part*(o.Value.Number-a.Value.Number) - r.Value.Number)
				if d > band*(1+1e-9) {
					rt.Fatalf("%v is %v off the line from %v to %v, band %v", r, d, a, o, band)
				}
				most = max(most, d)
			}
		}
		if math.Abs(worst.Value-most) > 1e-9 {
			rt.Fatalf("the filter says that it is at most %v off, it is %v", worst.Value, most)
		}
		if last := out[len(out)-1].EventTime; in[len(in)-1].EventTime-last > 60e6 {
			rt.Fatalf("nothing since %v", last)
		}
	})
}

// With the previous sample sent, a step is where it was measured.
func TestPreviousSample(t *testing.T) {
	num := signal.NumberValue
	for name, tc := range map[string]struct{ in, want []signal.Reading }{
		"a step": {
			[]signal.Reading{reading(0, num(1)), reading(10, num(1.1)), reading(20, num(1.2)), reading(21, num(5))},
			[]signal.Reading{reading(0, num(1)), reading(20, num(1.2)), reading(21, num(5))},
		},
		"nothing held back": {
			[]signal.Reading{reading(0, num(1)), reading(1, num(5)), reading(2, num(9))},
			[]signal.Reading{reading(0, num(1)), reading(1, num(5)), reading(2, num(9))},
		},
		"a text": {
			[]signal.Reading{reading(0, signal.TextValue("a")), reading(9, signal.TextValue("a")), reading(10, signal.TextValue("b"))},
			[]signal.Reading{reading(0, signal.TextValue("a")), reading(9, signal.TextValue("a")), reading(10, signal.TextValue("b"))},
		},
	} {
		s := set(t, filter.Config{Rules: []filter.Rule{{Deadband: 0.5, Previous: true}}})
		for stop := range len(tc.in) + 1 {
			f := open(t, s, nil)
			var got []signal.Reading
			var tally filter.Tally
			for i, r := range tc.in {
				if i == stop {
					f = open(t, s, f.State())
				}
				got, _ = f.Apply(got, asset, r, &tally)
			}
			if d := cmp.Diff(tc.want, got, cmp.Comparer(signal.Value.Equal)); d != "" {
				t.Errorf("%s, restart at %d: %s", name, stop, d)
			}
		}
	}
}

// Within the least interval nothing goes for its value alone, but quality and
// late readings do; a rule's own heartbeat keeps the time of measurement.
func TestIntervals(t *testing.T) {
	num := signal.NumberValue
	s := set(t, filter.Config{Rules: []filter.Rule{{Deadband: 0.5, MinIntervalSeconds: 5, MaxIntervalSeconds: 20}}})
	f := open(t, s, nil)
	bad := reading(3, num(9))
	bad.Quality = signal.QualityBad
	beat := reading(9, num(7))
	beat.AliveAt = 29e6
	in := []signal.Reading{reading(0, num(1)), reading(1, num(9)), reading(2, num(8)), bad, reading(4, num(9)), reading(9, num(7)), reading(11, num(3)), reading(12, num(7)), reading(29, num(7.1)), reading(8, num(2))}
	want := []signal.Reading{reading(0, num(1)), bad, reading(4, num(9)), reading(9, num(7)), beat, reading(8, num(2))}
	var got []signal.Reading
	var tally filter.Tally
	for _, r := range in {
		got, _ = f.Apply(got, asset, r, &tally)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(signal.Value.Equal)); d != "" {
		t.Error(d)
	}
	if w := f.Worst(); w.Value != 8 || w.Bands != 16 || w.Path != asset.Sensor("t") || w.Unit != "Cel" {
		t.Errorf("%+v", w)
	}
}

// The largest error of a deadband is what holding each sent value misses.
func TestWorstAgainstHolding(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := filter.New(filter.Config{Rules: []filter.Rule{{Deadband: 1}}})
		if err != nil {
			rt.Fatal(err)
		}
		var in []signal.Reading
		for i, v := range rapid.SliceOfN(rapid.Float64Range(-5, 5), 1, 200).Draw(rt, "values") {
			in = append(in, reading(float64(i+1), signal.NumberValue(v)))
		}
		_, sent, _, worst := run(rt, s, in, -1)
		shown, want := 0.0, 0.0
		for i, r := range in {
			if sent[i] {
				shown = r.Value.Number
			}
			want = max(want, math.Abs(r.Value.Number-shown))
		}
		if worst.Value != want || worst.Bands != want || want > 1 {
			rt.Fatalf("%+v, want %v", worst, want)
		}
	})
}

// Nothing is allocated for a reading, whatever the method.
func TestApplyAllocatesNothing(t *testing.T) {
	for name, rule := range map[string]filter.Rule{
		"deadband": {Deadband: 0.5}, "previous": {Deadband: 0.5, Previous: true}, "door": {Deadband: 0.5, Method: filter.SwingingDoor},
	} {
		f := open(t, set(t, filter.Config{Rules: []filter.Rule{rule}}), nil)
		out := make([]signal.Reading, 0, 4)
		var tally filter.Tally
		i := 0
		next := func() {
			i++
			r := reading(float64(i), signal.NumberValue(math.Sin(float64(i)/20)+0.2*math.Sin(float64(i))))
			out, _ = f.Apply(out[:0], asset, r, &tally)
		}
		for range 2000 {
			next()
		}
		if n := testing.AllocsPerRun(1000, next); n != 0 {
			t.Errorf("%s: %v allocations per reading", name, n)
		}
	}
}
