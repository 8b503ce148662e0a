package mqttc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/headrace/headrace/internal/mqttc"
)

// pipes is a listener over net.Pipe, so that a broker lives in a bubble of
// virtual time.
type pipes struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
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
	a, b := net.Pipe()
	select {
	case l.ch <- b:
		return a, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// broker starts a broker on l and returns what stops it; it must be stopped
// inside the bubble.
func broker(t *testing.T, l net.Listener) (stop func()) {
	t.Helper()
	srv := mqtt.New(&mqtt.Options{
		SysTopicResendInterval: 86400, Logger: slog.New(slog.DiscardHandler),
	})
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

type inbox struct {
	mu   sync.Mutex
	msgs []mqttc.Message
}

func (b *inbox) add(m mqttc.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.msgs = append(b.msgs, m)
}

func (b *inbox) payloads() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, m := range b.msgs {
		out = append(out, m.Topic+"="+string(m.Payload))
	}
	return out
}

func config(l *pipes, id string, onMessage func(mqttc.Message)) mqttc.Config {
	return mqttc.Config{
		Addresses: []string{"tcp://broker:1883"}, ClientID: id, CleanSession: true,
		Dial: l.Dial, OnMessage: onMessage,
	}
}

func connect(t *testing.T, cfg mqttc.Config) *mqttc.Conn {
	t.Helper()
	c, err := mqttc.Connect(t.Context(), cfg)
	if err != nil {
		t.Errorf("connecting: %v", err)
		return nil
	}
	return c
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestPublishAndReceiveInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer broker(t, l)()
		var in inbox
		sub := connect(t, config(l, "sub", func(m mqttc.Message) { in.add(m); m.Ack() }))
		pub := connect(t, config(l, "pub", nil))
		ctx := t.Context()
		check(t, "subscribing", sub.Subscribe(ctx, map[string]byte{"a/#": 1, "STATE/x": 0}))

		var want []string
		for i := range 300 {
			topic, qos := "a/b", byte(i%2)
			payload := fmt.Sprint(i)
			want = append(want, topic+"="+payload)
			check(t, "publishing", pub.Publish(ctx, topic, qos, false, []byte(payload)))
		}
		synctest.Wait()
		if d := cmp.Diff(want, in.payloads()); d != "" {
			t.Errorf("received (-want +got):\n%s", d)
		}
		check(t, "closing", pub.Close(ctx))
		check(t, "closing", sub.Close(ctx))
		if err := pub.Publish(ctx, "a", 0, false, nil); !errors.Is(err, mqttc.ErrClosed) {
			t.Errorf("publishing after Close: %v, want ErrClosed", err)
		}
	})
}

func TestUnacknowledgedComesAgainOnTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer broker(t, l)()
		ctx := t.Context()
		var first, second inbox
		cfg := config(l, "bridge", first.add) // never acknowledges
		cfg.CleanSession = false
		sub := connect(t, cfg)
		check(t, "subscribing", sub.Subscribe(ctx, map[string]byte{"a": 1}))
		pub := connect(t, config(l, "pub", nil))
		check(t, "publishing", pub.Publish(ctx, "a", 1, false, []byte("x")))
		synctest.Wait()
		sub.Abort()
		<-sub.Done()
		if !errors.Is(sub.Err(), mqttc.ErrAborted) {
			t.Errorf("Err after Abort is %v", sub.Err())
		}

		cfg.OnMessage = func(m mqttc.Message) { second.add(m); m.Ack() }
		sub = connect(t, cfg)
		if !sub.SessionPresent() {
			t.Error("the broker did not keep the session")
		}
		synctest.Wait()
		want := []string{"a=x"}
		if d := cmp.Diff(want, first.payloads()); d != "" {
			t.Errorf("first connection: %s", d)
		}
		if d := cmp.Diff(want, second.payloads()); d != "" {
			t.Errorf("second connection: %s", d)
		}
		check(t, "closing", sub.Close(ctx))
		check(t, "closing", pub.Close(ctx))
	})
}

