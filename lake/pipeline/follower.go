package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// follower keeps tables up with another table's versions, for the held shards.
//
// The number stored under an application id is the source version that the
// shard has been taken to. Of the tables of one flow the last in commit order
// tells how far a shard is; the first is stepped by every batch, also when it
// gets no rows, so that two plans of one start can never both be half
// committed.
type follower struct {
	w      *Worker
	flow   *flow
	name   string // of the flow: its last table
	source *delta.Table
	tables []*delta.Table // in commit order
	names  []string       // of tables
	// prepare finds what the plan of a new batch must pin.
	prepare func(ctx context.Context, b *batch) error
	// run makes and commits a batch.
	run func(ctx context.Context, b *batch) error
	// lost is told that other workers may have written shards.
	lost func()

	mu      sync.Mutex // held by a batch
	session *duck.Session
	// finer divides the rows that are worked on at a time, after DuckDB ran out
	// of memory.
	finer int64

	idleMu sync.Mutex
	// idle is how far the source holds nothing for a shard beyond its stored
	// position.
	idle [Shards]int64
}

// batch is a step of a follower: source versions (plan.From, plan.To] for some
// shards that share plan and start.
type batch struct {
	plan     *Plan
	pipeline *Pipeline
	shards   []int
	adds     []*delta.File // what the source got in these versions
	// begun: the first table has the batch already.
	begun bool
}

// unit is a set of shards that go together: same start, same plan if there is
// one, same tables committed.
type unit struct {
	from   int64 // stored position
	idle   int64 // least idle position
	plan   *Plan
	try    int
	begun  bool
	shards []int
}

func (f *follower) appID(table, shard int) string {
	return "headrace/" + f.names[table] + "/" + strconv.Itoa(shard)
}

// step makes the first batch that is to be made.
func (f *follower) step(ctx context.Context, _ bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(ctx); err != nil {
		return false, err
	}
	snap, err := f.source.Refresh(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the source of %s: %w", f.name, err)
	}
	units, err := f.units(ctx, snap.Version())
	if err != nil {
		return false, err
	}
	for i, u := range units {
		to := snap.Version()
		if i+1 < len(units) && units[i+1].from > u.from {
			to = min(to, units[i+1].from) // then they go on together
		}
		worked, err := f.unit(ctx, u, to)
		if errors.Is(err, delta.ErrTxnMoved) {
			f.lose()
		}
		f.refine(err)
		if err != nil || worked {
			return worked, err
		}
	}
	return false, nil
}

// pieceRows bounds the rows that a query sorts or writes at a time: rows are
// wide, and DuckDB keeps a file's in memory until it is written.
const pieceRows = 16_384

// pieces is into how many parts work on so many rows is cut.
func (f *follower) pieces(rows int64) int64 {
	size := max(min(pieceRows, f.w.BatchRows)/max(f.finer, 1), 1)
	return max((rows+size-1)/size, 1)
}

// refine makes pieces smaller when memory was short, and normal again when it
// was not.
func (f *follower) refine(err error) {
	switch {
	case err == nil:
		f.finer = 0
	case strings.Contains(err.Error(), "Out of Memory"):
		f.finer = min(max(2*f.finer, 2), 8)
	}
}

func (f *follower) open(ctx context.Context) error {
	if f.session != nil {
		return nil
	}
	s, err := f.w.session(ctx)
	if err != nil {
		return fmt.Errorf("starting %s: %w", f.name, err)
	}
	f.session = s
	return nil
}

func (f *follower) idleAt(shard int) int64 {
	f.idleMu.Lock()
	defer f.idleMu.Unlock()
	return f.idle[shard]
}

func (f *follower) setIdle(shards []int, to int64) {
	f.idleMu.Lock()
	defer f.idleMu.Unlock()
	for _, s := range shards {
		f.idle[s] = to
	}
}

func (f *follower) lose() {
	f.idleMu.Lock()
	clear(f.idle[:])
	f.idleMu.Unlock()
	if f.lost != nil {
		f.lost()
	}
}

