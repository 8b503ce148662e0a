package bridge_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/spine/bridge"
)

// pipes is a listener over net.Pipe that can be cut.
type pipes struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once

	mu    sync.Mutex
	down  bool
	live  []net.Conn
	dials int
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
	defer l.mu.Unlock()
	l.dials++
	if l.down {
		return nil, errors.New("network unreachable")
	}
	a, b := net.Pipe()
	l.live = append(l.live, a)
	select {
	case l.ch <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) cut(down bool) (dials int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	if down {
		for _, c := range l.live {
			_ = c.Close()
		}
		l.live = nil
	}
	return l.dials
}

// stubProducer answers when it is told to.
type stubProducer struct {
	mu      sync.Mutex
	records []kafkac.Record
	waiting []func(error)
	blocked bool
	refuse  error // of the next records
}

func (s *stubProducer) Produce(_ context.Context, r kafkac.Record, done func(int32, int64, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(err error) {
		if err == nil {
			s.mu.Lock()
			s.records = append(s.records, r)
			s.mu.Unlock()
		}
		done(0, 0, err)
	}
	switch {
	case s.refuse != nil:
		go answer(s.refuse)
		s.refuse = nil
	case s.blocked:
		s.waiting = append(s.waiting, answer)
	default:
		go answer(nil)
	}
	return nil
}

func (s *stubProducer) set(blocked bool, refuse error) {
	s.mu.Lock()
	waiting := s.waiting
	s.blocked, s.refuse = blocked, refuse
	if !blocked {
		s.waiting = nil
	}
	s.mu.Unlock()
	if !blocked {
		for _, answer := range waiting {
			answer(nil)
		}
	}
}

// bubble is a plant in virtual time: a broker, a bridge and an edge.
type bubble struct {
	net      *pipes // of the bridge
	producer *stubProducer
	bridge   *bridge.Bridge
	edge     *edge
	raw      *mqttc.Conn
	close    func()
}

func newBubble(t *testing.T, maxPending int64) *bubble {
	t.Helper()
	p := &bubble{net: newPipes(), producer: &stubProducer{}}
	plantNet := newPipes()
	srv := mqtt.New(&mqtt.Options{SysTopicResendInterval: 86400, Logger: slog.New(slog.DiscardHandler)})
	_ = srv.AddHook(new(auth.AllowHook), nil)
	_ = srv.AddListener(listeners.NewNet("bridge", p.net))
	_ = srv.AddListener(listeners.NewNet("plant", plantNet))
	if err := srv.Serve(); err != nil {
		t.Fatal(err)
	}
	b, err := bridge.New(bridge.Options{
		MQTT:     mqttc.Config{Addresses: []string{"tcp://broker"}, Dial: p.net.Dial},
		Producer: p.producer, Clock: signal.WallClock{}, MaxPending: maxPending,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.bridge = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	synctest.Wait()
	cfg := mqttc.Config{Addresses: []string{"tcp://broker"}, Dial: plantNet.Dial, CleanSession: true}
	p.edge = newEdge(t, cfg, "skab", "valve1-0", "boot-a")
	cfg.ClientID = "raw"
	if p.raw, err = mqttc.Connect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	p.close = func() {
		cancel()
		<-done
		_ = p.edge.conn.Close(context.Background())
		_ = p.raw.Close(context.Background())
		_ = srv.Close()
	}
	return p
}

func TestAcknowledgementsAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		for i := range 1000 { // one each millisecond
			p.edge.send(stream("valve1", "0"), reading("pressure", signal.Micros(i+1), 1))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if p.edge.waiting() != 0 {
			t.Errorf("%d messages are not acknowledged", p.edge.waiting())
		}
		if p.edge.acks > 25 {
			t.Errorf("%d acknowledgements within a second", p.edge.acks)
		}
	})
}

func TestNothingIsAcknowledgedBeforeKafka(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		p.producer.set(true, nil)
		for i := range 10 {
			p.edge.send(stream("valve1", "0"), reading("pressure", signal.Micros(i+1), 1))
		}
		time.Sleep(time.Hour)
		if p.edge.waiting() != 10 || p.edge.acks != 0 {
			t.Errorf("%d of 10 messages wait, %d acknowledgements", p.edge.waiting(), p.edge.acks)
		}
		p.producer.set(false, nil)
		time.Sleep(time.Second)
		if p.edge.waiting() != 0 {
			t.Errorf("%d messages are not acknowledged", p.edge.waiting())
		}
	})
}

