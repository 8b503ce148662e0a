package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// DefaultMaxTopics bounds the topics that templates make.
const DefaultMaxTopics = 256

// maxStreams bounds what is remembered.
const maxStreams = 4 << 20

const again = 500 * time.Millisecond // after an error

// memory is headrace.routes as far as it was read.
type memory struct {
	topics  map[signal.Stream]string
	feeds   map[string]bool // topics that are not the classes' own: of raw
	next    int64
	strange int64
}

func newMemory() memory {
	return memory{topics: map[signal.Stream]string{}, feeds: map[string]bool{}}
}

// take notes a record. It tells which stream is known by it, or, if another won
// before, which topic that was.
func (m *memory) take(r *kafkac.Record) (stream signal.Stream, fresh bool, winner string) {
	m.next = r.Offset + 1
	stream, err := signal.ParseStream(string(r.Key))
	topic := string(r.Value)
	if err != nil || !legalTopic.MatchString(topic) || len(m.topics) >= maxStreams {
		m.strange++
		return "", false, ""
	}
	if was, known := m.topics[stream]; known {
		if was != topic {
			return stream, false, was
		}
		return "", false, ""
	}
	_, class := stream.Split()
	if topic != record.Topic(class) {
		raw := class == signal.Raw
		if was, known := m.feeds[topic]; known && was != raw {
			topic = record.Topic(class) // a topic feeds one table
		} else {
			m.feeds[topic] = raw
		}
	}
	m.topics[stream] = topic
	return stream, true, topic
}

// partition is the one of the topic.
func partition() kafkac.TopicPartition { return kafkac.TopicPartition{Topic: record.TopicRoutes} }

// Reader follows which topics there are beside the classes' own. It is not safe
// for concurrent use.
type Reader struct {
	cfg    kafkac.Config
	memory memory
}

// NewReader returns a reader of what a Kafka holds.
func NewReader(cfg kafkac.Config) *Reader { return &Reader{cfg, newMemory()} }

// Topics reads what is new and returns the topics that rules have made, and
// whether each holds waveforms (true) or readings. A Kafka without the topic of
// routes has none.
func (r *Reader) Topics(ctx context.Context) (map[string]bool, error) {
	admin, err := kafkac.NewAdmin(r.cfg)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	there, err := admin.Existing(ctx, record.TopicRoutes)
	if err != nil || len(there) == 0 {
		return r.memory.feeds, err
	}
	bounds, err := admin.ListOffsets(ctx, record.TopicRoutes)
	if err != nil {
		return nil, err
	}
	b := bounds[partition()]
	err = kafkac.Read(ctx, r.cfg, []kafkac.Range{{TopicPartition: partition(), Start: max(b.Start, r.memory.next), End: b.End}}, func(rec kafkac.Record) error {
		r.memory.take(&rec)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading which topics streams have: %w", err)
	}
	return r.memory.feeds, nil
}

// Producer is what a table needs of [kafkac.Producer].
type Producer interface {
	Produce(ctx context.Context, r kafkac.Record, done func(partition int32, offset int64, err error)) error
}

// Options set a table up. All but Rules, MaxTopics and Log are required.
type Options struct {
	Kafka    kafkac.Config
	Producer Producer
	Clock    signal.Clock // the plant's: the time of the records
	// Make makes a topic that a rule names, unless it is there.
	Make func(ctx context.Context, topic string) error
	// Routed is told of each stream as its topic becomes known, one after the other.
	Routed func(ctx context.Context, stream signal.Stream, topic string)

	Rules     *Set // nil: each class has its topic
	MaxTopics int  // 0 is [DefaultMaxTopics]
	Log       *slog.Logger
}

// Table tells which topic a stream has, and decides it for new ones.
type Table struct {
	opts Options

	mu     sync.RWMutex
	memory memory
	made   map[string]bool
	claims []signal.Stream
	wake   chan struct{}
}

// NewTable returns a table that knows nothing until it runs.
func NewTable(o Options) (*Table, error) {
	if o.Producer == nil || o.Clock == nil || o.Make == nil || o.Routed == nil {
		return nil, errors.New("starting the routes: producer, clock and both functions must be given")
	}
	if o.Rules == nil {
		o.Rules = &Set{}
	}
	if o.MaxTopics <= 0 {
		o.MaxTopics = DefaultMaxTopics
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{opts: o, memory: newMemory(), made: map[string]bool{}, wake: make(chan struct{}, 1)}, nil
}

// Topic is a stream's topic, and false while that is not known.
func (t *Table) Topic(stream signal.Stream) (string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	topic, ok := t.memory.topics[stream]
	return topic, ok
}

// Headers are those that a stream's records have by its rule.
func (t *Table) Headers(stream signal.Stream) []record.Header { return t.opts.Rules.Headers(stream) }

// Claim asks for a topic of a stream that has none. Routed hears of it.
func (t *Table) Claim(stream signal.Stream) {
	t.mu.Lock()
	t.claims = append(t.claims, stream)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run reads and writes headrace.routes until ctx ends, over all losses of Kafka.
func (t *Table) Run(ctx context.Context) error {
	var reading sync.WaitGroup
	caught := make(chan struct{})
	reading.Go(func() { t.read(ctx, caught) })
	defer reading.Wait()
	select {
	case <-caught: // before that, what is not known may stand there
	case <-ctx.Done():
		return nil
	}
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return nil
		}
		t.mu.Lock()
		claims := t.claims
		t.claims = nil
		t.mu.Unlock()
		for _, s := range claims {
			if _, known := t.Topic(s); known {
				continue
			}
			if !t.claim(ctx, s) {
				return nil
			}
		}
	}
}

// claim writes which topic a stream is to have. It is false when ctx ends.
func (t *Table) claim(ctx context.Context, s signal.Stream) bool {
	_, class := s.Split()
	topic := t.opts.Rules.Topic(s)
	if own := record.Topic(class); topic != own {
		if err := t.usable(topic, class); err != nil {
			t.opts.Log.Warn("a stream keeps the topic of its class", "stream", string(s), "rule", topic, "cause", err)
			topic = own
		}
	}
	for {
		err := t.make(ctx, topic, class)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		t.opts.Log.Warn("making a stream's topic; trying again", "stream", string(s), "topic", topic, "error", err)
		if !sleep(ctx, again) {
			return false
		}
	}
	t.write(ctx, s, topic)
	return ctx.Err() == nil
}

// usable tells why a topic cannot be a stream's.
func (t *Table) usable(topic string, class signal.Class) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	raw, known := t.memory.feeds[topic]
	switch {
	case known && raw != (class == signal.Raw):
		return errors.New("it feeds the other table: give waveforms a topic of their own")
	case !known && len(t.memory.feeds) >= t.opts.MaxTopics:
		return fmt.Errorf("rules have made %d topics already; name fewer, or use fewer {names} in them", t.opts.MaxTopics)
	}
	return nil
}

