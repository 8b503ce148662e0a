package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

// crashPlant is long enough for the failing bearing to become an order, and has
// an outage and sensors that lie.
const crashPlant = "demo:seed=4711,duration=7m,duty=5s"

// plantPoints are the places of the way from a waveform to a work order at which
// the process kills itself, with the passes that the plant makes of them.
var plantPoints = []struct {
	name   string
	passes int
}{
	{"edge.ring_synced", 4},
	{"edge.outbox_committed", 4},
	{"lake.bronze_committed", 2},
	{"lake.silver_committed", 2},
	{"predict.features_committed", 2},
	{"predict.model_committed", 24},
	{"predict.predictions_committed", 2},
	{"predict.alerts_observed", 2},
	{"workorder.sent", 1},
	{"workorder.recorded", 1},
}

// outcome is what a plant has led to: equal for equal plants, however often the
// process was killed on the way.
func outcome(t *testing.T, bin, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, query := range []string{
		// Each block of samples once, as it was measured.
		`SELECT path, first_sample, count, md5(samples) FROM bronze.raw ORDER BY ALL`,
		// The newest features of each window.
		`SELECT asset, sensor, event_time, max_by(running, available_time), max_by(windows, available_time), max_by(log_rms, available_time),
			max_by(kurtosis, available_time), max_by(env_bpfo, available_time) FROM features.vibration GROUP BY ALL ORDER BY ALL`,
		// Every window has its word, and one of each version of its features.
		`SELECT asset, sensor, event_time, max_by(status, (available_time, feature_available)) FROM gold.predictions GROUP BY ALL ORDER BY ALL`,
		`SELECT path, kind, state FROM gold.sensor_health GROUP BY ALL ORDER BY ALL`,
	} {
		for _, row := range harness.CSV(t, bin, dir, query) {
			b.WriteString(strings.Join(row, ";") + "\n")
		}
	}
	return b.String() + strings.Join(ordersOf(t, dir, ""), "\n") + "\n"
}

// TestKillNineOnTheWayToTheOrder kills the process at each named point between
// the waveform and the work order, and at random moments: what the plant leads to
// stays the same, and the failing bearing ends as one order. HEADRACE_SOAK=1 makes
// it longer; HEADRACE_SEED repeats a run.
func TestKillNineOnTheWayToTheOrder(t *testing.T) {
	bin := harness.Binary(t, "crashpoints")
	seed := seedOf(t)
	rounds, moments := 1, 3
	if os.Getenv("HEADRACE_SOAK") != "" {
		rounds, moments = 5, 50
	}
	t.Logf("HEADRACE_SEED=%d", seed)
	args := append([]string{"up"}, harness.Loopback()...)
	args = append(args, "--plant", crashPlant, "--speed", "max", "--until-drained")
	finish := func(t *testing.T, dir string) {
		t.Helper()
		if code := harness.Start(t, bin, dir, nil, args...).Exit(t, drainLimit); code != 0 {
			t.Fatalf("plant: exit %d, want 0", code)
		}
		harness.Verify(t, bin, dir)
	}

	reference := filepath.Join(t.TempDir(), "data")
	start := time.Now()
	finish(t, reference)
	took := time.Since(start)
	gold, want := harness.Gold(t, bin, reference), outcome(t, bin, reference)
	if got := ordersOf(t, reference, ""); len(got) != 1 {
		t.Fatalf("the undisturbed plant has orders %q, want one", got)
	}
	same := func(t *testing.T, dir string) {
		t.Helper()
		finish(t, dir)
		harness.SameText(t, "gold", harness.Gold(t, bin, dir), gold)
		harness.SameText(t, "outcome", outcome(t, bin, dir), want)
		for _, q := range []struct{ what, query string }{
			{"blocks of samples in bronze.raw twice", `SELECT count(*) - count(DISTINCT (path, first_sample)) FROM bronze.raw`},
			{"predictions of one version of features", `SELECT count(*) - count(DISTINCT (asset, sensor, event_time, feature_available)) FROM gold.predictions`},
			{"predictions before their features", `SELECT count(*) FROM gold.predictions WHERE available_time < feature_available`},
		} {
			if n := harness.Count(t, bin, dir, q.query); n != 0 {
				t.Errorf("%d %s", n, q.what)
			}
		}
	}

	for k, point := range plantPoints {
		rng := rand.New(rand.NewPCG(seed, uint64(k)))
		for range rounds {
			pass := 1 + rng.IntN(point.passes)
			t.Run(fmt.Sprintf("%s/%d", point.name, pass), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "data")
				die := func(pass int) bool {
					p := harness.Start(t, bin, dir, []string{fmt.Sprintf("HEADRACE_CRASH_AT=%s:%d", point.name, pass)}, args...)
					if p.Exit(t, drainLimit) != -1 {
						return false
					}
					if !strings.Contains(p.Stderr(), point.name) {
						t.Errorf("standard error does not tell of the crash point: %s", p.Stderr())
					}
					return true
				}
				if !die(pass) {
					// A slow machine makes fewer and larger batches.
					dir = filepath.Join(t.TempDir(), "data")
					if pass == 1 || !die(1) {
						t.Fatalf("%s was never passed", point.name)
					}
				}
				same(t, dir)
			})
		}
	}
	for k := range moments {
		rng := rand.New(rand.NewPCG(seed, uint64(1000+k)))
		t.Run(fmt.Sprintf("moment/%d", k), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			for range 1 + rng.IntN(2) {
				p := harness.Start(t, bin, dir, nil, args...)
				wait := max(time.Duration(rng.Int64N(int64(took))), 100*time.Millisecond)
				select {
				case <-p.Done():
				case <-time.After(wait):
					p.Kill()
				}
				t.Logf("killed at %s", wait.Round(time.Millisecond))
			}
			same(t, dir)
		})
	}
}
