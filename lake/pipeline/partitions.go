package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// pollRecords bounds what one poll adds to the buffer: a record holds up to
// some hundred readings.
const pollRecords = 50

// poll buffers records until the batch is full or due.
func (b *bronze) poll(ctx context.Context) error {
	for ctx.Err() == nil {
		b.mu.Lock()
		due := b.w.CommitInterval
		if !b.since.IsZero() {
			due = time.Until(b.since.Add(b.w.CommitInterval))
		}
		ready := due <= 0 || b.full() && !b.starved
		b.mu.Unlock()
		if ready {
			return nil
		}
		if err := b.pollOnce(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

func (b *bronze) pollOnce(ctx context.Context, d time.Duration) error {
	pollCtx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	fetched, err := b.member.Poll(pollCtx, pollRecords)
	if passed, ok := errors.AsType[*kafkac.OutOfRangeError](err); ok {
		return b.catchUp(ctx, passed)
	}
	if err != nil && pollCtx.Err() == nil {
		if _, ok := errors.AsType[*StopError](err); !ok {
			err = &StopError{err}
		}
		return err
	}
	b.mu.Lock()
	for _, f := range fetched {
		if p := b.parts[f.TopicPartition]; p != nil {
			b.buffer(p, f.Records)
			b.starved = false
		}
	}
	b.mu.Unlock()
	b.tell(ctx)
	return nil
}

// catchUp goes on where the table is when the spine no longer has what was
// asked for: another worker may have taken the partition further, and the spine
// was trimmed behind it. If nobody has, records are gone and the lake stops.
func (b *bronze) catchUp(ctx context.Context, passed *kafkac.OutOfRangeError) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.parts[passed.TopicPartition]
	if p == nil {
		return nil // given away meanwhile
	}
	before := p.next
	if err := b.loadPatiently(ctx, []*part{p}); err != nil {
		return err
	}
	if p.next == before {
		return &StopError{passed}
	}
	b.member.Seek(map[TopicPartition]int64{p.TopicPartition: p.next})
	return nil
}

// buffer takes the records that come next. A client may deliver what it fetched
// before a seek, so an offset that was passed is dropped, and one that is ahead
// is asked for again; only if it still comes first are the offsets between held
// to be empty, as control records leave them.
func (b *bronze) buffer(p *part, records []kafkac.Record) {
	for i := range records {
		r := &records[i]
		if r.Offset < p.fetched {
			continue
		}
		if r.Offset > p.fetched {
			if p.gap != p.fetched+1 {
				p.gap = p.fetched + 1 // never 0, which stands for none
				b.seek(map[TopicPartition]int64{p.TopicPartition: p.fetched})
				return
			}
			b.w.Log.Info("offsets hold no records", "partition", p.String(), "from", p.fetched, "to", r.Offset)
		}
		p.gap = 0
		p.fetched = r.Offset + 1
		p.buffer = append(p.buffer, *r)
		p.bytes += len(r.Key) + len(r.Value)
		if b.since.IsZero() {
			b.since = time.Now()
		}
	}
}

func (b *bronze) full() bool {
	n := 0
	for _, p := range b.parts {
		n += p.bytes
	}
	return n >= b.w.BatchBytes
}

// assigned starts partitions where the table ends.
func (b *bronze) assigned(ctx context.Context, tps []TopicPartition) (map[TopicPartition]int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[TopicPartition]int64, len(tps))
	var fresh []*part
	for _, tp := range tps {
		p := &part{TopicPartition: tp, table: b.kind.name, topicID: b.w.topic(tp.Topic).ID}
		b.parts[tp] = p
		fresh = append(fresh, p)
	}
	if err := b.loadPatiently(ctx, fresh); err != nil {
		for _, tp := range tps {
			delete(b.parts, tp)
		}
		return nil, err
	}
	for _, p := range fresh {
		out[p.TopicPartition] = p.next
	}
	b.hold()
	return out, nil
}

// loadPatiently tries until the group moves on: an error would end the
// membership.
func (b *bronze) loadPatiently(ctx context.Context, parts []*part) error {
	pause := backoff{}
	for {
		err := b.load(ctx, parts)
		b.flow.note(err)
		var stop *StopError
		if err == nil || errors.As(err, &stop) || ctx.Err() != nil {
			return err
		}
		b.w.Log.Warn("partitions could not be started and will be tried again", "err", err)
		wait(ctx, pause.next(), nil)
	}
}

func (b *bronze) revoked(_ context.Context, tps []TopicPartition, _ bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, tp := range tps {
		delete(b.parts, tp)
	}
	b.hold()
}

// hold tells the followers which shards are this worker's: those of the readings.
func (b *bronze) hold() {
	if b.kind.name == tableBronze {
		b.w.setHeld(b.held())
	}
}

func (b *bronze) held() []TopicPartition {
	out := make([]TopicPartition, 0, len(b.parts))
	for tp := range b.parts {
		out = append(out, tp)
	}
	slices.SortFunc(out, func(a, c TopicPartition) int {
		if n := strings.Compare(a.Topic, c.Topic); n != 0 {
			return n
		}
		return int(a.Partition - c.Partition)
	})
	return out
}

// load sets partitions to where the table ends, and rebuilds from the table
// which messages it holds.
func (b *bronze) load(ctx context.Context, parts []*part) error {
	err := b.loadOnce(ctx, parts)
	if _, ok := errors.AsType[*kafkac.TrimmedError](err); ok {
		// Another worker may have committed, and the spine been trimmed, between
		// the two looks.
		err = b.loadOnce(ctx, parts)
	}
	return err
}

func (b *bronze) loadOnce(ctx context.Context, parts []*part) error {
	t := b.w.tables[b.kind.name]
	snap, err := t.Refresh(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.kind.name, err)
	}
	bounds, err := b.w.Feed.Offsets(ctx, b.w.topicNames()...)
	if err != nil {
		return fmt.Errorf("reading the spine's offsets: %w", err)
	}
	committed := make(map[TopicPartition]int64, len(parts))
	held := make(map[TopicPartition]kafkac.Offsets, len(parts))
	for _, p := range parts {
		p.next = snap.Txn(p.appID())
		p.fetched, p.buffer, p.bytes, p.gap = p.next, nil, 0, 0
		p.seen = make(map[origin]*signal.Intervals)
		committed[p.TopicPartition], held[p.TopicPartition] = p.next, bounds[p.TopicPartition]
	}
	if err := kafkac.CheckCommitted(committed, held); err != nil {
		return &StopError{err}
	}
	b.stamp()
	return b.loadSeen(ctx, snap, parts)
}

