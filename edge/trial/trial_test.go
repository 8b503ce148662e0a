package trial

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/signal"
)

func set(t *testing.T, rules ...filter.Rule) *filter.Set {
	t.Helper()
	s, err := filter.New(filter.Config{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A wider band keeps less, is further off, and misses what the narrow one sends;
// one that is as narrow misses nothing.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	r, err := ring.Open(ring.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	var values []float64
	for i := range n {
		at := signal.Micros(i) * 1_000_000
		values = append(values, math.Round(100*math.Sin(float64(i)/50))/10)
		v := signal.Reading{Sensor: "t", EventTime: at, AliveAt: at, Value: signal.NumberValue(values[i]), Unit: "Cel", Quality: signal.QualityGood}
		if err := r.AppendSample("s/l/m", signal.Telemetry, &v); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got, samples, err := Compare(dir, 0, n*1_000_000, set(t, filter.Rule{Deadband: 0.5}), set(t, filter.Rule{Deadband: 3}), set(t, filter.Rule{Deadband: 0.4}))
	if err != nil || samples != n {
		t.Fatalf("%d samples, %v", samples, err)
	}
	today, wide, narrow := got[0], got[1], got[2]
	// By hand: what the wide band shows where the narrow one sends.
	sent, shownToday, shownWide, missed := 0, math.Inf(1), math.Inf(1), 0
	for _, v := range values {
		isException := math.Abs(v-shownToday) > 0.5
		if isException {
			shownToday = v
			sent++
		}
		if math.Abs(v-shownWide) > 3 {
			shownWide = v
		} else if isException && math.Abs(v-shownWide) > 0.5 {
			missed++
		}
	}
	p := egress.Process
	if today.Classes[p].Kept != int64(sent) || wide.Classes[p].Missed != int64(missed) || missed == 0 || narrow.Classes[p].Missed != 0 {
		t.Errorf("%d kept, %d and %d missed; want %d, %d and 0", today.Classes[p].Kept, wide.Classes[p].Missed, narrow.Classes[p].Missed, sent, missed)
	}
	if wide.Classes[p].Bytes >= today.Classes[p].Bytes || today.Classes[p].Bytes >= narrow.Classes[p].Bytes {
		t.Errorf("bytes: %+v", got)
	}
	if narrow.Worst.Value > 0.4 || wide.Worst.Value <= 0.5 || wide.Worst.Value > 3 {
		t.Errorf("largest errors: %+v", got)
	}
	again, _, err := Compare(dir, 0, n*1_000_000, set(t, filter.Rule{Deadband: 0.5}))
	if d := cmp.Diff(today, again[0]); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}
