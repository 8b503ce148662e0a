package kafka_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/kafka"
)

// stranger is an edge node that is not Headrace's: it numbers its values, sends
// each once with QoS 1, and is born again when it is asked to.
type stranger struct {
	name string
	seq  uint64
	sent int
}

const strangerTopic = "spBv1.0/werk/%s/%s"

func (s *stranger) publish(ctx context.Context, conn *mqttc.Conn, kind, device string, metrics ...sparkplug.Metric) error {
	payload := sparkplug.AppendPayload(nil, &sparkplug.Payload{
		Timestamp: uint64(time.Now().UnixMilli()), HasTimestamp: true, Seq: s.seq % 256, HasSeq: true, Metrics: metrics,
	})
	s.seq++
	topic := fmt.Sprintf(strangerTopic, kind, s.name)
	if device != "" {
		topic += "/" + device
	}
	return conn.Publish(ctx, topic, 1, false, payload)
}

func (s *stranger) birth(ctx context.Context, conn *mqttc.Conn) error {
	s.seq = 0
	if err := s.publish(ctx, conn, "NBIRTH", "", sparkplug.Metric{Name: "bdSeq", Datatype: sparkplug.TypeInt64, Value: sparkplug.Long(0)}); err != nil {
		return err
	}
	return s.publish(ctx, conn, "DBIRTH", "pump", sparkplug.Metric{Name: "count", Alias: 7, HasAlias: true, Datatype: sparkplug.TypeDouble, Value: sparkplug.Double(-1)})
}

func (s *stranger) value(ctx context.Context, conn *mqttc.Conn) error {
	m := sparkplug.Metric{Alias: 7, HasAlias: true, Timestamp: uint64(time.Now().UnixMilli()), HasTimestamp: true, Value: sparkplug.Double(float64(s.sent))}
	s.sent++
	return s.publish(ctx, conn, "DDATA", "pump", m)
}

// strangers publish until the returned function is called, which tells how
// many values each of them has sent.
func strangers(t *testing.T, broker string, n int) (stop func() map[string]int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	reborn := map[string]bool{}
	nodes := make([]*stranger, n)
	for i := range nodes {
		nodes[i] = &stranger{name: fmt.Sprintf("plc-%d", i)}
		reborn[fmt.Sprintf(strangerTopic, "NCMD", nodes[i].name)] = true
	}
	conn, err := mqttc.Connect(ctx, mqttc.Config{
		Addresses: []string{"tcp://" + broker}, ClientID: "strangers", CleanSession: true,
		OnMessage: func(m mqttc.Message) {
			m.Ack()
			mu.Lock()
			reborn[m.Topic] = true
			mu.Unlock()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Subscribe(ctx, map[string]byte{fmt.Sprintf(strangerTopic, "NCMD", "+"): 1}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, s := range nodes {
				topic := fmt.Sprintf(strangerTopic, "NCMD", s.name)
				mu.Lock()
				born := !reborn[topic]
				delete(reborn, topic)
				mu.Unlock()
				if !born {
					if err := s.birth(t.Context(), conn); err != nil {
						done <- err
						return
					}
				}
				if err := s.value(t.Context(), conn); err != nil {
					done <- err
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				done <- nil
				return
			}
		}
	}()
	var once sync.Once
	sent := map[string]int{}
	stop = func() map[string]int {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("strangers: %v", err)
			}
			for _, s := range nodes {
				sent[s.name] = s.sent
			}
		})
		return sent
	}
	t.Cleanup(func() { stop(); conn.Abort(); <-conn.Done() })
	return stop
}

// Two bridges share the edge nodes; one is killed under load. Its nodes move
// to the other: of Headrace's edges every value stands once in the tables, of
// strangers at least once.
func TestBridgesShareTheNodes(t *testing.T) {
	bin := harness.Binary(t)
	for _, k := range []struct {
		name  string
		start func(t *testing.T) []string
	}{
		{"embedded", func(t *testing.T) []string { return embedded(t, bin).flags }},
		{"Apache Kafka", func(t *testing.T) []string { return kafka.Start(t, kafka.Options{}).Flags() }},
	} {
		t.Run(k.name, func(t *testing.T) { shared(t, bin, k.start(t)) })
	}
}

