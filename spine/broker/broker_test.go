package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/spine/broker"
)

func start(t *testing.T, dir string) *broker.Broker {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

func connect(t *testing.T, b *broker.Broker, id string, onMessage func(mqttc.Message)) *mqttc.Conn {
	t.Helper()
	c, err := mqttc.Connect(t.Context(), mqttc.Config{
		Addresses: []string{"tcp://" + b.Addr()}, ClientID: id, CleanSession: true, OnMessage: onMessage,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Abort(); <-c.Done() })
	return c
}

type inbox struct {
	mu   sync.Mutex
	got  []string
	want int
	done chan struct{}
}

func newInbox(want int) *inbox { return &inbox{want: want, done: make(chan struct{})} }

func (b *inbox) add(m mqttc.Message) {
	m.Ack()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m.Topic+"="+string(m.Payload))
	if len(b.got) == b.want {
		close(b.done)
	}
}

func (b *inbox) wait(t *testing.T) []string {
	t.Helper()
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		b.mu.Lock()
		t.Errorf("%d of %d messages arrived", len(b.got), b.want)
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got
}

func TestMessagesPassInOrder(t *testing.T) {
	b := start(t, t.TempDir())
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			const n = 5000
			in := newInbox(n)
			sub := connect(t, b, fmt.Sprintf("sub%d", qos), in.add)
			if err := sub.Subscribe(t.Context(), map[string]byte{"spBv1.0/#": 1}); err != nil {
				t.Fatal(err)
			}
			pub := connect(t, b, fmt.Sprintf("pub%d", qos), nil)
			payload := bytes.Repeat([]byte("x"), 200)
			began := time.Now()
			for i := range n {
				if _, err := pub.PublishAsync(t.Context(), fmt.Sprintf("spBv1.0/g/DDATA/e/l:%d", i), qos, false, payload); err != nil {
					t.Fatal(err)
				}
			}
			got := in.wait(t)
			took := time.Since(began)
			t.Logf("%.0f messages/s", n/took.Seconds())
			for i, m := range got {
				if want := fmt.Sprintf("spBv1.0/g/DDATA/e/l:%d=%s", i, payload); m != want {
					t.Fatalf("message %d is %s", i, m)
				}
			}
		})
	}
	counters := map[string]int64{}
	for _, c := range b.Counters() {
		counters[c.Name] = c.Value
	}
	if counters["messages_in"] < 10000 || counters["bytes_in"] < 2_000_000 || counters["connections"] < 4 || counters["slow_consumers"] != 0 {
		t.Errorf("counters %v", counters)
	}
}

// The topics that names of a plant lead to: Sparkplug's escapes keep blanks
// and NATS's wildcards out, all else passes as it is.
func TestNamesInTopics(t *testing.T) {
	b := start(t, t.TempDir())
	topics := []string{
		"spBv1.0/werk süd/NBIRTH/e", // refused, see below
		"spBv1.0/werk%20süd/DDATA/a.b.c/line.1:Pumpe%20Nr.%207",
		"spBv1.0/g/DDATA/e/.lead:trail.",
		"spBv1.0/g/DDATA/e/泵:№7",
		"spBv1.0/g/DDATA/$e/%2A:%3E",
		"spBv1.0/g/DDATA/e/" + strings.Repeat("l", 200) + ":" + strings.Repeat("ü", 100),
		"spBv1.0/g/DDATA/a//b",
	}
	want := topics[1:]
	in := newInbox(len(want))
	sub := connect(t, b, "sub", in.add)
	if err := sub.Subscribe(t.Context(), map[string]byte{"spBv1.0/#": 1}); err != nil {
		t.Fatal(err)
	}
	for i, topic := range topics {
		pub := connect(t, b, fmt.Sprintf("pub%d", i), nil)
		err := pub.Publish(t.Context(), topic, 1, false, nil)
		if refused := strings.Contains(topic, " "); (err != nil) != refused {
			t.Errorf("publishing to %q: %v", topic, err)
		}
		_ = pub.Close(t.Context())
	}
	var got []string
	for _, m := range in.wait(t) {
		got = append(got, strings.TrimSuffix(m, "="))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("topics (-want +got):\n%s", d)
	}
}

func TestRetainedStateOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	pub := connect(t, b, "host", nil)
	if err := pub.Publish(t.Context(), "spBv1.0/STATE/headrace", 1, true, []byte("online")); err != nil {
		t.Fatal(err)
	}
	seen := func() {
		t.Helper()
		in := newInbox(1)
		sub := connect(t, b, "edge", in.add)
		// It is stored after the PUBACK, and each SUBSCRIBE asks for it anew.
		for range 60 {
			if err := sub.Subscribe(t.Context(), map[string]byte{"spBv1.0/STATE/headrace": 1}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-in.done:
			case <-time.After(500 * time.Millisecond):
				continue
			}
			break
		}
		if got := in.wait(t); len(got) == 0 || got[0] != "spBv1.0/STATE/headrace=online" {
			t.Errorf("retained %q", got)
		}
	}
	seen()
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = start(t, dir)
	seen()
}

