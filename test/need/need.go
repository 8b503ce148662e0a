// Package need decides what a test does when something it needs from outside
// the tree is not there: it skips and says why, unless the suite is required.
//
// HEADRACE_REQUIRE names the suites that must run, separated by commas, as in
// HEADRACE_REQUIRE=interop,browser. It is for tests only.
package need

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Suite returns if what the named suite needs is available. Otherwise the test
// fails if the suite is required, and is skipped if not.
func Suite(t testing.TB, name string, available bool, reason string) {
	t.Helper()
	if available {
		return
	}
	if required(os.Getenv("HEADRACE_REQUIRE"), name) {
		t.Fatalf("suite %s is required and cannot run: %s", name, reason)
	}
	t.Skipf("suite %s cannot run: %s", name, reason)
}

func required(list, name string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(s string) bool { return strings.TrimSpace(s) == name })
}

// Python returns the interpreter of the environment that scripts/venv.sh
// makes. Without it the suite cannot run.
func Python(t testing.TB, suite string) string {
	t.Helper()
	cache := os.Getenv("HEADRACE_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		Suite(t, suite, err == nil, "there is no home directory for the cache; set HEADRACE_CACHE")
		cache = filepath.Join(home, ".cache", "headrace")
	}
	venv := filepath.Join(cache, "venv")
	_, err := os.Stat(filepath.Join(venv, "headrace-packages")) // written last
	Suite(t, suite, err == nil, "there is no Python environment in "+venv+"; make it with scripts/venv.sh")
	return filepath.Join(venv, "bin", "python")
}