func shared(t *testing.T, bin string, flags []string) {
	t.Helper()
	recordings, top := t.TempDir(), t.TempDir()
	harness.Generate(t, recordings, harness.Generated{
		Seed: 23, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1", "c/0", "d/0"}, Rows: 900,
	})
	cells := harness.Cells(t, recordings)
	start := func(name string, args ...string) *harness.Proc {
		t.Helper()
		return harness.Start(t, bin, filepath.Join(top, name), nil, append([]string{"run", "--listen-http", "127.0.0.1:0"}, args...)...)
	}
	mqtt := start("broker", "--roles", "broker", "--listen-mqtt", "127.0.0.1:0").Ready(t, time.Minute).MQTT
	bridgeArgs := append([]string{"--roles", "bridge,http", "--bridge-group", "test", "--mqtt", "tcp://" + mqtt}, flags...)
	first, second := start("bridge-1", bridgeArgs...), start("bridge-2", bridgeArgs...)
	firstRun, secondRun := first.Ready(t, time.Minute), second.Ready(t, time.Minute)
	shares := func() (a, b int64) {
		return harness.Stations(t, firstRun)["bridge.shares_now"], harness.Stations(t, secondRun)["bridge.shares_now"]
	}
	harness.Eventually(t, time.Minute, "both bridges have a share", func() bool { a, b := shares(); return a > 0 && b > 0 && a+b == 16 })

	lake := start("lake", append([]string{"--roles", "lake,http"}, flags...)...)
	lake.Ready(t, time.Minute)
	stop := strangers(t, mqtt, 4)
	edge := start("edge", "--roles", "edge", "--mqtt", "tcp://"+mqtt, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "40")
	for _, run := range []struct {
		name     string
		counters func() map[string]int64
	}{
		{"first", func() map[string]int64 { return harness.Stations(t, firstRun) }},
		{"second", func() map[string]int64 { return harness.Stations(t, secondRun) }},
	} {
		harness.Eventually(t, time.Minute, "the "+run.name+" bridge writes records", func() bool { return run.counters()["bridge.records"] > 10 })
	}
	first.Kill()
	killed := time.Now()
	harness.Eventually(t, time.Minute, "the other bridge owns all", func() bool { return harness.Stations(t, secondRun)["bridge.shares_now"] == 16 })
	took := time.Since(killed)
	t.Logf("the nodes moved within %s", took.Round(100*time.Millisecond))
	before := harness.Stations(t, secondRun)["bridge.readings"]
	harness.Eventually(t, time.Minute, "readings go on", func() bool { return harness.Stations(t, secondRun)["bridge.readings"] > before+200 })
	sent := stop()

	dir := filepath.Join(top, "lake")
	want := strconv.Itoa(len(cells))
	harness.Eventually(t, 3*time.Minute, "every reading has arrived", func() bool {
		rows := harness.CSV(t, bin, dir, `SELECT count(*) FROM silver.readings WHERE edge LIKE 'skab/%'`)
		return rows[0][0] == want
	})
	got := map[harness.Cell]int{}
	for _, row := range harness.CSV(t, bin, dir, `SELECT path, epoch_us(event_time), value FROM bronze.readings WHERE edge LIKE 'skab/%'`) {
		us, err1 := strconv.ParseInt(row[1], 10, 64)
		v, err2 := strconv.ParseFloat(row[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("row %v: %v %v", row, err1, err2)
		}
		got[harness.Cell{Path: row[0], Time: us, Value: v}]++
	}
	harness.SameCells(t, "bronze.readings", got, cells)
	for name, n := range sent {
		kept := 0
		harness.Eventually(t, time.Minute, fmt.Sprintf("the %d values of %s are in bronze", n, name), func() bool {
			kept = harness.Count(t, bin, dir, fmt.Sprintf(`SELECT count(DISTINCT value) FROM bronze.readings WHERE edge = 'werk/%s' AND value >= 0`, name))
			return kept == n
		})
	}
	t.Logf("strangers sent %v; the second bridge: %v", sent, harness.Stations(t, secondRun))
	edge.Kill()
	lake.Kill()
	second.Kill()
	harness.Verify(t, bin, dir, append([]string{"--edges", filepath.Join(top, "edge")}, flags...)...)
}
