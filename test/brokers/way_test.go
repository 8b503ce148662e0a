package brokers_test

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

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
func embedded(t *testing.T, bin string) broker {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "broker")
	start := func(listen string) (*harness.Proc, string) {
		p := harness.Start(t, bin, dir, nil, "run", "--roles", "broker", "--listen-mqtt", listen)
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
