package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/server/ledger"
	"github.com/headrace/headrace/test/harness"
)

// Ctrl-C ends a replay within 5 s, and the next start goes on from there.
func TestStopAndGoOn(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 6, Files: []string{"valve1/0", "valve1/1"}, Rows: 600})
	cells := harness.Cells(t, recordings)

	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		args := append([]string{"up"}, harness.Loopback()...)
		p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "30")...)
		run := p.Ready(t, 20*time.Second)
		before := harness.Stations(t, run)["edge.shipped"]
		harness.Eventually(t, 30*time.Second, "readings flow", func() bool {
			return harness.Stations(t, run)["edge.shipped"] > before+200
		})
		now, peak := p.RSS(t)
		t.Logf("live: %d MiB resident, at most %d MiB", now/mib, peak/mib)
		if peak > maxRSS {
			t.Errorf("the process held %d MiB, want at most %d", peak/mib, maxRSS/mib)
		}
		start := time.Now()
		p.Signal(t, sig)
		if code := p.Exit(t, 30*time.Second); code != 0 {
			t.Errorf("%v: exit %d, want 0", sig, code)
		}
		took := time.Since(start)
		t.Logf("%v: ended after %s", sig, took.Round(time.Millisecond))
		if took > 5*time.Second {
			t.Errorf("%v: ended after %s, want at most 5 s", sig, took)
		}
		if n := harness.Count(t, bin, dir, `SELECT count(*) FROM bronze.readings`); n >= len(cells) {
			t.Fatalf("all %d readings were there before the stop", n)
		}
		harness.Verify(t, bin, dir)
	}
	drain(t, bin, dir, recordings)
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, cells, nil)
}

// A recording that is taken away leaves nothing behind in its edge's outbox.
func TestRecordingTakenAway(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t, "crashpoints")
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 9, Files: []string{"valve1/0", "valve1/1"}, Rows: 600})
	p := harness.Start(t, bin, dir, []string{"HEADRACE_CRASH_AT=edge.outbox_committed:1"}, up(recordings)...)
	if code := p.Exit(t, drainLimit); code != -1 {
		t.Fatalf("exit %d, want a kill at the crash point", code)
	}
	if err := os.Remove(filepath.Join(recordings, "valve1", "0.csv")); err != nil {
		t.Fatal(err)
	}
	drain(t, bin, dir, recordings)
	var report ledger.Report
	r := harness.Run(t, bin, "ledger", "verify", "--dir", dir, "--output", "json")
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != 0 {
		t.Fatalf("ledger: exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	for _, e := range report.Edges {
		if e.InFlight != 0 || e.Shipped != e.Silver || e.Shipped == 0 && e.Edge == "skab/valve1-1" {
			t.Errorf("edge %s: shipped %d, in flight %d, in silver %d", e.Edge, e.Shipped, e.InFlight, e.Silver)
		}
	}
}

// A stop in the middle of a replay at full speed is no different.
func TestStopAtFullSpeed(t *testing.T) {
	recordings := harness.Data(t, "skab")
	bin := harness.Binary(t)
	dir := filepath.Join(t.TempDir(), "data")
	p := harness.Start(t, bin, dir, nil, up(recordings)...)
	run := p.Ready(t, 20*time.Second)
	harness.Eventually(t, 30*time.Second, "readings flow", func() bool {
		return harness.Stations(t, run)["edge.shipped"] > 0
	})
	start := time.Now()
	p.Signal(t, syscall.SIGINT)
	code := p.Exit(t, 30*time.Second)
	took := time.Since(start)
	t.Logf("ended after %s", took.Round(time.Millisecond))
	if code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %s, want 0 within 5 s", code, took)
	}
	harness.Verify(t, bin, dir)
	drain(t, bin, dir, recordings)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), nil)
}
