// Package interop lets foreign programs read what Headrace sends and keeps:
// delta-rs, paho-mqtt, kcat, and a Protobuf decoder made from the published
// description. It holds tests alone.
package interop

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

const drainLimit = 2 * time.Minute

// script is one of this package's Python scripts.
func script(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(harness.Root(t), "test", "interop", "testdata", name)
}

// delta-rs finds in the tables exactly what the recordings hold.
func TestDeltaRSReadsTheRecordings(t *testing.T) {
	recordings := harness.Data(t, "skab")
	dir := filepath.Join(t.TempDir(), "data")
	compare := harness.Python(t, script(t, "tables.py"), filepath.Join(dir, "lake"), recordings)
	bin := harness.Binary(t)

	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings,
		"--filters", "none", "--speed", "max", "--until-drained")...)
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("replay: exit %d, want 0", code)
	}
	harness.Verify(t, bin, dir)
	out, err := compare.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
