package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/test/harness"
)

// The tables are tended between two replays: small files become large ones, others'
// readers get checkpoints, old files go; the ledger holds and nothing reads otherwise.
func TestLakeVerbs(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 41, Files: []string{"valve1/0", "a/0"}, Rows: 900})
	// Slow enough for some commits.
	args := append([]string{"up"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "120", "--until-drained")...)
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("exit %d\n%s", code, p.Stderr())
	}
	cells := harness.Cells(t, recordings)
	gold := harness.Gold(t, bin, dir)

	history := decoded[[]struct {
		Version   int64
		Operation string
		Rows      int64
	}](t, bin, 0, "lake", "history", "bronze.readings", "--dir", dir, "--limit", "0")
	newest := history[0].Version
	if len(history) != int(newest)+1 || history[len(history)-1].Operation != "CREATE TABLE" {
		t.Fatalf("%d versions up to %d, the first %+v", len(history), newest, history[len(history)-1])
	}
	for _, c := range decoded[[]pipeline.Compacted](t, bin, 0, "lake", "optimize", "--dir", dir) {
		if c.Table == "bronze.readings" && (c.Files != len(history)-1 || c.Into < 1) {
			t.Errorf("%+v of %d files", c, len(history)-1)
		}
	}
	for _, c := range decoded[[]struct {
		Table   string
		Version int64
	}](t, bin, 0, "lake", "checkpoint", "--dir", dir) {
		if c.Table == "bronze.readings" && c.Version <= newest {
			t.Errorf("checkpoint of version %d after %d", c.Version, newest)
		}
	}
	if r := harness.Run(t, bin, "lake", "vacuum", "--dir", dir, "--retain", "0s"); r.Code != 2 || !strings.Contains(r.Stderr, "readers of older versions") {
		t.Errorf("vacuum at once: exit %d\n%s", r.Code, r.Stderr)
	}
	if got := harness.Count(t, bin, dir, "SELECT count(*) FROM bronze.readings"); got != len(cells) {
		t.Errorf("bronze holds %d of %d", got, len(cells))
	}
	old := harness.Run(t, bin, "sql", "--dir", dir, "--at", "bronze.readings=1", "--output", "csv", "SELECT count(*) AS n FROM bronze.readings")
	if rows := strings.Fields(old.Stdout); old.Code != 0 || len(rows) != 2 || rows[1] == "0" {
		t.Errorf("version 1: exit %d, %q\n%s", old.Code, old.Stdout, old.Stderr)
	}
	// Silver is left alone: who makes features may still be behind in it.
	gone := decoded[[]struct{ Files []string }](t, bin, 0, "lake", "vacuum", "bronze.readings", "gold.windows_1m", "--dir", dir, "--retain", "0s", "--force")
	files := 0
	for _, g := range gone {
		files += len(g.Files)
	}
	if files < len(history)-1 {
		t.Errorf("only %d files went", files)
	}
	harness.SameText(t, "gold", harness.Gold(t, bin, dir), gold)
	harness.Verify(t, bin, dir)

	// What comes after it is as ever.
	harness.Generate(t, recordings, harness.Generated{Seed: 42, Files: []string{"b/1"}, Rows: 300})
	drain(t, bin, dir, recordings)
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), impossible)
	if r := harness.Run(t, bin, "lake", "history", "no.table", "--dir", dir); r.Code != 2 {
		t.Errorf("a table that is not there: exit %d", r.Code)
	}
}
