package kafkac

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Admin asks a cluster about its topics and changes them.
type Admin struct {
	client *kgo.Client
	adm    *kadm.Client
}

// NewAdmin starts an admin client. It dials with the first question.
func NewAdmin(cfg Config) (*Admin, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("starting the Kafka admin client: %w", err)
	}
	return &Admin{client: client, adm: kadm.NewClient(client)}, nil
}

// Close ends the client.
func (a *Admin) Close() { a.client.Close() }

// Ping asks whether a broker answers.
func (a *Admin) Ping(ctx context.Context) error { return a.client.Ping(ctx) }

// EnsureTopics creates the topics that are missing. A topic that exists with
// another number of partitions is an error: the number is fixed for the life
// of a topic, because it decides the partition of a key.
func (a *Admin) EnsureTopics(ctx context.Context, partitions map[string]int, configs map[string]string) error {
	names := sortedKeys(partitions)
	details, err := a.describe(ctx, names)
	if err != nil {
		return err
	}
	values := make(map[string]*string, len(configs))
	for k, v := range configs {
		values[k] = &v
	}
	for _, name := range names {
		want := partitions[name]
		if d, ok := details[name]; ok {
			if d.Partitions != want {
				return fmt.Errorf("topic %s has %d partitions, and %d are configured; the number is fixed for a topic's life, so configure %d", name, d.Partitions, want, d.Partitions)
			}
			continue
		}
		resp, err := a.adm.CreateTopic(ctx, int32(want), -1, values, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("creating topic %s with %d partitions: %w %s", name, want, err, resp.ErrMessage)
		}
	}
	return nil
}

// Forgetting is a setting of a topic that gives records up by itself.
type Forgetting struct{ Topic, Setting, Value, Wanted string }

// Forgets tells which of the topics give records up by themselves, whoever has
// or has not read them.
func (a *Admin) Forgets(ctx context.Context, topics ...string) ([]Forgetting, error) {
	settings, err := a.Settings(ctx, topics...)
	if err != nil {
		return nil, err
	}
	wanted := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
	var out []Forgetting
	for _, topic := range sortedKeys(settings) {
		for _, key := range sortedKeys(wanted) {
			if v, ok := settings[topic][key]; ok && v != wanted[key] {
				out = append(out, Forgetting{topic, key, v, wanted[key]})
			}
		}
	}
	return out, nil
}

// Settings returns how the topics are configured, defaults included.
func (a *Admin) Settings(ctx context.Context, topics ...string) (map[string]map[string]string, error) {
	all, err := a.adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("describing topics: %w", err)
	}
	out := make(map[string]map[string]string)
	for _, topic := range all {
		if topic.Err != nil {
			return nil, fmt.Errorf("describing topic %s: %w", topic.Name, topic.Err)
		}
		out[topic.Name] = make(map[string]string)
		for _, c := range topic.Configs {
			out[topic.Name][c.Key] = c.MaybeValue()
		}
	}
	return out, nil
}

// Bytes returns what each partition of the topics takes on disk: of its
// replicas the largest, as far as their brokers live.
func (a *Admin) Bytes(ctx context.Context, topics ...string) (map[TopicPartition]int64, error) {
	set := make(kadm.TopicsSet)
	for _, t := range topics {
		set.Add(t)
	}
	details, err := a.describe(ctx, topics)
	if err != nil {
		return nil, err
	}
	for t, d := range details {
		for p := range int32(d.Partitions) {
			set.Add(t, p)
		}
	}
	brokers, err := a.adm.DescribeAllLogDirs(ctx, set)
	// A dead broker does not tell; what the others hold is told by them.
	if some, ok := errors.AsType[*kadm.ShardErrors](err); err != nil && (!ok || some.AllFailed) {
		return nil, fmt.Errorf("asking for the size of %s: %w", strings.Join(topics, ", "), err)
	}
	out := make(map[TopicPartition]int64)
	brokers.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			tp := TopicPartition{p.Topic, p.Partition}
			out[tp] = max(out[tp], p.Size)
		})
	})
	return out, nil
}

// OffsetsAt returns for every partition of the topics the offset of the first
// record with the given time or a later one; the end if there is none.
func (a *Admin) OffsetsAt(ctx context.Context, at time.Time, topics ...string) (map[TopicPartition]int64, error) {
	found, err := a.adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topics...)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s in %s: %w", at.UTC().Format(time.RFC3339), strings.Join(topics, ", "), err)
	}
	out := make(map[TopicPartition]int64)
	found.Each(func(o kadm.ListedOffset) { out[TopicPartition{o.Topic, o.Partition}] = o.Offset })
	return out, nil
}