// What Kafka acknowledged while the bridge was cut off from the broker is
// acknowledged when it is back.
func TestAcknowledgementsOutliveTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		p.producer.set(true, nil)
		p.edge.send(stream("valve1", "0"), reading("pressure", 1, 1))
		synctest.Wait()
		before := p.net.cut(true)
		p.producer.set(false, nil)
		time.Sleep(10 * time.Minute)
		if dials := p.net.cut(true) - before; dials < 100 || dials > 140 {
			t.Errorf("the bridge dialled %d times in ten minutes, want one each 5 s", dials)
		}
		if !p.edge.sees(false) {
			t.Error("the will did not take the host offline")
		}
		p.net.cut(false)
		time.Sleep(10 * time.Second)
		if p.edge.waiting() != 0 || !p.edge.sees(true) {
			t.Errorf("%d messages are not acknowledged, online %t", p.edge.waiting(), p.edge.sees(true))
		}
	})
}

func TestRefusedRecordIsProducedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		p.producer.set(false, errors.New("UNKNOWN_SERVER_ERROR"))
		p.edge.send(stream("valve1", "0"), reading("pressure", 1, 1))
		time.Sleep(10 * time.Second)
		if p.edge.waiting() != 0 || counter(p.bridge, "retries") != 1 || counter(p.bridge, "pending_bytes_now") != 0 {
			t.Errorf("%d messages wait, counters %v", p.edge.waiting(), p.bridge.Counters())
		}
	})
}

func TestStaleWillIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		stale := sparkplug.AppendState(nil, sparkplug.State{Online: false, Timestamp: 5})
		if err := p.raw.Publish(t.Context(), sparkplug.StateTopic("headrace"), 1, true, stale); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if !p.edge.sees(true) {
			t.Error("the host stays offline after a stale will")
		}
	})
}

func TestOverflowLeavesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 64<<10)
		defer p.close()
		p.producer.set(true, nil)
		for i := range 500 {
			p.edge.send(stream("valve1", "0"), reading("pressure", signal.Micros(i+1), 1))
		}
		time.Sleep(time.Hour)
		if n := counter(p.bridge, "pending_bytes_now"); n > 66<<10 {
			t.Errorf("%d bytes are pending, the bound is %d", n, 64<<10)
		}
		if !p.edge.sees(false) || counter(p.bridge, "overflows") != 1 {
			t.Errorf("the bridge did not leave the broker: %v", p.bridge.Counters())
		}
		p.producer.set(false, nil)
		for range 10 {
			time.Sleep(10 * time.Second)
			p.edge.resend()
		}
		time.Sleep(10 * time.Second)
		if p.edge.waiting() != 0 {
			t.Errorf("%d messages are not acknowledged", p.edge.waiting())
		}
	})
}

func TestRebirthIsAskedForSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBubble(t, 0)
		defer p.close()
		body := sparkplug.AppendBody(nil, &sparkplug.Body{
			SessionBoot: "unknown", Birth: 9, Boot: "b", Seq: 1, Stream: string(stream("valve1", "0")),
		})
		payload := sparkplug.AppendPayload(nil, &sparkplug.Payload{UUID: sparkplug.HeadraceUUID, Body: body})
		for range 200 { // 20 s
			if err := p.raw.Publish(t.Context(), "spBv1.0/skab/DDATA/other/valve1:0", 0, false, payload); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if d := cmp.Diff([]int64{4, 200}, []int64{counter(p.bridge, "rebirths_asked"), counter(p.bridge, "needs_rebirth")}); d != "" {
			t.Errorf("rebirths asked and messages dropped (-want +got):\n%s", d)
		}
	})
}
