package mqttin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/harness"
)

// broker starts a broker of the plant and returns its address and a client.
func broker(t *testing.T) (string, *mqttc.Conn) {
	t.Helper()
	addr := "tcp://" + harness.PlantBroker(t)
	conn, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{addr}, ClientID: "plc", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Abort)
	return addr, conn
}

func open(t *testing.T, addr string) source.Source {
	t.Helper()
	set, err := plain.New(plain.Config{Prefix: "plant"})
	if err != nil {
		t.Fatal(err)
	}
	src, err := Opener(Options{MQTT: mqttc.Config{Addresses: []string{addr}}, ClientID: "edge", Site: "lyon", Map: set, Clock: signal.WallClock{}})(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func figure(s source.Source, name string) int64 {
	for _, c := range s.Figures() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

// take reads n samples, "path=value".
func take(t *testing.T, s source.Source, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(out) < n {
		c, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("after %v: %v", out, err)
		}
		for _, x := range c.Samples {
			out = append(out, fmt.Sprintf("%s=%g", x.Asset.Sensor(x.Reading.Sensor), x.Reading.Value.Number))
		}
		s.Take()
	}
	return out
}

func publish(t *testing.T, c *mqttc.Conn, topic string, qos byte, payload string) {
	t.Helper()
	if err := c.Publish(t.Context(), topic, qos, false, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// What is refused goes on with its bytes and the reason, and the broker keeps it
// until the outbox has it. A time that the payload does not give is the edge's.
func TestRefusalsAreHandedOn(t *testing.T) {
	addr, plc := broker(t)
	s := open(t, addr)
	harness.Eventually(t, 20*time.Second, "the source is connected", func() bool { return figure(s, "source_connected_now") == 1 })
	publish(t, plc, "plant/paris/mill/p/a", 1, "4")
	publish(t, plc, "plant/lyon/mill/p/a", 1, "\xff hot")
	publish(t, plc, "plant/lyon/mill/p/b", 1, `{"ts": 1600000000000, "value": 1}`)
	publish(t, plc, "plant/lyon/mill/p/c", 1, "1")
	next := func(s source.Source) (refused map[string]string, arrived map[string]bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		refused, arrived = map[string]string{}, map[string]bool{}
		for len(refused) < 2 || len(arrived) < 2 {
			c, err := s.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range c.Refused {
				refused[r.Source+" "+r.From+" "+string(r.Bytes)] = r.Reason
			}
			for _, x := range c.Samples {
				arrived[x.Reading.Sensor] = x.Arrived
			}
		}
		return refused, arrived
	}
	want := map[string]string{
		"mqtt plant/paris/mill/p/a 4":       "it is of site paris; this edge is of lyon",
		"mqtt plant/lyon/mill/p/a \xff hot": "the payload \"\\xff hot\" is neither a number nor a JSON object",
	}
	for _, commit := range []bool{false, true} {
		refused, arrived := next(s)
		if d := cmp.Diff(want, refused) + cmp.Diff(map[string]bool{"b": false, "c": true}, arrived); d != "" {
			t.Error(d)
		}
		if commit {
			s.Take()
			s.(source.Confirmer).Mark()()
			publish(t, plc, "plant/lyon/mill/p/z", 1, "9") // the acknowledgements are gone before it is here
			take(t, s, 1)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, addr)
	}
	if d := cmp.Diff([]string{"lyon/mill/p/z=9"}, take(t, s, 1)); d != "" {
		t.Error(d)
	}
	if n := figure(s, "source_refused"); n != 0 {
		t.Errorf("%d came again", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The broker keeps what of QoS 1 was not committed, over a restart of the edge;
// what was is not sent again. What fits nothing is counted and let go.
func TestBrokerKeepsWhatIsNotCommitted(t *testing.T) {
	addr, plc := broker(t)
	s := open(t, addr)
	harness.Eventually(t, 20*time.Second, "the source is connected", func() bool { return figure(s, "source_connected_now") == 1 })
	publish(t, plc, "plant/lyon/mill/p/a", 1, "1")
	publish(t, plc, "plant/lyon/mill/p/b", 1, "2")
	publish(t, plc, "plant/lyon/mill/p/c", 0, "3")
	publish(t, plc, "plant/paris/mill/p/a", 1, "4")
	publish(t, plc, "plant/lyon/mill/p/a", 1, "hot")
	got := take(t, s, 3)
	slices.Sort(got)
	if d := cmp.Diff([]string{"lyon/mill/p/a=1", "lyon/mill/p/b=2", "lyon/mill/p/c=3"}, got); d != "" {
		t.Error(d)
	}
	harness.Eventually(t, 20*time.Second, "two are refused", func() bool { return figure(s, "source_refused") == 2 })
	if err := s.Close(); err != nil { // nothing was committed
		t.Fatal(err)
	}

	s = open(t, addr)
	publish(t, plc, "plant/lyon/mill/p/d", 1, "5") // perhaps before it is there: the broker keeps it
	got = take(t, s, 3)
	slices.Sort(got)
	if d := cmp.Diff([]string{"lyon/mill/p/a=1", "lyon/mill/p/b=2", "lyon/mill/p/d=5"}, got); d != "" {
		t.Error(d)
	}
	s.(source.Confirmer).Mark()()
	publish(t, plc, "plant/lyon/mill/p/e", 1, "6")
	if d := cmp.Diff([]string{"lyon/mill/p/e=6"}, take(t, s, 1)); d != "" {
		t.Error(d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, addr)
	if d := cmp.Diff([]string{"lyon/mill/p/e=6"}, take(t, s, 1)); d != "" {
		t.Error(d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A broker that is not there yet is waited for, and a stop does not wait for it.
func TestNoBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := "tcp://" + l.Addr().String()
	_ = l.Close()
	s := open(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
