package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/supervisor"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/test/harness"
)

// farEdge is an edge by a file, a plant's broker before it, and the centre behind.
type farEdge struct {
	t           *testing.T
	bin, edge   string // binaries
	dir         string // of the centre
	own         string // of the edge
	file        string
	text        string
	centre      *harness.Proc
	proc        *harness.Proc
	plc         *mqttc.Conn
	field, mqtt string
	measured    int64
}

func newFarEdge(t *testing.T, filters string) *farEdge {
	t.Helper()
	f := &farEdge{t: t, bin: harness.Binary(t), edge: edgeBinary(t), dir: filepath.Join(t.TempDir(), "centre"), field: harness.PlantBroker(t)}
	// Where the ledger looks for outboxes.
	f.own, f.file = filepath.Join(f.dir, "edges", "lyon", "hall-1"), filepath.Join(t.TempDir(), "edge.yaml")
	f.centre = harness.Start(t, f.bin, f.dir, nil, append([]string{"run", "--roles", "broker,bridge,spine,lake,http"}, harness.Loopback()...)...)
	f.mqtt = f.centre.Ready(t, 30*time.Second).MQTT
	f.text = fmt.Sprintf("edge: {group: lyon, node: hall-1}\nmqtt: {addresses: [\"tcp://%s\"]}\nsource: {mqtt: {addresses: [\"tcp://%s\"]}, map: {prefix: field}}\n", f.mqtt, f.field)
	f.write(f.file, f.text+filters)
	f.start()
	var err error
	if f.plc, err = mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{"tcp://" + f.field}, ClientID: "plc", CleanSession: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.plc.Abort)
	return f
}

func (f *farEdge) write(file, text string) {
	f.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *farEdge) start() {
	f.t.Helper()
	_ = os.Remove(filepath.Join(f.own, "status.json")) // what a killed one said last
	f.proc = harness.Start(f.t, f.edge, f.own, nil, "run", "--config", f.file)
	harness.Eventually(f.t, 30*time.Second, "the edge has both brokers", func() bool {
		st := f.status()
		return st.Link && st.Host && st.Figures["source_connected_now"] == 1
	})
}

func (f *farEdge) status() (st supervisor.Status) {
	r := harness.Run(f.t, f.edge, "status", "--dir", f.own, "--output", "json")
	_ = json.Unmarshal([]byte(r.Stdout), &st) // before it has said anything there is nothing
	return st
}

// measure publishes n values of a sensor, a second apart.
func (f *farEdge) measure(sensor string, from, n int) {
	f.t.Helper()
	f.measured += int64(n)
	for i := from; i < from+n; i++ {
		at := time.Date(2026, 1, 5, 6, 0, i, 0, time.UTC).Format(time.RFC3339)
		if err := f.plc.Publish(f.t.Context(), "field/lyon/hall/pump-3/"+sensor, 1, false, fmt.Appendf(nil, `{"ts": %q, "value": %d}`, at, i)); err != nil {
			f.t.Fatal(err)
		}
	}
	harness.Eventually(f.t, 60*time.Second, "the edge has taken all", func() bool { return f.status().Figures["emitted"] >= f.measured })
}

func (f *farEdge) ask(args ...string) harness.Result {
	return harness.Run(f.t, f.bin, append([]string{"edge"}, append(args, "--dir", f.dir)...)...)
}

