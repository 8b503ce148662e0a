package ledger

import (
	"strings"
	"testing"
)

func TestConcludeNamesTheStation(t *testing.T) {
	whole := Edge{
		Edge: "s/e", Emitted: 10, Derived: 2, Held: 1, Filtered: 3, Shipped: 9, Evicted: 1,
		Samples: 90, SamplesShipped: 50, Raw: 40, SamplesInFlight: 10,
		Bronze: 7, InFlight: 1, Deadletter: 1, Silver: 3, Quarantined: 1, Dropped: 1, Duplicates: 1, Repeated: 1, Pending: 1,
	}
	for _, c := range []struct {
		name   string
		change func(*Edge)
		want   string // "" holds
	}{
		{"whole", func(*Edge) {}, ""},
		{"the filter lost one", func(e *Edge) { e.Filtered-- }, "s/e, edge: emitted"},
		{"the disk lost one", func(e *Edge) { e.Lost, e.InFlight = 1, 0 }, "s/e, edge: nothing was given back damaged"},
		{"the bridge lost one", func(e *Edge) { e.InFlight = 0 }, "s/e, spine: shipped"},
		{"samples are lost", func(e *Edge) { e.Raw-- }, "s/e, spine: samples shipped"},
		{"samples stand twice", func(e *Edge) { e.RawDoubled = 1 }, "s/e, bronze: no block"},
		{"a number is skipped", func(e *Edge) { e.Missing = 1 }, "s/e, spine: no message number"},
		{"bronze has one twice", func(e *Edge) { e.Doubled = 1 }, "s/e, bronze:"},
		{"silver lost one", func(e *Edge) { e.Silver-- }, "s/e, silver: bronze ="},
		{"a duplicate without twin", func(e *Edge) { e.Repeated = 0 }, "s/e, silver: every duplicate"},
		{"silver has one twice", func(e *Edge) { e.Foreign = 1 }, "s/e, silver: nothing is there twice"},
		{"junk in the name of a remote edge", func(e *Edge) { *e = Edge{Edge: "s/e", Remote: true, Deadletter: 4, Missing: 16} }, ""},
		{"remote edges have no counters", func(e *Edge) { e.Remote, e.Shipped = true, 0 }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := whole
			c.change(&e)
			r := Report{Edges: []Edge{e}}
			r.conclude()
			broken := strings.Join(r.Broken, "\n")
			if r.OK != (c.want == "") || !strings.Contains(broken, c.want) {
				t.Errorf("ok %v, broken %q, want %q", r.OK, broken, c.want)
			}
		})
	}
}
