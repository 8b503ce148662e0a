package ring

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

// A ring tells what it has of each asset, from segments and journal, and under which
// configurations it was taken.
func TestExtentsAndConfigs(t *testing.T) {
	dir := t.TempDir()
	write := func(config string, from, n int) {
		t.Helper()
		r, err := Open(Options{Dir: dir, SegmentBytes: 2000, FlushBytes: 1500, Config: config})
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < from+n; i++ {
			for _, a := range []signal.Asset{"s/l/a", "s/l/b"} {
				at := signal.Micros(1000 * i)
				if a == "s/l/b" {
					at += 7
				}
				if err := r.AppendSample(a, signal.Telemetry, &signal.Reading{Sensor: "x", EventTime: at, AliveAt: at, Value: signal.NumberValue(float64(i * i % 97)), Quality: signal.QualityGood}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := r.Append("s/l/w", "v", Block{Time: signal.Micros(5000 * from), First: uint64(from), Bytes: []byte("block")}); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("one", 1, 500)
	write("one", 501, 500)
	write("two", 1001, 500)
	reader, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	got, err := reader.Extents()
	if err != nil {
		t.Fatal(err)
	}
	want := []Extent{{"s/l/a", 1000, 1_500_000}, {"s/l/b", 1007, 1_500_007}, {"s/l/w", 5000, 5_005_000}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	configs, err := reader.Configs()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]ConfigAt{{0, "one"}, {0, "two"}}, configs); d != "" {
		t.Error(d)
	}
}
