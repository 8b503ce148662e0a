package kafkac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerConfig sets a Consumer up.
type ConsumerConfig struct {
	Config
	Group  string
	Topics []string
	// SessionTimeout is how long a member may be silent; 0 is 45 s.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long OnRevoked may take; 0 is 60 s.
	RebalanceTimeout time.Duration
	MaxFetchBytes    int32         // of one fetch; 0 is 16 MiB
	MaxWait          time.Duration // of an idle fetch at the broker; 0 is 1 s

	// FromGroup starts where the group has committed, or at the beginning. Without
	// it OnAssigned says where.
	FromGroup bool

	// OnAssigned returns the offset to start at for each partition that was
	// given to this member. It is called before anything of them is fetched.
	// An error of it, or a partition left out, ends the consumer: Poll returns
	// it. ctx ends when the group moves on.
	OnAssigned func(ctx context.Context, partitions []TopicPartition) (map[TopicPartition]int64, error)

	// OnRevoked is called when partitions are taken away, before another
	// member gets them, and returns when the caller has let go of them. ctx
	// ends after RebalanceTimeout; when lost is true the group has already
	// given them to another. A Poll that returned before the call may have
	// brought records of these partitions; they must not be worked on after.
	OnRevoked func(ctx context.Context, partitions []TopicPartition, lost bool)
}

// Consumer reads topics as a member of a group. Where it starts is decided by
// OnAssigned, and it never skips: an offset that the log does not hold ends
// the partition with [*OutOfRangeError].
type Consumer struct {
	client *kgo.Client
	cfg    ConsumerConfig
	// alive ends, with the cause, when the consumer cannot go on.
	alive context.Context //nolint:containedctx // the consumer's own life, not a caller's
	fail  context.CancelCauseFunc
}

// OutOfRangeError says that a partition does not hold the offset it was to be
// read from.
type OutOfRangeError struct {
	TopicPartition
	Err error
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("reading %s: the log does not hold the offset asked for: %v", e.TopicPartition, e.Err)
}

// Unwrap returns the client's error.
func (e *OutOfRangeError) Unwrap() error { return e.Err }

// Fetched is what one poll brought of one partition.
type Fetched struct {
	TopicPartition
	Records []Record
	// HighWatermark is the partition's end as the broker last told it.
	HighWatermark int64
}

// NewConsumer joins the group. The group is left by Close.
func NewConsumer(cfg ConsumerConfig) (*Consumer, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	if (cfg.OnAssigned == nil) != cfg.FromGroup || cfg.Group == "" || len(cfg.Topics) == 0 {
		return nil, errors.New("starting a Kafka consumer: it needs a group, topics, and either OnAssigned or FromGroup")
	}
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = 45 * time.Second
	}
	if cfg.RebalanceTimeout <= 0 {
		cfg.RebalanceTimeout = 60 * time.Second
	}
	if cfg.MaxFetchBytes <= 0 {
		cfg.MaxFetchBytes = 16 << 20
	}
	if cfg.MaxWait <= 0 {
		cfg.MaxWait = time.Second
	}
	c := &Consumer{cfg: cfg}
	c.alive, c.fail = context.WithCancelCause(context.Background())
	opts = append(opts,
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, cfg.SessionTimeout/3)),
		kgo.RebalanceTimeout(cfg.RebalanceTimeout),
		kgo.DisableAutoCommit(),
		kgo.ConsumeStartOffset(kgo.NoResetOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.FetchMaxBytes(cfg.MaxFetchBytes),
		kgo.FetchMaxPartitionBytes(max(cfg.MaxFetchBytes/4, 1<<20)),
		kgo.FetchMaxWait(cfg.MaxWait),
		kgo.AdjustFetchOffsetsFn(c.assigned),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, m map[string][]int32) { c.revoked(ctx, m, false) }),
		kgo.OnPartitionsLost(func(ctx context.Context, _ *kgo.Client, m map[string][]int32) { c.revoked(ctx, m, true) }),
	)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("starting the Kafka consumer of group %s: %w", cfg.Group, err)
	}
	c.client = client
	return c, nil
}

// assigned replaces the group's offsets by the caller's.
func (c *Consumer) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	if err := context.Cause(c.alive); err != nil {
		return nil, err
	}
	if c.cfg.FromGroup {
		return offsets, nil
	}
	var partitions []TopicPartition
	for topic, ps := range offsets {
		for p := range ps {
			partitions = append(partitions, TopicPartition{topic, p})
		}
	}
	if len(partitions) == 0 {
		return offsets, nil
	}
	slices.SortFunc(partitions, comparePartitions)
	starts, err := c.cfg.OnAssigned(ctx, partitions)
	if err != nil {
		// A rebalance that came in between asks again.
		if ctx.Err() == nil {
			c.fail(fmt.Errorf("taking over partitions of group %s: %w", c.cfg.Group, err))
		}
		return nil, err
	}
	for _, tp := range partitions {
		at, ok := starts[tp]
		if !ok || at < 0 {
			err := fmt.Errorf("taking over partitions of group %s: no start offset for %s", c.cfg.Group, tp)
			c.fail(err)
			return nil, err
		}
		offsets[tp.Topic][tp.Partition] = kgo.NoResetOffset().At(at).WithEpoch(-1)
	}
	return offsets, nil
}

