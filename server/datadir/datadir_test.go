package datadir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/server/datadir"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestOpenTwiceIsRefusedAndGivenBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	d, err := datadir.Open(dir, "1.0", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteRun(datadir.Run{PID: os.Getpid(), HTTP: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if r, ok := datadir.ReadRun(dir); !ok || r.HTTP != "127.0.0.1:1" {
		t.Errorf("ReadRun = %+v, %v", r, ok)
	}
	if _, err := datadir.Open(dir, "1.0", now); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("second Open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := datadir.ReadRun(dir); ok {
		t.Error("ReadRun after Close says that something runs")
	}
	d, err = datadir.Open(dir, "1.1", now)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := datadir.Check(dir); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesAndLeavesAlone(t *testing.T) {
	for _, c := range []struct {
		name, file, content, want string
	}{
		{"foreign", "thesis.tex", "x", "not a Headrace data directory"},
		{"newer", "headrace.json", `{"format": 99, "version": "9.9"}`, "written by Headrace 9.9"},
		{"broken marker", "headrace.json", `{"form`, "not the marker"},
		{"empty marker", "headrace.json", `{}`, "not the marker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, c.file)
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := datadir.Open(dir, "1.0", now); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open: %v, want %q", err, c.want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("the directory was changed: %v %v", entries, err)
			}
			if b, _ := os.ReadFile(file); string(b) != c.content {
				t.Errorf("%s was changed", c.file)
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := datadir.Open(file, "1.0", now); err == nil || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("Open: %v", err)
		}
	})
}

func TestCheckForeign(t *testing.T) {
	if err := datadir.Check(t.TempDir()); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("Check: %v", err)
	}
}
