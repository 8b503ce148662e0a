package bench_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/headrace/headrace/bench"
)

func TestEdgeReportsEachFigure(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "cpu.pprof")
	r, err := bench.Edge(t.Context(), bench.EdgeOptions{Dir: t.TempDir(), Slow: 20_000, Waves: 500_000, ProfilePath: profile})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, v := range r.Results {
		names[v.Name] = true
		if !(v.Value > 0) {
			t.Errorf("%s is %v, want more than 0", v.Name, v.Value)
		}
	}
	for _, name := range []string{"slow_samples_per_core", "vibration_samples_per_core", "ring_bytes_per_slow_sample", "ring_bytes_per_vibration_sample", "allocations_per_slow_sample"} {
		if !names[name] {
			t.Errorf("no result %s", name)
		}
	}
	_, statErr := os.Stat(profile)
	if missed := !r.Met(); missed != (r.Profile != "") || missed != (statErr == nil) {
		t.Errorf("a goal missed: %t, profile %q, file: %v; want a profile exactly where a goal was missed", missed, r.Profile, statErr)
	}
}
