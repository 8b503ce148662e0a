package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/server/ledger"
	"github.com/headrace/headrace/test/harness"
)

// TestLedgerNamesTheStation takes data away behind the stations' backs: a proof
// that cannot fail would be none.
func TestLedgerNamesTheStation(t *testing.T) {
	bin := harness.Binary(t)
	recordings, whole := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 11, Files: []string{"valve1/0", "valve1/1"}, Rows: 120})
	drain(t, bin, whole, recordings)
	harness.Verify(t, bin, whole)

	for _, c := range []struct {
		name, station string
		damage        func(t *testing.T, dir string)
	}{
		{"a file of silver is gone", "silver", func(t *testing.T, dir string) { removeFile(t, filepath.Join(dir, "lake", "silver", "readings")) }},
		{"a file of bronze is gone", "spine", func(t *testing.T, dir string) { removeFile(t, filepath.Join(dir, "lake", "bronze", "readings")) }},
		{"a file of bronze stands twice", "bronze", func(t *testing.T, dir string) { doubleFile(t, filepath.Join(dir, "lake", "bronze", "readings")) }},
		{"an outbox is of another time", "spine", func(t *testing.T, dir string) {
			if err := os.RemoveAll(edge.OutboxDir(filepath.Join(dir, "edges", "skab", "valve1-0"))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			r := harness.Run(t, bin, "ledger", "verify", "--dir", dir, "--output", "json")
			if r.Code != 1 {
				t.Fatalf("exit %d, want 1\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
			var report ledger.Report
			if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
				t.Fatal(err)
			}
			if report.OK || !strings.Contains(strings.Join(report.Broken, "\n"), ", "+c.station+": ") {
				t.Errorf("ok %v, broken %q, want station %s", report.OK, report.Broken, c.station)
			}
		})
	}
}

// removeFile takes the first file out of the table's log, as no writer would:
// the table is append-only.
func removeFile(t *testing.T, dir string) {
	t.Helper()
	entry := filepath.Join(dir, "_delta_log", fmt.Sprintf("%020d.json", 1))
	b, err := os.ReadFile(entry)
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, `{"add"`) {
			kept.WriteString(line)
		}
	}
	if kept.Len() == len(b) {
		t.Fatalf("%s adds no file", entry)
	}
	if err := os.WriteFile(entry, []byte(kept.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func doubleFile(t *testing.T, dir string) {
	t.Helper()
	table, file := largest(t, dir)
	b, err := os.ReadFile(filepath.Join(dir, file.Path))
	if err != nil {
		t.Fatal(err)
	}
	name := delta.NewDataPath()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = table.Commit(t.Context(), delta.Commit{
		ReadVersion: delta.Latest, Operation: "WRITE", Rearranges: true,
		Adds: []delta.AddFile{{Path: name, Size: file.Size, StatsJSON: file.StatsJSON}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func largest(t *testing.T, dir string) (*delta.Table, *delta.File) {
	t.Helper()
	table, err := delta.Open(t.Context(), dir, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out *delta.File
	for _, f := range table.Last().Files() {
		if out == nil || f.Size > out.Size {
			out = f
		}
	}
	if out == nil {
		t.Fatalf("%s has no files", dir)
	}
	return table, out
}
