package brokers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/test/brokers"
	"github.com/headrace/headrace/test/harness"
)

// broker is an MQTT broker as the one test body sees it.
type broker struct {
	flags   []string // how a process reaches it
	disturb func()   // what goes wrong under load
}

// The same body over each broker. What they do not have in common stands in
// docs/howto/brokers.md.
func TestWayOverEveryBroker(t *testing.T) {
	bin := harness.Binary(t)
	again := func(t *testing.T, b *brokers.Brokers) broker {
		return broker{b.Flags(), func() { b.Nodes[0].Kill(); b.Nodes[0].Restart(t) }}
	}
	for _, k := range []struct {
		name  string
		start func(t *testing.T) broker
	}{
		{"embedded killed", func(t *testing.T) broker { return embedded(t, bin) }},
		{"embedded TLS users killed", func(t *testing.T) broker {
			g := newGuarded(t)
			b := embedded(t, bin, g.listen...)
			b.flags = append([]string{"--mqtt", strings.Replace(b.flags[1], "tcp://", "ssl://", 1)}, g.client...)
			return b
		}},
		{"Mosquitto killed", func(t *testing.T) broker { return again(t, brokers.Mosquitto(t, false)) }},
		{"Mosquitto TLS password killed", func(t *testing.T) broker { return again(t, brokers.Mosquitto(t, true)) }},
		{"HiveMQ CE killed", func(t *testing.T) broker { return again(t, brokers.HiveMQ(t)) }},
		{"one of three killed", func(t *testing.T) broker {
			b := brokers.Cluster(t)
			return broker{b.Flags(), b.Nodes[0].Kill}
		}},
	} {
		t.Run(k.name, func(t *testing.T) { carried(t, bin, k.start(t)) })
	}
}

// embedded is a Headrace process that is the broker alone.
func embedded(t *testing.T, bin string, flags ...string) broker {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "broker")
	start := func(listen string) (*harness.Proc, string) {
		p := harness.Start(t, bin, dir, nil, append([]string{"run", "--roles", "broker", "--listen-mqtt", listen}, flags...)...)
		return p, p.Ready(t, time.Minute).MQTT
	}
	p, addr := start("127.0.0.1:0")
	return broker{[]string{"--mqtt", "tcp://" + addr}, func() { p.Kill(); start(addr) }}
}

// carried brings recordings from an edge over the broker to the tables while
// the broker is disturbed, and proves that every value is there once.
func carried(t *testing.T, bin string, b broker) {
	t.Helper()
	recordings, top := t.TempDir(), t.TempDir()
	centre, edge := filepath.Join(top, "centre"), filepath.Join(top, "edge")
	harness.Generate(t, recordings, harness.Generated{
		Seed: 22, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1"}, Rows: 600,
	})
	cells := harness.Cells(t, recordings)

	args := append([]string{"run", "--roles", "bridge,spine,lake,http"}, harness.Loopback()...)
	c := harness.Start(t, bin, centre, nil, append(args, b.flags...)...)
	run := c.Ready(t, 2*time.Minute)
	e := harness.Start(t, bin, edge, nil, append([]string{
		"run", "--roles", "edge", "--replay", "skab:" + recordings,
		"--filters", "none", "--speed", "80",
	}, b.flags...)...)
	e.Ready(t, time.Minute)
	moves := func(what string) {
		t.Helper()
		from := harness.Stations(t, run)["bridge.records"]
		harness.Eventually(t, 2*time.Minute, what, func() bool { return harness.Stations(t, run)["bridge.records"] > from+4 })
	}
	moves("records reach Kafka")
	b.disturb()
	moves("records reach Kafka after the broker was disturbed")

	want := strconv.Itoa(len(cells))
	harness.Eventually(t, 3*time.Minute, "every reading has arrived", func() bool {
		rows := harness.CSV(t, bin, centre, `SELECT (SELECT count(*) FROM bronze.readings), (SELECT count(*) FROM silver.readings)`)
		return rows[0][0] == want && rows[0][1] == want
	})
	for _, p := range []*harness.Proc{e, c} {
		select {
		case <-p.Done():
			t.Errorf("a process ended by itself:\n%s", p.Stderr())
		default:
		}
		p.Kill()
	}
	harness.Verify(t, bin, centre, "--edges", edge)
	harness.Exact(t, bin, centre, cells, nil)
}

// guarded are the flags of a broker that knows whom it lets in, and those of a
// client that it lets in.
type guarded struct{ listen, client []string }

func newGuarded(t *testing.T) guarded {
	t.Helper()
	dir := t.TempDir()
	certs := harness.NewCertificates(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte(brokers.Password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"password": brokers.Password + "\n",
		"users.yaml": fmt.Sprintf(`users:
  - {name: %s, password: %q, publish: ["spBv1.0/#", "headrace/#"], subscribe: ["spBv1.0/#", "headrace/ack/#"]}
  - {name: another, certificate: edge-1}
`, brokers.User, hash),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return guarded{
		listen: []string{
			"--listen-mqtt-cert", certs.Cert, "--listen-mqtt-key", certs.Key, "--listen-mqtt-ca", certs.CA,
			"--listen-mqtt-users", filepath.Join(dir, "users.yaml"),
		},
		client: []string{"--mqtt-ca", certs.CA, "--mqtt-user", brokers.User, "--mqtt-password-file", filepath.Join(dir, "password")},
	}
}

// A whole process whose broker is open to the network under guard: its own
// stations get in, and a stranger does not.
func TestProcessWithAGuardedBroker(t *testing.T) {
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 24, Files: []string{"valve1/0", "a/0"}, Rows: 200})
	g := newGuarded(t)
	args := append([]string{"up", "--replay", "skab:" + recordings, "--filters", "none", "--speed", "max", "--until-drained"}, harness.Loopback()...)
	args = append(args, "--listen-mqtt", "0.0.0.0:0")
	if r := harness.Run(t, bin, append(args, "--dir", dir)...); r.Code != 2 || !strings.Contains(r.Stderr, "--listen-mqtt-users") {
		t.Errorf("without guard: exit %d\n%s", r.Code, r.Stderr)
	}
	p := harness.Start(t, bin, dir, nil, append(args, g.listen...)...)
	_, port, _ := strings.Cut(strings.ReplaceAll(p.Ready(t, time.Minute).MQTT, "[::]", ""), ":")
	for _, address := range []string{"tcp://127.0.0.1:" + port, "ssl://127.0.0.1:" + port} {
		conn, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{address}, ClientID: "stranger", CleanSession: true, ConnectTimeout: 5 * time.Second})
		if err == nil {
			conn.Abort()
			<-conn.Done()
			t.Errorf("a stranger is let in by %s", address)
		}
	}
	if code := p.Exit(t, 2*time.Minute); code != 0 {
		t.Fatalf("exit %d, want 0\n%s", code, p.Stderr())
	}
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), nil)
	if strings.Contains(p.Stderr(), brokers.Password) {
		t.Errorf("the log holds a password:\n%s", p.Stderr())
	}
}