// A range of the ring comes to the tables whole although the edge is killed in its
// midst, nothing of it twice, and the ledger holds.
func TestRemoteReplay(t *testing.T) {
	t.Parallel()
	const n = 2000
	f := newFarEdge(t, "filters: {rules: [{deadband: 100000}]}\n")
	f.measure("flow", 0, n)

	replay := func(asset, from, to string, more ...string) harness.Result {
		return f.ask(append([]string{"replay", "--asset", asset, "--from", from, "--to", to, "--why", "alert 17", "--output", "json", "--wait", "20s"}, more...)...)
	}
	refused := func(r harness.Result, words ...string) {
		t.Helper()
		if r.Code == 0 {
			t.Errorf("exit 0\n%s", r.Stdout)
		}
		for _, w := range words {
			if !strings.Contains(r.Stdout+r.Stderr, w) {
				t.Errorf("it does not say %q:\n%s%s", w, r.Stdout, r.Stderr)
			}
		}
	}
	refused(replay("lyon/hall/pump-3", "2025-01-05T06:00:00Z", "2025-01-05T07:00:00Z"), "2026-01-05T06:00:00Z", "any more")
	refused(replay("lyon/hall/pump-4", "2026-01-05T06:00:00Z", "2026-01-05T07:00:00Z", "--edge", "lyon/hall-1"), "pump-4", "lyon/hall/pump-3")
	refused(f.ask("replay", "--asset", "lyon/hall/pump-3", "--from", "2026-01-05T06:00:00Z", "--to", "2026-01-05T07:00:00Z", "--why", "x", "--edge", "lyon/hall-9", "--wait", "1s"), "lyon/hall-9", "never heard")

	done := make(chan harness.Result, 1)
	go func() {
		done <- replay("lyon/hall/pump-3", "2026-01-05T05:00:00Z", "2026-01-05T07:00:00Z", "--id", "one", "--rate", "20000")
	}()
	part := func() int64 { return f.status().Figures["replayed"] }
	sent := int64(0)
	for kill := range 3 {
		if kill > 0 {
			f.start()
		}
		harness.Eventually(t, 60*time.Second, "a further part of the replay is on disk", func() bool { return part() > sent })
		if sent = part(); sent >= n {
			t.Fatalf("all %d were sent before kill %d", sent, kill+1)
		}
		f.proc.Kill()
	}
	refused(f.ask("replay", "--asset", "lyon/hall/pump-3", "--from", "2026-01-05T06:00:00Z", "--to", "2026-01-05T07:00:00Z", "--why", "x", "--wait", "1s"), "lyon/hall-1", "seen last")
	f.start()
	f.measure("flow", n, 10) // live data go on
	r := <-done
	var a command.Answer
	if err := json.Unmarshal([]byte(r.Stdout), &a); err != nil || r.Code != 0 {
		t.Fatalf("exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	if a.State != command.Done || a.Replay.Readings != n || a.Replay.Left == "" {
		t.Errorf("%+v, %+v", a, a.Replay)
	}
	if !strings.Contains(r.Stderr, " %  ") {
		t.Errorf("no progress was shown:\n%s", r.Stderr)
	}
	if again := replay("lyon/hall/pump-3", "2026-01-05T05:00:00Z", "2026-01-05T07:00:00Z", "--id", "one"); again.Code != 0 {
		t.Errorf("asked again with the same id: exit %d\n%s", again.Code, again.Stderr)
	}
	harness.Eventually(t, 2*time.Minute, "all values are in silver", func() bool {
		return harness.Count(t, f.bin, f.dir, `SELECT count(DISTINCT event_time) FROM silver.readings WHERE sensor = 'flow'`) >= n
	})
	rows := harness.CSV(t, f.bin, f.dir, `SELECT count(*), count(DISTINCT (event_time, alive_at, value_raw)) FROM silver.readings WHERE sensor = 'flow' AND event_time < TIMESTAMP '2026-01-05 06:33:20' AND alive_at IS NOT DISTINCT FROM event_time`)
	if rows[0][0] != rows[0][1] {
		t.Errorf("silver has rows, different ones: %v", rows)
	}
	if got := harness.Count(t, f.bin, f.dir, `SELECT count(*) FROM bronze.readings WHERE historical AND sensor = 'flow'`); got < n {
		t.Errorf("bronze has %d historical readings, want at least %d", got, n)
	}
	if got := f.status().Figures["replayed"]; got != n {
		t.Errorf("%d readings count as replayed, want %d: each once, over the kill", got, n)
	}
	list := f.ask("list", "--output", "json")
	if list.Code != 0 || !strings.Contains(list.Stdout, `"edge":"lyon/hall-1"`) {
		t.Errorf("list: exit %d\n%s%s", list.Code, list.Stdout, list.Stderr)
	}
	for _, p := range []*harness.Proc{f.proc, f.centre} {
		p.Signal(t, syscall.SIGTERM)
		if code := p.Exit(t, 20*time.Second); code != 0 {
			t.Errorf("exit %d\n%s", code, p.Stderr())
		}
	}
	harness.Verify(t, f.bin, f.dir)
}

// A configuration from afar: planned, applied, refused with the reason, and laid down
// for an edge that is away.
func TestRemoteConfiguration(t *testing.T) {
	t.Parallel()
	f := newFarEdge(t, "filters: {rules: [{deadband: 1}]}\n")
	next := filepath.Join(t.TempDir(), "next.yaml")
	f.write(next, f.text+"filters: {rules: [{deadband: 2}]}\n")
	f.measure("flow", 0, 1)
	if r := f.ask("plan", next); r.Code != 0 || !strings.Contains(r.Stdout, "changes filters") || !strings.Contains(r.Stdout, "another filter for lyon/hall/pump-3/flow") {
		t.Errorf("plan: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	// Once the first file counts as good, another can be compared and tried here too.
	good, err := os.ReadFile(f.file)
	if err != nil {
		t.Fatal(err)
	}
	f.write(filepath.Join(f.own, supervisor.GoodName), string(good))
	if r := harness.Run(t, f.edge, "plan", next, "--dir", f.own); r.Code != 0 || !strings.Contains(r.Stdout, "changes filters") {
		t.Errorf("headrace-edge plan: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := f.ask("try", next, "--last", "1h"); r.Code != 0 || !strings.Contains(r.Stdout, "largest error") {
		t.Errorf("try: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	before := f.status().Config
	f.proc.Kill()
	r := f.ask("apply", next, "--why", "wider", "--wait", "1s", "--output", "json")
	if r.Code != 0 || !strings.Contains(r.Stdout, `"decided":false`) {
		t.Errorf("apply while the edge is away: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	f.start()
	harness.Eventually(t, 30*time.Second, "the edge runs by what was pushed while it was away", func() bool {
		st := f.status()
		return st.Config != before && st.Config != "" && st.Link
	})
	after := f.status().Config
	f.proc.Kill() // on probation
	f.start()
	if got := f.status().Config; got != after {
		t.Errorf("after a kill it runs by %s, want %s", got, after)
	}
	f.write(next, strings.Replace(f.text, f.mqtt, "127.0.0.1:1", 1)+"filters: {rules: [{deadband: 3}]}\n")
	r = f.ask("apply", next, "--why", "another broker")
	if r.Code != 1 || !strings.Contains(r.Stdout, "mqtt.addresses") {
		t.Errorf("another broker: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if st := f.status(); st.Config != after || !st.Link {
		t.Errorf("%+v", st)
	}
	// The refusal is seen from afar, and who is there is.
	r = f.ask("status", "lyon/hall-1", "--output", "json")
	var said command.Report
	if err := json.Unmarshal([]byte(r.Stdout), &said); err != nil || r.Code != 1 || said.State != command.NotApplied || said.Config != after {
		t.Errorf("status: exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	// Births name the whole configuration, on the topic of events and so in Kafka.
	f.measure("flow", 100, 1)
	harness.Eventually(t, time.Minute, "records name the whole configuration", func() bool {
		return harness.Count(t, f.bin, f.dir, fmt.Sprintf(`SELECT count(*) FROM bronze.readings WHERE config = '%s'`, after)) > 0
	})
}

// The edges inside one process answer too: waveforms of a bearing, most of which no
// trigger let pass, come whole to the table of raw samples.
func TestReplayInsideOneProcess(t *testing.T) {
	t.Parallel()
	bin, recordings := harness.Binary(t), t.TempDir()
	b, err := os.ReadFile(filepath.Join(harness.Data(t, "cwru"), normal+".f32"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(recordings, normal+".f32"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	p := harness.Start(t, bin, dir, nil, append([]string{"up", "--replay", "cwru:" + recordings, "--speed", "max"}, harness.Loopback()...)...)
	run := p.Ready(t, 30*time.Second)
	harness.Eventually(t, time.Minute, "the recording is at its end", func() bool {
		c := harness.Stations(t, run)
		return c["edge.samples"] == int64(len(b)/4) && c["edge.in_flight_now"] == 0
	})
	var said struct {
		Edges []command.Report `json:"edges"`
	}
	harness.Eventually(t, time.Minute, "the edge says what it measures", func() bool {
		r := harness.Run(t, bin, "edge", "list", "--dir", dir, "--output", "json")
		return json.Unmarshal([]byte(r.Stdout), &said) == nil && len(said.Edges) == 1 && len(said.Edges[0].Assets) == 1
	})
	asset := string(said.Edges[0].Assets[0])
	r := harness.Run(t, bin, "edge", "replay", "--asset", asset, "--from", "1990-01-01T00:00:00Z", "--to", "2090-01-01T00:00:00Z", "--why", "all of it", "--dir", dir, "--output", "json")
	var a command.Answer
	if err := json.Unmarshal([]byte(r.Stdout), &a); err != nil || r.Code != 0 || a.Replay == nil || a.Replay.Samples != uint64(len(b)/4) {
		t.Fatalf("exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	harness.Eventually(t, time.Minute, "all samples are in bronze.raw", func() bool {
		return harness.Count(t, bin, dir, `SELECT coalesce(sum(c), 0) FROM (SELECT DISTINCT path, first_sample, count AS c FROM bronze.raw)`) == len(b)/4
	})
	p.Signal(t, syscall.SIGTERM)
	if code := p.Exit(t, 30*time.Second); code != 0 {
		t.Errorf("exit %d\n%s", code, p.Stderr())
	}
	harness.Verify(t, bin, dir)
}
