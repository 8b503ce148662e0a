package bridge_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
)

func (p *plant) produce(t *testing.T, records ...kafkac.Record) {
	t.Helper()
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: p.kafka()})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for _, r := range records {
		if err := producer.Produce(t.Context(), r, func(_ int32, _ int64, err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (p *plant) make(t *testing.T, topic string, partitions int) {
	t.Helper()
	admin, err := kafkac.NewAdmin(p.kafka())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.EnsureTopics(t.Context(), map[string]int{topic: partitions}, nil); err != nil {
		t.Fatal(err)
	}
}

// foreign runs a bridge that reads such a topic, until stop.
func (p *plant) foreign(t *testing.T, f bridge.Foreign) (b *bridge.Bridge, stop func()) {
	t.Helper()
	set, err := plain.New(plain.Config{Prefix: "plant"})
	if err != nil {
		t.Fatal(err)
	}
	b, end := p.bridge(t, func(o *bridge.Options) { o.Plain = set })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.RunForeign(ctx, kafkac.ConsumerConfig{Config: p.kafka(), Group: "foreign", SessionTimeout: time.Second}, f)
	}()
	return b, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		end()
	}
}

func coded(topic, payload string) []byte {
	return fmt.Appendf(nil, `{"msg": {"topic": %q, "payload": %q, "retain": false}}`, topic, base64.StdEncoding.EncodeToString([]byte(payload)))
}

// The shapes in which connectors and brokers write MQTT messages to Kafka.
func TestForeignShapes(t *testing.T) {
	for name, c := range map[string]struct {
		foreign bridge.Foreign
		records []kafkac.Record
	}{
		"key and value": {bridge.Foreign{}, []kafkac.Record{
			{Key: []byte("plant/s/l/a/temp"), Value: []byte(`{"ts": 1000, "value": 7.5}`)}, {Key: []byte("nothing"), Value: []byte("x")},
		}},
		"headers": {bridge.Foreign{MQTTTopic: "header:mqtt.topic", Retained: "header:mqtt.retained"}, []kafkac.Record{
			{Headers: []kafkac.Header{{Key: "mqtt.topic", Value: []byte("plant/s/l/a/temp")}}, Value: []byte(`{"ts": 1000, "value": 7.5}`)},
			{Headers: []kafkac.Header{{Key: "mqtt.topic", Value: []byte("plant/s/l/a/temp")}, {Key: "mqtt.retained", Value: []byte("true")}}, Value: []byte("5")},
			{Value: []byte("9")},
		}},
		"JSON": {bridge.Foreign{MQTTTopic: "json:/topic", Payload: "json:/payload"}, []kafkac.Record{
			{Value: []byte(`{"topic": "plant/s/l/a/temp", "payload": "{\"ts\": 1000, \"value\": 7.5}"}`)}, {Value: []byte("[")},
		}},
		"JSON of JSON": {bridge.Foreign{MQTTTopic: "json:/topic", Payload: "json:/payload"}, []kafkac.Record{
			{Value: []byte(`{"topic": "plant/s/l/a/temp", "payload": {"ts": 1000, "value": 7.5}}`)}, {Value: []byte(`{"topic": "a"}`)},
		}},
		"coded": {bridge.Foreign{MQTTTopic: "json:/msg/topic", Payload: "base64:/msg/payload"}, []kafkac.Record{
			{Value: coded("plant/s/l/a/temp", `{"ts": 1000, "value": 7.5}`)}, {Value: []byte(`{"msg": {"topic": "plant/s/l/a/temp", "payload": "*"}}`)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			c.foreign.Topic = "factory"
			if err := c.foreign.Check(); err != nil {
				t.Fatal(err)
			}
			p.make(t, "factory", 1)
			for i := range c.records {
				c.records[i].Topic, c.records[i].Timestamp = "factory", time.Now()
			}
			p.produce(t, c.records...)
			b, stop := p.foreign(t, c.foreign)
			eventually(t, "all records are read and in Kafka", func() bool {
				return counter(b, "foreign") == int64(len(c.records)) && counter(b, "deadletters") == 1 && counter(b, "readings") == 1
			})
			stop()
			got := p.records(t, record.TopicReadings)
			var batch signal.Batch
			if err := record.Decode(got[0].Value, &batch); err != nil || len(got) != 1 {
				t.Fatal(len(got), err)
			}
			want := []signal.Reading{{Sensor: "temp", EventTime: 1_000_000, AliveAt: 1_000_000, Value: signal.NumberValue(7.5), Quality: signal.QualityGood}}
			if diff := cmp.Diff(want, batch.Readings); diff != "" {
				t.Error(diff)
			}
			dead := p.records(t, record.TopicDeadletter)
			reason, _ := dead[0].Header(record.HeaderReason)
			if len(reason) == 0 || len(dead[0].Value) == 0 {
				t.Errorf("the dead letter says %q of %q", reason, dead[0].Value)
			}
		})
	}
}

// Bridges come and go while a topic is filled, and Kafka is not there for a while:
// every record is in Kafka, and what the group has noted is not read again.
func TestForeignLosesNothing(t *testing.T) {
	p := newPlant(t)
	p.make(t, "factory", 3)
	const rounds, each = 6, 50
	written := 0
	var read int64
	for round := range rounds {
		var records []kafkac.Record
		for range each {
			records = append(records, kafkac.Record{
				Topic: "factory", Key: fmt.Appendf(nil, "plant/s/l/a%d/temp", written%7), Value: fmt.Appendf(nil, `{"ts": %d, "value": %d}`, written+1, written), Timestamp: time.Now(),
			})
			written++
		}
		p.produce(t, records...)
		b, stop := p.foreign(t, bridge.Foreign{Topic: "factory"})
		if round%3 == 1 {
			eventually(t, "the bridge reads", func() bool { return counter(b, "foreign") > 0 })
			p.valve.open(false)
			stop()
			p.valve.open(true)
			read += counter(b, "foreign")
			continue
		}
		eventually(t, "the bridge has read and written", func() bool {
			return counter(b, "foreign") >= each && counter(b, "readings") == counter(b, "foreign")
		})
		stop()
		read += counter(b, "foreign")
	}
	b, stop := p.foreign(t, bridge.Foreign{Topic: "factory"})
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
	eventually(t, "every value is in Kafka", func() bool { return len(values()) == written })
	stop()
	if read += counter(b, "foreign"); read > 2*int64(written) {
		t.Errorf("%d records were read for %d", read, written)
	}
}

func TestForeignThatIsWrong(t *testing.T) {
	for want, f := range map[string]bridge.Foreign{
		"topic is missing":      {},
		"Headrace's own":        {Topic: record.TopicEvents},
		"mqtt_topic: \"he\"":    {Topic: "x", MQTTTopic: "he"},
		"payload: \"json:a\"":   {Topic: "x", Payload: "json:a"},
		"retained: \"header:\"": {Topic: "x", Retained: "header:"},
	} {
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", f, err, want)
		}
	}
}
