package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/plant/truth"
	"github.com/headrace/headrace/predict/workorder"
	"github.com/headrace/headrace/test/harness"
)

// simulate runs a plant as fast as it goes to its end.
func simulate(t *testing.T, bin, dir, spec string, limit time.Duration) {
	t.Helper()
	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, append(args, "--plant", spec, "--speed", "max", "--until-drained")...)
	if code := p.Exit(t, limit); code != 0 {
		t.Fatalf("plant %s: exit %d, want 0", spec, code)
	}
	harness.Verify(t, bin, dir)
	t.Logf("plant %s: at most %d MiB", spec, p.MaxRSS()/mib)
}

// plantSeeds are not those on which the plant was made: two, or twenty with
// HEADRACE_SOAK=1. HEADRACE_SEED gives others.
func plantSeeds(t *testing.T) (out []uint64) {
	t.Helper()
	n, first := 2, uint64(4001)
	if os.Getenv("HEADRACE_SOAK") != "" {
		n = 20
	}
	if os.Getenv("HEADRACE_SEED") != "" {
		first = seedOf(t)
	}
	for i := range n {
		out = append(out, first+17*uint64(i))
	}
	return out
}

// findingsOf are the faults of sensors that a lake holds, "path kind".
func findingsOf(t *testing.T, bin, dir string) []string {
	t.Helper()
	var out []string
	for _, row := range harness.CSV(t, bin, dir, `SELECT DISTINCT path, kind FROM gold.sensor_health ORDER BY ALL`) {
		out = append(out, row[0]+" "+row[1])
	}
	return out
}

// The bearing that fails ends as one order for the right machine and part,
// before it fails; sensors that lie make findings and no order.
func TestPlantBecomesOneOrder(t *testing.T) {
	bin := harness.Binary(t)
	for _, seed := range plantSeeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			simulate(t, bin, dir, fmt.Sprintf("demo:seed=%d,duration=13m,duty=5s", seed), drainLimit)
			is, err := truth.Read(filepath.Join(dir, "plant"))
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			book, err := workorder.Open(ctx, filepath.Join(dir, "orders.db"), workorder.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer book.Close()
			orders, err := book.List(ctx, workorder.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			if len(orders) != 1 || orders[0].Asset != is.Defect.Asset || orders[0].Defect != is.Defect.Part {
				t.Errorf("orders %v, want one: %s %s", ordersOf(t, dir, ""), is.Defect.Asset, is.Defect.Part)
			}
			for _, o := range orders {
				lead := is.Defect.Fails.Sub(o.Raised.Time())
				t.Logf("%s %s (%s, %.2f): %s after the defect began, %s before the functional failure",
					o.Asset, o.Defect, o.Sure, o.Confidence, o.Raised.Time().Sub(is.Defect.Begins).Round(time.Second), lead.Round(time.Second))
				if lead <= 0 {
					t.Errorf("the order comes %s after the failure", -lead)
				}
			}
			var want []string
			for _, f := range is.Faults {
				want = append(want, fmt.Sprintf("%s %s", f.Path, f.Kind))
			}
			slices.Sort(want)
			if got := findingsOf(t, bin, dir); !slices.Equal(got, want) {
				t.Errorf("findings %q, want %q", got, want)
			}
		})
	}
}

// A plant without faults makes no order and no finding: an hour of it, or a day
// with HEADRACE_SOAK=1.
func TestHealthyPlantIsQuiet(t *testing.T) {
	bin, dir := harness.Binary(t), filepath.Join(t.TempDir(), "data")
	length, limit := "40m", drainLimit
	if os.Getenv("HEADRACE_SOAK") != "" {
		length, limit = "24h", 2*time.Hour
	}
	simulate(t, bin, dir, "demo:seed=4500,faults=off,outage=off,duty=20s,duration="+length, limit)
	if got := ordersOf(t, dir, ""); len(got) > 0 {
		t.Errorf("orders %q", got)
	}
	if got := findingsOf(t, bin, dir); len(got) > 0 {
		t.Errorf("findings %q", got)
	}
}

// An edge that was without network for a while leaves no trace in gold.
func TestOutageLeavesNoTrace(t *testing.T) {
	bin := harness.Binary(t)
	var gold [2]string
	for i, outage := range []string{"on", "off"} {
		dir := filepath.Join(t.TempDir(), "data")
		args := append([]string{"up"}, harness.Loopback()...)
		p := harness.Start(t, bin, dir, nil, append(args, "--plant", "demo:seed=4600,duration=450s,duty=5s,outage="+outage,
			"--speed", "30", "--until-drained")...)
		if code := p.Exit(t, drainLimit); code != 0 {
			t.Fatalf("exit %d, want 0", code)
		}
		harness.Verify(t, bin, dir)
		gold[i] = harness.Gold(t, bin, dir)
		if is, err := truth.Read(filepath.Join(dir, "plant")); err != nil || (is.Outage != nil) != (outage == "on") {
			t.Fatalf("%+v, %v", is.Outage, err)
		}
	}
	harness.SameText(t, "gold", gold[0], gold[1])
}

// What headrace up does by itself: the page within ten seconds, at most 300 MiB
// after a minute, a clean stop, and on from there.
func TestUpSimulatesAPlant(t *testing.T) {
	t.Parallel()
	bin, dir := harness.Binary(t), filepath.Join(t.TempDir(), "data")
	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, args...)
	run := p.Ready(t, 10*time.Second)
	var list struct {
		Assets []struct{ Class, Owner string }
	}
	harness.Eventually(t, 10*time.Second, "every machine is on the page", func() bool {
		harness.Get(t, run, "/api/v1/assets", &list)
		return len(list.Assets) == 24
	})
	var status struct {
		PlantTime time.Time `json:"plant_time"`
	}
	harness.Get(t, run, "/api/v1/status", &status)
	minute := status.PlantTime.Add(time.Minute)
	harness.Eventually(t, 90*time.Second, "a minute has passed", func() bool {
		harness.Get(t, run, "/api/v1/status", &status)
		return status.PlantTime.After(minute)
	})
	now, peak := p.RSS(t)
	t.Logf("after a minute: %d MiB, at most %d MiB", now/mib, peak/mib)
	if now > 300*mib {
		t.Errorf("%d MiB after a minute, want at most 300", now/mib)
	}
	before := harness.Stations(t, run)
	if before["silver.rows"] == 0 || before["predict.feature_rows"] == 0 {
		t.Errorf("after a minute nothing has gone all the way: %v", before)
	}
	p.Signal(t, syscall.SIGTERM)
	if code := p.Exit(t, 5*time.Second); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	harness.Verify(t, bin, dir)

	p = harness.Start(t, bin, dir, nil, args...)
	run = p.Ready(t, 10*time.Second)
	harness.Eventually(t, 20*time.Second, "silver goes on", func() bool {
		return harness.Stations(t, run)["silver.rows"] > before["silver.rows"]
	})
}
