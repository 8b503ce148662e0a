package roles

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStackStopsFromTheTop(t *testing.T) {
	s := newStack()
	var stopped []string
	for _, name := range []string{"log", "broker", "edge"} {
		s.onStop(name, func() error {
			stopped = append(stopped, name) // one after the other: stop waits for each
			return nil
		})
	}
	s.stop()
	s.stop()
	if diff := cmp.Diff([]string{"edge", "broker", "log"}, stopped); diff != "" {
		t.Error(diff)
	}
}

func TestStackTellsTheFirstFailure(t *testing.T) {
	s := newStack()
	broken := errors.New("broken")
	s.run("lake", func(context.Context) error { return broken })
	err := <-s.failed
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "lake: ") {
		t.Errorf("failure %v", err)
	}
	s.run("bridge", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	s.stop()
	select {
	case err := <-s.failed:
		t.Errorf("an orderly stop is told as %v", err)
	default:
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"all", Options{Roles: All()}, ""},
		{"all with replay", Options{Roles: All(), Replay: "skab:x", UntilDrained: true}, ""},
		{"bridge alone", Options{Roles: []Role{Bridge}}, "--mqtt"},
		{"bridge without Kafka", Options{Roles: []Role{Bridge}, MQTT: []string{"tcp://h:1"}}, "--kafka"},
		{"bridge outside", Options{Roles: []Role{Bridge}, MQTT: []string{"tcp://h:1"}, Kafka: []string{"h:2"}}, ""},
		{"scheme", Options{Roles: []Role{Bridge, Spine}, MQTT: []string{"foo://h:1"}}, "tcp://HOST:PORT"},
		{"advertised", Options{Roles: All(), AdvertiseKafka: "foo"}, "--advertise-kafka foo"},
		{"lake alone", Options{Roles: []Role{Lake}}, "--kafka"},
		{"edge alone", Options{Roles: []Role{Edge}, MQTT: []string{"tcp://h:1"}}, "--replay"},
		{"replay without edge", Options{Roles: []Role{Broker}, Replay: "skab:x"}, "role edge"},
		{"drained without lake", Options{Roles: []Role{Edge, Broker}, Replay: "skab:x", UntilDrained: true}, "role lake"},
		{"drained without replay", Options{Roles: All(), UntilDrained: true}, "--replay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.ListenMQTT, c.o.ListenKafka, c.o.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
			err := c.o.Check()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check: %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:0": true, "[::1]:1": true, "localhost:1": true,
		"0.0.0.0:1": false, ":1": false, "192.0.2.1:1": false, "example.org:1": false, "127.0.0.1": false,
	} {
		if err := loopback("MQTT", "--listen-mqtt", addr); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
