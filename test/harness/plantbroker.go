package harness

import (
	"errors"
	"log/slog"
	"net"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// PlantBroker starts an MQTT broker of the plant's own, which ends with the test,
// and returns its host:port.
func PlantBroker(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// A round of all sensors fits its queues.
	can := mqtt.NewDefaultServerCapabilities()
	can.MaximumClientWritesPending, can.MaximumInflight = 1<<16, 1<<15
	srv := mqtt.New(&mqtt.Options{Capabilities: can, Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(srv.AddHook(new(auth.AllowHook), nil), srv.AddListener(listeners.NewNet("tcp", l)), srv.Serve()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}
