package bridge_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/spine/bridge"
)

func stream(line, asset string) signal.Stream {
	return signal.NewStream(signal.NewAsset("skab", line, asset), signal.Telemetry)
}

// compare checks that Kafka holds what was sent, and nothing else.
func compare(t *testing.T, p *plant, edges ...*edge) (repeats int) {
	t.Helper()
	got, times := p.stored(t)
	want := map[string]signal.Batch{}
	for _, e := range edges {
		maps.Copy(want, e.sent)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-sent +stored):\n%.4000s", d)
	}
	for _, n := range times {
		repeats += n - 1
	}
	return repeats
}

func TestEveryMessageIsOneRecord(t *testing.T) {
	p := newPlant(t)
	b, stop := p.bridge(t, nil)
	cfg := p.mqtt()
	a := newEdge(t, cfg, "skab", "valve1-0", "boot-a")
	c := newEdge(t, cfg, "skab", "Halle 1.süd", "boot-c")
	began := time.Now()
	for i := range 1500 {
		at := signal.Micros(1_600_000_000_000_000 + i*1_000_003) // µs that no ms holds
		held := reading("pressure", at, float64(i))
		held.AliveAt += 60_000_000
		text := signal.Reading{Sensor: "zustand", EventTime: at, AliveAt: at, Value: signal.TextValue("läuft"), Quality: 64}
		a.send(stream("valve1", "0"), reading("pressure", at, float64(i)/3), reading("current", at, -1))
		c.send(stream("Halle 1", "Pumpe Nr. 7"), held, text)
	}
	a.drain(t)
	c.drain(t)
	t.Logf("%.0f messages/s, acknowledged", 3000/time.Since(began).Seconds())
	if n := compare(t, p, a, c); n > 0 {
		t.Logf("%d repeats", n)
	}
	if a.acks > 200 {
		t.Errorf("%d acknowledgements for 1500 messages", a.acks)
	}
	for name, atLeast := range map[string]int64{"records": 3000, "readings": 6000, "events": 3, "acks": 2, "connected_now": 1} {
		if got := counter(b, name); got < atLeast {
			t.Errorf("counter %s is %d, want at least %d", name, got, atLeast)
		}
	}
	for _, r := range p.records(t, record.TopicReadings) {
		if n, ok := r.Header(record.HeaderN); !ok || len(n) == 0 || time.Since(r.Timestamp) > time.Minute {
			t.Fatalf("record has headers %v and time %s", r.Headers, r.Timestamp)
		}
	}
	kinds := map[string]int{}
	for _, r := range p.records(t, record.TopicEvents) {
		kind, _ := r.Header(record.HeaderKind)
		kinds[string(kind)]++
	}
	// Births go at QoS 0, and data do not need the node's: a busy broker may lose one.
	if kinds["nbirth"] < 1 || kinds["dbirth"] < 2 {
		t.Errorf("events %v", kinds)
	}
	if got := p.records(t, record.TopicDeadletter); len(got) > 0 {
		t.Errorf("dead letters: %v", got)
	}
	stop()
	eventually(t, "the bridge goes offline", func() bool { return a.sees(false) })
}

// A bridge that starts in the middle has seen no birth: it asks for one, and
// nothing is lost. What came while no bridge was there is sent again.
func TestNewBridgeAsksForBirths(t *testing.T) {
	p := newPlant(t)
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	for i := range 100 {
		e.send(stream("valve1", "0"), reading("pressure", signal.Micros(i+1), 1))
	}
	// The broker has taken all of it, the births first, when it answers this.
	if err := e.conn.Publish(t.Context(), "plant/done", 1, false, nil); err != nil {
		t.Fatal(err)
	}
	b, stop := p.bridge(t, nil)
	eventually(t, "the edge sees the bridge", func() bool { return e.sees(true) })
	e.drain(t)
	if counter(b, "rebirths_asked") == 0 || e.reborn == 0 {
		t.Errorf("no rebirth was asked for")
	}
	stop()
	b, _ = p.bridge(t, nil)
	eventually(t, "the edge sees the next bridge", func() bool { return counter(b, "connected_now") == 1 && e.sees(true) })
	for i := range 100 {
		e.send(stream("valve1", "0"), reading("pressure", signal.Micros(i+1000), 2))
	}
	e.drain(t)
	compare(t, p, e)
}

