package health

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

const second = signal.Micros(1_000_000)

func lookup(p signal.Path, _ signal.Micros) (signal.SensorMeta, bool) {
	if p.Sensor() == "state" {
		return signal.SensorMeta{Path: p, Kind: "text", MaxHoldMicros: 90e6}, true
	}
	return signal.SensorMeta{Path: p, Kind: "number", Unit: "bar", MaxHoldMicros: 90e6, StuckAfterMicros: 120e6, MaxPossible: 9, Owner: "o"}, true
}

func row(sensor string, at, alive signal.Micros, v float64) Row {
	return Row{
		Path: signal.Path("s/l/a/" + sensor), EventTime: at * second, AliveAt: alive * second, Value: signal.NumberValue(v),
		Stream: "s/l/a:telemetry", CompleteTo: alive * second,
	}
}

func kinds(m *Monitor) (out []string) {
	for _, f := range m.Findings() {
		state := " open"
		if f.Until != 0 {
			state = " ended"
		}
		out = append(out, string(f.Path)+" "+f.Kind+state)
	}
	return out
}

func TestFaults(t *testing.T) {
	m := New(lookup)
	for s := signal.Micros(1); s <= 400; s++ {
		var rows []Row
		rows = append(rows, row("well", s, s, float64(s%7)))
		if s < 100 {
			rows = append(rows, row("dead", s, s, float64(s%5)))
		}
		v := float64(min(s, 50)) // stands still from 50 on, read again and again
		rows = append(rows, row("stuck", s, s, v))
		if s == 1 {
			rows = append(rows, Row{Path: "s/l/a/state", EventTime: second, AliveAt: second, Value: signal.TextValue("running")})
		}
		m.Silver(rows)
		if s >= 200 { // one nonsense, held: it does not make the sensor dead
			m.Refused([]Refused{{Path: "s/l/a/odd", EventTime: 200 * second, AliveAt: s * second, Value: 9999}})
		}
		m.Findings()
	}
	want := []string{"s/l/a/dead dead open", "s/l/a/odd impossible open", "s/l/a/stuck stuck open"}
	if d := cmp.Diff(want, kinds(m)); d != "" {
		t.Error(d)
	}
	if !m.Faulty("s/l/a/dead") || m.Faulty("s/l/a/well") || m.Faulty("x/y/z/v") {
		t.Error("who is faulty is wrong")
	}
	// All recover.
	m.Silver([]Row{row("dead", 401, 401, 1), row("stuck", 401, 401, 9), row("odd", 401, 401, 3)})
	want = []string{"s/l/a/dead dead ended", "s/l/a/odd impossible ended", "s/l/a/stuck stuck ended"}
	if d := cmp.Diff(want, kinds(m)); d != "" {
		t.Error(d)
	}
}

// Heartbeats of a value that is held prove a sensor alive, and stuck in time;
// an edge that is away makes nobody dead, and its backlog nothing either.
func TestHeartbeatsAndOutage(t *testing.T) {
	m := New(lookup)
	m.Silver([]Row{row("a", 1, 1, 5), row("b", 1, 1, 5), row("a", 1, 61, 5), row("b", 60, 60, 6)})
	if got := kinds(m); got != nil {
		t.Errorf("after a minute: %v", got)
	}
	// Nothing for an hour, then live rows before the backlog, which waits.
	live := row("a", 3700, 3700, 1)
	live.CompleteTo = 61 * second
	m.Silver([]Row{live})
	if got := kinds(m); got != nil {
		t.Errorf("after an outage: %v", got)
	}
	m.Silver([]Row{row("a", 1, 121, 5), row("a", 1, 181, 5), row("b", 100, 100, 6), row("b", 3700, 3700, 2)})
	if got := kinds(m); got != nil {
		t.Errorf("after the backlog: %v", got)
	}
	m.Silver([]Row{row("a", 3700, 3820, 1), row("b", 3815, 3815, 1)})
	if d := cmp.Diff([]string{"s/l/a/a stuck open"}, kinds(m)); d != "" {
		t.Error(d)
	}
}

// Another stream of the machine may be ahead by any time: it says nothing of
// this one. A sender that promises nothing is given a minute.
func TestSilenceIsAStreamsOwn(t *testing.T) {
	m := New(lookup)
	m.Silver([]Row{row("a", 1, 1, 5), row("b", 1, 1, 5)})
	m.Silver([]Row{{Path: "s/l/a/state", EventTime: 900 * second, AliveAt: 900 * second, Value: signal.TextValue("idle"), Stream: "s/l/a:event", CompleteTo: 900 * second}})
	if got := kinds(m); got != nil {
		t.Errorf("a state that is ahead: %v", got)
	}
	foreign := row("a", 150, 150, 4)
	foreign.CompleteTo = 0
	m.Silver([]Row{foreign})
	if got := kinds(m); got != nil {
		t.Errorf("within a minute: %v", got)
	}
	foreign.EventTime, foreign.AliveAt = 152*second, 152*second
	m.Silver([]Row{foreign})
	if d := cmp.Diff([]string{"s/l/a/b dead open"}, kinds(m)); d != "" {
		t.Error(d)
	}
}

// How rows are cut into batches changes no finding.
func TestBatchesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var rows []Row
		for s := signal.Micros(1); s < 200; s += 10 {
			for _, name := range []string{"a", "b"} {
				if rng.IntN(3) > 0 {
					rows = append(rows, row(name, s, s, float64(rng.IntN(2))))
				}
			}
		}
		one, many := New(lookup), New(lookup)
		one.Silver(rows)
		for i := 0; i < len(rows); {
			n := min(1+rng.IntN(5), len(rows)-i)
			many.Silver(rows[i : i+n])
			i += n
		}
		if d := cmp.Diff(one.Findings(), many.Findings(), cmpopts.IgnoreFields(Finding{}, "Detected")); d != "" {
			t.Fatal(d)
		}
	})
}
