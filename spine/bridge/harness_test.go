package bridge_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/spine/broker"
	"github.com/headrace/headrace/spine/log"
)

// topics are the partitions of the tests' spine.
func topics() map[string]int {
	return map[string]int{record.TopicReadings: 4, record.TopicEvents: 1, record.TopicRaw: 1, record.TopicDeadletter: 1, record.TopicBridges: 16}
}

// plant is a broker and a spine, and a valve before the spine.
type plant struct {
	broker *broker.Broker
	log    *log.Log
	valve  *valve
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{valve: newValve(t)}
	var err error
	if p.broker, err = broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), AckWait: 500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.broker.Close(context.Background()) })
	if p.log, err = log.Start(log.Options{
		Listen: "127.0.0.1:0", Advertise: p.valve.addr(), Dir: t.TempDir(), Partitions: topics(),
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.log.Close)
	p.valve.to = p.log.Addr()
	p.valve.open(true)
	return p
}

func (p *plant) mqtt() mqttc.Config {
	return mqttc.Config{Addresses: []string{"tcp://" + p.broker.Addr()}, CleanSession: true}
}

func (p *plant) kafka() kafkac.Config { return kafkac.Config{Brokers: []string{p.valve.addr()}} }

// bridge starts a bridge; it ends with the test or by stop.
func (p *plant) bridge(t *testing.T, change func(*bridge.Options)) (b *bridge.Bridge, stop func()) {
	t.Helper()
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: p.kafka(), MaxMessageBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	opts := bridge.Options{MQTT: p.mqtt(), Producer: producer, Clock: signal.WallClock{}}
	if change != nil {
		change(&opts)
	}
	if b, err = bridge.New(opts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the bridge ended with %v", err)
		}
		producer.Close()
	})
	t.Cleanup(stop)
	return b, stop
}

// batches reads all records of a topic.
func (p *plant) records(t *testing.T, topic string) []kafkac.Record {
	t.Helper()
	bounds, err := p.log.Bounds()
	if err != nil {
		t.Fatal(err)
	}
	var ranges []kafkac.Range
	for tp, b := range bounds {
		if tp.Topic == topic {
			ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: b.Start, End: b.End})
		}
	}
	var out []kafkac.Record
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := kafkac.Read(ctx, p.kafka(), ranges, func(r kafkac.Record) error {
		out = append(out, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// stored decodes the readings topic: batches by "boot stream n", and how often
// each came.
func (p *plant) stored(t *testing.T) (map[string]signal.Batch, map[string]int) {
	t.Helper()
	batches, times := map[string]signal.Batch{}, map[string]int{}
	for _, r := range p.records(t, record.TopicReadings) {
		var b signal.Batch
		if err := record.Decode(r.Value, &b); err != nil {
			t.Fatal(err)
		}
		asset, _ := b.Stream.Split()
		if string(r.Key) != string(asset) {
			t.Errorf("record of %s has key %q", b.Stream, r.Key)
		}
		batches[identity(b)] = b
		times[identity(b)]++
	}
	return batches, times
}

func identity(b signal.Batch) string { return fmt.Sprintf("%s %s %d", b.Boot, b.Stream, b.N) }

func counter(b *bridge.Bridge, name string) int64 {
	for _, c := range b.Counters() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("did not happen within 30 s: %s", what)
		}
	}
}

// valve is a TCP proxy that can be shut: it drops what is connected and takes
// nothing new.
type valve struct {
	front net.Listener
	to    string

	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func newValve(t *testing.T) *valve {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{front: front, shut: true}
	t.Cleanup(func() { _ = front.Close(); v.open(false) })
	go v.serve()
	return v
}

func (v *valve) addr() string { return v.front.Addr().String() }

func (v *valve) open(open bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut = !open
	if v.shut {
		for _, c := range v.conns {
			_ = c.Close()
		}
		v.conns = nil
	}
}

func (v *valve) serve() {
	for {
		in, err := v.front.Accept()
		if err != nil {
			return
		}
		v.mu.Lock()
		if v.shut {
			_ = in.Close()
			v.mu.Unlock()
			continue
		}
		out, err := net.Dial("tcp", v.to)
		if err != nil {
			_ = in.Close()
			v.mu.Unlock()
			continue
		}
		v.conns = append(v.conns, in, out)
		v.mu.Unlock()
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
	}
}

// edge is an edge node that keeps what is not acknowledged and sends it again.
type edge struct {
	t    *testing.T
	node *sparkplug.EdgeNode
	conn *mqttc.Conn
	group, name,
	boot string

	mu      sync.Mutex
	unacked map[uint64]signal.Batch
	sent    map[string]signal.Batch // by identity
	next    uint64
	n       map[signal.Stream]uint64
	acks    int
	reborn  int
	online  bool
}

func newEdge(t *testing.T, cfg mqttc.Config, group, name, boot string) *edge {
	t.Helper()
	node, err := sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: group, Edge: name, SessionBoot: boot})
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{
		t: t, node: node, group: group, name: name, boot: boot,
		unacked: map[uint64]signal.Batch{}, sent: map[string]signal.Batch{}, n: map[signal.Stream]uint64{},
	}
	node.Connect(0)
	will := node.Will(1)
	cfg.ClientID = fmt.Sprintf("edge-%x", name)
	cfg.Will = &mqttc.Will{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS}
	cfg.OnMessage = e.receive
	if e.conn, err = mqttc.Connect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.conn.Abort(); <-e.conn.Done() })
	if err := e.conn.Subscribe(t.Context(), map[string]byte{
		sparkplug.AckTopic(group, name): 0, sparkplug.CommandTopic(group, name): 1, sparkplug.StateTopic("headrace"): 1,
	}); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.publish(node.Birth(1))
	return e
}

