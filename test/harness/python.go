package harness

import (
	"os"
	"os/exec"
	"testing"

	"github.com/headrace/headrace/test/need"
)

// Python returns a command that runs a script with the foreign packages that
// the interoperability tests speak to us with; without them the test skips.
func Python(t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need.Python(t, "interop"), append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

// Program returns the path of a program of the system, or skips the test.
func Program(t testing.TB, suite, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	need.Suite(t, suite, err == nil, name+" is not installed; run scripts/programs.sh")
	return path
}
