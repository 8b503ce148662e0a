package broker_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/spine/broker"
	"github.com/headrace/headrace/test/harness"
)

func hash(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// guardedBroker takes TLS alone, from two users with rights, one of them by
// certificate.
func guardedBroker(t *testing.T, o broker.Options) (*broker.Broker, harness.Certificates, *harness.Log) {
	t.Helper()
	certs := harness.NewCertificates(t, t.TempDir())
	server, err := credentials.Files{CA: certs.CA, Cert: certs.Cert, Key: certs.Key}.Server()
	if err != nil {
		t.Fatal(err)
	}
	log := new(harness.Log)
	o.TLS, o.Dir, o.Log = server, t.TempDir(), slog.New(slog.NewTextHandler(log, nil))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.Users = []broker.User{
		{Name: "press", Password: hash(t, "right"), Publish: []string{"plant/press/#"}, Subscribe: []string{"plant/+/state", "ack/press"}},
		{Name: "by-certificate", Certificate: "edge-1", Publish: []string{"plant/edge/a.b"}},
	}
	b, err := broker.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b, certs, log
}

// reach is how a client from outside reaches the broker.
func reach(t *testing.T, b *broker.Broker, files credentials.Files, user, password string) mqttc.Config {
	t.Helper()
	cfg, err := files.Client()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(b.Addr(), ":")
	return mqttc.Config{
		Addresses: []string{"ssl://127.0.0.1:" + port}, TLS: cfg, Username: user, Password: password,
		ClientID: "c" + user, CleanSession: true, ConnectTimeout: 10 * time.Second,
	}
}

func TestWhoMayConnect(t *testing.T) {
	b, certs, log := guardedBroker(t, broker.Options{Listen: "0.0.0.0:0"})
	for _, c := range []struct {
		name           string
		files          credentials.Files
		user, password string
		refused        string
	}{
		{name: "a password", files: credentials.Files{CA: certs.CA}, user: "press", password: "right"},
		{name: "a password again", files: credentials.Files{CA: certs.CA}, user: "press", password: "right"},
		{name: "a wrong password", files: credentials.Files{CA: certs.CA}, user: "press", password: "wrong", refused: "refused"},
		{name: "nobody", files: credentials.Files{CA: certs.CA}, refused: "refused"},
		{name: "a stranger", files: credentials.Files{CA: certs.CA}, user: "x", password: "right", refused: "refused"},
		{name: "the process's own name", files: credentials.Files{CA: certs.CA}, user: "headrace (this process)", password: "right", refused: "refused"},
		{name: "a certificate", files: credentials.Files{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey}},
		{name: "a certificate of another", files: credentials.Files{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey}, user: "press", password: "wrong", refused: "refused"},
		{name: "its name without it", files: credentials.Files{CA: certs.CA}, user: "by-certificate", password: "right", refused: "refused"},
		{name: "an unknown certificate", files: credentials.Files{CA: certs.CA, Cert: certs.Cert, Key: certs.Key}, refused: "refused"},
		{name: "another authority", files: credentials.Files{CA: certs.OtherCA}, user: "press", password: "right", refused: "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := mqttc.Connect(t.Context(), reach(t, b, c.files, c.user, c.password))
			if err == nil {
				defer func() { conn.Abort(); <-conn.Done() }()
			}
			if (err != nil) != (c.refused != "") {
				t.Fatalf("error %v, want %q", err, c.refused)
			}
			if err != nil && !strings.Contains(strings.ToLower(err.Error()), c.refused) {
				t.Errorf("error %v, want %q in it", err, c.refused)
			}
		})
	}
	local := b.Local()
	local.ClientID, local.CleanSession = "local", true
	conn, err := mqttc.Connect(t.Context(), local)
	if err != nil {
		t.Fatalf("the process itself: %v", err)
	}
	conn.Abort()
	<-conn.Done()
	for _, secret := range []string{"right", "wrong", local.Password} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
}

