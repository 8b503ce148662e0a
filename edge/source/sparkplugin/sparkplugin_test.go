package sparkplugin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/test/harness"
)

// device is an edge node of the plant with one device, as others make them: no
// body, aliases after the births.
type device struct {
	t           *testing.T
	conn        *mqttc.Conn
	group, node string
	seq         uint8

	mu       sync.Mutex
	rebirths int
	states   []string
}

func newDevice(t *testing.T, addr, group, node string) *device {
	t.Helper()
	d := &device{t: t, group: group, node: node}
	will := sparkplug.Payload{Metrics: []sparkplug.Metric{{Name: "bdSeq", Datatype: sparkplug.TypeInt64, Value: sparkplug.Long(7)}}}
	conn, err := mqttc.Connect(t.Context(), mqttc.Config{
		Addresses: []string{addr}, ClientID: "device-" + node, CleanSession: true,
		Will: &mqttc.Will{Topic: sparkplug.Topic{Type: sparkplug.NDeath, Group: group, Edge: node}.String(), QoS: 1, Payload: sparkplug.AppendPayload(nil, &will)},
		OnMessage: func(m mqttc.Message) {
			m.Ack()
			d.mu.Lock()
			defer d.mu.Unlock()
			if strings.Contains(m.Topic, "/STATE/") {
				d.states = append(d.states, string(m.Payload))
				return
			}
			var p sparkplug.Payload
			if err := sparkplug.DecodePayload(m.Payload, &p); err == nil && p.Metrics[0].Name == "Node Control/Rebirth" && p.Metrics[0].Value.Bits == 1 {
				d.rebirths++
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.conn = conn
	t.Cleanup(conn.Abort)
	if err := conn.Subscribe(t.Context(), map[string]byte{sparkplug.CommandTopic(group, node): 1, sparkplug.StateTopic("scada"): 1}); err != nil {
		t.Fatal(err)
	}
	return d
}

const measured = 1_600_000_000_000 // ms

func metric(name string, alias uint64, v float64) sparkplug.Metric {
	m := sparkplug.Metric{Name: name, Datatype: sparkplug.TypeDouble, Timestamp: measured, HasTimestamp: true, Value: sparkplug.Double(v)}
	m.Alias, m.HasAlias = alias, alias > 0
	return m
}

func aliased(alias uint64, v float64) sparkplug.Metric {
	return sparkplug.Metric{Alias: alias, HasAlias: true, Timestamp: measured + uint64(v), HasTimestamp: true, Value: sparkplug.Double(v)}
}

// send publishes a message with the next seq; skip leaves numbers out.
func (d *device) send(kind sparkplug.MessageType, dev string, metrics ...sparkplug.Metric) {
	d.t.Helper()
	d.sendAs(d.seq, kind, dev, metrics...)
	d.seq++
}

func (d *device) sendAs(seq uint8, kind sparkplug.MessageType, dev string, metrics ...sparkplug.Metric) {
	d.t.Helper()
	p := sparkplug.Payload{Timestamp: measured, HasTimestamp: true, Seq: uint64(seq), HasSeq: true, Metrics: metrics}
	topic := sparkplug.Topic{Type: kind, Group: d.group, Edge: d.node, Device: dev}
	// QoS 1, so that it is known to have been taken; order and seq are the same.
	if err := d.conn.Publish(d.t.Context(), topic.String(), 1, false, sparkplug.AppendPayload(nil, &p)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) birth() {
	d.seq = 0
	bd := sparkplug.Metric{Name: "bdSeq", Datatype: sparkplug.TypeInt64, Timestamp: measured, HasTimestamp: true, Value: sparkplug.Long(7)}
	d.send(sparkplug.NBirth, "", bd, metric("uptime", 1, 5))
	temp := metric("bearing/temp", 2, 20)
	temp.Properties = []sparkplug.Property{{Key: sparkplug.PropertyUnit, Type: sparkplug.TypeString, Value: sparkplug.String("Cel")}}
	d.send(sparkplug.DBirth, "mill:pump", temp, metric("speed", 3, 1500))
}

func (d *device) asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rebirths
}

func open(t *testing.T, addr string, change func(*Options)) source.Source {
	t.Helper()
	rules, err := NewRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{MQTT: mqttc.Config{Addresses: []string{addr}}, ClientID: "edge", Site: "lyon", Rules: rules, Clock: signal.WallClock{}, ReorderFor: 200 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	s, err := Opener(o)(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	harness.Eventually(t, 20*time.Second, "the source is connected", func() bool { return figure(s, "source_connected_now") == 1 })
	return s
}

func figure(s source.Source, name string) int64 {
	for _, c := range s.Figures() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

// take reads until n samples and refusals came; those of a time of their own say
// it in ms after measured.
func take(t *testing.T, s source.Source, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(out) < n {
		c, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		for _, x := range c.Samples {
			at := "now"
			if ms := int64(x.Reading.EventTime)/1000 - measured; ms < 1_000_000 {
				at = fmt.Sprint(ms)
			}
			text := fmt.Sprintf("%s=%g%s q%d at %s", x.Asset.Sensor(x.Reading.Sensor), x.Reading.Value.Number, x.Reading.Unit, x.Reading.Quality, at)
			if x.Reading.Historical {
				text += " historical"
			}
			if x.Arrived {
				text += " arrived"
			}
			if x.Reading.AliveAt != x.Reading.EventTime {
				text += " held"
			}
			out = append(out, text)
		}
		for _, r := range c.Refused {
			out = append(out, "refused "+r.From+" "+r.Reason)
		}
	}
	return out
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func TestBirthsAliasesDeaths(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "lyon", "plc-1")
	s := open(t, addr, nil)
	d.birth()
	same(t, "births give what they hold", take(t, s, 3),
		"lyon/plc-1/plc-1/uptime=5 q192 at 0", "lyon/mill/pump/bearing.temp=20Cel q192 at 0", "lyon/mill/pump/speed=1500 q192 at 0")

	bad := aliased(3, 7)
	bad.Properties = []sparkplug.Property{{Key: sparkplug.PropertyQuality, Type: sparkplug.TypeInt32, Value: sparkplug.Int(0)}}
	old := aliased(2, 3)
	old.Historical = true
	timeless := sparkplug.Metric{Alias: 2, HasAlias: true, Value: sparkplug.Double(4)}
	d.send(sparkplug.DData, "mill:pump", aliased(2, 21), bad, old, timeless)
	same(t, "aliases, quality, history, the message's time", take(t, s, 4),
		"lyon/mill/pump/bearing.temp=21Cel q192 at 21", "lyon/mill/pump/speed=7 q0 at 7", "lyon/mill/pump/bearing.temp=3Cel q192 at 3 historical", "lyon/mill/pump/bearing.temp=4Cel q192 at 0")

	d.send(sparkplug.DDeath, "mill:pump")
	same(t, "a device's death", take(t, s, 2),
		"lyon/mill/pump/bearing.temp=21Cel q500 at 21", "lyon/mill/pump/speed=7 q500 at 7")

	d.birth()
	same(t, "born again", take(t, s, 2),
		"lyon/mill/pump/bearing.temp=20Cel q192 at 0", "lyon/mill/pump/speed=1500 q192 at 0")
	d.conn.Abort() // the will is the node's death
	same(t, "the node's death", take(t, s, 3),
		"lyon/plc-1/plc-1/uptime=5 q500 at now arrived", "lyon/mill/pump/bearing.temp=20Cel q500 at now arrived", "lyon/mill/pump/speed=1500 q500 at now arrived")
	if figure(s, "source_deaths") != 2 || figure(s, "source_births") != 4 || figure(s, "source_gaps") != 0 || figure(s, "source_rebirths_asked") != 0 {
		t.Errorf("%v", s.Figures())
	}
}

// A host that comes in the middle asks for births, once; what it had no names for
// comes with them.
func TestRebirth(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "lyon", "plc-1")
	d.birth()
	s := open(t, addr, func(o *Options) { o.RebirthEvery = time.Hour })
	for i := range 20 {
		d.send(sparkplug.DData, "mill:pump", aliased(2, float64(30+i)))
	}
	harness.Eventually(t, 20*time.Second, "a rebirth is asked for", func() bool { return d.asked() == 1 && figure(s, "source_waiting") == 20 })
	d.birth()
	got := take(t, s, 23)
	if len(got) != 23 || got[len(got)-1] != "lyon/mill/pump/bearing.temp=49Cel q192 at 49" || d.asked() != 1 || figure(s, "source_rebirths_asked") != 1 {
		t.Errorf("%d requests: %q", d.asked(), got)
	}
}

// A node that is never born: what waited for its birth is refused with its bytes.
func TestNeverBorn(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "lyon", "plc-1")
	s := open(t, addr, func(o *Options) { o.WaitFor = 50 * time.Millisecond })
	d.send(sparkplug.DData, "mill:pump", aliased(2, 1))
	n := int64(1)
	harness.Eventually(t, 20*time.Second, "it is given up", func() bool {
		d.send(sparkplug.DData, "mill:pump", aliased(2, 1))
		n++
		return figure(s, "source_expired") > 0
	})
	got := take(t, s, int(figure(s, "source_expired")))
	d.birth() // what is not given up yet comes with it
	got = append(got, take(t, s, int(n)+3-len(got))...)
	refused := 0
	for _, text := range got {
		if strings.HasPrefix(text, "refused ") {
			refused++
			if !strings.HasPrefix(text, "refused spBv1.0/lyon/DDATA/plc-1/mill:pump it waited 50ms") {
				t.Error(text)
			}
		}
	}
	if len(got) != int(n)+3 || int64(refused) != figure(s, "source_expired") || int64(refused) != figure(s, "source_refused") {
		t.Errorf("%d of %d came, %d of them refused: %v", len(got), n+3, refused, s.Figures())
	}
}

// Messages that overtake each other are put in order; what stays away is counted
// after the reorder time, and its births asked for.
func TestReorderAndGap(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "lyon", "plc-1")
	s := open(t, addr, nil)
	d.birth()
	take(t, s, 3)
	for _, seq := range []uint8{4, 3, 2, 5} {
		d.sendAs(seq, sparkplug.DData, "mill:pump", aliased(3, float64(seq)))
	}
	var want []string
	for i := 2; i <= 5; i++ {
		want = append(want, fmt.Sprintf("lyon/mill/pump/speed=%d q192 at %d", i, i))
	}
	same(t, "in order", take(t, s, 4), want...)
	if figure(s, "source_gaps") != 0 {
		t.Errorf("%v", s.Figures())
	}
	d.sendAs(9, sparkplug.DData, "mill:pump", aliased(3, 9))
	same(t, "after the gap", take(t, s, 1), "lyon/mill/pump/speed=9 q192 at 9")
	harness.Eventually(t, 20*time.Second, "a rebirth is asked for", func() bool { return d.asked() == 1 })
	d.sendAs(7, sparkplug.DData, "mill:pump", aliased(3, 7))
	same(t, "late, and not lost", take(t, s, 1), "lyon/mill/pump/speed=7 q192 at 7")
	if figure(s, "source_gaps") != 3 || figure(s, "source_late") != 1 {
		t.Errorf("%v", s.Figures())
	}
}

// Nodes that have this host for their primary one see when it comes and goes.
func TestPrimaryHost(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "lyon", "plc-1")
	s := open(t, addr, func(o *Options) { o.HostID = "scada" })
	last := func() (sparkplug.State, int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.states) == 0 {
			return sparkplug.State{}, 0
		}
		st, err := sparkplug.ParseState([]byte(d.states[len(d.states)-1]))
		if err != nil {
			t.Error(err)
		}
		return st, len(d.states)
	}
	harness.Eventually(t, 20*time.Second, "the host is online", func() bool { st, _ := last(); return st.Online })
	// A will of an older connection comes in after it.
	payload := sparkplug.AppendState(nil, sparkplug.State{Timestamp: uint64(time.Now().UnixMilli())})
	if err := d.conn.Publish(t.Context(), sparkplug.StateTopic("scada"), 1, true, payload); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 20*time.Second, "the host is online again", func() bool { st, n := last(); return st.Online && n >= 3 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 20*time.Second, "the host is offline", func() bool { st, _ := last(); return !st.Online })
}

func TestRulesAndRefusals(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	d := newDevice(t, addr, "ACME Lyon", "plc-1")
	rules, err := NewRules([]plain.Rule{
		{Topic: "ACME Lyon/{node}/+/{device}/{tag}", Path: "lyon/{node}/{device}/{tag}", UnitIs: "bar"},
		{Topic: "ACME Lyon/{node}/{device}/alarm", Path: "lyon/{node}/{device}/alarm", Class: "event"},
		{Topic: "ACME Lyon/{node}/{device}/other", Path: "paris/{node}/{device}/alarm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, addr, func(o *Options) { o.Rules, o.Groups = rules, []string{"ACME Lyon", "lyon"} })
	d.send(sparkplug.NBirth, "")
	d.send(sparkplug.DBirth, "P7", metric("folder/level", 1, 1), metric("alarm", 2, 1))
	got := take(t, s, 2)
	same(t, "by rules", got, "lyon/plc-1/folder/level=1bar q192 at 0", "lyon/plc-1/P7/alarm=1 q192 at 0")
	d.send(sparkplug.DBirth, "P8", metric("other", 3, 1))
	d.send(sparkplug.DBirth, "P9", metric("nowhere", 4, 1))
	if err := d.conn.Publish(t.Context(), "spBv1.0/lyon/DDATA/x/y", 1, false, []byte("\xff{")); err != nil {
		t.Fatal(err)
	}
	if err := d.conn.Publish(t.Context(), "spBv1.0/lyon/NONSENSE/x", 1, false, []byte("?")); err != nil {
		t.Fatal(err)
	}
	got = take(t, s, 4)
	for i, want := range []string{"site paris", "site ACME Lyon", "refused spBv1.0/lyon/DDATA/x/y decoding", "NONSENSE"} {
		if i >= len(got) || !strings.Contains(got[i], want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if figure(s, "source_refused") != 4 {
		t.Errorf("%v", s.Figures())
	}
	for want, r := range map[string]plain.Rule{
		"are for JSON":   {Topic: "a/b/c/d", Path: "a/b/c/d", Value: "/v"},
		"has 2 segments": {Topic: "a/b", Path: "a/b/c/d"},
		"not a name":     {Topic: "a/b/c/d", Path: "a/b/{c}/d"},
	} {
		if _, err := NewRules([]plain.Rule{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A Headrace edge is a node like any other: it gets no acknowledgement here, and
// its repeats are its own.
func TestHeadraceEdgeAsNode(t *testing.T) {
	addr := "tcp://" + harness.PlantBroker(t)
	s := open(t, addr, nil)
	node, err := sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: "lyon", Edge: "other", SessionBoot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, addr, "lyon", "other")
	publish := func(messages ...sparkplug.Message) {
		for _, m := range messages {
			if err := d.conn.Publish(t.Context(), m.Topic, 1, m.Retained, m.Payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	node.Connect(1)
	publish(node.Birth(signal.Micros(measured * 1000))...)
	out, err := node.Data(nil, signal.Micros(measured*1000), &signal.Batch{
		Origin:   signal.Origin{Edge: "lyon/other", Boot: "b", Seq: 1, Stream: "lyon/mill/pump:telemetry"},
		Readings: []signal.Reading{{Sensor: "p", EventTime: measured * 1000, AliveAt: measured * 1000, Value: signal.NumberValue(2), Unit: "bar", Quality: signal.QualityGood}},
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(out...)
	got := take(t, s, 1)
	got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "uptime") })
	same(t, "its reading", got, "lyon/mill/pump/p=2bar q192 at 0")
}

func TestNoBroker(t *testing.T) {
	rules, _ := NewRules(nil)
	s, err := Opener(Options{MQTT: mqttc.Config{Addresses: []string{"tcp://127.0.0.1:1"}}, ClientID: "edge", Site: "lyon", Rules: rules, Clock: signal.WallClock{}})(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Opener(Options{})(nil, nil); err == nil {
		t.Error("options of nothing are taken")
	}
}

// BenchmarkReadings counts readings of a device with a hundred sensors, from the
// bytes of a message to the queue.
func BenchmarkReadings(b *testing.B) {
	const sensors = 100
	rules, err := NewRules(nil)
	if err != nil {
		b.Fatal(err)
	}
	s := &subscriber{
		opt: Options{Site: "lyon", Rules: rules, Clock: signal.WallClock{}, ReorderFor: time.Second, RebirthEvery: time.Second, WaitFor: time.Second}, ctx: b.Context(), log: slog.New(slog.DiscardHandler),
		queue: make(chan item, 4*sensors), nodes: map[string]*node{}, gapped: map[*node]struct{}{}, paths: map[signal.Path]string{},
	}
	var born, data []sparkplug.Metric
	for i := range sensors {
		born = append(born, metric(fmt.Sprintf("folder/sensor %d", i), uint64(i+1), 1))
		data = append(data, aliased(uint64(i+1), 2))
	}
	send := func(seq uint64, topic string, metrics []sparkplug.Metric) {
		p := sparkplug.Payload{Seq: seq % 256, HasSeq: true, Metrics: metrics}
		s.message(mqttc.Message{Topic: topic, Payload: sparkplug.AppendPayload(nil, &p)})
		for len(s.queue) > 0 {
			<-s.queue
		}
	}
	send(0, "spBv1.0/lyon/NBIRTH/e", nil)
	send(1, "spBv1.0/lyon/DBIRTH/e/l:a", born)
	var payloads [256][]byte
	for i := range payloads {
		p := sparkplug.Payload{Seq: uint64(i), HasSeq: true, Metrics: data}
		payloads[i] = sparkplug.AppendPayload(nil, &p)
	}
	b.ReportAllocs()
	seq := 2
	for b.Loop() {
		s.message(mqttc.Message{Topic: "spBv1.0/lyon/DDATA/e/l:a", Payload: payloads[seq%256]})
		if len(s.queue) != sensors {
			b.Fatalf("%d readings", len(s.queue))
		}
		for len(s.queue) > 0 {
			<-s.queue
		}
		seq++
	}
	b.ReportMetric(float64(b.N)*sensors/b.Elapsed().Seconds(), "readings/s")
}

// Whatever comes, the source lives, and what is none is handed on.
func FuzzMessage(f *testing.F) {
	p := sparkplug.Payload{Seq: 1, HasSeq: true, Metrics: []sparkplug.Metric{metric("a/b", 1, 2), aliased(9, 1)}}
	f.Add("spBv1.0/lyon/DBIRTH/e/l:a", sparkplug.AppendPayload(nil, &p), "spBv1.0/lyon/DDATA/e/l:a", sparkplug.AppendPayload(nil, &p))
	f.Add("spBv1.0/lyon/NDEATH/e", []byte{0xff}, "spBv1.0/STATE/h", []byte("{"))
	rules, err := NewRules(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, topic1 string, payload1 []byte, topic2 string, payload2 []byte) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s := &subscriber{
			opt: Options{Site: "lyon", Rules: rules, Clock: signal.WallClock{}, ReorderFor: 1, RebirthEvery: 1, HostID: "h"}, ctx: ctx, stop: stop, log: slog.New(slog.DiscardHandler),
			queue: make(chan item, 1<<16), nodes: map[string]*node{}, gapped: map[*node]struct{}{}, paths: map[signal.Path]string{},
		}
		nbirth := sparkplug.Payload{Seq: 0, HasSeq: true}
		s.message(mqttc.Message{Topic: "spBv1.0/lyon/NBIRTH/e", Payload: sparkplug.AppendPayload(nil, &nbirth)})
		for range 2 {
			s.message(mqttc.Message{Topic: topic1, Payload: payload1})
			s.message(mqttc.Message{Topic: topic2, Payload: payload2})
			s.expired(time.Now().Add(time.Second))
		}
		close(s.queue)
		for it := range s.queue {
			if it.refused == nil {
				if _, err := signal.ParsePath(string(it.sample.Asset.Sensor(it.sample.Reading.Sensor))); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