func (c *Consumer) revoked(ctx context.Context, m map[string][]int32, lost bool) {
	var partitions []TopicPartition
	for topic, ps := range m {
		for _, p := range ps {
			partitions = append(partitions, TopicPartition{topic, p})
		}
	}
	if len(partitions) == 0 || c.cfg.OnRevoked == nil {
		return
	}
	slices.SortFunc(partitions, comparePartitions)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RebalanceTimeout)
	defer cancel()
	c.cfg.OnRevoked(ctx, partitions, lost)
}

// Poll waits for records and returns at most maxRecords, by partition. Errors
// that pass are retried inside; an error of Poll is the end, unless it is
// ctx's.
func (c *Consumer) Poll(ctx context.Context, maxRecords int) ([]Fetched, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.alive, cancel)()
	fetches := c.client.PollRecords(ctx, maxRecords)
	if err := context.Cause(c.alive); err != nil {
		return nil, err
	}
	if err := firstError(fetches); err != nil {
		return nil, err
	}
	return collect(fetches), nil
}

// firstError returns the error that ends reading, if there is one.
func firstError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		switch {
		case e.Err == nil:
		case errors.Is(e.Err, kgo.ErrClientClosed):
			return fmt.Errorf("reading from Kafka: %w", e.Err)
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			return &OutOfRangeError{TopicPartition{e.Topic, e.Partition}, e.Err}
		case inGroup(e.Err) && refusedByGroup(e.Err):
			return fmt.Errorf("joining the Kafka group: %w; lengthen --kafka-session if it is the session's time-out (Kafka wants 6 s to 30 min), or grant the user the group", e.Err)
		case inGroup(e.Err):
			// The group has dropped this member, as after a long sleep; the client
			// joins anew by itself, and OnRevoked has been called.
		case e.Topic == "":
			return e.Err // ctx's
		default:
			return fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	return nil
}

func inGroup(err error) bool { return errors.As(err, new(*kgo.ErrGroupSession)) }

// refusedByGroup tells whether the group will never take this member as it is;
// the client would try for ever.
func refusedByGroup(err error) bool {
	return slices.ContainsFunc([]*kerr.Error{
		kerr.InvalidSessionTimeout, kerr.InconsistentGroupProtocol, kerr.InvalidGroupID, kerr.GroupMaxSizeReached,
		kerr.GroupAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed,
	}, func(k *kerr.Error) bool { return errors.Is(err, k) })
}

func collect(fetches kgo.Fetches) []Fetched {
	var out []Fetched
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		f := Fetched{
			TopicPartition: TopicPartition{p.Topic, p.Partition},
			Records:        make([]Record, len(p.Records)), HighWatermark: p.HighWatermark,
		}
		for i, r := range p.Records {
			f.Records[i] = fromClient(r)
		}
		out = append(out, f)
	})
	return out
}

func fromClient(r *kgo.Record) Record {
	out := Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Timestamp: r.Timestamp, Key: r.Key, Value: r.Value,
	}
	if len(r.Headers) > 0 {
		out.Headers = make([]Header, len(r.Headers))
		for i, h := range r.Headers {
			out.Headers[i] = Header{h.Key, h.Value}
		}
	}
	return out
}

// Seek goes on reading at the given offsets, of partitions that this member
// holds; others are ignored. What was fetched and not polled is dropped.
func (c *Consumer) Seek(to map[TopicPartition]int64) {
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	for tp, at := range to {
		if offsets[tp.Topic] == nil {
			offsets[tp.Topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[tp.Topic][tp.Partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	c.client.SetOffsets(offsets)
}

// AddTopics reads more topics, in addition to the others.
func (c *Consumer) AddTopics(topics ...string) { c.client.AddConsumeTopics(topics...) }

// CommitOffsets records how far the group is, for lag displays. Nothing is
// read back from it.
func (c *Consumer) CommitOffsets(ctx context.Context, next map[TopicPartition]int64) error {
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	for tp, at := range next {
		if offsets[tp.Topic] == nil {
			offsets[tp.Topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[tp.Topic][tp.Partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	var failed error
	c.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		failed = err
		if err != nil {
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil && failed == nil {
					failed = fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
				}
			}
		}
	})
	if failed != nil {
		return fmt.Errorf("committing offsets of group %s: %w", c.cfg.Group, failed)
	}
	return nil
}

// Close leaves the group, calling OnRevoked for what is held, and ends the
// consumer. It must not be called from OnAssigned or OnRevoked.
func (c *Consumer) Close() { c.client.Close() }
