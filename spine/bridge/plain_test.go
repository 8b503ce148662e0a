package bridge_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
)

// Plain messages become records of one reading, numbered by stream; what fits
// nothing is a dead letter with the reason, what is retained comes from another
// time.
func TestPlainMessages(t *testing.T) {
	p := newPlant(t)
	set, err := plain.New(plain.Config{Prefix: "plant", Rules: []plain.Rule{
		{Topic: "factory/{line}/{asset}/{tag}", Path: "lyon/{line}/{asset}/{tag}", Value: "/v", Time: "/t", TimeFormat: "unix", Class: "event"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	raw := publisher(t, p)
	if err := raw.Publish(t.Context(), "plant/lyon/mill/p-1/old", 1, true, []byte("1")); err != nil {
		t.Fatal(err)
	}
	// The broker stores it a moment after it has acknowledged it.
	eventually(t, "the retained message is stored", func() bool {
		got := make(chan struct{}, 1)
		cfg := p.mqtt()
		cfg.ClientID = "looks"
		cfg.OnMessage = func(m mqttc.Message) {
			m.Ack()
			select {
			case got <- struct{}{}:
			default:
			}
		}
		conn, err := mqttc.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Abort()
		if err := conn.Subscribe(t.Context(), map[string]byte{"plant/+/+/+/+": 1}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	b, _ := p.bridge(t, func(o *bridge.Options) { o.Plain = set; o.Log = slog.New(slog.NewTextHandler(t.Output(), nil)) })
	eventually(t, "the bridge has subscribed and passed over what is retained", func() bool { return counter(b, "ignored") == 1 })
	for _, m := range []struct {
		topic, payload string
		qos            byte
	}{
		{"plant/lyon/mill/p-1/t", "21.5", 0},
		{"plant/lyon/mill/p-1/t", `{"ts":"2026-01-05T06:00:00Z","value":22,"unit":"Cel"}`, 1},
		{"plant/lyon/mill/p-2/t", `{"value":"on","extra":1}`, 1},
		{"factory/mill/p-1/state", `{"v":"stopped","t":1767592801}`, 1},
		{"plant/lyon/mill/p-1/t", "hot", 1},
		{"factory/mill/p-1/state", `{"w":1}`, 1},
		{"plant/lyon/mill/p-1", "1", 1}, // not subscribed to
	} {
		if err := raw.Publish(t.Context(), m.topic, m.qos, false, []byte(m.payload)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all of it is in Kafka", func() bool { return counter(b, "records") == 4 && counter(b, "deadletters") == 2 })
	var got []string
	boots := map[string]bool{}
	for _, topic := range []string{record.TopicReadings, record.TopicEvents} {
		for _, r := range p.records(t, topic) {
			var batch signal.Batch
			if kind, _ := r.Header(record.HeaderKind); record.IsEvent(string(kind)) {
				continue
			}
			if err := record.Decode(r.Value, &batch); err != nil {
				t.Fatal(err)
			}
			boots[batch.Boot] = true
			for _, v := range batch.Readings {
				if v.AliveAt != v.EventTime || batch.Config != set.Hash() {
					t.Errorf("%+v", batch)
				}
				got = append(got, fmt.Sprintf("%s %s %d %s %v%s %s %s %v", batch.Edge, batch.Stream, batch.N, v.Sensor, v.Value.Number, v.Value.Text, v.Unit, v.Rescued, v.EventTime < 1_767_592_900_000_000))
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"lyon/mqtt lyon/mill/p-1:event 0 state 0stopped   true",
		"lyon/mqtt lyon/mill/p-1:telemetry 0 t 21.5   false",
		"lyon/mqtt lyon/mill/p-1:telemetry 1 t 22 Cel  true",
		`lyon/mqtt lyon/mill/p-2:telemetry 0 t 0on  {"extra":1} false`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(boots) != 1 || counter(b, "plain") != 4 || counter(b, "ignored") != 1 {
		t.Errorf("%d boots, %d plain messages, %d ignored", len(boots), counter(b, "plain"), counter(b, "ignored"))
	}
	for _, r := range p.records(t, record.TopicDeadletter) {
		if reason, _ := r.Header(record.HeaderReason); len(reason) == 0 {
			t.Errorf("no reason for %q", r.Value)
		}
	}
}

// What others publish with QoS 1 comes to Kafka although bridges end with it under
// way, or are not there when it is published.
func TestQoS1OutlivesTheBridge(t *testing.T) {
	p := newPlant(t)
	set, err := plain.New(plain.Config{Prefix: "plant"})
	if err != nil {
		t.Fatal(err)
	}
	start := func() (*bridge.Bridge, func()) {
		return p.bridge(t, func(o *bridge.Options) { o.Plain, o.ClientID = set, "bridge-1" })
	}
	raw := publisher(t, p)
	published := 0
	publish := func(n int) {
		t.Helper()
		for range n {
			if err := raw.Publish(t.Context(), fmt.Sprint("plant/s/l/a", published%5, "/v"), 1, false, fmt.Append(nil, published)); err != nil {
				t.Fatal(err)
			}
			published++
		}
	}
	b, stop := start()
	// The session begins with the first subscription.
	eventually(t, "the bridge has subscribed", func() bool {
		if err := raw.Publish(t.Context(), "plant/s/l/a0/v", 1, false, []byte("-1")); err != nil {
			t.Fatal(err)
		}
		return counter(b, "readings") > 0
	})
	publish(20)
	for round := range 3 {
		eventually(t, "messages are in Kafka", func() bool { return counter(b, "readings") > 0 })
		p.valve.open(false) // what comes now Kafka does not get
		before := counter(b, "plain")
		publish(20)
		eventually(t, "the bridge has them under way", func() bool { return counter(b, "plain") > before })
		stop()
		publish(20) // and nobody is there
		p.valve.open(true)
		if round == 1 {
			publish(500)
		}
		b, stop = start()
	}
	values := func() map[float64]bool {
		out := map[float64]bool{}
		for _, r := range p.records(t, record.TopicReadings) {
			var batch signal.Batch
			if err := record.Decode(r.Value, &batch); err != nil {
				t.Fatal(err)
			}
			out[batch.Readings[0].Value.Number] = true
		}
		return out
	}
	eventually(t, "every message is in Kafka", func() bool { return len(values()) == published+1 })
	stop()
}
