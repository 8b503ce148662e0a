package sparkplug

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

func decoded(t testing.TB, m Message) (Topic, Payload, Body) {
	t.Helper()
	topic, err := ParseTopic(m.Topic)
	if err != nil {
		t.Fatal(err)
	}
	var p Payload
	if err := DecodePayload(m.Payload, &p); err != nil {
		t.Fatal(err)
	}
	var b Body
	if err := DecodeBody(p.Body, &b); err != nil {
		t.Fatal(err)
	}
	return topic, p, b
}

func oneBatch(seq uint64, readings ...signal.Reading) signal.Batch {
	return signal.Batch{
		Origin:   signal.Origin{Edge: "works 1/cell%7", Boot: "frozen", Seq: seq, Stream: "works 1/a/x:telemetry", N: seq - 1, Config: "c0", CompleteTo: 77},
		Readings: readings,
	}
}

func number(sensor string, at signal.Micros, v float64, unit string) signal.Reading {
	return signal.Reading{Sensor: sensor, EventTime: at, AliveAt: at, Value: signal.NumberValue(v), Unit: unit, Quality: signal.QualityGood}
}

func mustData(t testing.TB, n *EdgeNode, b signal.Batch) []Message {
	t.Helper()
	out, err := n.Data(nil, testNow, &b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func kinds(out []Message) (s []string) {
	for _, m := range out {
		topic, _ := ParseTopic(m.Topic)
		s = append(s, string(topic.Type))
	}
	return s
}

// What goes over the wire, field by field, as another host would see it.
func TestEdgeNodeMessages(t *testing.T) {
	n := newNode(t, testBoot)
	n.Connect(41)
	const ms = uint64(1_700_000_000_123)

	will := n.Will(testNow)
	topic, p, _ := decoded(t, will)
	if will.QoS != 1 || will.Retained || topic.Type != NDeath || p.HasSeq || p.UUID != "" {
		t.Errorf("will: %+v %+v", will, p)
	}
	bdSeq := Metric{Name: "bdSeq", Datatype: TypeInt64, Timestamp: ms, HasTimestamp: true, Value: Long(41)}
	if d := cmp.Diff([]Metric{bdSeq}, p.Metrics, asDecoded); d != "" {
		t.Errorf("will (-want +got):\n%s", d)
	}

	births := n.Birth(testNow)
	if len(births) != 1 || births[0].QoS != 0 || births[0].Retained {
		t.Fatalf("births: %v", births)
	}
	_, p, body := decoded(t, births[0])
	if p.Seq != 0 || !p.HasSeq || p.Timestamp != ms || p.UUID != HeadraceUUID {
		t.Errorf("nbirth: %+v", p)
	}
	rebirth := Metric{Name: "Node Control/Rebirth", Datatype: TypeBoolean, Timestamp: ms, HasTimestamp: true, Value: Bool(false)}
	if d := cmp.Diff([]Metric{bdSeq, rebirth}, p.Metrics, asDecoded); d != "" {
		t.Errorf("nbirth (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Body{SessionBoot: testBoot, Birth: 1}, body, asDecoded); d != "" {
		t.Errorf("nbirth body (-want +got):\n%s", d)
	}

	bad := number("p", 2_000_500, 2.5, "bar")
	bad.Quality, bad.Historical, bad.AliveAt, bad.Rescued = signal.QualityStale, true, 2_000_600, "{}"
	out := mustData(t, n, oneBatch(1, number("p", 1_000_000, 1.5, "bar"), bad))
	if d := cmp.Diff([]string{"DBIRTH", "DDATA"}, kinds(out)); d != "" {
		t.Fatal(d)
	}
	topic, p, body = decoded(t, out[0])
	if topic.Device != "a:x" || p.Seq != 1 {
		t.Errorf("dbirth: %+v %+v", topic, p)
	}
	stale := Property{Key: "Quality", Type: TypeInt32, Value: Int(500)}
	bar := Property{Key: "engUnit", Type: TypeString, Value: String("bar")}
	if d := cmp.Diff([]Metric{{
		Name: "p", Alias: 1, HasAlias: true, Timestamp: ms, HasTimestamp: true, Datatype: TypeDouble, Null: true, Properties: []Property{stale, bar},
	}}, p.Metrics, asDecoded); d != "" {
		t.Errorf("dbirth (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Body{SessionBoot: testBoot, Birth: 2, SubMilli: []uint32{456}}, body, asDecoded); d != "" {
		t.Errorf("dbirth body (-want +got):\n%s", d)
	}
	_, p, body = decoded(t, out[1])
	if p.Seq != 2 {
		t.Errorf("ddata: seq %d", p.Seq)
	}
	if d := cmp.Diff([]Metric{
		{Alias: 1, HasAlias: true, Timestamp: 1000, HasTimestamp: true, Value: Double(1.5)},
		{Alias: 1, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Value: Double(2.5), Historical: true, Properties: []Property{
			stale, {Key: "rescued", Type: TypeString, Value: String("{}")},
		}},
	}, p.Metrics, asDecoded); d != "" {
		t.Errorf("ddata (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Body{
		SessionBoot: testBoot, Birth: 2, Boot: "frozen", Seq: 1, Stream: "works 1/a/x:telemetry", N: 0, Config: "c0", CompleteTo: 77,
		SubMilli: []uint32{0, 500}, AliveAfter: []uint64{0, 100},
	}, body, asDecoded); d != "" {
		t.Errorf("ddata body (-want +got):\n%s", d)
	}

	// A rebirth repeats the newest value, and numbers go on.
	births = n.Birth(testNow)
	if d := cmp.Diff([]string{"NBIRTH", "DBIRTH"}, kinds(births)); d != "" {
		t.Fatal(d)
	}
	_, p, body = decoded(t, births[1])
	if d := cmp.Diff([]Metric{{
		Name: "p", Alias: 1, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Datatype: TypeDouble, Value: Double(2.5), Properties: []Property{stale, bar},
	}}, p.Metrics, asDecoded); d != "" {
		t.Errorf("second dbirth (-want +got):\n%s", d)
	}
	if p.Seq != 1 || body.Birth != 4 {
		t.Errorf("second dbirth: seq %d, birth %d", p.Seq, body.Birth)
	}
	dead := n.Death(testNow)
	if dead.Topic != will.Topic || dead.QoS != 1 {
		t.Errorf("death: %+v", dead)
	}
}

func TestEdgeNodeAsksForBirths(t *testing.T) {
	n := newNode(t, testBoot)
	n.Connect(0)
	n.Birth(testNow)
	text := signal.Reading{Sensor: "p", EventTime: 5, AliveAt: 5, Value: signal.TextValue("on"), Quality: signal.QualityGood}
	null := signal.Reading{Sensor: "p", EventTime: 5, AliveAt: 5, Unit: "Pa", Quality: signal.QualityBad}
	old := number("p", 1, 1, "bar")
	old.Historical = true
	for i, c := range []struct {
		what string
		r    []signal.Reading
		born bool
	}{
		{"first sight", []signal.Reading{number("p", 1, 1, "bar")}, true},
		{"same", []signal.Reading{number("p", 2, 1, "bar")}, false},
		{"new sensor", []signal.Reading{number("p", 2, 1, "bar"), number("q", 2, 1, "")}, true},
		{"live unit changes", []signal.Reading{number("p", 3, 1, "Pa")}, true},
		{"historical in the old unit", []signal.Reading{old}, false},
		{"newest live unit is the present one", []signal.Reading{number("p", 3, 1, "bar"), number("p", 4, 1, "Pa")}, false},
		{"null has no type", []signal.Reading{null}, false},
		{"type changes", []signal.Reading{text}, true},
		{"empty", nil, false},
	} {
		out := mustData(t, n, oneBatch(uint64(i+1), c.r...))
		if born := len(out) == 2; born != c.born {
			t.Errorf("%s: %v", c.what, kinds(out))
		}
	}
}

// A birth holds the newest value by event time; what is of another type than
// the sensor says so to other hosts, in data, and is left out of births.
func TestEdgeNodeHoldsNewest(t *testing.T) {
	n := newNode(t, testBoot)
	n.Connect(0)
	n.Birth(testNow)
	mustData(t, n, oneBatch(1, number("p", 5_000_000, 5, "")))
	late := number("p", 1_000_000, 1, "")
	late.Historical = true
	mustData(t, n, oneBatch(2, late))
	_, p, _ := decoded(t, n.Birth(testNow)[1])
	if m := p.Metrics[0]; m.Value != Double(5) || m.Timestamp != 5000 || m.Historical {
		t.Errorf("held %+v", m)
	}
	text := signal.Reading{Sensor: "p", EventTime: 6_000_000, AliveAt: 6_000_000, Value: signal.TextValue("x"), Quality: signal.QualityGood, Historical: true}
	out := mustData(t, n, oneBatch(3, text))
	if _, p, _ := decoded(t, out[0]); len(out) != 1 || p.Metrics[0].Datatype != TypeString {
		t.Errorf("sent %+v", p.Metrics)
	}
	_, p, _ = decoded(t, n.Birth(testNow)[1])
	if m := p.Metrics[0]; !m.Null || m.Value.Field != FieldNone || m.Datatype != TypeDouble {
		t.Errorf("held %+v", m)
	}
}

func TestEdgeNodeRefuses(t *testing.T) {
	for _, cfg := range []NodeConfig{
		{"", "e", "b"}, {"g", "", "b"}, {"g", "e", ""}, {"g/h", "e", "b"}, {"STATE", "e", "b"}, {"g", "e", strings.Repeat("b", 65)},
	} {
		if _, err := NewEdgeNode(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	n := newNode(t, testBoot)
	n.Connect(0)
	b := oneBatch(1, number("p", 1, 1, ""))
	if _, err := n.Data(nil, testNow, &b); err == nil {
		t.Error("data before birth was taken")
	}
	n.Birth(testNow)
	for what, change := range map[string]func(*signal.Batch){
		"belongs to edge":     func(b *signal.Batch) { b.Edge = "works 1/other" },
		"boot of 0 bytes":     func(b *signal.Batch) { b.Boot = "" },
		"is not the node's":   func(b *signal.Batch) { b.Stream = "works 2/a/x:telemetry" },
		"has no class":        func(b *signal.Batch) { b.Stream = "works 1/a/x" },
		"reading 0: name":     func(b *signal.Batch) { b.Readings[0].Sensor = "a/b" },
		"65537 readings":      func(b *signal.Batch) { b.Readings = make([]signal.Reading, maxReadings+1) },
		"bytes are more than": func(b *signal.Batch) { b.Readings[0].Rescued = strings.Repeat("x", MaxPayloadBytes) },
	} {
		b := oneBatch(1, number("p", 1, 1, ""))
		change(&b)
		if out, err := n.Data(nil, testNow, &b); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want error %q, got %v with %v", what, err, kinds(out))
		}
	}
	// What was refused leaves no gap in the numbers.
	next := n.seq
	_, p, _ := decoded(t, mustData(t, n, oneBatch(1, number("p", 1, 1, "")))[0])
	if p.Seq != uint64(next) {
		t.Errorf("seq %d, want %d", p.Seq, next)
	}
}

func TestEdgeNodeNumbersWrap(t *testing.T) {
	n := newNode(t, testBoot)
	n.Connect(255)
	n.Birth(testNow)
	want := uint64(1)
	for range 600 {
		for _, m := range mustData(t, n, oneBatch(1, number("p", 1, 1, ""))) {
			_, p, _ := decoded(t, m)
			if p.Seq != want%256 {
				t.Fatalf("seq %d, want %d", p.Seq, want%256)
			}
			want++
		}
	}
	if NextBdSeq(254) != 255 || NextBdSeq(255) != 0 {
		t.Error("bdSeq does not wrap from 255 to 0")
	}
}

func TestEdgeNodeAliasesAreUnique(t *testing.T) {
	n := newNode(t, testBoot)
	n.Connect(0)
	n.Birth(testNow)
	for _, stream := range []signal.Stream{"works 1/a/x:telemetry", "works 1/a/y:event", "works 1/b/x:raw"} {
		b := oneBatch(1, number("p", 1, 1, ""), number("q", 1, 1, ""))
		b.Stream = stream
		mustData(t, n, b)
	}
	if _, ok := n.DeviceDeath(testNow, "works 1/a/x"); !ok {
		t.Fatal("no death")
	}
	mustData(t, n, oneBatch(1, number("p", 1, 1, ""))) // born again, under another alias
	seen := map[uint64]string{}
	for _, m := range n.Birth(testNow)[1:] {
		topic, p, _ := decoded(t, m)
		for _, m := range p.Metrics {
			if other, twice := seen[m.Alias]; twice || m.Alias <= 2 {
				t.Errorf("alias %d of %s/%s: taken by %q", m.Alias, topic.Device, m.Name, other)
			}
			seen[m.Alias] = topic.Device + "/" + m.Name
		}
	}
	if len(seen) != 5 {
		t.Errorf("aliases: %v", seen)
	}
}

func TestEdgeNodeIdle(t *testing.T) {
	n, h := newNode(t, testBoot), newHost()
	n.Connect(0)
	origin := oneBatch(9).Origin
	if _, ok := n.Idle(testNow, origin); ok {
		t.Error("idle before birth")
	}
	for _, m := range n.Birth(testNow) {
		hear(t, h, testWall, m)
	}
	for _, m := range mustData(t, n, oneBatch(1, number("p", 1, 1, ""))) {
		hear(t, h, testWall, m)
	}
	m, ok := n.Idle(testNow, origin)
	if !ok {
		t.Fatal("no idle message")
	}
	r := hear(t, h, testWall, m)
	want := signal.Origin{Edge: origin.Edge, Boot: "frozen", Stream: origin.Stream, Config: "c0", CompleteTo: 77}
	if r.Outcome != Idle || len(r.Batches) != 1 || r.Batches[0].Origin != want || len(r.Batches[0].Readings) != 0 {
		t.Errorf("idle gave %+v", r)
	}
	if m, ok = n.Held(testNow, "works 1/a/x"); !ok {
		t.Fatal("no held values")
	}
	if _, p, b := decoded(t, m); len(p.Metrics) != 1 || p.Metrics[0].Historical || !b.Idle || b.Seq != 0 {
		t.Errorf("held: %+v %+v", p, b)
	}
	if r := hear(t, h, testWall, m); r.Outcome != Idle || len(r.Batches) != 0 {
		t.Errorf("held gave %+v", r)
	}
	if _, ok := n.Held(testNow, "works 1/a/z"); ok {
		t.Error("held values of an unknown asset")
	}
}

func TestRebirthCommand(t *testing.T) {
	n := newNode(t, testBoot)
	m := RebirthCommand("works 1", "cell%7", testNow)
	topic, p, _ := decoded(t, m)
	if m.QoS != 0 || m.Retained || p.HasSeq || m.Topic != CommandTopic("works 1", "cell%7") || topic.Type != NCmd || !n.Rebirth(&p) {
		t.Errorf("%+v %+v", m, p)
	}
	for _, p := range []Payload{
		{},
		{Metrics: []Metric{{Name: metricRebirth, Value: Bool(false)}}},
		{Metrics: []Metric{{Name: metricRebirth, Null: true, Value: Bool(true)}}},
		{Metrics: []Metric{{Name: metricRebirth, Value: String("true")}}},
		{Metrics: []Metric{{Name: "Node Control/Reboot", Value: Bool(true)}}},
	} {
		if n.Rebirth(&p) {
			t.Errorf("%+v was taken for a rebirth", p)
		}
	}
}
