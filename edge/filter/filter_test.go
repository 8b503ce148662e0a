package filter_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/need"
)

const asset = signal.Asset("skab/valve1/0")

func open(t testing.TB, s *filter.Set, state []byte) *filter.Filter {
	t.Helper()
	f, err := s.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func set(t testing.TB, c filter.Config) *filter.Set {
	t.Helper()
	s, err := filter.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reading(seconds float64, v signal.Value) signal.Reading {
	at := signal.Micros(seconds * 1e6)
	return signal.Reading{Sensor: "t", EventTime: at, AliveAt: at, Value: v, Unit: "Cel", Quality: signal.QualityGood}
}

func TestApply(t *testing.T) {
	num, text := signal.NumberValue, signal.TextValue
	bad := reading(5, num(1))
	bad.Quality = signal.QualityBad
	beat := reading(0, num(1))
	beat.AliveAt = 60e6
	unit := reading(1, num(1))
	unit.Unit = "K"
	rescued := reading(1, num(1))
	rescued.Rescued = `{"x":1}`
	nan := num(math.NaN())
	inf := num(math.Inf(1))
	type r = signal.Reading
	for name, tc := range map[string]struct{ in, want []r }{
		"at the band":        {[]r{reading(0, num(1)), reading(1, num(1.5)), reading(2, num(0.5))}, []r{reading(0, num(1))}},
		"beyond it":          {[]r{reading(0, num(1)), reading(1, num(1.51)), reading(2, num(1))}, []r{reading(0, num(1)), reading(1, num(1.51)), reading(2, num(1))}},
		"against last sent":  {[]r{reading(0, num(1)), reading(1, num(1.4)), reading(2, num(1.8))}, []r{reading(0, num(1)), reading(2, num(1.8))}},
		"heartbeat":          {[]r{reading(0, num(1)), reading(59, num(1.1)), reading(60, num(1.2)), reading(61, num(1))}, []r{reading(0, num(1)), beat}},
		"quality":            {[]r{reading(0, num(1)), bad, reading(6, num(1))}, []r{reading(0, num(1)), bad, reading(6, num(1))}},
		"unit":               {[]r{reading(0, num(1)), unit}, []r{reading(0, num(1)), unit}},
		"rescued":            {[]r{reading(0, num(1)), rescued, reading(2, num(1))}, []r{reading(0, num(1)), rescued, reading(2, num(1))}},
		"NaN":                {[]r{reading(0, num(1)), reading(1, nan), reading(2, nan), reading(3, num(1))}, []r{reading(0, num(1)), reading(1, nan), reading(3, num(1))}},
		"infinite":           {[]r{reading(0, inf), reading(1, inf), reading(2, num(math.Inf(-1)))}, []r{reading(0, inf), reading(2, num(math.Inf(-1)))}},
		"text":               {[]r{reading(0, text("a")), reading(1, text("a")), reading(2, text("b")), reading(3, num(1))}, []r{reading(0, text("a")), reading(2, text("b")), reading(3, num(1))}},
		"bool":               {[]r{reading(0, signal.BoolValue(true)), reading(1, signal.BoolValue(true)), reading(2, signal.BoolValue(false))}, []r{reading(0, signal.BoolValue(true)), reading(2, signal.BoolValue(false))}},
		"null":               {[]r{reading(0, signal.Value{}), reading(1, signal.Value{}), reading(2, num(0))}, []r{reading(0, signal.Value{}), reading(2, num(0))}},
		"late":               {[]r{reading(9, num(1)), reading(3, num(1)), reading(10, num(1))}, []r{reading(9, num(1)), reading(3, num(1))}},
		"proof of its own":   {[]r{reading(0, num(1)), beat}, []r{reading(0, num(1)), beat}},
		"nothing for nobody": {},
	} {
		s := set(t, filter.Config{Rules: []filter.Rule{{Sensor: "t*", Deadband: 0.5}}})
		f := open(t, s, nil)
		var tally filter.Tally
		var got []r
		for i, x := range tc.in {
			got, _ = f.Apply(got, asset, x, &tally)
			if i%2 == 0 { // a restart changes nothing
				f = open(t, s, f.State())
			}
		}
		if diff := cmp.Diff(tc.want, got, cmp.Comparer(signal.Value.Equal)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(tc.in)+int(tally.Held) != len(got)+int(tally.Filtered) {
			t.Errorf("%s: %d in + %d held is not %d out + %d filtered", name, len(tc.in), tally.Held, len(got), tally.Filtered)
		}
	}
}

// TestHoldingErrsByNoMoreThanTheBand holds each sent value until the next and
// compares with what was measured.
func TestHoldingErrsByNoMoreThanTheBand(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		band := rapid.Float64Range(0, 10).Draw(rt, "band")
		s := set(t, filter.Config{HeartbeatSeconds: 30, Rules: []filter.Rule{{Deadband: band}}})
		f := open(t, s, nil)
		var tally filter.Tally
		var held, sent int
		var now signal.Reading
		at := 0.0
		n := rapid.IntRange(1, 200).Draw(rt, "n")
		aliveBy := 0.0
		for range n {
			at += rapid.Float64Range(0, 20).Draw(rt, "step")
			r := reading(at, signal.NumberValue(rapid.Float64Range(-15, 15).Draw(rt, "value")))
			out, _ := f.Apply(nil, asset, r, &tally)
			if len(out) > 1 {
				rt.Fatalf("one reading became %d", len(out))
			}
			for _, o := range out {
				sent++
				if o.Held() {
					held++
				}
				now = o
				aliveBy = float64(o.AliveAt) / 1e6
			}
			if d := math.Abs(now.Value.Number - r.Value.Number); d > band {
				rt.Fatalf("holding %v where %v was measured: off by %v, band %v", now.Value.Number, r.Value.Number, d, band)
			}
			if at-aliveBy > 30 {
				rt.Fatalf("no proof of life for %v s", at-aliveBy)
			}
		}
		if n+int(tally.Held) != sent+int(tally.Filtered) || held != int(tally.Held) {
			rt.Fatalf("%d in + %d held is not %d out + %d filtered", n, tally.Held, sent, tally.Filtered)
		}
	})
}

func TestHash(t *testing.T) {
	a := filter.Config{Name: "x", Rules: []filter.Rule{{Sensor: "t", Deadband: 1}}}
	b := a
	b.HeartbeatSeconds = 60 // the default, written out
	if x, y := set(t, a).Hash(), set(t, b).Hash(); x != y || len(x) != 16 {
		t.Errorf("hashes %s and %s", x, y)
	}
	b.Rules = []filter.Rule{{Sensor: "t", Deadband: 2}}
	if set(t, a).Hash() == set(t, b).Hash() {
		t.Error("different sets have one hash")
	}
	// Data carry these: a change of the shipped sets must be meant.
	if got := filter.None().Hash() + " " + filter.Default().Hash(); got != "2e99e508343645f9 c7ef75505de34c15" {
		t.Errorf("the shipped sets are now %s", got)
	}
}

func TestRefusals(t *testing.T) {
	for want, c := range map[string]filter.Config{
		"heartbeat_seconds":         {HeartbeatSeconds: -1},
		"no glob":                   {Rules: []filter.Rule{{Sensor: "["}}},
		"a deadband of":             {Rules: []filter.Rule{{Deadband: math.NaN()}}},
		"give one":                  {Rules: []filter.Rule{{Deadband: 1, Percent: 1, SpanHigh: 1}}},
		"needs a span":              {Rules: []filter.Rule{{Percent: 1}}},
		"at most 100":               {Rules: []filter.Rule{{Percent: 101, SpanHigh: 1}}},
		"is not known":              {Rules: []filter.Rule{{Method: "magic"}}},
		"needs a band":              {Rules: []filter.Rule{{Method: filter.SwingingDoor}}},
		"go with a dead":            {Rules: []filter.Rule{{Method: filter.SwingingDoor, Deadband: 1, Previous: true}}},
		"less than the":             {Rules: []filter.Rule{{MinIntervalSeconds: 60}}},
		"than the heartbeat of 5 s": {Rules: []filter.Rule{{MinIntervalSeconds: 5, MaxIntervalSeconds: 5}}},
		"to a year":                 {Rules: []filter.Rule{{MaxIntervalSeconds: math.Inf(1)}}},
		"no room":                   {PassAll: true, Rules: []filter.Rule{{}}},
	} {
		if _, err := filter.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := filter.ByName("all"); err == nil {
		t.Error("an unknown name was taken")
	}
}

func TestStateOfAnotherSetIsForgotten(t *testing.T) {
	f := open(t, filter.Default(), nil)
	var tally filter.Tally
	f.Apply(nil, asset, reading(0, signal.NumberValue(1)), &tally)
	g := open(t, set(t, filter.Config{}), f.State())
	if out, _ := g.Apply(nil, asset, reading(1, signal.NumberValue(1)), &tally); len(out) != 1 {
		t.Error("the first reading of a new set was held back")
	}
}

func FuzzOpen(f *testing.F) {
	x := open(f, filter.Default(), nil)
	var tally filter.Tally
	x.Apply(nil, asset, reading(0, signal.TextValue("a")), &tally)
	f.Add(x.State())
	f.Fuzz(func(t *testing.T, state []byte) {
		g, err := filter.Default().Open(state)
		if err != nil {
			return
		}
		if diff := cmp.Diff(g.State(), open(t, filter.Default(), g.State()).State()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRecordings reports what the shipped set saves on real recordings.
func TestRecordings(t *testing.T) {
	dir := os.Getenv("HEADRACE_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	recs, _, err := source.List(filepath.Join(dir, "skab"), "skab")
	need.Suite(t, "data", err == nil, fmt.Sprintf("no recordings: %v; set HEADRACE_DATA to their folder", err))
	in, out := map[string]int{}, map[string]int{}
	var tally filter.Tally
	total, sent := 0, 0
	for _, r := range recs {
		s, err := r.Open(nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f := open(t, filter.Default(), nil)
		for {
			c, err := s.Next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range c.Samples {
				kept, _ := f.Apply(nil, x.Asset, x.Reading, &tally)
				n := len(kept)
				in[x.Reading.Sensor]++
				out[x.Reading.Sensor] += n
				total++
				sent += n
			}
		}
		s.Close()
	}
	if total+int(tally.Held) != sent+int(tally.Filtered) {
		t.Errorf("%d in + %d held is not %d out + %d filtered", total, tally.Held, sent, tally.Filtered)
	}
	for sensor, n := range in {
		t.Logf("%-22s %6d of %6d sent", sensor, out[sensor], n)
	}
	t.Logf("%-22s %6d of %6d sent, %.1f %%", "all", sent, total, 100*float64(sent)/float64(total))
}

func BenchmarkApply(b *testing.B) {
	f := open(b, filter.Default(), nil)
	var tally filter.Tally
	out := make([]signal.Reading, 0, 1)
	r := reading(0, signal.NumberValue(1))
	for b.Loop() {
		r.EventTime += 1000
		r.AliveAt = r.EventTime
		out, _ = f.Apply(out[:0], asset, r, &tally)
	}
}
