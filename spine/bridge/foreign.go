package bridge

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/sparkplug"
)

// Foreign is a Kafka topic that others fill with MQTT messages, a record each: a
// connector, or a broker's own bridge.
type Foreign struct {
	Topic string `yaml:"topic" json:"topic"`
	// MQTTTopic says where in a record the MQTT topic stands, and Payload where the
	// payload: "key", "value", "header:NAME", "json:/FIELD/…" of the value, or
	// "base64:/FIELD/…" of the value for a field that is coded so. "" are "key" and
	// "value".
	MQTTTopic string `yaml:"mqtt_topic" json:"mqtt_topic,omitempty"`
	Payload   string `yaml:"payload" json:"payload,omitempty"`
	// Retained says where it stands that the broker delivered the message from its
	// store ("true" or 1); "" nowhere.
	Retained string `yaml:"retained" json:"retained,omitempty"`
}

// Check finds what cannot be.
func (f *Foreign) Check() error {
	switch f.Topic {
	case "":
		return errors.New("topic is missing: the Kafka topic that others fill")
	case record.TopicReadings, record.TopicEvents, record.TopicRaw, record.TopicDeadletter, record.TopicBridges, record.TopicRoutes:
		return fmt.Errorf("topic %s is Headrace's own", f.Topic)
	}
	for name, where := range map[string]string{"mqtt_topic": f.MQTTTopic, "payload": f.Payload, "retained": f.Retained} {
		kind, rest, _ := strings.Cut(where, ":")
		ok := false
		switch kind {
		case "", "key", "value":
			ok = where == kind
		case "header":
			ok = rest != ""
		case "json", "base64":
			ok = strings.HasPrefix(rest, "/")
		}
		if !ok {
			return fmt.Errorf("%s: %q is no place in a record; write key, value, header:NAME, json:/FIELD or base64:/FIELD", name, where)
		}
	}
	return nil
}

// message reads the MQTT message out of a record.
func (f *Foreign) message(r *kafkac.Record) (m mqttc.Message, err error) {
	var tree any
	at := func(where, otherwise string) ([]byte, error) {
		if where == "" {
			where = otherwise
		}
		kind, rest, _ := strings.Cut(where, ":")
		switch kind {
		case "key":
			return r.Key, nil
		case "value":
			return r.Value, nil
		case "header":
			if b, ok := r.Header(rest); ok {
				return b, nil
			}
			return nil, fmt.Errorf("the record has no header %q", rest)
		}
		if tree == nil {
			if err := json.Unmarshal(r.Value, &tree); err != nil {
				return nil, fmt.Errorf("the value is no JSON: %w", err)
			}
		}
		return field(tree, rest, kind == "base64")
	}
	topic, err := at(f.MQTTTopic, "key")
	if err != nil {
		return m, fmt.Errorf("looking for the MQTT topic: %w", err)
	}
	if m.Topic = string(topic); m.Topic == "" {
		return m, errors.New("the MQTT topic is empty")
	}
	if m.Payload, err = at(f.Payload, "value"); err != nil {
		return m, fmt.Errorf("looking for the payload: %w", err)
	}
	if f.Retained != "" {
		if b, err := at(f.Retained, ""); err == nil {
			m.Retained = string(b) == "true" || string(b) == "1"
		}
	}
	return m, nil
}

// field is the text at a path of names; what is no text is JSON.
func field(v any, path string, coded bool) ([]byte, error) {
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("there is no field %s", path)
		}
		if v, ok = object[name]; !ok {
			return nil, fmt.Errorf("there is no field %s", path)
		}
	}
	text, ok := v.(string)
	if !ok {
		return json.Marshal(v)
	}
	if coded {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", path, err)
		}
		return b, nil
	}
	return []byte(text), nil
}

const (
	foreignRecords = 200         // of a poll
	foreignCommit  = time.Second // between two notes of how far the group is
)

// progress is how far a partition is taken: what comes first and is in Kafka may be
// committed.
type progress struct {
	queue []int64 // offsets that were fetched, in order
	done  map[int64]bool
	next  int64 // everything before it is in Kafka
	noted int64 // and the group knows so
}

// foreigners are the partitions of a foreign topic that this bridge holds.
type foreigners struct {
	mu    sync.Mutex
	parts map[kafkac.TopicPartition]*progress
}

// RunForeign takes what others have written to a topic of Kafka, as if a broker had
// brought it, until ctx ends. A record counts as taken, for the consumer group, when
// all that came of it is in Kafka: after a kill the rest is read again, and silver
// tells repeats by their times. Bridges of one group share the topic's partitions;
// a Sparkplug node must keep to one of them. Of cfg, the connection, the group and
// the session's time-out are used.
func (b *Bridge) RunForeign(ctx context.Context, cfg kafkac.ConsumerConfig, f Foreign) error {
	held := &foreigners{parts: map[kafkac.TopicPartition]*progress{}}
	pause := minBackoff
	for ctx.Err() == nil {
		err := b.foreignSession(ctx, cfg, f, held)
		if ctx.Err() != nil {
			break
		}
		b.warn("reading a topic that others fill; trying again", "topic", f.Topic, "error", err, "after", pause)
		if !sleep(ctx, pause) {
			break
		}
		pause = min(2*pause, maxBackoff)
	}
	return nil
}

