package bridge

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// The headers that dead letters have beside record's.
const (
	HeaderReadings = "readings" // how many readings a Headrace message held, decimal
	HeaderCut      = "cut"      // the size of bytes too large to keep whole, decimal
	HeaderOf       = "of"       // "kafka" if [record.HeaderTopic] is a Kafka topic
)

// recordOverhead is what a pending record costs beside its bytes, as the
// producer counts it.
const recordOverhead = 512

// maxDeadBytes is what is kept of a message that Kafka does not take.
const maxDeadBytes = 64 << 10

// inbound is an MQTT message until all that came of it is in Kafka.
type inbound struct {
	left atomic.Int32
	ack  func()
}

func (in *inbound) release() {
	if in.left.Add(-1) == 0 {
		in.ack()
	}
}

// job is one record on its way to Kafka.
type job struct {
	record   kafkac.Record
	size     int64
	in       *inbound
	ack      *ackKey // nil: no edge waits for it
	seq      uint64
	readings int64
	event    bool // a birth or a death
}

func (b *Bridge) produceBatch(ctx context.Context, in *inbound, batch *signal.Batch, ack *ackKey, seq uint64) {
	_, class := batch.Stream.Split()
	j := &job{
		record: kafkac.Record{
			Topic: record.Topic(class), Key: record.Key(batch),
			Value:   record.Append(nil, batch),
			Headers: headers(record.Headers(batch)),
		},
		in: in, ack: ack, seq: seq, readings: int64(len(batch.Readings)),
	}
	if b.opts.Routes == nil {
		b.start(ctx, j)
		return
	}
	j.record.Headers = append(j.record.Headers, headers(b.opts.Routes.Headers(batch.Stream))...)
	waiting := b.unrouted[batch.Stream]
	topic, known := b.opts.Routes.Topic(batch.Stream)
	if known && len(waiting) == 0 {
		j.record.Topic = topic
		b.start(ctx, j)
		return
	}
	b.expect(j)
	b.unrouted[batch.Stream] = append(waiting, j)
	if len(waiting) == 0 {
		b.opts.Routes.Claim(batch.Stream)
	}
}

// Routed sends what waited for a stream's topic. It is told by the routes, from
// their goroutine.
func (b *Bridge) Routed(ctx context.Context, stream signal.Stream, topic string) {
	b.receiving.Lock()
	defer b.receiving.Unlock()
	waiting := b.unrouted[stream]
	delete(b.unrouted, stream)
	for _, j := range waiting {
		j.record.Topic = topic
		b.produce(ctx, j)
	}
}

func (b *Bridge) produceEvent(ctx context.Context, in *inbound, e *sparkplug.Event) {
	ev := record.Event{Edge: e.Edge, Device: e.Device, Kind: e.Kind, Time: e.Time, BdSeq: e.BdSeq, Seq: e.Seq, Held: e.Held}
	key := string(e.Asset)
	if key == "" {
		key = e.Edge
	}
	b.start(ctx, &job{
		record: kafkac.Record{
			Topic: record.TopicEvents, Key: []byte(key),
			Value:   record.AppendEvent(nil, &ev),
			Headers: headers(ev.Headers()),
		},
		in: in, event: true,
	})
}

// deadLetter keeps a message that fits nothing. If it names a Headrace message,
// its edge hears of it as of any other: it would only send it again.
func (b *Bridge) deadLetter(ctx context.Context, in *inbound, m mqttc.Message, t sparkplug.Topic, r sparkplug.Result, readings int) {
	h := []kafkac.Header{
		{Key: record.HeaderReason, Value: []byte(r.Reason)},
		{Key: record.HeaderTopic, Value: []byte(m.Topic)},
	}
	key := m.Topic
	j := &job{in: in}
	if t.Edge != "" {
		key = t.EdgeID()
		h = append(h, kafkac.Header{Key: record.HeaderEdge, Value: []byte(key)})
	}
	if o := r.Origin; o.Boot != "" {
		h = append(h,
			kafkac.Header{Key: record.HeaderBoot, Value: []byte(o.Boot)},
			kafkac.Header{Key: record.HeaderStream, Value: []byte(o.Stream)},
			kafkac.Header{Key: record.HeaderN, Value: strconv.AppendUint(nil, o.N, 10)},
			kafkac.Header{Key: record.HeaderConfig, Value: []byte(o.Config)},
			kafkac.Header{Key: HeaderReadings, Value: strconv.AppendInt(nil, int64(readings), 10)},
		)
		j.ack, j.seq = &ackKey{t.Group, t.Edge, o.Boot}, o.Seq
	}
	j.record = kafkac.Record{Topic: record.TopicDeadletter, Key: []byte(key), Value: m.Payload, Headers: h}
	b.warn("a message goes to the dead-letter topic", "topic", m.Topic, "reason", r.Reason)
	b.start(ctx, j)
}

