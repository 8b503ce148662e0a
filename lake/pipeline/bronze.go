package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// bronze takes records from the spine into a bronze table.
type bronze struct {
	w      *Worker
	kind   spineTable
	member Member

	reading sync.Mutex // guards topics, and member until it is there
	topics  []string   // read beside those of the kind

	// life and flow are those of run: the consumer calls back from a goroutine
	// of its own, which must end with the worker and show what it waits for.
	life context.Context //nolint:containedctx // set once, before there are callbacks
	flow *flow

	// mu guards the rest; a batch holds it from its plan to its commit, so
	// that a partition is not given away in between.
	mu      sync.Mutex
	session *duck.Session
	parts   map[TopicPartition]*part
	since   time.Time // when the oldest buffered record came; zero if none
	// starved: what is buffered waits for records that an earlier plan names.
	starved bool
	// seeks and taken wait for tell.
	seeks, taken map[TopicPartition]int64
	scratch      message
}

// part is a held partition.
type part struct {
	TopicPartition
	table   string
	topicID string
	next    int64 // the table holds everything before it
	fetched int64 // the buffer ends here
	buffer  []kafkac.Record
	bytes   int
	seen    map[origin]*signal.Intervals
	gap     int64 // offset that a seek was sent for because it did not come
}

func newBronze(w *Worker, kind spineTable) *bronze {
	return &bronze{w: w, kind: kind, parts: make(map[TopicPartition]*part)}
}

func (p *part) appID() string { return BronzeTxn(p.table, p.topicID, p.Partition) }

// BronzeTxn is the name under which a bronze table commits how far it has read
// a partition of a topic; the version is the next offset.
func BronzeTxn(table, topicID string, partition int32) string {
	return fmt.Sprintf("headrace/%s/%s/%d", table, topicID, partition)
}

func (b *bronze) run(ctx context.Context, f *flow) (err error) {
	b.life, b.flow = ctx, f
	if b.session, err = b.w.DB.Session(ctx); err != nil {
		return fmt.Errorf("starting %s: %w", b.kind.name, err)
	}
	defer b.session.Close()
	if err = b.join(); err != nil {
		return fmt.Errorf("joining the consumer group: %w", err)
	}
	defer b.member.Close()
	pause := backoff{}
	for ctx.Err() == nil {
		if err := b.poll(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		more := true
		for more && ctx.Err() == nil {
			more, err = b.batch(ctx)
			b.tell(ctx)
			if ctx.Err() != nil {
				break
			}
			f.note(err)
			if err == nil {
				pause = backoff{}
				continue
			}
			if err := b.w.failed(ctx, f, err, &pause); err != nil {
				return err
			}
			more = true
		}
	}
	return ctx.Err()
}

// stamp sets since anew after buffers were dropped or taken.
func (b *bronze) stamp() {
	for _, p := range b.parts {
		if len(p.buffer) > 0 {
			b.since = time.Now()
			return
		}
	}
	b.since = time.Time{}
}

// slice is a partition's share of a batch.
type slice struct {
	*part
	end  int64
	plan *Plan
}

// batch commits what is buffered. It returns true when there is more to do at
// once.
func (b *bronze) batch(ctx context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		return false, nil
	}
	slices, err := b.plan(ctx)
	if err != nil {
		return false, err
	}
	if len(slices) == 0 {
		b.starved, b.since = true, time.Now()
		return false, nil
	}
	if err := b.w.at(ctx, "lake.plan_written"); err != nil {
		return false, err
	}
	err = b.commit(ctx, slices)
	if errors.Is(err, delta.ErrTxnMoved) {
		return false, errors.Join(b.reload(ctx), err)
	}
	return b.full(), err
}

// reload starts partitions anew that another worker has taken further.
func (b *bronze) reload(ctx context.Context) error {
	snap, err := b.w.tables[b.kind.name].Refresh(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.kind.name, err)
	}
	var moved []*part
	for _, p := range b.parts {
		if snap.Txn(p.appID()) != p.next {
			moved = append(moved, p)
		}
	}
	if err := b.load(ctx, moved); err != nil {
		return err
	}
	to := make(map[TopicPartition]int64, len(moved))
	for _, p := range moved {
		to[p.TopicPartition] = p.next
	}
	b.seek(to)
	return nil
}

// seek notes where partitions are to be read from; tell passes it on.
func (b *bronze) seek(to map[TopicPartition]int64) {
	if b.seeks == nil {
		b.seeks = make(map[TopicPartition]int64)
	}
	maps.Copy(b.seeks, to)
}

