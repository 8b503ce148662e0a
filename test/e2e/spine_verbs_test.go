package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/server/backlog"
	"github.com/headrace/headrace/spine/deadletter"
	"github.com/headrace/headrace/test/harness"
)

// decoded runs a verb with --output json and decodes what it answers.
func decoded[T any](t *testing.T, bin string, code int, args ...string) T {
	t.Helper()
	r := harness.Run(t, bin, append(args, "--output", "json")...)
	if r.Code != code {
		t.Fatalf("%v: exit %d, want %d\n%s%s", args, r.Code, code, r.Stdout, r.Stderr)
	}
	var v T
	if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, r.Stdout)
	}
	return v
}

// The verbs that look into the spine, while it runs and when it rests.
func TestSpineVerbs(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 31, Files: []string{"valve1/0", "a/0"}, Rows: 60})
	cells := harness.Cells(t, recordings)
	// Without a lake nothing is trimmed.
	args := append([]string{"run", "--roles", "edge,broker,bridge,spine,http", "--replay", "skab:" + recordings, "--filters", "none", "--speed", "max"}, harness.Loopback()...)
	p := harness.Start(t, bin, dir, nil, args...)
	run := p.Ready(t, time.Minute)
	harness.Eventually(t, drainLimit, "every reading is in Kafka", func() bool {
		return harness.Stations(t, run)["bridge.readings"] >= int64(len(cells))
	})

	// Tail shows what the files hold, by asset.
	var asset string
	for c := range cells {
		asset = c.Path[:strings.LastIndex(c.Path, "/")]
		break
	}
	want := map[harness.Cell]int{}
	for c, k := range cells {
		if strings.HasPrefix(c.Path, asset+"/") {
			want[c] = k
		}
	}
	tailed := func(from string) map[harness.Cell]int {
		t.Helper()
		r := harness.Run(t, bin, "spine", "tail", "--dir", dir, "--asset", asset, "--from", from, "--output", "json")
		if r.Code != 0 {
			t.Fatalf("spine tail: exit %d\n%s", r.Code, r.Stderr)
		}
		got := map[harness.Cell]int{}
		for text := range strings.Lines(r.Stdout) {
			var l struct {
				Path      string    `json:"path"`
				EventTime time.Time `json:"event_time"`
				Value     float64   `json:"value"`
			}
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			got[harness.Cell{Path: l.Path, Time: l.EventTime.UnixMicro(), Value: l.Value}]++
		}
		return got
	}
	harness.SameCells(t, "spine tail", tailed("2000-01-01T00:00:00Z"), want)
	if got := tailed("2100-01-01T00:00:00Z"); len(got) > 0 {
		t.Errorf("the future holds %d readings", len(got))
	}

	// What fits nothing is listed, shown, tried again and then closed.
	conn, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{"tcp://" + run.MQTT}, ClientID: "stranger", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Publish(t.Context(), "spBv1.0/g/NBIRTH/e", 1, false, []byte("no Sparkplug")); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead := func() int64 { return harness.Stations(t, run)["bridge.deadletters"] }
	harness.Eventually(t, drainLimit, "there is a dead letter", func() bool { return dead() == 1 })
	letters := decoded[[]deadletter.Letter](t, bin, 1, "deadletter", "list", "--dir", dir)
	if len(letters) != 1 || letters[0].Topic != "spBv1.0/g/NBIRTH/e" || letters[0].Reason == "" || letters[0].Bytes != 12 {
		t.Fatalf("letters %+v", letters)
	}
	shown := decoded[struct{ Value []byte }](t, bin, 0, "deadletter", "show", letters[0].ID(), "--dir", dir)
	if string(shown.Value) != "no Sparkplug" {
		t.Errorf("shown %q", shown.Value)
	}
	outcomes := decoded[[]struct{ Sent bool }](t, bin, 0, "deadletter", "retry", letters[0].ID(), "--dir", dir)
	if len(outcomes) != 1 || !outcomes[0].Sent {
		t.Errorf("retried %+v", outcomes)
	}
	harness.Eventually(t, drainLimit, "it fits nothing again", func() bool { return dead() == 2 })
	letters = decoded[[]deadletter.Letter](t, bin, 1, "deadletter", "list", "--all", "--dir", dir)
	if n := slices.IndexFunc(letters, func(l deadletter.Letter) bool { return !l.Closed }); len(letters) != 2 || !letters[0].Closed || n != 1 {
		t.Errorf("letters %+v", letters)
	}
	for _, id := range []string{letters[0].ID(), "0/99", "x"} {
		if r := harness.Run(t, bin, "deadletter", "retry", id, "--dir", dir); r.Code == 0 {
			t.Errorf("retry %s: exit 0\n%s", id, r.Stdout)
		}
	}

	// The status adds up: no table has read anything, and the edges wait for nothing.
	status := decoded[backlog.Status](t, bin, 0, "spine", "status", "--dir", dir)
	held := int64(0)
	for _, part := range status.Partitions {
		if part.Topic == "headrace.readings" {
			held += part.End - part.Start
		}
		if part.Lag != nil {
			t.Errorf("a lag without a lake: %+v", part)
		}
	}
	if sent := harness.Stations(t, run)["bridge.records"]; held != sent || len(status.Edges) != 2 || len(status.Topics) != 4 {
		t.Errorf("status %+v, and the bridge wrote %d", status, sent)
	}
	harness.Eventually(t, drainLimit, "nothing is unacknowledged", func() bool {
		s := decoded[backlog.Status](t, bin, 0, "spine", "status", "--dir", dir)
		return !slices.ContainsFunc(s.Edges, func(e backlog.Edge) bool { return e.Messages > 0 || e.Oldest != nil })
	})
	p.Kill()

	// At rest the same.
	harness.SameCells(t, "spine tail at rest", tailed("2000-01-01T00:00:00Z"), want)
	after := decoded[backlog.Status](t, bin, 0, "spine", "status", "--dir", dir)
	if len(after.Partitions) != len(status.Partitions) {
		t.Errorf("at rest %+v", after)
	}
	if r := harness.Run(t, bin, "spine", "status", "--dir", dir); r.Code != 0 || !strings.Contains(r.Stdout, "headrace.readings") {
		t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
