package ui

import (
	"io/fs"
	"regexp"
	"testing"
)

// Whatever index.html asks for is in the binary, and nothing else is asked for.
func TestPageIsWhole(t *testing.T) {
	index, err := fs.ReadFile(FS(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(index, -1)
	if len(asked) < 3 {
		t.Fatalf("index.html asks for %d files, want script, style and icon", len(asked))
	}
	local := regexp.MustCompile(`^\./([\w./-]+)$`)
	for _, m := range asked {
		name := local.FindSubmatch(m[1])
		if name == nil {
			t.Errorf("index.html asks for %s, which is not beside it", m[1])
			continue
		}
		if _, err := fs.Stat(FS(), string(name[1])); err != nil {
			t.Errorf("index.html asks for %s: %v", m[1], err)
		}
	}
}
