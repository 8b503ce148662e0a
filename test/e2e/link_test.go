package e2e

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// pipes is a listener over net.Pipe: a broker behind it lives in a bubble of
// virtual time.
type pipes struct {
	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1883} }

func (l *pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.accepted <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// link is a network that can be parted: what is sent meanwhile is swallowed,
// and new connections get no answer. A connection that was parted stays dead.
type link struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	mu   sync.Mutex
	cut  chan struct{} // closed while parted
}

func newLink(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *link {
	return &link{dial: dial, cut: make(chan struct{})}
}

// Part parts the network until Join.
func (l *link) Part() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.cut)
}

// Join lets new connections through again.
func (l *link) Join() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = make(chan struct{})
}

func (l *link) state() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

func (l *link) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	cut := l.state()
	select {
	case <-cut:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	c, err := l.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &linked{Conn: c, cut: cut}, nil
}

type linked struct {
	net.Conn
	cut chan struct{}
}

func (c *linked) parted() bool {
	select {
	case <-c.cut:
		return true
	default:
		return false
	}
}

func (c *linked) Write(b []byte) (int, error) {
	if c.parted() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *linked) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil && c.parted() && errors.Is(err, io.EOF) {
			// The other side's farewell is swallowed as well: only the
			// deadline or our own Close ends the read.
			return 0, os.ErrDeadlineExceeded
		}
		if err != nil || !c.parted() {
			return n, err
		}
	}
}

// startBroker serves MQTT behind l; the returned function stops it, inside the
// bubble.
func startBroker(t *testing.T, l net.Listener) (stop func()) {
	t.Helper()
	server := mqtt.New(&mqtt.Options{
		SysTopicResendInterval: 86400, Logger: slog.New(slog.DiscardHandler),
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		t.Fatal(err)
	}
	if err := server.AddListener(listeners.NewNet("pipe", l)); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	return func() { _ = server.Close() }
}