// What a user has no right to reach nobody: not as a message, not as a
// retained one, not as a will.
func TestRights(t *testing.T) {
	b, certs, log := guardedBroker(t, broker.Options{})
	local := b.Local()
	local.ClientID, local.CleanSession = "all", true
	in := newInbox(5)
	local.OnMessage = in.add
	all, err := mqttc.Connect(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { all.Abort(); <-all.Done() }()
	if err := all.Subscribe(t.Context(), map[string]byte{"#": 1}); err != nil {
		t.Fatal(err)
	}
	connect := func(user string, files credentials.Files, will *mqttc.Will, onMessage func(mqttc.Message)) *mqttc.Conn {
		t.Helper()
		cfg := reach(t, b, files, user, "right")
		cfg.Will, cfg.OnMessage = will, onMessage
		conn, err := mqttc.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	heard := newInbox(1)
	press := connect("press", credentials.Files{CA: certs.CA},
		&mqttc.Will{Topic: "plant/other/will", Payload: []byte("forbidden"), QoS: 1, Retained: true}, heard.add)
	for _, m := range []struct {
		topic    string
		qos      byte
		retained bool
	}{
		{"plant/press/a", 1, false},
		{"plant/press", 1, false},
		{"plant/other/a", 0, false},
		{"plant/other/b", 1, false},
		{"plant/other/retained", 1, true},
	} {
		text := "allowed"
		if !strings.HasPrefix(m.topic, "plant/press") {
			text = "forbidden"
		}
		if err := press.Publish(t.Context(), m.topic, m.qos, m.retained, []byte(text)); err != nil {
			t.Fatalf("%s: %v", m.topic, err)
		}
	}
	for filter, allowed := range map[string]bool{"plant/press/state": true, "plant/+/state": true, "ack/press": true, "#": false, "plant/#": false, "ack/other": false} {
		if err := press.Subscribe(t.Context(), map[string]byte{filter: 1}); (err == nil) != allowed {
			t.Errorf("subscribing to %s: %v", filter, err)
		}
	}
	if err := all.Publish(t.Context(), "ack/press", 1, false, []byte("allowed")); err != nil {
		t.Fatal(err)
	}
	heard.wait(t)
	press.Abort() // its will is forbidden
	<-press.Done()
	edge := connect("by-certificate", credentials.Files{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey},
		&mqttc.Will{Topic: "plant/edge/a.b", Payload: []byte("allowed"), QoS: 1}, nil)
	if err := edge.Publish(t.Context(), "plant/edge/a.b", 1, false, []byte("allowed")); err != nil {
		t.Fatal(err)
	}
	edge.Abort()
	<-edge.Done()
	got := in.wait(t)
	for _, m := range got {
		if !strings.HasSuffix(m, "=allowed") {
			t.Errorf("arrived: %s", m)
		}
	}
	// Somebody who comes later sees no retained message of it.
	later := newInbox(1)
	local.ClientID, local.OnMessage = "later", later.add
	c, err := mqttc.Connect(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Abort(); <-c.Done() }()
	if err := c.Subscribe(t.Context(), map[string]byte{"#": 1}); err != nil {
		t.Fatal(err)
	}
	if err := all.Publish(t.Context(), "end", 1, false, []byte("allowed")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"end=allowed"}, later.wait(t)); diff != "" {
		t.Errorf("what a later subscriber sees (-want +got):\n%s", diff)
	}
	for _, want := range []string{"publish list", "subscribe list"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say what to do about it (%q):\n%s", want, log)
		}
	}
}

// What NATS does not do is refused, and the log says what helps.
func TestRefusalsSayWhatToDo(t *testing.T) {
	log := new(harness.Log)
	b, err := broker.Start(t.Context(), broker.Options{
		Listen: "127.0.0.1:0", Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil)), MaxConnections: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	for version, remedy := range map[byte]string{5: "MQTT 5", 3: "MQTT 3.1:"} {
		name := map[byte]string{5: "MQTT", 3: "MQIsdp"}[version]
		body := append([]byte{0, byte(len(name))}, name...)
		body = append(body, version, 2, 0, 60)
		if version == 5 {
			body = append(body, 0) // no properties
		}
		body = append(body, 0, 1, 'x')
		socket, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := socket.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(socket)
		if len(answer) > 3 && answer[3] == 0 {
			t.Errorf("version %d is taken: % x %v", version, answer, err)
		}
		_ = socket.Close()
		await(t, log, remedy)
	}
	pub := connect(t, b, "blank", nil)
	if err := pub.Publish(t.Context(), "a b", 1, false, nil); err == nil {
		t.Error("a blank in a topic was taken")
	}
	await(t, log, "percent-encoding")
	var held []*mqttc.Conn
	for i := range 5 {
		c, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{"tcp://" + b.Addr()}, ClientID: string(rune('a' + i)), CleanSession: true})
		if err != nil {
			break
		}
		held = append(held, c)
	}
	for _, c := range held {
		c.Abort()
		<-c.Done()
	}
	if len(held) >= 5 {
		t.Error("there is no limit of connections")
	}
	await(t, log, "more clients than")
}

