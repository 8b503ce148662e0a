package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
)

// findEvery is how often a worker looks for topics that rules have made.
const findEvery = 2 * time.Second

// topic is what is known of one.
func (w *Worker) topic(name string) kafkac.Topic {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.topics[name]
}

// topicNames are those of all that bronze reads.
func (w *Worker) topicNames() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.topics))
}

// addTopics notes topics that bronze is to read.
func (w *Worker) addTopics(ctx context.Context, names []string) error {
	topics, err := w.Feed.Topics(ctx, names...)
	if err != nil {
		return fmt.Errorf("reading the spine's topics: %w", err)
	}
	for _, name := range names {
		t, ok := topics[name]
		if !ok {
			return fmt.Errorf("reading the spine's topics: %s is missing; create it", name)
		}
		if n := t.Partitions; n < 1 || n > Shards || n&(n-1) != 0 {
			return fmt.Errorf("topic %s has %d partitions; the lake needs a power of two up to %d: create the topic anew, its count cannot be changed later", name, n, Shards)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.topics == nil {
		w.topics, w.routed = map[string]kafkac.Topic{}, map[string]bool{}
	}
	maps.Copy(w.topics, topics)
	return nil
}

// findTopics takes in the topics that rules have made since.
func (w *Worker) findTopics(ctx context.Context) error {
	w.finding.Lock()
	defer w.finding.Unlock()
	routed, err := w.Feed.Routed(ctx)
	if err != nil {
		return err
	}
	var fresh []string
	w.mu.Lock()
	for name := range routed {
		if _, known := w.topics[name]; !known {
			fresh = append(fresh, name)
		}
	}
	w.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	slices.Sort(fresh)
	if err := w.addTopics(ctx, fresh); err != nil {
		return err
	}
	w.mu.Lock()
	for _, name := range fresh {
		w.routed[name] = routed[name]
	}
	w.mu.Unlock()
	for _, b := range w.bronzes {
		b.read(slices.DeleteFunc(slices.Clone(fresh), func(name string) bool { return routed[name] != (b.kind.name == tableRaw) }))
	}
	return nil
}

// follow takes in new topics until ctx ends.
func (w *Worker) follow(ctx context.Context) error {
	for {
		wait(ctx, findEvery, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.findTopics(ctx); err != nil && ctx.Err() == nil {
			w.Log.Warn("topics of their own, which rules gave to streams, are not read yet; trying again", "err", err)
		}
	}
}

// read has the table read more topics.
func (b *bronze) read(topics []string) {
	if len(topics) == 0 {
		return
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	b.topics = append(b.topics, topics...)
	if b.member != nil {
		b.member.AddTopics(topics...)
	}
}

// join becomes a member of the group.
func (b *bronze) join() (err error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.member, err = b.w.Feed.Join(append(slices.Clone(b.kind.topics), b.topics...), b.assigned, b.revoked)
	return err
}

// routedDone tells whether the table holds all that the routed topics do,
// whichever worker reads them.
func (b *bronze) routedDone(ctx context.Context, bounds map[TopicPartition]kafkac.Offsets) (bool, error) {
	b.w.mu.Lock()
	mine := map[string]string{}
	for name, raw := range b.w.routed {
		if raw == (b.kind.name == tableRaw) {
			mine[name] = b.w.topics[name].ID
		}
	}
	b.w.mu.Unlock()
	if len(mine) == 0 {
		return true, nil
	}
	snap, err := b.w.tables[b.kind.name].Refresh(ctx)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", b.kind.name, err)
	}
	for tp, o := range bounds {
		if id, ok := mine[tp.Topic]; ok && snap.Txn(BronzeTxn(b.kind.name, id, tp.Partition)) < o.End {
			return false, nil
		}
	}
	return true, nil
}
