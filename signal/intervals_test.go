package signal

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The numbers under test lie at both ends of what a uint64 holds.
const top = math.MaxUint64 - 24

func drawNumber(t *rapid.T, label string) uint64 {
	n := rapid.Uint64Range(0, 49).Draw(t, label)
	if n >= 25 {
		return top + n - 25
	}
	return n
}

func domain() (all []uint64) {
	for n := range uint64(25) {
		all = append(all, n, top+n)
	}
	slices.Sort(all)
	return all
}

func drawRange(t *rapid.T) Range {
	r := Range{drawNumber(t, "from"), drawNumber(t, "to")}
	if r.From > r.To && rapid.IntRange(0, 9).Draw(t, "backwards") > 0 {
		r.From, r.To = r.To, r.From
	}
	// What lies between the ends is too much for the model.
	if r.From < 25 && r.To >= top {
		r.To = 24
	}
	return r
}

func TestIntervalsAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Intervals
		model := map[uint64]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := drawNumber(t, "n")
				if fresh := s.Add(n); fresh == model[n] {
					t.Fatalf("adding %d: new is %v", n, fresh)
				}
				model[n] = true
			},
			"add range": func(t *rapid.T) {
				r := drawRange(t)
				s.AddRange(r)
				if r.From <= r.To {
					for _, n := range domain() {
						if n >= r.From && n <= r.To {
							model[n] = true
						}
					}
				}
			},
			"drop": func(t *rapid.T) {
				n := drawNumber(t, "below")
				s.DropBelow(n)
				for k := range model {
					if k < n {
						delete(model, k)
					}
				}
			},
			"clone": func(t *rapid.T) {
				before := slices.Clone(s.Ranges())
				c := s.Clone()
				c.AddRange(drawRange(t))
				c.DropBelow(drawNumber(t, "below"))
				if d := cmp.Diff(before, slices.Clone(s.Ranges())); d != "" {
					t.Fatalf("a clone shares memory (-want +got):\n%s", d)
				}
			},
			"": func(t *rapid.T) { checkIntervals(t, &s, model) },
		})
	})
}

func checkIntervals(t *rapid.T, s *Intervals, model map[uint64]bool) {
	if s.Count() != uint64(len(model)) {
		t.Fatalf("count %d, want %d: %v", s.Count(), len(model), s.Ranges())
	}
	if s.Len() != len(s.Ranges()) {
		t.Fatalf("length %d of %v", s.Len(), s.Ranges())
	}
	for i, r := range s.Ranges() {
		if r.From > r.To || i > 0 && (r.From == 0 || s.Ranges()[i-1].To >= r.From-1) {
			t.Fatalf("not sorted, disjoint and apart: %v", s.Ranges())
		}
	}
	for _, n := range domain() {
		if s.Contains(n) != model[n] {
			t.Fatalf("contains %d is %v: %v", n, s.Contains(n), s.Ranges())
		}
		to, ok := s.Prefix(n)
		if ok != model[n] {
			t.Fatalf("prefix of %d is %v: %v", n, ok, s.Ranges())
		}
		want := n
		for ok && want < math.MaxUint64 && model[want+1] {
			want++
		}
		if ok && to != want {
			t.Fatalf("prefix of %d ends at %d, want %d: %v", n, to, want, s.Ranges())
		}
	}
}

func TestIntervalsOfEverything(t *testing.T) {
	var s Intervals
	s.AddRange(Range{5, 7})
	s.AddRange(Range{0, math.MaxUint64})
	if d := cmp.Diff([]Range{{0, math.MaxUint64}}, s.Ranges()); d != "" {
		t.Error(d)
	}
	if s.Count() != math.MaxUint64 {
		t.Errorf("count %d; one more than a uint64 holds is to stay at its most", s.Count())
	}
	if s.Add(math.MaxUint64) || s.Add(0) {
		t.Error("a number was new to the set of all")
	}
	s.DropBelow(math.MaxUint64)
	if d := cmp.Diff([]Range{{math.MaxUint64, math.MaxUint64}}, s.Ranges()); d != "" {
		t.Error(d)
	}
}

func TestRangeJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Range{rapid.Uint64().Draw(t, "from"), rapid.Uint64().Draw(t, "to")}
		if want.From > want.To {
			want.From, want.To = want.To, want.From
		}
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Range
		if err := json.Unmarshal(b, &got); err != nil || got != want {
			t.Fatalf("%s: got %v, %v; want %v", b, got, err, want)
		}
	})
	for _, bad := range []string{`[]`, `[1]`, `[1,2,3]`, `[2,1]`, `[-1,1]`, `[1.5,2]`, `"1-2"`, `{}`, `null`, `[18446744073709551616,1]`} {
		r := Range{1, 2}
		if err := json.Unmarshal([]byte(bad), &r); err == nil || r != (Range{1, 2}) {
			t.Errorf("%s gave %v, %v", bad, r, err)
		}
	}
}

// The numbers of a run that arrives in order cost no memory.
func TestIntervalsAddAllocations(t *testing.T) {
	var s Intervals
	n := uint64(0)
	s.Add(n)
	if got := testing.AllocsPerRun(1000, func() { n++; s.Add(n) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