// The Kafka port is blocked: acknowledgements stop, the bridge leaves the
// broker before its bound is far passed, and all arrives once the port opens.
func TestBlockedKafka(t *testing.T) {
	p := newPlant(t)
	const bound = 1 << 20
	b, _ := p.bridge(t, func(o *bridge.Options) { o.MaxPending = bound })
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	eventually(t, "the edge sees the bridge", func() bool { return e.sees(true) })
	e.send(stream("valve1", "0"), reading("pressure", 1, 1))
	e.drain(t)

	p.valve.open(false)
	before := e.acks
	noise := make([]byte, 1500)
	rng := rand.NewChaCha8([32]byte{})
	for i := range 3000 {
		_, _ = rng.Read(noise)
		e.send(stream("valve1", "0"), signal.Reading{
			Sensor: "note", EventTime: signal.Micros(i + 10), AliveAt: signal.Micros(i + 10),
			Value: signal.TextValue(strings.ToValidUTF8(string(noise), "?")), Quality: signal.QualityGood,
		})
	}
	eventually(t, "the bridge leaves the broker", func() bool { return counter(b, "overflows") == 1 && e.sees(false) })
	if pending := counter(b, "pending_bytes_now"); pending > bound+16<<10 {
		t.Errorf("%d bytes are pending, the bound is %d", pending, bound)
	}
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("heap %d MiB while blocked, %d messages unacknowledged", mem.HeapAlloc>>20, e.waiting())
	if e.acks != before {
		t.Errorf("%d acknowledgements came while Kafka took nothing", e.acks-before)
	}
	p.valve.open(true)
	eventually(t, "the bridge is back", func() bool { return e.sees(true) })
	e.drain(t)
	compare(t, p, e)
}

// The crash points stand in their order, and an edge that heard of a message
// can count on Kafka.
func TestReachedPoints(t *testing.T) {
	p := newPlant(t)
	var mu sync.Mutex
	var points []string
	_, stop := p.bridge(t, func(o *bridge.Options) {
		o.Reached = func(point string) {
			mu.Lock()
			defer mu.Unlock()
			points = append(points, point)
		}
	})
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	eventually(t, "the edge sees the bridge", func() bool { return e.sees(true) })
	e.send(stream("valve1", "0"), reading("pressure", 1, 1))
	e.drain(t)
	stop()
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(strings.Join(points, " "), "bridge.kafka_acked bridge.edge_acked") {
		t.Errorf("points %v", points)
	}
}

func publisher(t *testing.T, p *plant) *mqttc.Conn {
	t.Helper()
	cfg := p.mqtt()
	cfg.ClientID = "raw"
	c, err := mqttc.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Abort(); <-c.Done() })
	return c
}