// tell passes on to the spine's client what has come up. The client may wait
// for a rebalance, and that for mu: so mu is not held.
func (b *bronze) tell(ctx context.Context) {
	b.mu.Lock()
	seeks, next := b.seeks, b.taken
	b.seeks, b.taken = nil, nil
	b.mu.Unlock()
	if len(seeks) > 0 {
		b.member.Seek(seeks)
	}
	if len(next) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := b.member.CommitOffsets(limited, next); err != nil && ctx.Err() == nil {
		b.w.Log.Debug("group offsets, which only show the lag, were not committed", "err", err)
	}
}

// plan decides the batch's ranges: what is buffered, or what an earlier plan
// of a partition says.
func (b *bronze) plan(ctx context.Context) ([]slice, error) {
	var ready []*part
	for _, tp := range b.held() {
		if p := b.parts[tp]; len(p.buffer) > 0 {
			ready = append(ready, p)
		}
	}
	fresh, taken, err := b.putPlan(ready, make([]int, len(ready)))
	if err != nil {
		return nil, err
	}
	out := fresh
	var again []*part
	var tries []int
	var bounds map[TopicPartition]kafkac.Offsets
	for _, p := range taken {
		plan, try, err := b.w.plans.latest(rangeKey(b.kind.name, p.fetchedRange()))
		if err != nil {
			return nil, err
		}
		if plan == nil {
			continue // its owner has committed it meanwhile; the table tells at the next commit
		}
		end := plan.end(p)
		if end <= p.fetched && end > p.next {
			out = append(out, slice{p, end, plan})
			continue
		}
		if bounds == nil {
			if bounds, err = b.w.Feed.Offsets(ctx, b.w.topicNames()...); err != nil {
				return nil, fmt.Errorf("reading the spine's offsets: %w", err)
			}
		}
		if end > bounds[p.TopicPartition].End || end <= p.next {
			// The spine never had, or lost, what was planned and not committed.
			again, tries = append(again, p), append(tries, try+1)
		}
	}
	if len(again) > 0 {
		fresh, _, err := b.putPlan(again, tries)
		if err != nil {
			return nil, err
		}
		out = append(out, fresh...)
	}
	return out, nil
}

func (p *part) fetchedRange() OffsetRange {
	return OffsetRange{Topic: p.Topic, TopicID: p.topicID, Partition: p.Partition, Start: p.next, End: p.fetched}
}

// end is where the plan's range of a partition ends; 0 if it has none.
func (pl *Plan) end(p *part) int64 {
	for _, r := range pl.Ranges {
		if r.TopicID == p.topicID && r.Partition == p.Partition && r.Start == p.next {
			return r.End
		}
	}
	return 0
}

// putPlan writes one plan for what the partitions have buffered. It returns
// the shares that it is now the plan of, and the partitions that had one.
func (b *bronze) putPlan(ready []*part, tries []int) (ours []slice, taken []*part, err error) {
	if len(ready) == 0 {
		return nil, nil, nil
	}
	id, err := newPlanID()
	if err != nil {
		return nil, nil, err
	}
	plan := &Plan{
		Format: planFormat, ID: id, Flow: b.kind.name, BatchTime: signal.MicrosOf(b.w.Clock.Now()), Pipeline: b.w.Pipeline.Hash(),
		Dedupe: b.kind.name + "@" + strconv.FormatInt(b.w.tables[b.kind.name].Last().Version(), 10),
	}
	var keys []planKey
	for _, p := range ready {
		plan.Ranges = append(plan.Ranges, p.fetchedRange())
		keys = append(keys, rangeKey(b.kind.name, p.fetchedRange()))
	}
	had, err := b.w.plans.put(plan, keys, tries)
	if err != nil {
		return nil, nil, err
	}
	for i, p := range ready {
		if slices.Contains(had, keys[i]) {
			taken = append(taken, p)
		} else {
			ours = append(ours, slice{p, p.fetched, plan})
		}
	}
	return ours, taken, nil
}

// tally counts what became of a batch's records.
type tally struct{ rows, repeats, skipped int64 }

