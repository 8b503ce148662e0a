package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/spine/deadletter"
	"github.com/headrace/headrace/spine/log"
)

// spine is an embedded one with the given letters.
func spine(t *testing.T, letters ...kafkac.Record) (kafkac.Config, deadletter.Ways, *[]string) {
	t.Helper()
	l, err := log.Start(log.Options{
		Listen: "127.0.0.1:0", Dir: t.TempDir(), Partitions: map[string]int{record.TopicDeadletter: 2, record.TopicReadings: 1}, FloorBytes: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	cfg := kafkac.Config{Brokers: []string{l.Addr()}}
	p, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	published := new([]string)
	ways := deadletter.Ways{
		Kafka: func(ctx context.Context, r kafkac.Record) error {
			done := make(chan error, 1)
			if err := p.Produce(ctx, r, func(_ int32, _ int64, err error) { done <- err }); err != nil {
				return err
			}
			return <-done
		},
		MQTT: func(_ context.Context, topic string, payload []byte) error {
			if topic == "broken" {
				return errors.New("no bridge is online")
			}
			*published = append(*published, fmt.Sprintf("%s=%s", topic, payload))
			return nil
		},
	}
	for _, r := range letters {
		r.Topic, r.Timestamp = record.TopicDeadletter, time.UnixMilli(1_600_000_000_000)
		if err := ways.Kafka(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return cfg, ways, published
}

func letter(key, topic, value string, more ...string) kafkac.Record {
	r := kafkac.Record{Key: []byte(key), Value: []byte(value), Headers: []kafkac.Header{
		{Key: record.HeaderReason, Value: []byte("why")}, {Key: record.HeaderTopic, Value: []byte(topic)},
	}}
	for i := 0; i < len(more); i += 2 {
		r.Headers = append(r.Headers, kafkac.Header{Key: more[i], Value: []byte(more[i+1])})
	}
	return r
}

func list(t *testing.T, cfg kafkac.Config) map[string]deadletter.Letter {
	t.Helper()
	all, err := deadletter.List(t.Context(), cfg, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]deadletter.Letter{}
	for _, l := range all {
		out[string(l.Value())] = l
	}
	return out
}

func TestRetry(t *testing.T) {
	cfg, ways, published := spine(t,
		letter("hall/pump/temp", "hall/pump/temp", "21"),
		letter("g/e", "spBv1.0/g/DDATA/e/l:a", "alias", "edge", "g/e"),
		letter("a/b/c", record.TopicReadings, "large", "of", "kafka", "edge", "g/e", "boot", "b", "stream", "s", "n", "4", "readings", "7"),
		letter("a/b/c", record.TopicRaw, "cut", "of", "kafka", "cut", "99"),
		letter("x", "broken", "nobody there"),
		letter("y", "", "from nowhere"),
	)
	for value, want := range map[string]string{
		"21": "", "large": "", "alias": "session that is over", "cut": "beginning", "nobody there": "no bridge", "from nowhere": "where it came from",
	} {
		l := list(t, cfg)[value]
		err := deadletter.Retry(t.Context(), l, ways)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
		if closed := list(t, cfg)[value].Closed; closed != (want == "") {
			t.Errorf("%s: closed %v", value, closed)
		}
	}
	if diff := cmp.Diff([]string{"hall/pump/temp=21"}, *published); diff != "" {
		t.Error(diff)
	}
	if err := deadletter.Retry(t.Context(), list(t, cfg)["21"], ways); err == nil || !strings.Contains(err.Error(), "retried already") {
		t.Errorf("twice: %v", err)
	}
	// The record that was too large stands in its topic with the identity that it had, and without a letter's headers.
	var got []kafkac.Record
	err := kafkac.Read(t.Context(), cfg, []kafkac.Range{{TopicPartition: kafkac.TopicPartition{Topic: record.TopicReadings}, End: 1}},
		func(r kafkac.Record) error { got = append(got, r); return nil })
	if err != nil || len(got) != 1 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	want := []kafkac.Header{{Key: "edge", Value: []byte("g/e")}, {Key: "boot", Value: []byte("b")}, {Key: "stream", Value: []byte("s")}, {Key: "n", Value: []byte("4")}}
	if diff := cmp.Diff(want, got[0].Headers); diff != "" || string(got[0].Key) != "a/b/c" || string(got[0].Value) != "large" {
		t.Errorf("%q %q %s", got[0].Key, got[0].Value, diff)
	}
}

// Values that nobody asked for are not held.
func TestListKeepsNoValues(t *testing.T) {
	cfg, _, _ := spine(t, letter("a", "b", "12345"))
	all, err := deadletter.List(t.Context(), cfg, 4)
	if err != nil || len(all) != 1 || all[0].Bytes != 5 || len(all[0].Value()) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := deadletter.Letter{Partition: rapid.Int32Min(0).Draw(t, "p"), Offset: rapid.Int64Min(0).Draw(t, "o")}
		if p, o, err := deadletter.ParseID(l.ID()); err != nil || p != l.Partition || o != l.Offset {
			t.Errorf("%s: %d %d %v", l.ID(), p, o, err)
		}
	})
	for _, s := range []string{"", "1", "1/", "/1", "-1/0", "1/-1", "a/b", "1/2/3"} {
		if _, _, err := deadletter.ParseID(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("0/17")
	f.Fuzz(func(t *testing.T, s string) {
		if p, o, err := deadletter.ParseID(s); err == nil && (p < 0 || o < 0) {
			t.Errorf("%q: %d %d", s, p, o)
		}
	})
}
