package wholefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/wholefile"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "pins.json")
	// What a crash left beside the file does not stand in the way.
	if err := os.WriteFile(name+".new", []byte("half of an older, longer one"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "2"} {
		if err := wholefile.Replace(name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if diff := cmp.Diff(text, string(b)); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o640 {
			t.Errorf("%v: %v", st.Mode(), err)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%v: %v", all, err)
	}
}

func TestWhatCannotBeReplacedStays(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(name, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Replace(name, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%v: %v", all, err)
	}
	if err := wholefile.Replace(filepath.Join(dir, "nowhere", "x"), nil, 0o600); err == nil {
		t.Error("a file was made in a folder that is not there")
	}
}
