package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

// points are the places of a reading's way at which the process kills itself,
// with the number of passes that the recordings below make.
var points = []struct {
	name   string
	passes int
}{
	{"edge.outbox_committed", 4},
	{"edge.acked", 3},
	{"bridge.kafka_acked", 8},
	{"bridge.edge_acked", 3},
	{"lake.plan_written", 6},
	{"lake.bronze_committed", 2},
	{"lake.quarantine_committed", 1},
	{"lake.silver_committed", 2},
	{"lake.gold_committed", 2},
}

// crashRecordings are small, so that a run takes seconds, and hold impossible
// values in several batches, so that every table is written.
func crashRecordings(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	harness.Generate(t, dir, harness.Generated{
		Seed: 42, Files: []string{"valve1/0", "valve1/1", "other/0", "spare"}, Rows: 500,
		Put: map[string]map[int]string{"Temperature": {3: "5001", 170: "5002", 333: "5003", 490: "5004"}},
	})
	return dir
}

// killed starts a replay with env and waits until it has been killed; after
// wait, if that is more than 0, it is killed from outside. It returns false if
// the replay ended by itself before.
func killed(t *testing.T, bin, dir, recordings string, env []string, wait time.Duration) (string, bool) {
	t.Helper()
	// Fast, but over several batches of every station.
	p := harness.Start(t, bin, dir, env, up(recordings, "--speed", "200")...)
	if wait > 0 {
		select {
		case <-p.Done():
		case <-time.After(wait):
			p.Kill()
		}
	}
	switch code := p.Exit(t, drainLimit); code {
	case -1:
		return strings.TrimSpace(p.Stderr()), true
	case 0:
		return "", false
	default:
		t.Fatalf("replay: exit %d, want a kill or 0", code)
		return "", false
	}
}

// killedAt is killed at the given pass of a point.
func killedAt(t *testing.T, bin, dir, recordings, point string, pass int) (string, bool) {
	t.Helper()
	return killed(t, bin, dir, recordings, []string{fmt.Sprintf("HEADRACE_CRASH_AT=%s:%d", point, pass)}, 0)
}

// seedOf is HEADRACE_SEED, which repeats a run, or another one each time.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("HEADRACE_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// TestKillNine kills the process at each named point of the way and at random
// moments, starts it again, and proves that nothing is lost and nothing there
// twice. HEADRACE_SOAK=1 makes it many times as long; HEADRACE_SEED repeats a run.
func TestKillNine(t *testing.T) {
	bin := harness.Binary(t, "crashpoints")
	recordings := crashRecordings(t)
	cells := harness.Cells(t, recordings)
	seed := seedOf(t)
	rounds, moments := 1, 10
	if os.Getenv("HEADRACE_SOAK") != "" {
		rounds, moments = 10, 200
	}
	t.Logf("HEADRACE_SEED=%d", seed)

	// What an undisturbed run makes of it, and how long that takes.
	reference := filepath.Join(t.TempDir(), "data")
	start := time.Now()
	drain(t, bin, reference, recordings)
	took := time.Since(start)
	harness.Exact(t, bin, reference, cells, impossible)
	gold := harness.Gold(t, bin, reference)

	after := func(t *testing.T, dir string) {
		t.Helper()
		drain(t, bin, dir, recordings)
		harness.Verify(t, bin, dir)
		harness.Exact(t, bin, dir, cells, impossible)
		harness.SameText(t, "gold", harness.Gold(t, bin, dir), gold)
	}

	for k, point := range points {
		rng := rand.New(rand.NewPCG(seed, uint64(k)))
		for range rounds {
			pass := 1 + rng.IntN(point.passes)
			t.Run(fmt.Sprintf("%s/%d", point.name, pass), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "data")
				said, was := killedAt(t, bin, dir, recordings, point.name, pass)
				if !was && pass > 1 {
					// A slow machine makes fewer and larger batches.
					dir = filepath.Join(t.TempDir(), "data")
					said, was = killedAt(t, bin, dir, recordings, point.name, 1)
				}
				if !was {
					t.Fatalf("%s was never passed", point.name)
				}
				t.Log(said)
				if !strings.Contains(said, point.name) {
					t.Errorf("standard error does not tell of the crash point: %s", said)
				}
				harness.Verify(t, bin, dir)
				after(t, dir)
			})
		}
	}
	for k := range moments {
		rng := rand.New(rand.NewPCG(seed, uint64(1000+k)))
		t.Run(fmt.Sprintf("moment/%d", k), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			for range 1 + rng.IntN(3) {
				wait := max(time.Duration(rng.Int64N(int64(took))), time.Millisecond)
				_, was := killed(t, bin, dir, recordings, nil, wait)
				t.Logf("killed at %s: %v", wait.Round(time.Millisecond), was)
			}
			after(t, dir)
		})
	}
}
