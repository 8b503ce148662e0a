package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

// A disk that fills while the process runs stops intake; with space again it
// goes on, and nothing is lost.
func TestDiskFillsWhileRunning(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	disk, recordings := harness.Tmpfs(t, 300), t.TempDir()
	harness.Generate(t, recordings, harness.Generated{Seed: 9, Files: []string{"valve1/0", "valve1/1"}, Rows: 900})
	cells := harness.Cells(t, recordings)
	dir := filepath.Join(disk, "data")
	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings,
		"--filters", "none", "--speed", "60", "--until-drained")...)
	run := p.Ready(t, 20*time.Second)
	read := func() map[string]int64 { return counters(t, run) }
	harness.Eventually(t, 30*time.Second, "acknowledgements come", func() bool { return read()["acked"] > 0 })

	filler := harness.Fill(t, disk, 16*mib)
	full := steady(t, read, 3*time.Second, "acked", "edge.shipped")
	if total := int64(len(cells)); full["edge.shipped"] >= total {
		t.Fatalf("all %d readings were taken before the disk was full", total)
	}
	t.Logf("with the disk full: %d of %d readings taken", full["edge.shipped"], len(cells))
	var status struct {
		Problems []string `json:"problems"`
	}
	harness.Get(t, run, "/api/v1/status", &status)
	if len(status.Problems) == 0 {
		t.Error("the full disk is not among the problems of /api/v1/status")
	}
	t.Logf("problems: %q", status.Problems)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("after space was made: exit %d, want 0", code)
	}
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, cells, nil)
}
