package routes_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/log"
	"github.com/headrace/headrace/spine/routes"
)

func TestRules(t *testing.T) {
	set, err := routes.New(routes.Config{Routes: []routes.Rule{
		{Site: "lyon", Class: "raw", Topic: "waves.{site}"},
		{Site: "lyon", Line: "pack*", Topic: "lyon.{line}.{class}", Headers: map[string]string{"plant": "7", "area": "north"}},
		{Asset: "spare-?", Topic: "spares"},
		{Site: strings.Repeat("x", 100), Topic: "{site}{line}{asset}"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 100)
	for stream, want := range map[signal.Stream]string{
		"lyon/packing/p-1:raw":                                   "waves.lyon",
		"lyon/packing/p-1:telemetry":                             "lyon.packing.telemetry",
		"lyon/packung ä/p-1:event":                               "lyon.packung__.event",
		"lyon/mill/p-1:telemetry":                                record.TopicReadings,
		"kiel/mill/spare-3:event":                                "spares",
		"kiel/mill/spare-3:raw":                                  record.TopicRaw,
		signal.Stream(long + "/" + long + "/" + long + ":event"): record.TopicEvents, // no name for a topic
	} {
		if got := set.Topic(stream); got != want {
			t.Errorf("%s goes to %s, want %s", stream, got, want)
		}
	}
	want := []record.Header{{Key: "area", Value: []byte("north")}, {Key: "plant", Value: []byte("7")}}
	if diff := cmp.Diff(want, set.Headers("lyon/packing/p-1:telemetry")); diff != "" {
		t.Error(diff)
	}
}

func TestRulesThatAreWrong(t *testing.T) {
	for want, rules := range map[string][]routes.Rule{
		"no glob":             {{Site: "[", Topic: "a"}},
		"is not known; write": {{Class: "slow", Topic: "a"}},
		"{plant}":             {{Topic: "a.{plant}"}},
		"none that Kafka":     {{Topic: "a b"}},
		"Headrace's own; wha": {{Topic: record.TopicEvents}},
		"different tables":    {{Topic: "a", Class: "raw"}, {Topic: "a", Class: "event"}},
		"header \"edge\"":     {{Topic: "a", Headers: map[string]string{"edge": "x"}}},
	} {
		if _, err := routes.New(routes.Config{Routes: rules}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", rules, err, want)
		}
	}
}

type world struct {
	log   *log.Log
	kafka kafkac.Config
	made  map[string]int
	mu    sync.Mutex
}

func newWorld(t *testing.T) *world {
	l, err := log.Start(log.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), Partitions: map[string]int{record.TopicRoutes: 1}, FloorBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return &world{log: l, kafka: kafkac.Config{Brokers: []string{l.Addr()}}, made: map[string]int{}}
}

// member is one bridge's table.
type member struct {
	table *routes.Table
	mu    sync.Mutex
	heard map[signal.Stream]string
}

func (w *world) member(t *testing.T, rules []routes.Rule, limit int) *member {
	set, err := routes.New(routes.Config{Routes: rules})
	if err != nil {
		t.Fatal(err)
	}
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: w.kafka})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{heard: map[signal.Stream]string{}}
	m.table, err = routes.NewTable(routes.Options{
		Kafka: w.kafka, Producer: producer, Clock: signal.WallClock{}, Rules: set, MaxTopics: limit,
		Make: func(_ context.Context, topic string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.made[topic]++
			return nil
		},
		Routed: func(_ context.Context, s signal.Stream, topic string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if was, twice := m.heard[s]; twice {
				t.Errorf("%s is told twice: %s, %s", s, was, topic)
			}
			m.heard[s] = topic
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.table.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		producer.Close()
	})
	return m
}

func (m *member) await(t *testing.T, streams ...signal.Stream) map[signal.Stream]string {
	t.Helper()
	out := map[signal.Stream]string{}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(30 * time.Second)
	for _, s := range streams {
		for {
			topic, ok := m.table.Topic(s)
			if ok {
				out[s] = topic
				break
			}
			select {
			case <-look.C:
			case <-deadline:
				t.Fatalf("%s has no topic after 30 s", s)
			}
		}
	}
	return out
}

// Bridges with different rules claim the same streams at once: each stream has one
// topic for all of them, for those that come later with other rules, and for who
// only reads.
func TestFirstWriteWins(t *testing.T) {
	w := newWorld(t)
	var streams []signal.Stream
	for i := range 60 {
		streams = append(streams, signal.NewStream(signal.NewAsset("s", "l", fmt.Sprint("a", i)), []signal.Class{signal.Telemetry, signal.Raw}[i%2]))
	}
	var members []*member
	for i := range 3 {
		members = append(members, w.member(t, []routes.Rule{
			{Class: "telemetry", Topic: fmt.Sprint("readings-", i)}, {Class: "raw", Topic: fmt.Sprint("raw-", i)},
		}, 0))
	}
	var claiming sync.WaitGroup
	for i, m := range members {
		claiming.Go(func() {
			for j := range streams {
				m.table.Claim(streams[(j+20*i)%len(streams)])
			}
		})
	}
	claiming.Wait()
	want := members[0].await(t, streams...)
	topics := map[string]int{}
	for _, topic := range want {
		topics[topic]++
	}
	// One more bridge, which had not yet read what the others wrote.
	slow, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: w.kafka})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	for _, s := range streams[:20] {
		rec := kafkac.Record{Topic: record.TopicRoutes, Key: []byte(s), Value: []byte("late"), Timestamp: time.Now()}
		if err := slow.Produce(t.Context(), rec, func(_ int32, _ int64, err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := slow.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, m := range append(members[1:], w.member(t, nil, 0)) {
		if diff := cmp.Diff(want, m.await(t, streams...)); diff != "" {
			t.Errorf("bridge %d: %s", i+1, diff)
		}
	}
	got, err := routes.NewReader(w.kafka).Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for topic := range topics {
		raw, ok := got[topic]
		if !ok || raw != strings.HasPrefix(topic, "raw-") {
			t.Errorf("topic %s: %t %t", topic, ok, raw)
		}
	}
	// What compaction keeps, the last record of each stream, says the same.
	last := map[signal.Stream]string{}
	deadline := time.Now().Add(30 * time.Second)
	for !cmp.Equal(want, last) {
		if time.Now().After(deadline) {
			t.Fatal(cmp.Diff(want, last))
		}
		bounds, err := w.log.Bounds()
		if err != nil {
			t.Fatal(err)
		}
		tp := kafkac.TopicPartition{Topic: record.TopicRoutes}
		if err := kafkac.Read(t.Context(), w.kafka, []kafkac.Range{{TopicPartition: tp, End: bounds[tp].End}}, func(r kafkac.Record) error {
			last[signal.Stream(r.Key)] = string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// A topic feeds one table, and templates make no more topics than allowed.
func TestTopicsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	m := w.member(t, []routes.Rule{{Class: "raw", Topic: "x"}, {Site: "many", Topic: "{asset}"}, {Topic: "{site}"}}, 3)
	for _, s := range []signal.Stream{"s/l/a:raw", "x/l/a:telemetry", "many/l/1:event", "many/l/2:event", "many/l/3:event", "many/l/2:telemetry"} {
		m.table.Claim(s)
		m.await(t, s)
	}
	want := map[signal.Stream]string{
		"s/l/a:raw": "x", "x/l/a:telemetry": record.TopicReadings,
		"many/l/1:event": "1", "many/l/2:event": "2", "many/l/3:event": record.TopicEvents, "many/l/2:telemetry": "2",
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if diff := cmp.Diff(want, m.heard); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"x": 1, "1": 1, "2": 1}, w.made); diff != "" {
		t.Error(diff)
	}
}
