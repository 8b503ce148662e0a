// Package broker is the embedded MQTT 3.1.1 broker of a plant that has none:
// a NATS server in this process with its MQTT listener and nothing else.
//
// It is a broker as any other: edges, the bridge and third parties speak MQTT
// to it over TCP, and no part of Headrace reaches into it. It is not durable
// storage: what must arrive is kept by the edge's outbox until Kafka has it.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/headrace/headrace/signal"
)

// Options set a broker up.
type Options struct {
	Listen string // host:port of MQTT; port 0 takes a free one
	Dir    string // sessions, retained and QoS 1 messages
	Users  []User // who may connect; none lets everyone in, on loopback only
	TLS    *tls.Config
	Log    *slog.Logger // warnings; nil is silent
	// MaxPayload bounds one message; 0 is 8 MiB.
	MaxPayload int32
	// MaxConnections bounds the clients; 0 is 10,000.
	MaxConnections int
	// AckWait is how long after a delivery an unacknowledged QoS 1 message is delivered
	// again; 0 is [DefaultAckWait].
	AckWait time.Duration
	// MaxStore bounds what sessions keep on disk; 0 is 1 GiB.
	MaxStore int64
}

// DefaultAckWait is Options.AckWait's. At the limit of what may be unacknowledged
// the server leaves a message to its next delivery, so it is not long.
const DefaultAckWait = 10 * time.Second

// Broker is a running broker.
type Broker struct {
	srv    *server.Server
	addr   string
	log    *serverLog
	access *access // nil lets everyone in
	cert   []byte  // of TLS, nil without
}

// Start starts a broker and returns when it takes connections. ctx bounds the
// start only.
func Start(ctx context.Context, opts Options) (*Broker, error) {
	host, portText, err := net.SplitHostPort(opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("starting the MQTT broker: listen address %q: %w; write host:port", opts.Listen, err)
	}
	if err := guarded(host, opts); err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("starting the MQTT broker: listen address %q: %w; write host:port", opts.Listen, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if opts.AckWait <= 0 {
		opts.AckWait = DefaultAckWait
	}
	if opts.MaxPayload <= 0 {
		opts.MaxPayload = 8 << 20
	}
	if opts.MaxStore <= 0 {
		opts.MaxStore = 1 << 30
	}
	if opts.MaxConnections <= 0 {
		opts.MaxConnections = 10_000
	}
	b := &Broker{log: &serverLog{log: opts.Log, fatal: make(chan struct{})}}
	var authentication server.Authentication // a nil *access would be one
	if len(opts.Users) > 0 {
		if b.access, err = newAccess(opts.Users); err != nil {
			return nil, fmt.Errorf("starting the MQTT broker: %w", err)
		}
		authentication = b.access
	}
	if opts.TLS != nil {
		if len(opts.TLS.Certificates) == 0 {
			return nil, errors.New("starting the MQTT broker: TLS has no certificate")
		}
		b.cert = opts.TLS.Certificates[0].Certificate[0]
	}
	if err := os.MkdirAll(opts.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("starting the MQTT broker: creating %s: %w", opts.Dir, err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "headrace",
		DontListen: true, // no NATS port
		NoSigs:     true,
		MaxPayload: opts.MaxPayload,
		MaxConn:    opts.MaxConnections,

		CustomClientAuthentication: authentication,

		JetStream:          true,
		StoreDir:           opts.Dir,
		JetStreamMaxMemory: 32 << 20,
		JetStreamMaxStore:  opts.MaxStore,
		// Each QoS 1 filter of a session is one; the default of 1,000 is fewer than
		// the clients that are let in.
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: -1},
		SyncInterval:           200 * time.Millisecond,
		DisableJetStreamBanner: true,

		MQTT: server.MQTTOpts{
			Host: host, Port: port,
			TLSConfig: opts.TLS,
			// After a kill a session gets back what it had not acknowledged only when
			// this has passed; on a live one our client tells the copies apart.
			AckWait: opts.AckWait,
			// A client's QoS 1 filters may add up to 65,535; one that ends in # counts twice.
			MaxAckPending: 4 << 10,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("starting the MQTT broker: %w", err)
	}
	b.srv = srv
	srv.SetLoggerV2(b.log, false, false, false)
	started := make(chan struct{})
	go func() {
		srv.Start()
		close(started)
	}()
	if err := b.await(ctx, started); err != nil {
		srv.Shutdown()
		<-started
		srv.WaitForShutdown()
		return nil, startError(opts, err)
	}
	// The port as it was taken; Varz copies the options under their lock.
	v, err := srv.Varz(nil)
	if err != nil {
		_ = b.Close(ctx)
		return nil, fmt.Errorf("starting the MQTT broker: %w", err)
	}
	b.addr = net.JoinHostPort(host, strconv.Itoa(v.MQTT.Port))
	return b, nil
}

// await waits until the server takes connections or has said why it cannot.
func (b *Broker) await(ctx context.Context, started <-chan struct{}) error {
	select {
	case <-b.log.fatal:
	case <-started:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if err := b.log.fatalError(); err != nil {
			return err
		}
		if b.srv.ReadyForConnections(10 * time.Millisecond) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("it is not ready after 10 s")
		}
	}
}

func startError(opts Options, err error) error {
	if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
		return fmt.Errorf("starting the MQTT broker on %s: %w; stop the program that holds the port, or choose another port with --listen-mqtt", opts.Listen, err)
	}
	return fmt.Errorf("starting the MQTT broker on %s in %s: %w", opts.Listen, opts.Dir, err)
}

// Addr is the address that MQTT listens on.
func (b *Broker) Addr() string { return b.addr }

// Close ends all connections and waits for the broker's end, for ctx at most.
func (b *Broker) Close(ctx context.Context) error {
	b.log.closing.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("closing the MQTT broker: %w", ctx.Err())
	}
}

// Counters returns the broker's figures. The server does not count what it
// delivers to MQTT clients, so there is no figure for it.
func (b *Broker) Counters() []signal.Counter {
	v, err := b.srv.Varz(nil)
	if err != nil {
		return nil
	}
	c := func(name string, value int64) signal.Counter {
		return signal.Counter{Station: "broker", Name: name, Value: value}
	}
	return []signal.Counter{
		c("connections_now", int64(v.Connections)),
		c("connections", int64(v.TotalConnections)),
		c("messages_in", v.InMsgs),
		c("bytes_in", v.InBytes),
		c("slow_consumers", v.SlowConsumers),
	}
}

// serverLog passes the server's warnings on and keeps what stopped it: a
// library may not end the process.
type serverLog struct {
	log     *slog.Logger
	closing atomic.Bool

	mu    sync.Mutex
	err   error
	fatal chan struct{}
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, v ...any)  { l.say(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any) { l.say(slog.LevelError, format, v) }

// say logs, unless the broker is closing: then what fails fails on purpose.
func (l *serverLog) say(level slog.Level, format string, v []any) {
	if l.log == nil || l.closing.Load() {
		return
	}
	text := fmt.Sprintf(format, v...)
	if remedy := advice(text); remedy != "" {
		l.log.Log(context.Background(), level, "mqtt broker: "+text, "remedy", remedy)
		return
	}
	l.log.Log(context.Background(), level, "mqtt broker: "+text)
}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fmt.Errorf(format, v...)
		close(l.fatal)
	}
}

func (l *serverLog) fatalError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
