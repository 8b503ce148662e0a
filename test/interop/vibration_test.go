package interop

import (
	"path/filepath"
	"testing"

	"github.com/headrace/headrace/test/harness"
)

// The golden files of the vibration features are what scipy says today.
func TestScipyStandsByTheGoldenFiles(t *testing.T) {
	out, err := harness.Python(t, filepath.Join(harness.Root(t), "edge", "vibration", "testdata", "golden.py"), "--check").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
