package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/server/backlog"
	"github.com/headrace/headrace/test/harness"
)

// Assets that a rule fits have a Kafka topic of their own, which the lake finds
// while it runs. After a change of rules what had a topic keeps it, and only what
// is new goes elsewhere.
func TestRoutes(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	rules := filepath.Join(t.TempDir(), "routes.yaml")
	run := func(files []string, text string) {
		t.Helper()
		harness.Generate(t, recordings, harness.Generated{Seed: 77, Files: files, Rows: 300})
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"up"}, harness.Loopback()...)
		p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings, "--routes", rules, "--filters", "none", "--speed", "max", "--until-drained")...)
		if code := p.Exit(t, 2*time.Minute); code != 0 {
			t.Fatalf("exit %d\n%s", code, p.Stderr())
		}
		harness.Verify(t, bin, dir)
	}
	run([]string{"valve1/0", "other/1"}, "routes:\n  - {asset: '*', line: valve1, topic: 'plant.{line}'}\n")
	run([]string{"valve1/0", "other/1", "valve1/2", "third/3"}, "routes:\n  - {line: valve1, topic: elsewhere}\n  - {line: third, topic: elsewhere}\n")

	rows := harness.SQL[struct{ Asset, Kafka_topic string }](t, bin, dir, "SELECT DISTINCT asset, kafka_topic FROM bronze.readings ORDER BY ALL")
	var got [][2]string
	for _, r := range rows {
		got = append(got, [2]string{r.Asset, r.Kafka_topic})
	}
	want := [][2]string{
		{"skab/other/1", "headrace.readings"}, {"skab/third/3", "elsewhere"}, {"skab/valve1/0", "plant.valve1"}, {"skab/valve1/2", "elsewhere"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	cells := harness.Cells(t, recordings)
	if got := harness.Count(t, bin, dir, "SELECT count(*) FROM silver.readings"); got == 0 || got > len(cells) {
		t.Errorf("silver holds %d readings of %d", got, len(cells))
	}
	// What bronze has is gone from the spine, from these topics too.
	status := decoded[backlog.Status](t, bin, 0, "spine", "status", "--dir", dir)
	i := slices.IndexFunc(status.Topics, func(t backlog.Topic) bool { return t.Topic == "plant.valve1" })
	if i < 0 {
		t.Fatalf("status names %+v", status.Topics)
	}
	for _, p := range status.Partitions {
		if p.Topic == "plant.valve1" && (p.Lag == nil || *p.Lag != 0) {
			t.Errorf("%+v", p)
		}
	}
}
