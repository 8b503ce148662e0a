package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Options set a Worker up. Dir, DB, Feed, Registry, Pipeline and Clock are
// required.
type Options struct {
	Dir      string   // of the lake: <dir>/<schema>/<table>
	DB       *duck.DB // the worker opens sessions of its own
	Feed     Feed
	Registry Registry
	Pipeline *Pipeline
	Clock    signal.Clock // the time of batches
	Log      *slog.Logger
	Reached  signal.Reached

	CommitInterval time.Duration // bronze; 0 is 1 s
	WindowInterval time.Duration // windows; 0 is 5 s
	StateInterval  time.Duration // twin state; 0 is 1 min
	PollInterval   time.Duration // looking for other workers' commits; 0 is 500 ms
	TendInterval   time.Duration // compaction and checkpoints; 0 is 1 min
	BatchBytes     int           // of spine records in a bronze batch; 0 is 1 MiB: some 30,000 readings
	BatchRows      int64         // of source rows in a silver or gold batch, kept to whole commits; 0 is 50,000
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.CommitInterval, time.Second)
	set(&o.WindowInterval, 5*time.Second)
	set(&o.StateInterval, time.Minute)
	set(&o.PollInterval, 500*time.Millisecond)
	set(&o.TendInterval, time.Minute)
	if o.BatchBytes == 0 {
		o.BatchBytes = 1 << 20
	}
	if o.BatchRows == 0 {
		o.BatchRows = 50_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Worker runs the pipelines for the spine partitions that the consumer group
// gives it, and for the shards that go with them. Several workers may share a
// lake.
type Worker struct {
	Options
	plans  planStore
	tables map[string]*delta.Table

	bronzes   []*bronze   // readings, raw
	followers []*follower // silver, windows, state
	flows     []*flow

	// turn is held by the flow whose batch is in the SQL engine: flows peak one
	// after the other, in the memory that one of them needs.
	turn chan struct{}

	finding sync.Mutex // held by who looks for new topics

	mu     sync.Mutex
	topics map[string]kafkac.Topic
	routed map[string]bool // those of them that rules have made: of waveforms
	shards []int           // held, ascending
	wakes  []chan struct{}
	totals totals
}

// New opens the tables, creating those that are missing, and checks the
// pipeline against them. It starts nothing.
func New(ctx context.Context, opts Options) (*Worker, error) {
	opts.defaults()
	w := &Worker{Options: opts, plans: planStore{filepath.Join(opts.Dir, "_plans")}, tables: make(map[string]*delta.Table), turn: make(chan struct{}, 1)}
	if err := w.addTopics(ctx, readTopics()); err != nil {
		return nil, err
	}
	if err := w.openTables(ctx); err != nil {
		return nil, err
	}
	if err := w.plans.keepPipeline(opts.Pipeline); err != nil {
		return nil, err
	}
	for _, kind := range spineTables() {
		w.bronzes = append(w.bronzes, newBronze(w, kind))
		w.flows = append(w.flows, &flow{name: kind.name})
	}
	if err := w.findTopics(ctx); err != nil {
		return nil, err
	}
	add := func(f *follower) *flow {
		w.followers = append(w.followers, f)
		fl := &flow{name: f.name, wake: w.wakeUp(), step: f.step}
		f.flow = fl
		w.flows = append(w.flows, fl)
		return fl
	}
	add(newSilver(w))
	add(newWindows(w)).every = opts.WindowInterval
	for _, f := range opts.Pipeline.Flows {
		add(newState(w, f)).every = opts.StateInterval
	}
	return w, w.totals.load(ctx, w)
}

// Run works until ctx ends, or until something stops the lake for good, such as
// a spine that was reset. A flow that fails is tried again with pauses and does
// not stop the others.
func (w *Worker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, b := range w.bronzes {
		group.Go(func() error { return b.run(ctx, w.flows[i]) })
	}
	for i, f := range w.followers {
		fl := w.flows[len(w.bronzes)+i]
		group.Go(func() error {
			defer f.close()
			return w.runFlow(ctx, fl)
		})
	}
	group.Go(func() error { return w.follow(ctx) })
	group.Go(func() error { return w.tend(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// flow is one goroutine's work and how it fares.
type flow struct {
	name string
	step func(ctx context.Context, force bool) (progress bool, err error)
	wake chan struct{}
	// every holds steps back to one per interval; 0 does not.
	every time.Duration

	mu     sync.Mutex
	err    error
	since  time.Time
	hurry  bool
	failed int64
}

// Turn waits for the SQL engine, which others of the process may use beside the
// worker's flows; the caller gives it back.
func (w *Worker) Turn(ctx context.Context) (giveBack func(), err error) { return w.takeTurn(ctx) }

// takeTurn waits for the SQL engine; the caller gives it back.
func (w *Worker) takeTurn(ctx context.Context) (giveBack func(), err error) {
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// FlowStatus tells how a flow fares.
type FlowStatus struct {
	Flow     string
	Err      error // of the last try, nil if it went well
	Since    time.Time
	Failures int64
}

// Status tells how the flows fare.
func (w *Worker) Status() []FlowStatus {
	out := make([]FlowStatus, len(w.flows))
	for i, f := range w.flows {
		f.mu.Lock()
		out[i] = FlowStatus{f.name, f.err, f.since, f.failed}
		f.mu.Unlock()
	}
	return out
}

func (f *flow) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.err = nil
		return
	}
	if f.err == nil {
		f.since = time.Now()
	}
	f.err = err
	f.failed++
}

func (f *flow) takeHurry() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hurry
	f.hurry = false
	return h
}

func (f *flow) hurryUp() {
	f.mu.Lock()
	f.hurry = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) runFlow(ctx context.Context, f *flow) error {
	pause := backoff{}
	last := time.Now()
	for ctx.Err() == nil {
		due := f.every == 0 || time.Since(last) >= f.every
		force := f.takeHurry()
		progress := false
		if due || force {
			var err error
			progress, err = f.step(ctx, force)
			if ctx.Err() != nil {
				break
			}
			f.note(err)
			if err != nil {
				if err := w.failed(ctx, f, err, &pause); err != nil {
					return err
				}
				continue
			}
			pause = backoff{}
			if !progress {
				last = time.Now()
			}
		}
		if !progress {
			wait(ctx, w.PollInterval, f.wake)
		}
	}
	return ctx.Err()
}

// StopError stops the lake: going on would skip or repeat data.
type StopError struct{ Err error }

func (e *StopError) Error() string { return "stopping the lake: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StopError) Unwrap() error { return e.Err }

// failed waits before the next try, or returns an error that ends the worker.
func (w *Worker) failed(ctx context.Context, f *flow, err error, pause *backoff) error {
	if _, ok := errors.AsType[*StopError](err); ok {
		return err
	}
	switch {
	case errors.Is(err, delta.ErrTxnMoved):
		w.Log.Debug("batch was committed by another worker", "flow", f.name, "err", err)
	case diskFull(err):
		w.Log.Warn("disk is full; the batch waits for space", "flow", f.name, "err", err)
	default:
		w.Log.Error("flow failed and will be tried again", "flow", f.name, "err", err)
	}
	wait(ctx, pause.next(), nil)
	return nil
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), "No space left on device")
}

// backoff doubles from 100 ms to 10 s.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 100*time.Millisecond), 10*time.Second)
	return b.last
}

func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// at passes a named point. A test may end ctx there.
func (w *Worker) at(ctx context.Context, point string) error {
	w.Reached.At(point)
	return ctx.Err()
}

// wakeUp returns a channel that is signalled after every commit of this worker.
func (w *Worker) wakeUp() chan struct{} {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	w.wakes = append(w.wakes, ch)
	w.mu.Unlock()
	return ch
}

// Wake returns a channel that is signalled after commits of this worker, for
// [TailSilver].
func (w *Worker) Wake() <-chan struct{} { return w.wakeUp() }

func (w *Worker) committed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.wakes {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// setHeld derives the held shards from the held partitions of the readings
// topic: the shards of a partition are those that are equal to it modulo the
// number of partitions.
func (w *Worker) setHeld(held []TopicPartition) {
	n := w.topic(record.TopicReadings).Partitions
	shards := make(map[int]bool)
	for _, tp := range held {
		if tp.Topic != record.TopicReadings {
			continue
		}
		for s := int(tp.Partition); s < Shards; s += n {
			shards[s] = true
		}
	}
	w.mu.Lock()
	w.shards = slices.Sorted(maps.Keys(shards))
	w.mu.Unlock()
	w.committed()
}

func (w *Worker) heldShards() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shards
}

// Drained tells whether everything that the spine holds for this worker has
// reached gold. Asking hurries gold along.
func (w *Worker) Drained(ctx context.Context) (bool, error) {
	for _, b := range w.bronzes {
		if done, err := b.drained(ctx); err != nil || !done {
			return false, err
		}
	}
	done := true
	for _, f := range w.followers {
		ok, err := f.drained(ctx)
		if err != nil {
			return false, err
		}
		if !ok {
			f.flow.hurryUp()
			done = false
		}
	}
	return done, nil
}
