package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/edge/supervisor"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/test/harness"
)

// edgeBinary builds cmd/headrace-edge, without CGO.
func edgeBinary(t *testing.T, tags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "headrace-edge")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags="+strings.Join(tags, ","), "-o", out, "./cmd/headrace-edge")
	cmd.Dir = harness.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building headrace-edge: %v\n%s", err, b)
	}
	return out
}

// The edge alone: from a plant's broker to the tables, filtered, by a file that
// changes; killed in between; within its memory with 10,000 sensors.
func TestEdgeAlone(t *testing.T) {
	t.Parallel()
	const assets, sensors = 1000, 10
	bin, edgeBin := harness.Binary(t), edgeBinary(t)
	dir := filepath.Join(t.TempDir(), "centre")
	centre := harness.Start(t, bin, dir, nil, append([]string{"run", "--roles", "broker,bridge,spine,lake,http"}, harness.Loopback()...)...)
	run := centre.Ready(t, 30*time.Second)

	field := harness.PlantBroker(t)
	own, file := filepath.Join(t.TempDir(), "edge"), filepath.Join(t.TempDir(), "edge.yaml")
	configure := func(deadband string) {
		t.Helper()
		text := fmt.Sprintf(`
edge: {group: lyon, node: hall-1}
mqtt: {addresses: ["tcp://%s"]}
source: {mqtt: {addresses: ["tcp://%s"]}, map: {prefix: field}}
filters: {rules: [{deadband: %s}]}
`, run.MQTT, field, deadband)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("0.5")
	if r := harness.Run(t, edgeBin, "check", file); r.Code != 0 {
		t.Fatalf("check: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	status := func() (st supervisor.Status) {
		r := harness.Run(t, edgeBin, "status", "--dir", own, "--output", "json")
		_ = json.Unmarshal([]byte(r.Stdout), &st) // before it has said anything there is nothing
		return st
	}
	start := func() *harness.Proc {
		t.Helper()
		p := harness.Start(t, edgeBin, own, nil, "run", "--config", file)
		harness.Eventually(t, 30*time.Second, "the edge has both brokers", func() bool {
			st := status()
			return st.Link && st.Host && st.Figures["source_connected_now"] == 1
		})
		return p
	}
	p := start()

	plc, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{"tcp://" + field}, ClientID: "plc", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer plc.Abort()
	send := func(round, assets int, value float64) {
		t.Helper()
		at := time.Date(2026, 1, 5, 6, 0, round, 0, time.UTC).Format(time.RFC3339)
		var last *mqttc.Delivery
		for a := range assets {
			for s := range sensors {
				payload := fmt.Sprintf(`{"ts": %q, "value": %g}`, at, value+float64(s))
				if last, err = plc.PublishAsync(t.Context(), fmt.Sprintf("field/lyon/hall/m-%d/s%d", a, s), 1, false, []byte(payload)); err != nil {
					t.Fatal(err)
				}
			}
		}
		<-last.Done()
	}
	arrive := func(round, assets int) {
		t.Helper()
		q := fmt.Sprintf(`SELECT count(DISTINCT path) FROM silver.readings WHERE event_time = TIMESTAMP '2026-01-05 06:00:0%d'`, round)
		harness.Eventually(t, 2*time.Minute, "the tables are there", func() bool { return harness.Stations(t, run)["silver.rows"] > 0 })
		harness.Eventually(t, 2*time.Minute, fmt.Sprintf("round %d of every sensor is in silver", round), func() bool {
			return harness.Count(t, bin, dir, q) == assets*sensors
		})
	}
	send(0, assets, 1)
	arrive(0, assets)
	_, peak := p.RSS(t)
	t.Logf("%d sensors: at most %d MiB", assets*sensors, peak/mib)
	if peak > 64*mib {
		t.Errorf("the edge took %d MiB, want at most 64", peak/mib)
	}
	const some = 20
	send(1, some, 1.4) // within the deadband
	p.Kill()
	p = start()
	send(2, some, 2) // beyond it
	arrive(2, some)
	// A broken file stops nothing, and is told.
	configure("[")
	harness.Eventually(t, 30*time.Second, "the broken file is refused", func() bool {
		st := status()
		return st.State == supervisor.Failed && st.Link
	})
	p.Signal(t, syscall.SIGTERM)
	if code := p.Exit(t, 10*time.Second); code != 0 {
		t.Errorf("exit %d, want 0\n%s", code, p.Stderr())
	}
	rows := harness.CSV(t, bin, dir, `SELECT count(*), count(DISTINCT path), count(DISTINCT (edge, boot, stream, n, i)) FROM bronze.readings WHERE NOT coalesce(alive_at > event_time, false)`)
	if len(rows) != 1 || rows[0][0] != rows[0][2] || rows[0][1] != fmt.Sprint(assets*sensors) {
		t.Errorf("bronze has %v rows, paths and identities; want %d paths", rows, assets*sensors)
	}
	if r := harness.Run(t, edgeBin, "try", file, "--dir", own); r.Code != 2 || !strings.Contains(r.Stderr, "edge.yaml") {
		t.Errorf("trying a broken file: exit %d, %s", r.Code, r.Stderr)
	}
}