func (f *follower) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != nil {
		_ = f.session.Close()
		f.session = nil
	}
}

// units groups the held shards that are behind source version to, those that
// are furthest behind first.
func (f *follower) units(ctx context.Context, to int64) ([]*unit, error) {
	snaps := make([]*delta.Snapshot, len(f.tables))
	// The last is read first, so that it is never seen ahead of the others.
	for i, t := range slices.Backward(f.tables) {
		s, err := t.Refresh(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.names[i], err)
		}
		snaps[i] = s
	}
	last := len(f.tables) - 1
	var out []*unit
	for _, shard := range f.w.heldShards() {
		at := snaps[last].Txn(f.appID(last, shard))
		u := &unit{from: at, idle: max(at, f.idleAt(shard))}
		first := snaps[0].Txn(f.appID(0, shard))
		switch {
		case first < at:
			return nil, fmt.Errorf("shard %d of %s is at %d, but %s is only at %d; restore the _delta_log of both from one copy", shard, f.name, at, f.names[0], first)
		case first > at:
			plan, err := planOfTxn(ctx, f.tables[0], f.appID(0, shard), first)
			if err != nil {
				return nil, err
			}
			u.plan, u.begun = plan, true
		case u.idle >= to:
			continue
		default:
			plan, try, err := f.w.plans.latest(shardKey(f.name, shard, at))
			if err != nil {
				return nil, err
			}
			u.plan, u.try = plan, try
		}
		if i := slices.IndexFunc(out, u.with); i >= 0 {
			out[i].shards = append(out[i].shards, shard)
			out[i].idle = min(out[i].idle, u.idle)
			continue
		}
		u.shards = []int{shard}
		out = append(out, u)
	}
	slices.SortStableFunc(out, func(a, b *unit) int { return int(a.from - b.from) })
	return out, nil
}

func (u *unit) with(o *unit) bool {
	same := u.plan == nil && o.plan == nil || u.plan != nil && o.plan != nil && u.plan.ID == o.plan.ID && u.try == o.try
	return same && u.from == o.from && u.begun == o.begun
}

// unit makes a batch of a unit, up to source version to or as its plan says.
func (f *follower) unit(ctx context.Context, u *unit, to int64) (bool, error) {
	b := &batch{plan: u.plan, pipeline: f.w.Pipeline, shards: u.shards, begun: u.begun}
	hash := f.w.Pipeline.Hash()
	switch {
	case u.plan != nil && u.begun && u.plan.Pipeline != hash:
		p, err := f.w.plans.pipeline(u.plan.Pipeline)
		if err != nil {
			return false, err
		}
		b.pipeline = p
	case u.plan != nil && !u.begun && u.plan.Pipeline != hash:
		// Nothing of it was committed: the changed pipeline makes it anew.
		b.plan = nil
	}
	if b.plan != nil {
		return f.follow(ctx, b)
	}
	if to <= u.idle {
		return false, nil
	}
	changes, err := f.source.Changes(ctx, u.idle, to)
	if err != nil {
		return false, fmt.Errorf("reading the source of %s: %w", f.name, err)
	}
	if to, err = f.limit(b, changes, u.idle); err != nil {
		return false, err
	}
	held, err := f.holds(ctx, b)
	if err != nil {
		return false, err
	}
	if !held {
		f.setIdle(u.shards, to)
		return true, nil
	}
	id, err := newPlanID()
	if err != nil {
		return false, err
	}
	b.plan = &Plan{
		Format: planFormat, ID: id, Flow: f.name, BatchTime: signal.MicrosOf(f.w.Clock.Now()), Pipeline: hash,
		Source: f.source.Last().Metadata().Name, From: u.from, To: to, Shards: u.shards,
	}
	if f.prepare != nil {
		if err := f.prepare(ctx, b); err != nil {
			return false, err
		}
	}
	keys, tries := make([]planKey, len(u.shards)), make([]int, len(u.shards))
	for i, s := range u.shards {
		keys[i], tries[i] = shardKey(f.name, s, u.from), u.try+1
		if u.plan == nil {
			tries[i] = 0
		}
	}
	taken, err := f.w.plans.put(b.plan, keys, tries)
	if err != nil {
		return false, err
	}
	if len(taken) > 0 {
		return true, nil // grouped anew with the plans that are there
	}
	if err := f.w.at(ctx, "lake.plan_written"); err != nil {
		return false, err
	}
	return true, f.finish(ctx, b)
}

