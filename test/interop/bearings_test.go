package interop

import (
	"path/filepath"
	"testing"

	"github.com/headrace/headrace/test/harness"
)

// delta-rs and scipy find the recordings of bearings in the tables: waveforms
// byte for byte, features as they make them of the files.
func TestDeltaRSReadsTheBearings(t *testing.T) {
	recordings := harness.Data(t, "cwru")
	dir := filepath.Join(t.TempDir(), "data")
	compare := harness.Python(t, script(t, "bearings.py"), filepath.Join(dir, "lake"), recordings)
	bin := harness.Binary(t)

	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, append(args, "--replay", "cwru:"+recordings, "--speed", "max", "--until-drained")...)
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
