package mqttc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Defaults of [Config].
const (
	DefaultKeepAlive      = 30 * time.Second
	DefaultConnectTimeout = 10 * time.Second
	DefaultWriteTimeout   = 30 * time.Second
	DefaultMaxPacketBytes = 16 << 20
)

// Will is what the broker publishes when the connection ends without a
// DISCONNECT.
type Will struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retained bool
}

// Config says where and how to connect.
type Config struct {
	// Addresses are tried in order: "tcp://host:port" or "ssl://host:port".
	Addresses    []string
	ClientID     string
	CleanSession bool
	KeepAlive    time.Duration // 0 is DefaultKeepAlive; whole seconds
	Will         *Will
	Username     string
	Password     string
	TLS          *tls.Config // for ssl://; nil is the system's roots

	// Dial opens the socket; nil dials TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnMessage is called for each received message, in order, from one
	// goroutine. While it runs nothing else is received, so it may not block
	// for long, and it may not call Publish, Subscribe or Close; it may call
	// Message.Ack and Abort.
	OnMessage func(Message)

	ConnectTimeout time.Duration // one address, dial to CONNACK
	WriteTimeout   time.Duration // a peer that takes nothing for so long is gone
	MaxPacketBytes int           // a larger packet ends the connection
}

// Message is a received publication.
type Message struct {
	Topic     string
	Payload   []byte
	QoS       byte
	Retained  bool
	Duplicate bool
	// Ack acknowledges a QoS 1 message; it never blocks, may be called from
	// any goroutine and does nothing for QoS 0 or after the connection ended.
	Ack func()
}

// What an operation or a connection ended with.
var (
	// ErrNotSubscribed is what a broker answers to a filter that it does not grant.
	ErrNotSubscribed = errors.New("the broker refused it")
	// ErrAborted is the end by [Conn.Abort].
	ErrAborted = errors.New("MQTT connection aborted")
	// ErrClosed is the end by [Conn.Close], as operations see it that came too
	// late.
	ErrClosed = errors.New("MQTT connection closed")
)

// RefusedError is a CONNACK that says no.
type RefusedError struct {
	Address string
	Code    byte
}

func (e *RefusedError) Error() string {
	reason := fmt.Sprintf("return code %d", e.Code)
	if err, ok := packets.ConnErrors[e.Code]; ok && err != nil {
		reason = err.Error()
	}
	return fmt.Sprintf("MQTT broker %s refused the connection: %s", e.Address, reason)
}

// Connect opens a session with the first address that takes it.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	setDefaults(&cfg)
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("connecting to the MQTT broker: no address is configured")
	}
	var errs []error
	for _, address := range cfg.Addresses {
		conn, err := connectTo(ctx, cfg, address)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("connecting to MQTT broker %s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func setDefaults(cfg *Config) {
	if cfg.KeepAlive <= 0 {
		cfg.KeepAlive = DefaultKeepAlive
	}
	cfg.KeepAlive = min(max(cfg.KeepAlive.Truncate(time.Second), time.Second), 65535*time.Second)
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = DefaultConnectTimeout
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	if cfg.MaxPacketBytes <= 0 {
		cfg.MaxPacketBytes = DefaultMaxPacketBytes
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
}

// parseAddress splits an address into the socket's and whether TLS is wanted.
func parseAddress(address string) (hostport, host string, secure bool, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", false, err
	}
	port := u.Port()
	switch u.Scheme {
	case "tcp", "mqtt":
		if port == "" {
			port = "1883"
		}
	case "ssl", "tls", "mqtts":
		secure = true
		if port == "" {
			port = "8883"
		}
	default:
		return "", "", false, fmt.Errorf("scheme %q is not known; write tcp://host:port or ssl://host:port", u.Scheme)
	}
	if u.Hostname() == "" {
		return "", "", false, errors.New("the address has no host; write tcp://host:port or ssl://host:port")
	}
	return net.JoinHostPort(u.Hostname(), port), u.Hostname(), secure, nil
}

func connectTo(ctx context.Context, cfg Config, address string) (*Conn, error) {
	hostport, host, secure, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	socket, err := cfg.Dial(ctx, "tcp", hostport)
	if err != nil {
		return nil, err
	}
	// The handshake reads and writes; closing the socket is what ends it early.
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	conn, err := handshake(ctx, cfg, address, host, secure, socket)
	if !stop() && err == nil {
		conn.Abort()
		<-conn.Done()
		err = ctx.Err()
	}
	if err != nil {
		_ = socket.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no CONNACK: %w", ctx.Err())
		}
		return nil, err
	}
	return conn, nil
}

func handshake(ctx context.Context, cfg Config, address, host string, secure bool, socket net.Conn) (*Conn, error) {
	if secure {
		tc := cfg.TLS.Clone()
		if tc == nil {
			tc = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if tc.ServerName == "" {
			tc.ServerName = host
		}
		wrapped := tls.Client(socket, tc)
		if err := wrapped.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		socket = wrapped
	}
	if err := connectPacket(cfg).Write(socket); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(socket, 16<<10)
	p, err := readPacket(in, cfg.MaxPacketBytes)
	if err != nil {
		return nil, fmt.Errorf("reading CONNACK: %w", err)
	}
	ack, ok := p.(*packets.ConnackPacket)
	if !ok {
		return nil, fmt.Errorf("the peer answered CONNECT with %T; it is not an MQTT broker", p)
	}
	if ack.ReturnCode != packets.Accepted {
		return nil, &RefusedError{Address: address, Code: ack.ReturnCode}
	}
	return start(cfg, address, socket, in, ack.SessionPresent), nil
}

func connectPacket(cfg Config) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.ClientIdentifier = cfg.ClientID
	p.CleanSession = cfg.CleanSession
	p.Keepalive = uint16(cfg.KeepAlive / time.Second)
	if w := cfg.Will; w != nil {
		p.WillFlag, p.WillTopic, p.WillMessage = true, w.Topic, w.Payload
		p.WillQos, p.WillRetain = w.QoS, w.Retained
	}
	if cfg.Username != "" {
		p.UsernameFlag, p.Username = true, cfg.Username
	}
	if cfg.Password != "" {
		p.PasswordFlag, p.Password = true, []byte(cfg.Password)
	}
	return p
}