func (b *Bridge) foreignSession(ctx context.Context, cfg kafkac.ConsumerConfig, f Foreign, held *foreigners) error {
	cfg.Topics, cfg.FromGroup, cfg.MaxFetchBytes = []string{f.Topic}, true, 4<<20
	cfg.OnRevoked = func(_ context.Context, tps []kafkac.TopicPartition, _ bool) { held.forget(tps) }
	consumer, err := kafkac.NewConsumer(cfg)
	if err != nil {
		return err
	}
	defer consumer.Close()
	defer held.forget(nil)
	last := time.Now()
	for ctx.Err() == nil {
		if !b.awaitRoom(ctx) {
			break
		}
		poll, cancel := context.WithTimeout(ctx, foreignCommit)
		fetched, err := consumer.Poll(poll, foreignRecords)
		cancel()
		if passed, ok := errors.AsType[*kafkac.OutOfRangeError](err); ok {
			return b.foreignGap(ctx, cfg.Config, consumer, passed)
		}
		if err != nil && poll.Err() == nil {
			return err
		}
		for _, p := range fetched {
			for i := range p.Records {
				b.takeForeign(ctx, f, &p.Records[i], held.take(p.TopicPartition, p.Records[i].Offset))
			}
		}
		if time.Since(last) < foreignCommit && len(fetched) > 0 {
			continue
		}
		last = time.Now()
		if next := held.taken(); len(next) > 0 {
			err := consumer.CommitOffsets(ctx, next)
			if err == nil {
				held.noted(next)
			} else if ctx.Err() == nil {
				b.warn("noting how far a topic that others fill is read; after a restart more of it is read again", "topic", f.Topic, "error", err)
			}
		}
	}
	// What Kafka takes within the farewell need not be read again.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*farewell)
	defer cancel()
	wait, stop := context.WithTimeout(end, farewell)
	b.awaitPending(wait)
	stop()
	if next := held.taken(); len(next) > 0 {
		_ = consumer.CommitOffsets(end, next) // what it does not take is read again
	}
	return nil
}

// foreignGap says that the topic has lost what was not read, and goes on with what
// it holds.
func (b *Bridge) foreignGap(ctx context.Context, cfg kafkac.Config, consumer *kafkac.Consumer, passed *kafkac.OutOfRangeError) error {
	admin, err := kafkac.NewAdmin(cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	bounds, err := admin.ListOffsets(ctx, passed.Topic)
	if err != nil {
		return err
	}
	start := bounds[passed.TopicPartition].Start
	b.count(func(c *counts) { c.foreignGaps++ })
	if err := consumer.CommitOffsets(ctx, map[kafkac.TopicPartition]int64{passed.TopicPartition: start}); err != nil {
		return err
	}
	return fmt.Errorf("%w; Kafka has thrown away what this bridge had not read: give the topic a longer retention; going on at offset %d", passed, start)
}

// takeForeign takes one record.
func (b *Bridge) takeForeign(ctx context.Context, f Foreign, r *kafkac.Record, ack func()) {
	m, err := f.message(r)
	b.receiving.Lock()
	defer b.receiving.Unlock()
	b.count(func(c *counts) { c.foreign++ })
	in := &inbound{ack: ack}
	in.left.Store(1)
	defer in.release()
	if err != nil {
		m = mqttc.Message{Topic: f.Topic, Payload: r.Value}
		err = fmt.Errorf("record %d of partition %d of Kafka topic %s: %w", r.Offset, r.Partition, f.Topic, err)
		b.deadLetter(ctx, in, m, sparkplug.Topic{}, sparkplug.Result{Reason: err.Error()}, 0)
		return
	}
	b.handle(ctx, in, m)
}

// awaitRoom waits until no more than half of what may wait for Kafka does.
func (b *Bridge) awaitRoom(ctx context.Context) bool {
	for {
		b.mu.Lock()
		room := b.pending <= b.opts.MaxPending/2
		b.mu.Unlock()
		if room {
			return true
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return false
		}
	}
}

// take notes an offset; the function says that all that came of it is in Kafka.
func (h *foreigners) take(tp kafkac.TopicPartition, offset int64) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.parts[tp]
	if p == nil {
		p = &progress{done: map[int64]bool{}}
		h.parts[tp] = p
	}
	p.queue = append(p.queue, offset)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		p.done[offset] = true
		for len(p.queue) > 0 && p.done[p.queue[0]] {
			delete(p.done, p.queue[0])
			p.next = p.queue[0] + 1
			p.queue = p.queue[1:]
		}
	}
}

// taken are the offsets that the group does not know of.
func (h *foreigners) taken() map[kafkac.TopicPartition]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[kafkac.TopicPartition]int64{}
	for tp, p := range h.parts {
		if p.next > p.noted {
			out[tp] = p.next
		}
	}
	return out
}

// noted says that the group knows how far partitions are.
func (h *foreigners) noted(next map[kafkac.TopicPartition]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for tp, n := range next {
		if p := h.parts[tp]; p != nil {
			p.noted = n
		}
	}
}

// forget drops partitions that others have now; nil drops all.
func (h *foreigners) forget(tps []kafkac.TopicPartition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if tps == nil {
		clear(h.parts)
	}
	for _, tp := range tps {
		delete(h.parts, tp)
	}
}
