package pipeline

import (
	"context"
	"slices"
	"strings"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
)

// TopicPartition is a partition of the spine.
type TopicPartition = kafkac.TopicPartition

// Feed is the spine as bronze reads it.
type Feed interface {
	// Topics tells id and partition count of topics.
	Topics(ctx context.Context, names ...string) (map[string]kafkac.Topic, error)
	// Offsets tells what each of their partitions holds.
	Offsets(ctx context.Context, names ...string) (map[TopicPartition]kafkac.Offsets, error)
	// Routed tells which topics rules have given to streams, and whether each
	// holds waveforms (true) or readings.
	Routed(ctx context.Context) (map[string]bool, error)
	// Join becomes a member of the consumer group of a bronze table, which reads
	// the topics. The callbacks mean what they mean to [kafkac.ConsumerConfig].
	Join(topics []string, assigned func(context.Context, []TopicPartition) (map[TopicPartition]int64, error),
		revoked func(context.Context, []TopicPartition, bool)) (Member, error)
}

// Member is a membership of the consumer group; [kafkac.Consumer] is one.
type Member interface {
	Poll(ctx context.Context, maxRecords int) ([]kafkac.Fetched, error)
	Seek(map[TopicPartition]int64)
	AddTopics(names ...string)
	CommitOffsets(ctx context.Context, next map[TopicPartition]int64) error
	Close()
}

// readTopics are the topics that bronze tables always take.
func readTopics() []string {
	var out []string
	for _, t := range spineTables() {
		out = append(out, t.topics...)
	}
	return out
}

// KafkaFeed reads the spine with the Kafka protocol.
type KafkaFeed struct {
	consumer kafkac.ConsumerConfig
	admin    *kafkac.Admin
	routed   func(context.Context) (map[string]bool, error)
}

// NewKafkaFeed returns a feed that joins group, and group.raw for waveforms. The consumer's topics and
// callbacks are set by the feed; the rest of cfg is used as it is. routed is [Feed]'s; nil knows none.
func NewKafkaFeed(cfg kafkac.ConsumerConfig, routed func(context.Context) (map[string]bool, error)) (*KafkaFeed, error) {
	admin, err := kafkac.NewAdmin(cfg.Config)
	if err != nil {
		return nil, err
	}
	return &KafkaFeed{consumer: cfg, admin: admin, routed: routed}, nil
}

// Close lets go of the connections that are not a member's.
func (f *KafkaFeed) Close() { f.admin.Close() }

// Topics implements [Feed].
func (f *KafkaFeed) Topics(ctx context.Context, names ...string) (map[string]kafkac.Topic, error) {
	return f.admin.Topics(ctx, names...)
}

// Offsets implements [Feed].
func (f *KafkaFeed) Offsets(ctx context.Context, names ...string) (map[TopicPartition]kafkac.Offsets, error) {
	return f.admin.ListOffsets(ctx, names...)
}

// Routed implements [Feed].
func (f *KafkaFeed) Routed(ctx context.Context) (map[string]bool, error) {
	if f.routed == nil {
		return nil, nil
	}
	return f.routed(ctx)
}

// Join implements [Feed].
func (f *KafkaFeed) Join(topics []string, assigned func(context.Context, []TopicPartition) (map[TopicPartition]int64, error),
	revoked func(context.Context, []TopicPartition, bool),
) (Member, error) {
	cfg := f.consumer
	cfg.Topics = topics
	if !slices.Contains(topics, record.TopicReadings) {
		cfg.Group += "." + topics[0][strings.LastIndexByte(topics[0], '.')+1:]
	}
	cfg.OnAssigned, cfg.OnRevoked = assigned, revoked
	return kafkac.NewConsumer(cfg)
}