func (b *bronze) commit(ctx context.Context, slices []slice) error {
	t := b.w.tables[b.kind.name]
	app := duck.NewAppender(b.kind.columns())
	defer app.Release()
	var n tally
	added := make([]map[origin]*signal.Intervals, len(slices))
	for i, s := range slices {
		added[i] = make(map[origin]*signal.Intervals)
		if err := b.append(app, s, added[i], &n); err != nil {
			return err
		}
	}
	c := delta.Commit{ReadVersion: delta.Latest, Operation: "STREAMING UPDATE", Parameters: map[string]string{}, Metrics: map[string]string{
		"rows": strconv.FormatInt(n.rows, 10), "repeats": strconv.FormatInt(n.repeats, 10), "skipped": strconv.FormatInt(n.skipped, 10),
	}}
	if err := planParameter(c.Parameters, slices[0].plan); err != nil {
		return err
	}
	for _, s := range slices {
		c.Txns = append(c.Txns, delta.TxnStep{AppID: s.appID(), From: s.next, To: s.end})
	}
	file, ok, err := b.write(ctx, app)
	if err != nil {
		return err
	}
	if ok {
		c.Adds = append(c.Adds, file.file)
	}
	if _, err := t.Commit(ctx, c); err != nil {
		if ok && errors.Is(err, delta.ErrTxnMoved) {
			_ = os.Remove(file.path) // nobody's: the commit was refused
		}
		return fmt.Errorf("committing to %s: %w", b.kind.name, err)
	}
	b.w.totals.bronze(b.kind, n)
	for i, s := range slices {
		for o, set := range added[i] {
			all := intervals(s.seen, o)
			for _, r := range set.Ranges() {
				all.AddRange(r)
			}
		}
		s.take()
	}
	b.stamp()
	b.w.committed()
	if err := b.w.at(ctx, b.kind.committed); err != nil {
		return err
	}
	return b.afterCommit(slices)
}

// take drops the slice's records from the buffer.
func (s slice) take() {
	i := slices.IndexFunc(s.buffer, func(r kafkac.Record) bool { return r.Offset >= s.end })
	if i < 0 {
		i = len(s.buffer)
	}
	s.buffer = slices.Clone(s.buffer[i:])
	s.next, s.bytes = s.end, 0
	for _, r := range s.buffer {
		s.bytes += len(r.Key) + len(r.Value)
	}
}

// afterCommit notes how far the table is, and forgets the plans.
func (b *bronze) afterCommit(done []slice) error {
	b.taken = make(map[TopicPartition]int64, len(b.parts))
	for tp, p := range b.parts {
		b.taken[tp] = p.next
	}
	for _, s := range done {
		if err := b.w.plans.drop(rangeKey(b.kind.name, s.fetchedRange())); err != nil {
			return fmt.Errorf("removing finished plans: %w", err)
		}
	}
	return nil
}

func planParameter(params map[string]string, p *Plan) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("writing plan of %s: %w", p.Flow, err)
	}
	params["plan"], params["pipeline"] = string(data), p.Pipeline
	return nil
}

// append decodes a slice's records; messages that the table or an earlier
// record of the batch has are counted and left out.
func (b *bronze) append(app *duck.Appender, s slice, added map[origin]*signal.Intervals, n *tally) error {
	m := &b.scratch
	for i := range s.buffer {
		r := &s.buffer[i]
		if r.Offset >= s.end {
			break
		}
		if !wanted(r) {
			n.skipped++
			continue
		}
		m.read(r)
		if o, ok := m.origin(); ok {
			if set := s.seen[o]; set != nil && set.Contains(m.batch.N) || !intervals(added, o).Add(m.batch.N) {
				n.repeats += int64(max(len(m.batch.Readings), 1))
				continue
			}
		}
		rows, err := b.kind.append(app, m, r)
		if err != nil {
			return fmt.Errorf("reading %s offset %d: %w", s.TopicPartition, r.Offset, err)
		}
		n.rows += int64(rows)
	}
	return nil
}

func (b *bronze) write(ctx context.Context, app *duck.Appender) (copied, bool, error) {
	if app.Rows() == 0 {
		return copied{}, false, nil
	}
	giveBack, err := b.w.takeTurn(ctx)
	if err != nil {
		return copied{}, false, err
	}
	defer giveBack()
	rows, err := app.Finish()
	if err != nil {
		return copied{}, false, fmt.Errorf("building rows of %s: %w", b.kind.name, err)
	}
	err = b.session.Load(ctx, "incoming", rows)
	rows.Release()
	if err != nil {
		return copied{}, false, fmt.Errorf("building rows of %s: %w", b.kind.name, err)
	}
	defer func() { _ = b.session.Exec(context.WithoutCancel(ctx), "DROP TABLE incoming") }()
	return copyInto(ctx, b.session, b.w.tables[b.kind.name], "SELECT * FROM incoming", nil)
}

func (b *bronze) drained(ctx context.Context) (bool, error) {
	if err := b.w.findTopics(ctx); err != nil {
		return false, err
	}
	bounds, err := b.w.Feed.Offsets(ctx, b.w.topicNames()...)
	if err != nil {
		return false, fmt.Errorf("reading the spine's offsets: %w", err)
	}
	if done, err := b.routedDone(ctx, bounds); err != nil || !done {
		return false, err
	}
	if !b.mu.TryLock() {
		return false, nil // at work, or waiting for a table
	}
	defer b.mu.Unlock()
	for tp, p := range b.parts {
		if p.next < bounds[tp].End {
			return false, nil
		}
	}
	return len(b.parts) > 0, nil
}
