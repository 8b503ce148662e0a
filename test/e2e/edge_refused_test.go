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

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/server/ledger"
	"github.com/headrace/headrace/spine/deadletter"
	"github.com/headrace/headrace/test/harness"
)

// Two edges get what is no reading, from files and from a plant's broker, and are
// killed in between: every row that is one is in the tables once, every one that is
// none a dead letter once, with its place, its bytes and the reason.
func TestMalformedInputOfAnEdge(t *testing.T) {
	t.Parallel()
	const rounds, rows = 4, 25
	bin, edgeBin := harness.Binary(t), edgeBinary(t)
	top := t.TempDir()
	dir, drop := filepath.Join(top, "centre"), filepath.Join(top, "drop")
	if err := os.Mkdir(drop, 0o700); err != nil {
		t.Fatal(err)
	}
	centre := harness.Start(t, bin, dir, nil, append([]string{"run", "--roles", "broker,bridge,spine,lake,http"}, harness.Loopback()...)...)
	run := centre.Ready(t, 30*time.Second)
	field := harness.PlantBroker(t)
	configure := func(node, source string) (start func() *harness.Proc) {
		t.Helper()
		file := filepath.Join(top, node+".yaml")
		text := fmt.Sprintf("edge: {group: lyon, node: %s}\nmqtt: {addresses: [\"tcp://%s\"]}\nsource:\n%s", node, run.MQTT, source)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := harness.Run(t, edgeBin, "check", file); r.Code != 0 {
			t.Fatalf("check: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		return func() *harness.Proc {
			return harness.Start(t, edgeBin, filepath.Join(dir, "edges", "lyon", node), nil, "run", "--config", file)
		}
	}
	byFiles := configure("files", fmt.Sprintf("  files: {dir: %q, format: csv, time: ts, asset: \"lyon/hall/{file}\", poll_seconds: 0.05}\n", drop))
	byMQTT := configure("broker", fmt.Sprintf("  mqtt: {addresses: [\"tcp://%s\"]}\n  map: {prefix: field}\n", field))

	plc, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{"tcp://" + field}, ClientID: "plc", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer plc.Abort()
	publish := func(topic, payload string) {
		t.Helper()
		if err := plc.Publish(t.Context(), topic, 1, false, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	press, err := os.Create(filepath.Join(drop, "press.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer press.Close()
	fmt.Fprint(press, "ts,force\n")
	want := map[string]string{}
	at := time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)
	n, line := 0, 2
	var edges []*harness.Proc
	for round := range rounds {
		edges = []*harness.Proc{byFiles(), byMQTT()}
		if round == 0 {
			harness.Eventually(t, 30*time.Second, "the plant's broker keeps a session", func() bool {
				b, _ := os.ReadFile(filepath.Join(dir, "edges", "lyon", "broker", "status.json")) // it may not be there yet
				return strings.Contains(string(b), `"source_connected_now":1`) || strings.Contains(string(b), `"source_connected_now": 1`)
			})
		}
		for i := range rows {
			ts := at.Add(time.Duration(n) * time.Second).Format(time.RFC3339)
			if i%5 == 4 {
				bad := fmt.Sprintf("%s,%d,too,many", ts, n)
				fmt.Fprintln(press, bad)
				want[fmt.Sprintf("%s:%d", press.Name(), line)] = bad + "\n"
				topic := fmt.Sprintf("field/lyon/hall/pump/p%d", n)
				publish(topic, "\xff torn")
				want[topic] = "\xff torn"
			} else {
				fmt.Fprintf(press, "%s,%d\n", ts, n)
				publish("field/lyon/hall/pump/pressure", fmt.Sprintf(`{"ts": %q, "value": %d}`, ts, n))
			}
			n++
			line++
		}
		if round < rounds-1 {
			harness.Eventually(t, 60*time.Second, "something has come", func() bool { return harness.Stations(t, run)["silver.rows"] > int64(round*rows) })
			for _, e := range edges {
				e.Kill()
			}
		}
	}
	good := n - n/5
	harness.Eventually(t, 2*time.Minute, "every row is in silver", func() bool {
		return harness.Count(t, bin, dir, `SELECT count(DISTINCT (path, event_time)) FROM silver.readings WHERE sensor IN ('force', 'pressure')`) == 2*good
	})
	if twice := harness.Count(t, bin, dir, `SELECT count(*) FROM (SELECT path, event_time FROM bronze.readings WHERE sensor = 'force' AND NOT coalesce(alive_at > event_time, false) GROUP BY ALL HAVING count(*) > 1)`); twice != 0 {
		t.Errorf("%d rows of files came twice", twice)
	}
	letters := func() (out []deadletter.Letter) {
		r := harness.Run(t, bin, "deadletter", "list", "--dir", dir, "--output", "json")
		if r.Code > 1 {
			t.Fatalf("deadletter list: exit %d\n%s", r.Code, r.Stderr)
		}
		if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	harness.Eventually(t, time.Minute, "every refusal is a dead letter", func() bool {
		places := map[string]bool{}
		for _, l := range letters() {
			places[l.Topic] = true
		}
		return len(places) == len(want)
	})
	seen := map[string]bool{}
	for _, l := range letters() {
		id := l.Edge + l.Boot + l.N
		text, ok := want[l.Topic]
		if !ok || l.Bytes != len(text) || l.Reason == "" || l.Source == "" || l.Uncarried != 0 {
			t.Errorf("%+v", l)
		}
		// A resend is the same letter; a message of QoS 1 that the edge had not
		// acknowledged when it was killed comes again from the plant's broker.
		if l.Source == "files" && seen[l.Topic] && !seen[id] {
			t.Errorf("%s is there twice", l.Topic)
		}
		seen[id], seen[l.Topic] = true, true
	}
	var shown struct{ Value []byte }
	r := harness.Run(t, bin, "deadletter", "show", letters()[0].ID(), "--dir", dir, "--output", "json")
	if err := json.Unmarshal([]byte(r.Stdout), &shown); err != nil || string(shown.Value) != want[letters()[0].Topic] {
		t.Errorf("show: %q, %v\n%s", shown.Value, err, r.Stderr)
	}

	// And the sums hold: what was refused stands in the ledger as open dead letters.
	for _, p := range append(edges, centre) {
		p.Signal(t, syscall.SIGTERM)
		if code := p.Exit(t, 30*time.Second); code != 0 {
			t.Errorf("exit %d\n%s", code, p.Stderr())
		}
	}
	r = harness.Run(t, bin, "ledger", "verify", "--dir", dir, "--output", "json")
	var report ledger.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || !report.OK {
		t.Fatalf("ledger: exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	dead := int64(0)
	for _, e := range report.Edges {
		dead += e.Deadletter
	}
	if dead < int64(len(want)) {
		t.Errorf("%d open dead letters in the ledger, want %d\n%s", dead, len(want), r.Stdout)
	}
}
