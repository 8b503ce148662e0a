package kafka_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/server/backlog"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/kafka"
)

// spine is a Kafka as the one test body sees it.
type spine struct {
	flags   []string      // how a process reaches it
	config  kafkac.Config // how the test does
	disturb func()        // what goes wrong under load
	outside bool          // not ours: Headrace made the topics
	times   int           // that it goes wrong; 0 is once
}

// The same body over each Kafka. What they do not have in common stands in
// docs/howto/kafka.md.
func TestWayOverEveryKafka(t *testing.T) {
	bin := harness.Binary(t)
	for _, k := range []struct {
		name  string
		start func(t *testing.T) spine
	}{
		{"embedded killed", func(t *testing.T) spine { return embedded(t, bin) }},
		{"Apache Kafka killed", func(t *testing.T) spine {
			c := kafka.Start(t, kafka.Options{})
			return spine{c.Flags(), kafkac.Config{Brokers: c.Addresses()}, func() { c.Kill(0); c.Restart(t, 0) }, true, kills()}
		}},
		{"Apache Kafka SASL TLS", func(t *testing.T) spine {
			c := kafka.Start(t, kafka.Options{Secure: true})
			tls, err := credentials.Files{CA: c.Certificates.CA}.Client()
			if err != nil {
				t.Fatal(err)
			}
			login := &kafkac.SASL{Mechanism: "SCRAM-SHA-512", User: kafka.User, Password: kafka.Password}
			return spine{c.Flags(), kafkac.Config{Brokers: c.Addresses(), TLS: tls, SASL: login}, func() {}, true, 0}
		}},
		{"one of three killed", func(t *testing.T) spine {
			c := kafka.Start(t, kafka.Options{Brokers: 3})
			return spine{c.Flags(), kafkac.Config{Brokers: c.Addresses()}, func() {
				one := rand.IntN(3)
				t.Logf("broker %d dies", one+1)
				c.Kill(one)
			}, true, 0}
		}},
	} {
		t.Run(k.name, func(t *testing.T) { carried(t, bin, k.start(t)) })
	}
}

// kills is how often Kafka is killed under load: five times, or a hundred under
// HEADRACE_SOAK.
func kills() int {
	if os.Getenv("HEADRACE_SOAK") != "" {
		return 100
	}
	return 5
}

// embedded is a Headrace process that is the spine alone.
func embedded(t *testing.T, bin string) spine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spine")
	start := func(listen string) (*harness.Proc, string) {
		p := harness.Start(t, bin, dir, nil, "run", "--roles", "spine", "--listen-kafka", listen)
		return p, p.Ready(t, time.Minute).Kafka
	}
	p, addr := start("127.0.0.1:0")
	return spine{[]string{"--kafka", addr}, kafkac.Config{Brokers: []string{addr}}, func() { p.Kill(); start(addr) }, false, 0}
}

// carried brings recordings through bridge, Kafka and lake while Kafka is
// disturbed and the process that does it is killed, and proves that every
// value is in the tables once; and again after Kafka has been trimmed.
func carried(t *testing.T, bin string, s spine) {
	t.Helper()
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{
		Seed: 21, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1"}, Rows: 600 * max(1, s.times),
	})
	cells := harness.Cells(t, recordings)
	edge := filepath.Join(t.TempDir(), "edge")
	centre := func(mqtt string) (*harness.Proc, datadir.Run) {
		t.Helper()
		args := append([]string{
			"run", "--roles", "broker,bridge,lake,http", "--listen-mqtt", mqtt, "--listen-http", "127.0.0.1:0",
			"--kafka-session", "6s", "--trim-kafka",
		}, s.flags...)
		p := harness.Start(t, bin, dir, nil, args...)
		return p, p.Ready(t, 2*time.Minute)
	}
	p, run := centre("127.0.0.1:0")
	mqtt := run.MQTT
	// A process of its own, which lives: a replay that is started again begins
	// with its clock where the recordings begin.
	e := harness.Start(t, bin, edge, nil, "run", "--roles", "edge", "--mqtt", "tcp://"+mqtt, "--replay", "skab:"+recordings,
		"--filters", "none", "--speed", "60")
	moves := func(what string) {
		t.Helper()
		from := harness.Stations(t, run)["bridge.records"]
		harness.Eventually(t, 2*time.Minute, what, func() bool { return harness.Stations(t, run)["bridge.records"] > from+4 })
	}
	moves("records reach Kafka")
	for range max(1, s.times) {
		s.disturb()
		moves("records reach Kafka after it was disturbed")
	}
	p.Kill()

	p, _ = centre(mqtt)
	want := strconv.Itoa(len(cells))
	harness.Eventually(t, time.Duration(4+max(1, s.times)/5)*time.Minute, "every reading has arrived", func() bool {
		rows := harness.CSV(t, bin, dir, `SELECT (SELECT count(*) FROM bronze.readings), (SELECT count(*) FROM silver.readings)`)
		return rows[0][0] == want && rows[0][1] == want
	})
	verify := func() {
		t.Helper()
		harness.Verify(t, bin, dir, append([]string{"--edges", edge}, s.flags...)...)
		harness.Exact(t, bin, dir, cells, nil)
	}

	// What bronze has, Kafka may forget; a start after that goes on all the same.
	admin, err := kafkac.NewAdmin(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	harness.Eventually(t, time.Minute, "Kafka is trimmed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		offsets, err := admin.ListOffsets(ctx, record.TopicReadings)
		if err != nil {
			return false
		}
		for _, o := range offsets {
			// The embedded spine keeps the newest batch.
			if o.End > 1 && o.Start == 0 {
				return false
			}
		}
		return len(offsets) > 0
	})
	if s.outside {
		forgets, err := admin.Forgets(t.Context(), record.TopicReadings, record.TopicEvents, record.TopicRaw, record.TopicDeadletter)
		if err != nil || len(forgets) > 0 {
			t.Errorf("topics that forget by themselves: %+v, %v", forgets, err)
		}
	}
	e.Kill()
	p.Kill()
	verify()
	p, _ = centre(mqtt)
	p.Kill()
	verify()

	// The verbs that look into it say the same.
	r := harness.Run(t, bin, append([]string{"spine", "status", "--dir", dir, "--edges", edge, "--output", "json"}, s.flags...)...)
	var status backlog.Status
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil || r.Code != 0 {
		t.Fatalf("spine status: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
	for _, part := range status.Partitions {
		// Births and deaths of the last start may still lie there.
		if part.Topic == record.TopicReadings && (part.Lag == nil || *part.Lag != 0 || part.Bytes == nil) {
			t.Errorf("%s/%d: want no lag and a size: %+v", part.Topic, part.Partition, part)
		}
	}
	if len(status.Partitions) != 13 || len(status.Edges) != 4 {
		t.Errorf("spine status tells of %d partitions and %d edges, want 13 and 4", len(status.Partitions), len(status.Edges))
	}
	if r := harness.Run(t, bin, append([]string{"deadletter", "list", "--dir", dir}, s.flags...)...); r.Code != 0 {
		t.Errorf("deadletter list: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