// produceRefused makes a dead letter of what a source of the edge refused: the
// bytes as they came to it.
func (b *Bridge) produceRefused(ctx context.Context, in *inbound, m mqttc.Message, t sparkplug.Topic, batch *signal.Batch, ack *ackKey) {
	r, err := record.ParseRefusal(batch)
	if err != nil {
		b.deadLetter(ctx, in, m, t, sparkplug.Result{Reason: err.Error(), Origin: batch.Origin}, len(batch.Readings))
		return
	}
	h := append(headers(r.Headers()), headers(record.Headers(batch))...)
	h = append(h, kafkac.Header{Key: HeaderReadings, Value: []byte("1")})
	if r.Cut > 0 {
		h = append(h, kafkac.Header{Key: HeaderCut, Value: strconv.AppendInt(nil, r.Cut, 10)})
	}
	b.start(ctx, &job{
		record: kafkac.Record{Topic: record.TopicDeadletter, Key: []byte(t.EdgeID()), Value: r.Bytes, Headers: h},
		in:     in, ack: ack, seq: batch.Seq,
	})
}

func headers(in []record.Header) []kafkac.Header {
	out := make([]kafkac.Header, len(in))
	for i, h := range in {
		out[i] = kafkac.Header(h)
	}
	return out
}

// start counts a job as pending and hands it to Kafka.
func (b *Bridge) start(ctx context.Context, j *job) {
	b.expect(j)
	b.produce(ctx, j)
}

// expect counts a job as pending.
func (b *Bridge) expect(j *job) {
	j.record.Timestamp = b.opts.Clock.Now()
	j.size = int64(len(j.record.Key)+len(j.record.Value)) + recordOverhead
	for _, h := range j.record.Headers {
		j.size += int64(len(h.Key) + len(h.Value))
	}
	j.in.left.Add(1)
	b.mu.Lock()
	b.pending += j.size
	b.mu.Unlock()
}

func (b *Bridge) produce(ctx context.Context, j *job) {
	err := b.opts.Producer.Produce(ctx, j.record, func(_ int32, _ int64, err error) {
		if err != nil {
			b.refused(j, err)
			return
		}
		b.written(j)
	})
	if err != nil {
		// ctx has ended: it is not acknowledged, so it is not lost.
		b.mu.Lock()
		b.settle(j)
		b.mu.Unlock()
	}
}

// written is told that Kafka has a record. It runs in the producer's
// goroutine.
func (b *Bridge) written(j *job) {
	b.opts.Reached.At("bridge.kafka_acked")
	b.mu.Lock()
	switch {
	case j.event:
		b.counts.events++
	case j.record.Topic == record.TopicDeadletter:
		b.counts.dead++
	default:
		b.counts.records++
		b.counts.readings += j.readings
	}
	if j.ack != nil {
		b.acknowledge(*j.ack, signal.Range{From: j.seq, To: j.seq})
	}
	b.settle(j)
	b.mu.Unlock()
	j.in.release()
}

// settle takes a job out of what is pending; b.mu is held.
func (b *Bridge) settle(j *job) {
	b.pending -= j.size
	if b.pending == 0 && b.drained != nil {
		close(b.drained)
		b.drained = nil
	}
}

// refused is told that Kafka did not take a record. Nobody else has it in a
// form that could be sent again, except for a Headrace edge, so it is produced
// until it is taken; one that is too large goes to the dead-letter topic.
func (b *Bridge) refused(j *job, err error) {
	if errors.Is(err, kafkac.ErrTooLarge) {
		j.cut(err)
	}
	b.warn("Kafka refused a record; producing it again", "topic", j.record.Topic, "error", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.repeat++
	b.again = append(b.again, j)
	wake(b.toRetry)
}

// cut makes a dead letter of a record that is too large, and cuts its bytes.
func (j *job) cut(err error) {
	if j.record.Topic != record.TopicDeadletter {
		j.record.Headers = append(j.record.Headers,
			kafkac.Header{Key: record.HeaderReason, Value: []byte(err.Error())},
			kafkac.Header{Key: record.HeaderTopic, Value: []byte(j.record.Topic)},
			kafkac.Header{Key: HeaderOf, Value: []byte("kafka")},
			kafkac.Header{Key: HeaderReadings, Value: strconv.AppendInt(nil, j.readings, 10)},
		)
		j.record.Topic, j.event = record.TopicDeadletter, false
	}
	if whole := len(j.record.Value); whole > maxDeadBytes {
		j.record.Headers = append(j.record.Headers, kafkac.Header{Key: HeaderCut, Value: strconv.AppendInt(nil, int64(whole), 10)})
		j.record.Value = j.record.Value[:maxDeadBytes]
	}
}

// retryAfter is the wait before a refused record is produced again.
const retryAfter = 500 * time.Millisecond

// retry produces refused records again until ctx ends.
func (b *Bridge) retry(ctx context.Context) {
	for {
		select {
		case <-b.toRetry:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, retryAfter) {
			return
		}
		b.mu.Lock()
		again := b.again
		b.again = nil
		b.mu.Unlock()
		for _, j := range again {
			b.produce(ctx, j)
		}
	}
}