// follow makes the batch of a plan that is there.
func (f *follower) follow(ctx context.Context, b *batch) (bool, error) {
	changes, err := f.source.Changes(ctx, b.plan.From, b.plan.To)
	if err != nil {
		return false, fmt.Errorf("reading the source of %s: %w", f.name, err)
	}
	for _, v := range changes {
		b.take(v)
	}
	return true, f.finish(ctx, b)
}

func (f *follower) finish(ctx context.Context, b *batch) error {
	giveBack, err := f.w.takeTurn(ctx)
	if err != nil {
		return err
	}
	err = f.run(ctx, b)
	giveBack()
	if err != nil {
		return err
	}
	f.w.committed()
	for _, s := range b.shards {
		if err := f.w.plans.drop(shardKey(f.name, s, b.plan.To)); err != nil {
			return fmt.Errorf("removing finished plans: %w", err)
		}
	}
	return nil
}

// take adds the files of a source version; moved rows are not new.
func (b *batch) take(v delta.Version) {
	for _, a := range v.Adds {
		if a.DataChange {
			b.adds = append(b.adds, a)
		}
	}
}

// limit takes whole versions until the batch has enough rows, and returns the
// last one.
func (f *follower) limit(b *batch, changes []delta.Version, from int64) (int64, error) {
	rows, to := int64(0), from
	for _, v := range changes {
		var n int64
		for _, a := range v.Adds {
			st, err := f.source.Last().Stats(a)
			if err != nil {
				return 0, err
			}
			if st != nil {
				n += st.NumRecords
			}
		}
		if rows > 0 && rows+n > f.w.BatchRows {
			return to, nil
		}
		rows, to = rows+n, v.Version
		b.take(v)
	}
	return to, nil
}

// holds tells whether the batch's files have rows of its shards.
func (f *follower) holds(ctx context.Context, b *batch) (bool, error) {
	if len(b.adds) == 0 {
		return false, nil
	}
	from, err := relation(f.source, b.adds)
	if err != nil {
		return false, err
	}
	var any bool
	err = f.session.QueryRow(ctx, "SELECT count(*) > 0 FROM (SELECT 1 FROM "+from+" WHERE shard IN ("+shardList(b.shards)+") LIMIT 1)").Scan(&any)
	if err != nil {
		return false, fmt.Errorf("reading the source of %s: %w", f.name, err)
	}
	return any, nil
}

func shardList(shards []int) string {
	out := make([]byte, 0, 3*len(shards))
	for i, s := range shards {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(s), 10)
	}
	return string(out)
}

// steps are the transaction steps of a batch in one of the flow's tables.
func (f *follower) steps(b *batch, table int) []delta.TxnStep {
	out := make([]delta.TxnStep, len(b.shards))
	for i, s := range b.shards {
		out[i] = delta.TxnStep{AppID: f.appID(table, s), From: b.plan.From, To: b.plan.To}
	}
	return out
}

// drained tells whether the held shards are at the source's newest version.
func (f *follower) drained(ctx context.Context) (bool, error) {
	snap, err := f.source.Refresh(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the source of %s: %w", f.name, err)
	}
	last := len(f.tables) - 1
	mine, err := f.tables[last].Refresh(ctx)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", f.name, err)
	}
	for _, s := range f.w.heldShards() {
		if max(mine.Txn(f.appID(last, s)), f.idleAt(s)) < snap.Version() {
			return false, nil
		}
	}
	return true, nil
}