func TestWillOfADroppedConnection(t *testing.T) {
	b := start(t, t.TempDir())
	in := newInbox(1)
	sub := connect(t, b, "sub", in.add)
	if err := sub.Subscribe(t.Context(), map[string]byte{"spBv1.0/g/NDEATH/+": 1}); err != nil {
		t.Fatal(err)
	}
	c, err := mqttc.Connect(t.Context(), mqttc.Config{
		Addresses: []string{"tcp://" + b.Addr()}, ClientID: "edge", CleanSession: true,
		Will: &mqttc.Will{Topic: "spBv1.0/g/NDEATH/e", Payload: []byte("dead"), QoS: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Abort()
	got := in.wait(t)
	if len(got) != 1 || !strings.HasPrefix(got[0], "spBv1.0/g/NDEATH/e=") {
		t.Errorf("will %q", got)
	}
}

func TestLargeMessage(t *testing.T) {
	b := start(t, t.TempDir())
	in := newInbox(1)
	sub := connect(t, b, "sub", in.add)
	if err := sub.Subscribe(t.Context(), map[string]byte{"a": 1}); err != nil {
		t.Fatal(err)
	}
	pub := connect(t, b, "pub", nil)
	payload := bytes.Repeat([]byte{7}, 4<<20)
	if err := pub.Publish(t.Context(), "a", 0, false, payload); err != nil {
		t.Fatal(err)
	}
	if got := in.wait(t); len(got) == 1 && got[0] != "a="+string(payload) {
		t.Error("the payload was changed")
	}
}

func TestStartErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, listen, dir, want string }{
		{"port in use", l.Addr().String(), t.TempDir(), "--listen-mqtt"},
		{"no port", "localhost", t.TempDir(), "write host:port"},
		{"directory is a file", "127.0.0.1:0", file, file},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := broker.Start(t.Context(), broker.Options{Listen: tc.listen, Dir: tc.dir})
			if err == nil {
				_ = b.Close(t.Context())
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

// What a session does not acknowledge the broker sends again: on a live connection
// our client knows the copy, after a kill it takes it.
func TestUnacknowledgedComesAgain(t *testing.T) {
	b, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), AckWait: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	arrived := make(chan mqttc.Message, 100)
	session := func() *mqttc.Conn {
		c, err := mqttc.Connect(t.Context(), mqttc.Config{
			Addresses: []string{"tcp://" + b.Addr()}, ClientID: "bridge", OnMessage: func(m mqttc.Message) { arrived <- m },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Subscribe(t.Context(), map[string]byte{"plant/#": 1}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	next := func() mqttc.Message {
		t.Helper()
		select {
		case m := <-arrived:
			return m
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came within 30 s")
			return mqttc.Message{}
		}
	}
	c := session()
	pub := connect(t, b, "pub", nil)
	publish := func(text string) {
		t.Helper()
		if err := pub.Publish(t.Context(), "plant/a", 1, false, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	publish("one")
	one := next()
	// A second subscriber that never acknowledges shows when the broker has sent
	// its copies.
	copies := make(chan struct{}, 100)
	stranger := rawSubscriber(t, b.Addr(), func() { copies <- struct{}{} })
	defer stranger()
	publish("two")
	two := next()
	for range 4 {
		<-copies
	}
	select {
	case m := <-arrived:
		t.Errorf("a copy of %q came on a live connection", m.Payload)
	default:
	}
	two.Ack()
	publish("three")
	if three := next(); string(three.Payload) != "three" {
		t.Errorf("%q instead of the third", three.Payload)
	} else {
		three.Ack()
	}
	_ = one // the bridge is killed before Kafka has it
	c.Abort()
	<-c.Done()
	c = session()
	defer c.Abort()
	if again := next(); string(again.Payload) != "one" {
		t.Errorf("%q came again", again.Payload)
	}
}

// rawSubscriber is a client that acknowledges nothing; it tells of each PUBLISH.
func rawSubscriber(t *testing.T, addr string, told func()) (stop func()) {
	t.Helper()
	socket, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion, connect.ClientIdentifier, connect.CleanSession = "MQTT", 4, "stranger", true
	subscribe := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	subscribe.MessageID, subscribe.Topics, subscribe.Qoss = 1, []string{"plant/#"}, []byte{1}
	for _, p := range []packets.ControlPacket{connect, subscribe} {
		if err := p.Write(socket); err != nil {
			t.Fatal(err)
		}
	}
	subscribed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			p, err := packets.ReadPacket(socket)
			if err != nil {
				return
			}
			switch p.(type) {
			case *packets.SubackPacket:
				close(subscribed)
			case *packets.PublishPacket:
				told()
			}
		}
	}()
	<-subscribed
	return func() { _ = socket.Close(); <-done }
}
