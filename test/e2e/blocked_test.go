package e2e

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/test/harness"
)

// steady waits until none of the counters has moved for a while.
func steady(t *testing.T, read func() map[string]int64, still time.Duration, names ...string) map[string]int64 {
	t.Helper()
	last, since := read(), time.Now()
	harness.Eventually(t, time.Minute, "the counters stand still", func() bool {
		now := read()
		for _, name := range names {
			if now[name] != last[name] {
				last, since = now, time.Now()
				return false
			}
		}
		return time.Since(since) >= still
	})
	return last
}

// counters are those of the stations, and "acked": the readings of which an
// edge knows that Kafka has them.
func counters(t *testing.T, run datadir.Run) map[string]int64 {
	t.Helper()
	c := harness.Stations(t, run)
	c["acked"] = c["edge.shipped"] - c["edge.in_flight_now"]
	return c
}

// With the Kafka port blocked nothing is acknowledged and memory stays
// bounded; opened again, everything arrives.
func TestKafkaPortBlocked(t *testing.T) {
	bin := harness.Binary(t)
	recordings := t.TempDir()
	harness.Generate(t, recordings, harness.Generated{
		Seed: 8, Files: []string{"valve1/0", "valve1/1", "valve1/2", "valve1/3"}, Rows: 5_000,
	})
	cells, top := harness.Cells(t, recordings), t.TempDir()

	proxy := harness.NewProxy(t)
	spine := harness.Start(t, bin, filepath.Join(top, "spine"), nil,
		"run", "--roles", "spine", "--listen-kafka", "127.0.0.1:0", "--advertise-kafka", proxy.Addr())
	proxy.To(spine.Ready(t, 20*time.Second).Kafka)

	dir := filepath.Join(top, "rest")
	args := append([]string{"run", "--roles", "edge,broker,bridge,lake,http", "--kafka", proxy.Addr()}, harness.Loopback()...)
	rest := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "max")...)
	run := rest.Ready(t, 20*time.Second)
	read := func() map[string]int64 { return counters(t, run) }

	harness.Eventually(t, 30*time.Second, "acknowledgements come", func() bool { return read()["acked"] > 0 })
	proxy.Block()
	blocked := steady(t, read, 3*time.Second, "acked")
	if blocked["acked"] >= int64(len(cells)) {
		t.Fatal("everything had arrived before the port was blocked")
	}
	now, peak := rest.RSS(t)
	t.Logf("blocked at %d acknowledged; resident %d MiB, at most %d MiB", blocked["acked"], now/mib, peak/mib)
	if peak > maxRSS {
		t.Errorf("the process held %d MiB, want at most %d", peak/mib, maxRSS/mib)
	}

	proxy.Open()
	arrived(t, bin, dir, len(cells))
	_, peak = rest.RSS(t)
	t.Logf("drained; at most %d MiB", peak/mib)
	if peak > maxPeak {
		t.Errorf("the process held %d MiB, want at most %d", peak/mib, maxPeak/mib)
	}
	for _, p := range []*harness.Proc{rest, spine} {
		p.Signal(t, syscall.SIGINT)
		if code := p.Exit(t, 30*time.Second); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	}
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, cells, nil)
}