// loadSeen reads the message numbers of the partitions, some files at a time.
func (b *bronze) loadSeen(ctx context.Context, snap *delta.Snapshot, parts []*part) error {
	if len(parts) == 0 {
		return nil
	}
	byName := make(map[TopicPartition]*part, len(parts))
	var in []string
	for _, p := range parts {
		byName[p.TopicPartition] = p
		in = append(in, fmt.Sprintf("(%s, %d)", duck.Literal(p.Topic), p.Partition))
	}
	for files := range slices.Chunk(snap.Files(), 32) {
		from, err := relation(b.w.tables[b.kind.name], files)
		if err != nil {
			return err
		}
		// Runs of consecutive numbers share n - rank.
		rows, err := b.session.Query(ctx, `SELECT kafka_topic, kafka_partition, edge, boot, stream, min(n), max(n) FROM (
			SELECT *, n - row_number() OVER (PARTITION BY kafka_topic, kafka_partition, edge, boot, stream ORDER BY n) AS run FROM (
				SELECT DISTINCT kafka_topic, kafka_partition, edge, boot, stream, n FROM `+from+`
				WHERE (kafka_topic, kafka_partition) IN (`+strings.Join(in, ", ")+`) AND edge <> '' AND boot <> '' AND stream <> ''))
			GROUP BY kafka_topic, kafka_partition, edge, boot, stream, run`)
		if err != nil {
			return fmt.Errorf("reading which messages %s holds: %w", b.kind.name, err)
		}
		for rows.Next() {
			var tp TopicPartition
			var o origin
			var lo, hi int64
			if err := rows.Scan(&tp.Topic, &tp.Partition, &o.edge, &o.boot, &o.stream, &lo, &hi); err != nil {
				return errors.Join(err, rows.Close())
			}
			if p := byName[tp]; p != nil {
				intervals(p.seen, o).AddRange(signal.Range{From: uint64(lo), To: uint64(hi)})
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("reading which messages %s holds: %w", b.kind.name, err)
		}
	}
	return nil
}

func intervals(m map[origin]*signal.Intervals, o origin) *signal.Intervals {
	s := m[o]
	if s == nil {
		s = new(signal.Intervals)
		m[o] = s
	}
	return s
}