// publish sends messages; e.mu is held.
func (e *edge) publish(msgs []sparkplug.Message) {
	for _, m := range msgs {
		if _, err := e.conn.PublishAsync(context.Background(), m.Topic, m.QoS, m.Retained, m.Payload); err != nil {
			e.t.Errorf("publishing: %v", err)
		}
	}
}

func (e *edge) receive(m mqttc.Message) {
	m.Ack()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch m.Topic {
	case sparkplug.AckTopic(e.group, e.name):
		a, err := sparkplug.ParseAck(m.Payload)
		if err != nil || a.Boot != e.boot {
			e.t.Errorf("acknowledgement %s: %v", m.Payload, err)
		}
		e.acks++
		for _, r := range a.Ranges {
			for seq := r.From; seq <= r.To; seq++ {
				if seq >= e.next+1 {
					e.t.Errorf("message %d is acknowledged, only %d were sent", seq, e.next)
					return
				}
				delete(e.unacked, seq)
			}
		}
	case sparkplug.CommandTopic(e.group, e.name):
		var p sparkplug.Payload
		if err := sparkplug.DecodePayload(m.Payload, &p); err == nil && e.node.Rebirth(&p) {
			e.reborn++
			go func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.publish(e.node.Birth(1))
			}()
		}
	default:
		s, err := sparkplug.ParseState(m.Payload)
		e.online = err == nil && s.Online
	}
}

// send sends one new message of the stream.
func (e *edge) send(stream signal.Stream, readings ...signal.Reading) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	b := signal.Batch{
		Origin: signal.Origin{
			Edge: e.group + "/" + e.name, Boot: e.boot, Seq: e.next, Stream: stream, N: e.n[stream], Config: "c1", CompleteTo: 5,
		},
		Readings: readings,
	}
	e.n[stream]++
	e.unacked[b.Seq], e.sent[identity(b)] = b, b
	e.deliver(b)
}

func (e *edge) deliver(b signal.Batch) {
	msgs, err := e.node.Data(nil, 1, &b)
	if err != nil {
		e.t.Errorf("message %d: %v", b.Seq, err)
	}
	e.publish(msgs)
}

// resend sends what is not acknowledged again.
func (e *edge) resend() {
	e.mu.Lock()
	defer e.mu.Unlock()
	seqs := make([]uint64, 0, len(e.unacked))
	for seq := range e.unacked {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		e.deliver(e.unacked[seq])
	}
}

func (e *edge) waiting() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.unacked)
}

func (e *edge) sees(online bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.online == online
}

// drain resends, as an edge does, until all is acknowledged.
func (e *edge) drain(t *testing.T) {
	t.Helper()
	last := time.Now()
	eventually(t, "every message is acknowledged", func() bool {
		if time.Since(last) > time.Second {
			last = time.Now()
			e.resend()
		}
		return e.waiting() == 0
	})
}

func reading(sensor string, at signal.Micros, v float64) signal.Reading {
	return signal.Reading{Sensor: sensor, EventTime: at, AliveAt: at, Value: signal.NumberValue(v), Unit: "bar", Quality: signal.QualityGood}
}