func TestWill(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(context.Context, *mqttc.Conn)
		want []string
	}{
		{"abort publishes it", func(_ context.Context, c *mqttc.Conn) { c.Abort() }, []string{"will=gone"}},
		{"close does not", func(ctx context.Context, c *mqttc.Conn) { _ = c.Close(ctx) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				defer broker(t, l)()
				var in inbox
				sub := connect(t, config(l, "sub", in.add))
				check(t, "subscribing", sub.Subscribe(t.Context(), map[string]byte{"will": 1}))
				cfg := config(l, "pub", nil)
				cfg.Will = &mqttc.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}
				pub := connect(t, cfg)
				tc.end(t.Context(), pub)
				<-pub.Done()
				synctest.Wait()
				if d := cmp.Diff(tc.want, in.payloads()); d != "" {
					t.Errorf("received (-want +got):\n%s", d)
				}
				check(t, "closing", sub.Close(t.Context()))
			})
		})
	}
}

func TestIdleConnectionLivesByPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer broker(t, l)()
		c := connect(t, config(l, "idle", nil))
		time.Sleep(time.Hour)
		select {
		case <-c.Done():
			t.Errorf("an idle connection ended: %v", c.Err())
		default:
		}
		check(t, "closing", c.Close(t.Context()))
	})
}

// silent answers CONNECT and then reads or ignores everything without a word.
func silent(l *pipes, reads bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 512)
		_, _ = c.Read(buf)
		_, _ = c.Write([]byte{0x20, 2, 0, 0})
		if reads {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

func TestDeadPeerIsNoticed(t *testing.T) {
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads=%t", reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				go silent(l, reads)
				c := connect(t, config(l, "x", nil))
				began := time.Now()
				<-c.Done()
				if took := time.Since(began); took > time.Minute {
					t.Errorf("noticed after %s", took)
				}
				if c.Err() == nil {
					t.Error("no reason is given")
				}
				_ = l.Close()
			})
		})
	}
}

func TestWaitsEndWithContextAndConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		go silent(l, true)
		c := connect(t, config(l, "x", nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Publish(ctx, "a", 1, false, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publishing without PUBACK: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			c.Abort()
		}()
		began := time.Now()
		if err := c.Publish(t.Context(), "a", 1, false, nil); !errors.Is(err, mqttc.ErrAborted) {
			t.Errorf("publishing on a dying connection: %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("Publish returned %s after the connection ended", took-time.Second)
		}
		<-c.Done()
		_ = l.Close()
	})
}

// A publisher that is faster than its peer waits: nothing is dropped and the
// queue is bounded.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		go silent(l, false)
		c := connect(t, config(l, "x", nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := 0
		for {
			if _, err := c.PublishAsync(ctx, "a", 0, false, make([]byte, 1<<10)); err != nil {
				break
			}
			n++
		}
		if n > 1024 {
			t.Errorf("%d KiB were queued for a peer that takes nothing", n)
		}
		c.Abort()
		<-c.Done()
		_ = l.Close()
	})
}

func TestConnectErrors(t *testing.T) {
	refuse := func(code byte) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				buf := make([]byte, 512)
				_, _ = b.Read(buf)
				_, _ = b.Write([]byte{0x20, 2, 0, code})
			}()
			return a, nil
		}
	}
	for _, tc := range []struct {
		name, address, want string
		dial                func(context.Context, string, string) (net.Conn, error)
	}{
		{"no scheme", "127.0.0.1:1883", "first path segment", nil},
		{"unknown scheme", "ws://h:1", `scheme "ws" is not known`, nil},
		{"no host", "tcp://", "no host", nil},
		{"bad password", "tcp://h", "bad user name or password", refuse(4)},
		{"not MQTT", "tcp://h", "CONNACK", func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				buf := make([]byte, 512)
				_, _ = b.Read(buf)
				_, _ = b.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				_ = b.Close()
			}()
			return a, nil
		}},
		{"no answer", "tcp://h", "no CONNACK", func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, b) }()
			return a, nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{tc.address}, Dial: tc.dial})
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want one with %q", err, tc.want)
				}
			})
		})
	}
}

func TestSecondAddressIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer broker(t, l)()
		cfg := config(l, "x", nil)
		cfg.Addresses = []string{"tcp://down:1883", "tcp://up:1883"}
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "down") {
				return nil, errors.New("network unreachable")
			}
			return l.Dial(ctx, network, addr)
		}
		c := connect(t, cfg)
		if c.Address() != "tcp://up:1883" {
			t.Errorf("connected to %s", c.Address())
		}
		check(t, "closing", c.Close(t.Context()))
	})
}
