package edge_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

const (
	group = "skab"
	node  = "valve1-0"
)

// pipes is a listener over net.Pipe: a broker in a bubble of virtual time.
type pipes struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
	mu   sync.Mutex
	open []net.Conn
	down bool
}

func newPipes() *pipes { return &pipes{ch: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1883} }
func (l *pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, net.ErrClosed
	}
	a, b := net.Pipe()
	select {
	case l.ch <- b:
		l.mu.Lock()
		l.open = append(l.open, a)
		l.mu.Unlock()
		return a, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut drops every connection; down refuses new ones.
func (l *pipes) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open, l.down = nil, down
}

func startBroker(t *testing.T, l net.Listener) (stop func()) {
	t.Helper()
	srv := mqtt.New(&mqtt.Options{SysTopicResendInterval: 86400, Logger: slog.New(slog.DiscardHandler)})
	if err := srv.AddHook(new(auth.AllowHook), nil); err != nil {
		t.Fatal(err)
	}
	if err := srv.AddListener(listeners.NewNet("pipe", l)); err != nil {
		t.Fatal(err)
	}
	if err := srv.Serve(); err != nil {
		t.Fatal(err)
	}
	return func() { _ = srv.Close() }
}

// bridge is a host that acknowledges what it accepts, and remembers it.
type bridge struct {
	t    *testing.T
	conn *mqttc.Conn
	in   chan mqttc.Message
	done chan struct{}

	mu       sync.Mutex
	host     *sparkplug.HostSession
	got      []signal.Batch // in order of arrival, repeats included
	complete map[signal.Stream]signal.Micros
	kinds    []string                  // births and deaths
	node     []signal.Reading          // what the last birth of the node holds
	lose     func(b signal.Batch) bool // take without acknowledging
	deaf     func(b signal.Batch) bool // do not even see
	acked    int
}

func newBridge(t *testing.T) *bridge {
	return &bridge{t: t, host: sparkplug.NewHostSession(sparkplug.HostConfig{Group: group, Edge: node}), complete: map[signal.Stream]signal.Micros{}}
}

// up connects and says online.
func (b *bridge) up(dial func(context.Context, string, string) (net.Conn, error)) {
	b.t.Helper()
	b.in, b.done = make(chan mqttc.Message, 100_000), make(chan struct{})
	stamp := uint64(time.Now().UnixMilli())
	in := b.in
	conn, err := mqttc.Connect(b.t.Context(), mqttc.Config{
		Addresses: []string{"tcp://broker"}, ClientID: "bridge", CleanSession: true, Dial: dial,
		Will:      &mqttc.Will{Topic: sparkplug.StateTopic("h"), QoS: 1, Retained: true, Payload: sparkplug.AppendState(nil, sparkplug.State{Timestamp: stamp})},
		OnMessage: func(m mqttc.Message) { m.Ack(); in <- m },
	})
	if err != nil {
		b.t.Error(err)
		return
	}
	b.conn = conn
	b.mu.Lock()
	b.host.Reconnected()
	b.mu.Unlock()
	if err := conn.Subscribe(b.t.Context(), map[string]byte{"spBv1.0/#": 1}); err != nil {
		b.t.Error(err)
	}
	b.state(true, stamp)
	go b.work(conn, b.in, b.done)
}

func (b *bridge) state(online bool, stamp uint64) {
	payload := sparkplug.AppendState(nil, sparkplug.State{Online: online, Timestamp: stamp})
	if err := b.conn.Publish(context.Background(), sparkplug.StateTopic("h"), 1, true, payload); err != nil {
		b.t.Error(err)
	}
}

// away says offline and leaves.
func (b *bridge) away() {
	b.state(false, uint64(time.Now().UnixMilli()))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = b.conn.Close(ctx)
	close(b.in)
	<-b.done
}

func (b *bridge) work(conn *mqttc.Conn, in chan mqttc.Message, done chan struct{}) {
	defer close(done)
	var payload sparkplug.Payload
	for m := range in {
		topic, err := sparkplug.ParseTopic(m.Topic)
		if err != nil || topic.Type == sparkplug.StateT || topic.Type == sparkplug.NCmd {
			continue
		}
		if err := sparkplug.DecodePayload(m.Payload, &payload); err != nil {
			b.t.Error(err)
			continue
		}
		b.one(conn, topic, &payload)
	}
}