// Topic is what a cluster says of a topic.
type Topic struct {
	ID         string // the topic's UUID in Kafka's base64 spelling
	Partitions int
}

// Topics returns the named topics; one that does not exist is an error.
func (a *Admin) Topics(ctx context.Context, names ...string) (map[string]Topic, error) {
	topics, err := a.describe(ctx, names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, ok := topics[name]; !ok {
			return nil, fmt.Errorf("listing topic %s: %w", name, kerr.UnknownTopicOrPartition)
		}
	}
	return topics, nil
}

// Existing returns those of the named topics that exist.
func (a *Admin) Existing(ctx context.Context, names ...string) (map[string]Topic, error) {
	return a.describe(ctx, names)
}

// topicPoll is how often AwaitTopics asks.
const topicPoll = 50 * time.Millisecond

// AwaitTopics waits until every broker knows the topics: they hear of a new one
// a little after the one that made it, and a client may ask any of them.
func (a *Admin) AwaitTopics(ctx context.Context, names ...string) error {
	for {
		err := a.known(ctx, names)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(topicPoll):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the topics %s: %w: %w", strings.Join(names, ", "), ctx.Err(), err)
		}
	}
}

func (a *Admin) known(ctx context.Context, names []string) error {
	brokers, err := a.adm.ListBrokers(ctx)
	if err != nil {
		return err
	}
	for _, b := range brokers.NodeIDs() {
		topics, err := a.describeBy(ctx, a.client.Broker(int(b)), names)
		if err != nil {
			return err
		}
		if len(topics) < len(names) {
			return fmt.Errorf("broker %d knows %d of them", b, len(topics))
		}
	}
	return nil
}

// describe returns those of the topics that exist. It asks the broker: the
// client's cached answer may be older than the last change.
func (a *Admin) describe(ctx context.Context, names []string) (map[string]Topic, error) {
	return a.describeBy(ctx, a.client, names)
}

func (a *Admin) describeBy(ctx context.Context, by kmsg.Requestor, names []string) (map[string]Topic, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, by)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	out := make(map[string]Topic, len(names))
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition) || t.Topic == nil:
		case err != nil:
			return nil, fmt.Errorf("listing topic %s: %w", *t.Topic, err)
		default:
			out[*t.Topic] = Topic{ID: TopicID(t.TopicID), Partitions: len(t.Partitions)}
		}
	}
	return out, nil
}

// TopicIDs returns the identifiers of the named topics.
func (a *Admin) TopicIDs(ctx context.Context, names ...string) (map[string]string, error) {
	topics, err := a.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]string, len(topics))
	for name, t := range topics {
		ids[name] = t.ID
	}
	return ids, nil
}

// TopicID spells a topic's UUID as Kafka's tools do.
func TopicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Offsets are the bounds of what a partition holds: [Start, End).
type Offsets struct{ Start, End int64 }

// ListOffsets returns the bounds of every partition of the topics.
func (a *Admin) ListOffsets(ctx context.Context, topics ...string) (map[TopicPartition]Offsets, error) {
	out := make(map[TopicPartition]Offsets)
	starts, err := a.adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("listing start offsets of %s: %w", strings.Join(topics, ", "), err)
	}
	ends, err := a.adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("listing end offsets of %s: %w", strings.Join(topics, ", "), err)
	}
	starts.Each(func(o kadm.ListedOffset) {
		tp := TopicPartition{o.Topic, o.Partition}
		b := out[tp]
		b.Start = o.Offset
		out[tp] = b
	})
	ends.Each(func(o kadm.ListedOffset) {
		tp := TopicPartition{o.Topic, o.Partition}
		b := out[tp]
		b.End = o.Offset
		out[tp] = b
	})
	return out, nil
}

// DeleteRecords moves the start of each partition to the given offset.
func (a *Admin) DeleteRecords(ctx context.Context, to map[TopicPartition]int64) error {
	if len(to) == 0 {
		return nil
	}
	offsets := make(kadm.Offsets)
	for tp, at := range to {
		offsets.AddOffset(tp.Topic, tp.Partition, at, -1)
	}
	resp, err := a.adm.DeleteRecords(ctx, offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		return fmt.Errorf("deleting records: %w", err)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