func (t *Table) make(ctx context.Context, topic string, class signal.Class) error {
	if topic == record.Topic(class) || t.made[topic] {
		return nil
	}
	if err := t.opts.Make(ctx, topic); err != nil {
		return err
	}
	t.made[topic] = true
	return nil
}

// write produces a record until Kafka has it: what is claimed waits for it.
func (t *Table) write(ctx context.Context, s signal.Stream, topic string) {
	rec := kafkac.Record{Topic: record.TopicRoutes, Key: []byte(s), Value: []byte(topic), Timestamp: t.opts.Clock.Now()}
	err := t.opts.Producer.Produce(ctx, rec, func(_ int32, _ int64, err error) {
		if err != nil && ctx.Err() == nil {
			t.opts.Log.Warn("writing a stream's topic; trying again", "stream", string(s), "topic", topic, "error", err)
			t.Claim(s)
		}
	})
	if err != nil && ctx.Err() == nil {
		t.Claim(s)
	}
}

// read follows headrace.routes, and closes caught when it has read what was there
// at the start.
func (t *Table) read(ctx context.Context, caught chan struct{}) {
	var end int64 = -1
	for ctx.Err() == nil {
		err := t.readOn(ctx, &end, caught)
		if ctx.Err() != nil {
			return
		}
		t.opts.Log.Warn("reading which topics streams have; trying again", "error", err)
		sleep(ctx, again)
	}
}

func (t *Table) readOn(ctx context.Context, end *int64, caught chan struct{}) error {
	admin, err := kafkac.NewAdmin(t.opts.Kafka)
	if err != nil {
		return err
	}
	bounds, err := admin.ListOffsets(ctx, record.TopicRoutes)
	admin.Close()
	if err != nil {
		return err
	}
	b := bounds[partition()]
	next := max(t.memory.next, b.Start)
	tell := func(next int64) {
		if *end >= 0 && next >= *end {
			close(caught)
			*end = math.MinInt64
		}
	}
	if *end == -1 {
		*end = b.End
		tell(next)
	}
	return kafkac.Read(ctx, t.opts.Kafka, []kafkac.Range{{TopicPartition: partition(), Start: next, End: math.MaxInt64}}, func(r kafkac.Record) error {
		t.mu.Lock()
		stream, fresh, topic := t.memory.take(&r)
		t.mu.Unlock()
		switch {
		case fresh:
			t.opts.Routed(ctx, stream, topic)
		case stream != "":
			// Compaction keeps what was written last, so what won is written last.
			t.write(ctx, stream, topic)
		}
		tell(r.Offset + 1)
		return nil
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