func (b *bridge) one(conn *mqttc.Conn, topic sparkplug.Topic, payload *sparkplug.Payload) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	r := b.host.Receive(signal.MicrosOf(now), now, topic, payload)
	if r.Rebirth {
		cmd := sparkplug.RebirthCommand(group, node, signal.MicrosOf(now))
		_, _ = conn.PublishAsync(context.Background(), cmd.Topic, cmd.QoS, cmd.Retained, cmd.Payload)
	}
	switch r.Outcome {
	case sparkplug.Accepted:
		if topic.Type != sparkplug.DData {
			b.kinds = append(b.kinds, string(topic.Type))
			if topic.Type == sparkplug.NBirth {
				b.node = r.Event.Held
			}
		}
	case sparkplug.Idle:
		for _, i := range r.Batches {
			b.complete[i.Stream] = max(b.complete[i.Stream], i.CompleteTo)
		}
		return
	case sparkplug.NeedsRebirth, sparkplug.Ignored:
		return
	default:
		b.t.Errorf("%s: outcome %v: %s", topic, r.Outcome, r.Reason)
		return
	}
	for _, batch := range r.Batches {
		if batch.Boot == "" {
			b.t.Errorf("%s: batch without origin", topic)
			continue
		}
		if b.deaf != nil && b.deaf(batch) {
			continue
		}
		batch.Readings = append([]signal.Reading(nil), batch.Readings...)
		b.got = append(b.got, batch)
		b.complete[batch.Stream] = max(b.complete[batch.Stream], batch.CompleteTo)
		if b.lose != nil && b.lose(batch) {
			continue
		}
		b.acked++
		payload := sparkplug.AppendAck(nil, sparkplug.Ack{Boot: batch.Boot, Ranges: []signal.Range{{From: batch.Seq, To: batch.Seq}}})
		_, _ = conn.PublishAsync(context.Background(), sparkplug.AckTopic(group, node), 0, false, payload)
	}
}

func (b *bridge) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// counting is a source of n rows of two sensors on each of two assets, the
// value being the number of the row.
type counting struct {
	n, at, read int
	every       time.Duration // wall time between rows; 0: at once
	step        time.Duration // event time between rows; 0: rows are of now
	samples     []source.Sample
}

func (c *counting) open(position []byte, _ *slog.Logger) (source.Source, error) {
	s := *c
	if len(position) > 0 {
		if err := json.Unmarshal(position, &s.at); err != nil {
			return nil, err
		}
	}
	s.read = s.at
	return &s, nil
}

func (c *counting) Next(ctx context.Context) (source.Chunk, error) {
	c.Take()
	if c.at >= c.n {
		return source.Chunk{}, io.EOF
	}
	if c.every > 0 {
		select {
		case <-time.After(c.every):
		case <-ctx.Done():
			return source.Chunk{}, ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return source.Chunk{}, err
	}
	c.read = c.at + 1
	at := time.Unix(1_600_000_000, 0).Add(time.Duration(c.at) * c.step)
	if c.step == 0 {
		at = time.Now()
	}
	c.samples = c.samples[:0]
	for _, asset := range []signal.Asset{"skab/valve1/a", "skab/valve1/b"} {
		for _, sensor := range []string{"x", "y"} {
			c.samples = append(c.samples, source.Sample{Asset: asset, Class: signal.Telemetry, Reading: signal.Reading{
				Sensor: sensor, EventTime: signal.MicrosOf(at), AliveAt: signal.MicrosOf(at),
				Value: signal.NumberValue(float64(c.at)), Unit: "A", Quality: signal.QualityGood,
			}})
		}
	}
	return source.Chunk{Time: at, Samples: c.samples}, nil
}

func (c *counting) Take()                     { c.at = c.read }
func (c *counting) Figures() []signal.Counter { return nil }
func (c *counting) Close() error              { return nil }
func (c *counting) Position() []byte {
	b, _ := json.Marshal(c.at)
	return b
}

func options(dir string, src *counting, l *pipes) edge.Options {
	return edge.Options{
		Dir: dir, Group: group, Node: node, Open: src.open, Filter: filter.None(), Clock: signal.WallClock{},
		MQTT: mqttc.Config{Addresses: []string{"tcp://broker"}, Dial: l.Dial}, FloorBytes: 1, PackReadings: 20,
	}
}

// checkAll checks that every value of rows [0, n) came exactly once, repeats by
// origin aside.
func checkAll(t *testing.T, got []signal.Batch, n int) {
	t.Helper()
	type origin struct {
		boot   string
		stream signal.Stream
		n      uint64
	}
	seen := map[origin]bool{}
	values := map[signal.Path]map[float64]int{}
	for _, b := range got {
		k := origin{b.Boot, b.Stream, b.N}
		if seen[k] {
			continue
		}
		seen[k] = true
		asset, _ := b.Stream.Split()
		for _, r := range b.Readings {
			path := asset.Sensor(r.Sensor)
			if values[path] == nil {
				values[path] = map[float64]int{}
			}
			values[path][r.Value.Number]++
		}
	}
	if len(values) != 4 {
		t.Errorf("%d sensors came, want 4", len(values))
	}
	for path, v := range values {
		if len(v) != n {
			t.Errorf("%s: %d values came, want %d", path, len(v), n)
		}
		for x, times := range v {
			if times != 1 {
				t.Errorf("%s: %v came %d times", path, x, times)
			}
		}
	}
}

// checkOrder checks that the first copies of each stream came in the order of n.
func checkOrder(t *testing.T, got []signal.Batch) {
	t.Helper()
	next := map[string]uint64{}
	for _, b := range got {
		k := b.Boot + string(b.Stream)
		if b.N > next[k] {
			t.Errorf("%s: n %d came before %d", b.Stream, b.N, next[k])
		}
		next[k] = max(next[k], b.N+1)
	}
}
