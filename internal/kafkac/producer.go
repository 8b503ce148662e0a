package kafkac

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"
)

// Compression of the batches.
type Compression string

// The compressions.
const (
	Zstd Compression = "zstd"
	LZ4  Compression = "lz4"
	None Compression = "none"
)

// recordOverhead is what a buffered record costs beside its bytes.
const recordOverhead = 512

// ProducerConfig sets a Producer up.
type ProducerConfig struct {
	Config
	Compression Compression   // "" is LZ4
	Linger      time.Duration // wait for a batch to fill; 0 is 5 ms
	// MaxBufferedBytes bounds what was handed over and has no answer; 0 is
	// 96 MiB. Produce waits beyond it.
	MaxBufferedBytes int64
	// OneAtATime has a broker answer one request before it gets the next: what comes
	// meanwhile goes into that. It suits a broker that syncs request by request.
	OneAtATime bool
	// MaxMessageBytes bounds a batch, and so a record; 0 is 1,000,012, which
	// every Kafka takes unless it was told otherwise.
	MaxMessageBytes int32
}

// Producer writes records: idempotent, with the acknowledgement of all
// replicas, keys placed as the Java client places them. It never gives a
// record up: there is no time-out and no limit of retries, because an
// abandoned record may or may not have been written.
type Producer struct {
	client   *kgo.Client
	room     *semaphore.Weighted
	capacity int64
	buffered atomic.Int64
}

// NewProducer starts a producer. It dials with the first record.
func NewProducer(cfg ProducerConfig) (*Producer, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	if cfg.Linger <= 0 {
		cfg.Linger = 5 * time.Millisecond
	}
	if cfg.MaxBufferedBytes <= 0 {
		cfg.MaxBufferedBytes = 96 << 20
	}
	if cfg.MaxMessageBytes <= 0 {
		cfg.MaxMessageBytes = 1_000_012
	}
	codec := kgo.Lz4Compression()
	switch cfg.Compression {
	case Zstd:
		codec = kgo.ZstdCompression()
	case None:
		codec = kgo.NoCompression()
	case LZ4, "":
	default:
		return nil, fmt.Errorf("starting the Kafka producer: compression %q is not known; use zstd, lz4 or none", cfg.Compression)
	}
	opts = append(opts,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(codec, kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(cfg.MaxMessageBytes),
		kgo.BrokerMaxWriteBytes(max(100<<20, 2*cfg.MaxMessageBytes)),
		kgo.ProducerLinger(cfg.Linger),
		kgo.UnknownTopicRetries(-1),
		kgo.ConsiderMissingTopicDeletedAfter(10*365*24*time.Hour),
		// The bound is ours (room), because the client's ties the wait for
		// room to the life of the record.
		kgo.MaxBufferedRecords(1<<30),
	)
	if cfg.OneAtATime {
		opts = append(opts, kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("starting the Kafka producer: %w", err)
	}
	return &Producer{client: client, room: semaphore.NewWeighted(cfg.MaxBufferedBytes), capacity: cfg.MaxBufferedBytes}, nil
}

// ErrTooLarge is the fate of a record beyond the limit of a message.
var ErrTooLarge = errors.New("record is larger than Kafka takes")

// Produce hands a record over. It waits while the buffer is full, for ctx at
// most; once it returned nil, done is called exactly once, from a goroutine of
// the producer, and ctx no longer matters. done may not block. Records of one
// partition are written in the order of the calls.
func (p *Producer) Produce(ctx context.Context, r Record, done func(partition int32, offset int64, err error)) error {
	size := int64(len(r.Key)+len(r.Value)) + recordOverhead
	for _, h := range r.Headers {
		size += int64(len(h.Key) + len(h.Value))
	}
	hold := min(size, p.capacity)
	if err := p.room.Acquire(ctx, hold); err != nil {
		return fmt.Errorf("producing to %s: waiting for room: %w", r.Topic, err)
	}
	p.buffered.Add(size)
	out := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	if len(r.Headers) > 0 {
		out.Headers = make([]kgo.RecordHeader, len(r.Headers))
		for i, h := range r.Headers {
			out.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
		}
	}
	p.client.Produce(context.Background(), out, func(r *kgo.Record, err error) {
		p.buffered.Add(-size)
		p.room.Release(hold)
		if err != nil {
			if errors.Is(err, kerr.MessageTooLarge) {
				err = fmt.Errorf("%w: %w", ErrTooLarge, err)
			}
			err = fmt.Errorf("producing to %s: %w", r.Topic, err)
		}
		done(r.Partition, r.Offset, err)
	})
	return nil
}

// Buffered is the number of bytes handed over that have no answer yet.
func (p *Producer) Buffered() int64 { return p.buffered.Load() }

// Flush waits until everything handed over has its answer, or ctx ends.
func (p *Producer) Flush(ctx context.Context) error { return p.client.Flush(ctx) }

// Close ends the producer. What has no answer yet is given up with an error to
// its done; it may have been written all the same.
func (p *Producer) Close() { p.client.Close() }
