package arch

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// What only exists on one machine must not be written down.
func TestNoMachinePaths(t *testing.T) {
	// A path that begins at a home or a workplace: preceded by nothing that could continue a longer path or an address.
	machine := regexp.MustCompile(`(^|[^\w.~/$}*-])/(` + "work" + `|` + "root" + `|home/[a-z]+)/`)
	tr := readTree(t)
	for _, name := range tr.files {
		b := tr.read(t, name)
		if bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
			continue
		}
		n := 0
		for line := range bytes.Lines(b) {
			n++
			if machine.Match(line) {
				t.Errorf("%s:%d: a path of one machine: %s", name, n, bytes.TrimSpace(line))
			}
		}
	}
}

func TestLockFileNamesNoHost(t *testing.T) {
	tr := readTree(t)
	for _, name := range tr.files {
		if path.Base(name) == "package-lock.json" && bytes.Contains(tr.read(t, name), []byte(`"resolved"`)) {
			t.Errorf(`%s: holds "resolved" addresses; install with --omit-lockfile-registry-resolved`, name)
		}
	}
}

// Every relative link of the documentation leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	tr := readTree(t)
	for _, name := range tr.files {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllSubmatch(tr.read(t, name), -1) {
			target, _, _ := strings.Cut(string(m[1]), "#")
			if target == "" || strings.Contains(target, ":") {
				continue
			}
			if _, err := os.Stat(filepath.Join(tr.top, path.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s leads nowhere", name, target)
			}
		}
	}
}
