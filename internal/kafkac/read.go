package kafkac

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Range is a part of a partition: [Start, End).
type Range struct {
	TopicPartition
	Start, End int64
}

// Read reads the ranges, each in order, and calls fn for every record. It
// returns when all of them are complete; the ranges must exist, or it returns
// a [*OutOfRangeError] or waits for their ends to be written. At most one range
// per partition.
func Read(ctx context.Context, cfg Config, ranges []Range, fn func(Record) error) error {
	opts, err := cfg.options()
	if err != nil {
		return err
	}
	offsets := make(map[string]map[int32]kgo.Offset)
	left := make(map[TopicPartition]int64)
	for _, r := range ranges {
		if r.Start >= r.End {
			continue
		}
		if _, twice := left[r.TopicPartition]; twice {
			return fmt.Errorf("reading %s: two ranges of one partition", r.TopicPartition)
		}
		if offsets[r.Topic] == nil {
			offsets[r.Topic] = make(map[int32]kgo.Offset)
		}
		offsets[r.Topic][r.Partition] = kgo.NoResetOffset().At(r.Start).WithEpoch(-1)
		left[r.TopicPartition] = r.End
	}
	if len(left) == 0 {
		return nil
	}
	opts = append(opts,
		kgo.ConsumePartitions(offsets),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(), // so that a range may end with one
		kgo.FetchMaxBytes(16<<20),
	)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("starting a Kafka reader: %w", err)
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := firstError(fetches); err != nil {
			return err
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			tp := TopicPartition{r.Topic, r.Partition}
			end, open := left[tp]
			if failed != nil || !open {
				return
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				failed = fn(fromClient(r))
			}
			if r.Offset >= end-1 {
				delete(left, tp)
				client.PauseFetchPartitions(map[string][]int32{r.Topic: {r.Partition}})
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}