// await waits for a line of the log.
func await(t *testing.T, log *harness.Log, part string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "the log says "+part, func() bool { return strings.Contains(log.String(), part) })
}

// A packet beyond the limit ends the connection before it is held.
func TestPacketTooLarge(t *testing.T) {
	log := new(harness.Log)
	b, err := broker.Start(t.Context(), broker.Options{
		Listen: "127.0.0.1:0", Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil)), MaxPayload: 64 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	pub := connect(t, b, "large", nil)
	if err := pub.Publish(t.Context(), "a", 1, false, make([]byte, 128<<10)); err == nil {
		t.Error("it was taken")
	}
	await(t, log, "larger than the broker takes")
}

func TestBeyondLoopback(t *testing.T) {
	certs := harness.NewCertificates(t, t.TempDir())
	server, err := credentials.Files{Cert: certs.Cert, Key: certs.Key}.Server()
	if err != nil {
		t.Fatal(err)
	}
	users := []broker.User{{Name: "u", Password: hash(t, "p")}}
	for _, c := range []struct {
		name string
		o    broker.Options
		want string
	}{
		{"neither", broker.Options{}, "TLS (--listen-mqtt-cert, --listen-mqtt-key) and users"},
		{"no users", broker.Options{TLS: server}, "users (--listen-mqtt-users)"},
		{"no TLS", broker.Options{Users: users}, "TLS"},
	} {
		for _, listen := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:1883"} {
			c.o.Listen, c.o.Dir = listen, t.TempDir()
			b, err := broker.Start(t.Context(), c.o)
			if err == nil {
				_ = b.Close(t.Context())
				t.Fatalf("%s on %s: it started", c.name, listen)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s on %s: %v, want %q", c.name, listen, err, c.want)
			}
		}
	}
}

func TestUsersFile(t *testing.T) {
	good := hash(t, "p")
	for _, c := range []struct{ name, text, want string }{
		{"good", "users:\n- name: u\n  password: " + good + "\n  publish: [\"a/#\", \"+/b.c\"]\n", ""},
		{"nobody", "users: []", "0 users"},
		{"an unknown key", "users:\n- name: u\n  pasword: x", "did you mean \"password\""},
		{"a readable password", "users:\n- name: u\n  password: p", "htpasswd -nB"},
		{"no proof", "users:\n- name: u", "neither"},
		{"twice", "users:\n- {name: u, certificate: a}\n- {name: u, certificate: b}", "twice"},
		{"a certificate twice", "users:\n- {name: u, certificate: a}\n- {name: v, certificate: a}", "twice"},
		{"no name", "users:\n- {certificate: a}", "not possible"},
		{"a blank", "users:\n- {name: u, certificate: a, publish: ['a b']}", "level"},
		{"a hash within", "users:\n- {name: u, certificate: a, subscribe: ['#/a']}", "level"},
		{"an empty level", "users:\n- {name: u, certificate: a, subscribe: ['a//b']}", "level"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := broker.ParseUsers("users.yaml", []byte(c.text))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := broker.ReadUsers("nowhere.yaml"); err == nil || !strings.Contains(err.Error(), "nowhere.yaml") {
		t.Errorf("error %v", err)
	}
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("users:\n- {name: u, certificate: a, publish: ['a/#', '+/b']}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := broker.ParseUsers("f", text)
		if err == nil && len(users) == 0 {
			t.Error("no users and no error")
		}
	})
}
