package bench_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/bench"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/plant"
)

func egressOf(t *testing.T, set *filter.Set, delay time.Duration) bench.EgressReport {
	t.Helper()
	cfg, err := plant.Parse("demo:seed=7,duration=2m,faults=off,outage=off,duty=30s")
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.Egress(t.Context(), bench.EgressOptions{Plant: cfg, Filter: set, Delay: delay})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEgressAddsUp(t *testing.T) {
	r := egressOf(t, filter.Default(), time.Second)
	sent, raw := r.Births+r.Idle+r.Acks+r.Pings, int64(0)
	for _, c := range r.Classes {
		sent, raw = sent+c.Sent, raw+c.Raw
		if c.Missed != 0 {
			t.Errorf("%s: %d exceptions missed, want none", c.Class, c.Missed)
		}
	}
	if r.Sent != sent || r.Raw != raw || sent == 0 || raw == 0 {
		t.Errorf("sent %d of raw %d, the parts add up to %d of %d", r.Sent, r.Raw, sent, raw)
	}
	if d := cmp.Diff(r, egressOf(t, filter.Default(), time.Second), cmpopts.IgnoreUnexported(bench.EgressClass{})); d != "" {
		t.Errorf("the same plant again differs: %s", d)
	}
}

func TestEgressWithoutFiltersHasNoError(t *testing.T) {
	all, some := egressOf(t, filter.None(), time.Second), egressOf(t, filter.Default(), time.Second)
	for _, c := range all.Classes {
		if c.MaxError != 0 || c.Missed != 0 || c.Class != "vibration" && c.Kept != c.Samples {
			t.Errorf("%s: kept %d of %d, error %v %%, %d missed; want all and none", c.Class, c.Kept, c.Samples, c.MaxError, c.Missed)
		}
	}
	if all.Sent <= some.Sent {
		t.Errorf("unfiltered %d bytes, filtered %d; want more", all.Sent, some.Sent)
	}
}

func TestEgressNeedsAnEnd(t *testing.T) {
	if _, err := bench.Egress(t.Context(), bench.EgressOptions{Filter: filter.None()}); err == nil {
		t.Error("a plant without end was measured")
	}
}
