package pipeline

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Two workers over the Kafka protocol: the second joins while data comes in,
// the first leaves, and nothing is lost or doubled.
func TestKafkaFeed(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, readTopics()...), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cfg := kafkac.Config{Brokers: cluster.ListenAddrs()}
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	l := newLake(t, 2)
	l.spine.now = day + 3600e6
	e := newEdge("s/e", "b")
	sent := 0
	send := func() {
		for i := range 20 {
			b := e.message(signal.NewAsset("s", "l", string(rune('a'+i%5))), at("x", day+signal.Micros(sent)*1e6, float64(sent)))
			r := kafkac.Record{Topic: record.TopicReadings, Key: record.Key(b), Value: record.Append(nil, b), Timestamp: l.spine.now.Time()}
			if err := producer.Produce(t.Context(), r, func(_ int32, _ int64, err error) {
				if err != nil {
					t.Error(err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		if err := producer.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start := func() *running {
		feed, err := NewKafkaFeed(kafkac.ConsumerConfig{Config: cfg, Group: "lake", MaxWait: 50 * time.Millisecond}, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := l.options(nil, nil)
		o.Feed = feed
		w, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		r := &running{Worker: w, stop: stop, done: make(chan error, 1)}
		go func() {
			defer feed.Close()
			r.done <- w.Run(ctx)
		}()
		t.Cleanup(stop)
		return r
	}
	send()
	a := start()
	l.drain(a)
	b := start()
	send()
	deadline := time.Now().Add(30 * time.Second)
	for len(b.heldShards()) == 0 && time.Now().Before(deadline) {
		wait(t.Context(), 5*time.Millisecond, nil)
	}
	send()
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	for len(b.heldShards()) < Shards && time.Now().Before(deadline) {
		wait(t.Context(), 5*time.Millisecond, nil)
	}
	l.drain(b)
	if err := errors.Join(b.end()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{tableBronze, tableSilver} {
		if got := l.query("SELECT count(*), count(DISTINCT value) FROM " + l.relation(table))[0]; got != "60|60" {
			t.Errorf("%s holds %s rows and values, want 60 of each", table, got)
		}
	}
}