func TestDeadLetters(t *testing.T) {
	p := newPlant(t)
	b, _ := p.bridge(t, nil)
	eventually(t, "the bridge is connected", func() bool { return counter(b, "connected_now") == 1 })
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	e.send(stream("valve1", "0"), reading("pressure", 1, 1))
	e.drain(t)

	raw := publisher(t, p)
	body := sparkplug.AppendBody(nil, &sparkplug.Body{SessionBoot: "boot-a", Birth: 1, Boot: "boot-a", Seq: 2, Stream: "not a stream", N: 7, Config: "c1"})
	bad := sparkplug.AppendPayload(nil, &sparkplug.Payload{UUID: sparkplug.HeadraceUUID, Body: body, Metrics: make([]sparkplug.Metric, 3)})
	e.mu.Lock()
	e.next, e.unacked[2] = 2, signal.Batch{}
	e.mu.Unlock()
	for _, m := range []struct {
		topic   string
		payload []byte
	}{
		{"spBv1.0/g/DDATA/e/d", []byte("\xff\xff no protobuf")},
		{"spBv1.0/g/NONSENSE/e", []byte("x")},
		{"spBv1.0/skab/DDATA/valve1-0/valve1:0", bad},
	} {
		if err := raw.Publish(t.Context(), m.topic, 1, false, m.payload); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three dead letters are kept", func() bool { return counter(b, "deadletters") == 3 })
	eventually(t, "the refused message is acknowledged", func() bool { return e.waiting() == 0 })
	var got []string
	for _, r := range p.records(t, record.TopicDeadletter) {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["reason"] == "" {
			t.Errorf("no reason for %s", h["topic"])
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s|%q", h["topic"], h["edge"], h["boot"], h["n"], h["readings"], r.Value))
	}
	want := []string{
		fmt.Sprintf("spBv1.0/g/DDATA/e/d|g/e||||%q", "\xff\xff no protobuf"),
		fmt.Sprintf("spBv1.0/g/NONSENSE/e|||||%q", "x"),
		fmt.Sprintf("spBv1.0/skab/DDATA/valve1-0/valve1:0|skab/valve1-0|boot-a|7|3|%q", bad),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("dead letters (-want +got):\n%s", d)
	}
}

func TestForeignNode(t *testing.T) {
	p := newPlant(t)
	b, _ := p.bridge(t, nil)
	eventually(t, "the bridge is connected", func() bool { return counter(b, "connected_now") == 1 })
	raw := publisher(t, p)
	seq := uint64(0)
	send := func(topic string, metrics ...sparkplug.Metric) {
		t.Helper()
		payload := sparkplug.AppendPayload(nil, &sparkplug.Payload{Timestamp: 1000, HasTimestamp: true, Seq: seq, HasSeq: true, Metrics: metrics})
		seq++
		if err := raw.Publish(t.Context(), topic, 0, false, payload); err != nil {
			t.Fatal(err)
		}
	}
	value := func(alias uint64, v float64) sparkplug.Metric {
		return sparkplug.Metric{Alias: alias, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Value: sparkplug.Double(v)}
	}
	birth := func() {
		t.Helper()
		seq = 0
		send("spBv1.0/werk/NBIRTH/plc", sparkplug.Metric{Name: "bdSeq", Datatype: sparkplug.TypeInt64, Value: sparkplug.Long(0)})
		send("spBv1.0/werk/DBIRTH/plc/pumpe", sparkplug.Metric{Name: "Druck/Ein", Alias: 7, HasAlias: true, Datatype: sparkplug.TypeDouble, Value: sparkplug.Double(1)})
	}
	send("spBv1.0/werk/DDATA/plc/pumpe", value(7, 10)) // before its birth: it waits
	eventually(t, "a rebirth is asked for", func() bool { return counter(b, "rebirths_asked") == 1 })
	birth()
	send("spBv1.0/werk/DDATA/plc/pumpe", value(7, 11))
	birth()
	send("spBv1.0/werk/DDATA/plc/pumpe", value(7, 12))
	eventually(t, "three readings are kept", func() bool { return counter(b, "readings") == 3 })

	var got []string
	boots := map[string]bool{}
	for _, r := range p.records(t, record.TopicReadings) {
		var batch signal.Batch
		if err := record.Decode(r.Value, &batch); err != nil {
			t.Fatal(err)
		}
		boots[batch.Boot] = true
		x := batch.Readings[0]
		got = append(got, fmt.Sprintf("%s %s %d %s=%v@%d", batch.Edge, batch.Stream, batch.N, x.Sensor, x.Value.Number, x.EventTime))
	}
	want := []string{
		"werk/plc werk/plc/pumpe:telemetry 0 Druck.Ein=10@2000000",
		"werk/plc werk/plc/pumpe:telemetry 1 Druck.Ein=11@2000000",
		"werk/plc werk/plc/pumpe:telemetry 0 Druck.Ein=12@2000000",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if len(boots) != 2 || boots[""] {
		t.Errorf("boots %v, want one for each birth", boots)
	}
}

func TestTooLargeBecomesADeadLetter(t *testing.T) {
	p := newPlant(t)
	small, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: p.kafka(), Compression: kafkac.None, MaxMessageBytes: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(small.Close)
	b, _ := p.bridge(t, func(o *bridge.Options) { o.Producer = small })
	eventually(t, "the bridge is connected", func() bool { return counter(b, "connected_now") == 1 })
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	e.send(stream("valve1", "0"), signal.Reading{
		Sensor: "note", EventTime: 1, AliveAt: 1, Value: signal.TextValue(strings.Repeat("x", 200_000)), Quality: signal.QualityGood,
	})
	eventually(t, "the message is acknowledged", func() bool { return e.waiting() == 0 })
	// Its value came with the device's birth, too, if that was asked for again;
	// the record itself is one dead letter.
	n := 0
	for _, r := range p.records(t, record.TopicDeadletter) {
		if topic, _ := r.Header(record.HeaderTopic); string(topic) == record.TopicReadings {
			n++
			cut, _ := r.Header(bridge.HeaderCut)
			readings, _ := r.Header(bridge.HeaderReadings)
			if len(r.Value) != 64<<10 || len(cut) != 6 || string(readings) != "1" {
				t.Errorf("%d bytes are kept, cut %s, readings %s", len(r.Value), cut, readings)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}
