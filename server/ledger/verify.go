package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/signal"
)

// Options say where the parts of the ledger are.
type Options struct {
	Lake    string        // folder of the lake
	Edges   []string      // folders edges/ of the data directories that hold outboxes
	Kafka   kafkac.Config // the spine, while it runs
	Scratch string        // folder for what the SQL engine spills
}

// message names a message of an edge.
type message struct{ edge, boot, stream, n string }

// raw tells whether the message carries waveforms, which are counted in samples.
func (m message) raw() bool {
	_, class := signal.Stream(m.stream).Split()
	return class == signal.Raw
}

// Verify makes the ledger of a data directory that is at rest: nothing of it
// may move while this reads.
func Verify(ctx context.Context, o Options) (Report, error) {
	v := &verifier{Options: o, edges: map[string]*Edge{}, waiting: map[message]int{}, dead: map[message]bool{}}
	if err := v.outboxes(); err != nil {
		return Report{}, err
	}
	if err := v.tables(ctx); err != nil {
		return Report{}, err
	}
	r := Report{Edges: []Edge{}, Drained: !v.unfinished}
	for _, name := range slices.Sorted(maps.Keys(v.edges)) {
		e := v.edges[name]
		r.Drained = r.Drained && e.InFlight == 0 && e.SamplesInFlight == 0 && e.Pending == 0
		r.Edges = append(r.Edges, *e)
	}
	r.conclude()
	return r, nil
}

type verifier struct {
	Options
	edges      map[string]*Edge
	waiting    map[message]int // readings, or samples, of messages that may still be on the way
	dead       map[message]bool
	unfinished bool // a source has not been read to its end
}

func (v *verifier) edge(name string) *Edge {
	e, ok := v.edges[name]
	if !ok {
		e = &Edge{Edge: name, Remote: true}
		v.edges[name] = e
	}
	return e
}

// outboxes reads what each edge says of itself.
func (v *verifier) outboxes() error {
	for _, root := range v.Edges {
		dirs, err := filepath.Glob(filepath.Join(root, "*", "*"))
		if err != nil {
			return fmt.Errorf("looking for outboxes in %s: %w", root, err)
		}
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				continue
			}
			st, err := outbox.ReadState(edge.OutboxDir(dir))
			if err != nil {
				return err
			}
			name := st.Edge
			if name == "" { // never committed anything
				name = filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)
			}
			v.add(name, st)
		}
	}
	return nil
}

func (v *verifier) add(name string, st outbox.State) {
	e := v.edge(name)
	c := st.Counters
	e.Remote = false
	e.Emitted, e.Derived, e.Held = int64(c.Emitted), int64(c.Derived), int64(c.Held)
	e.Filtered, e.Shipped, e.Evicted = int64(c.Filtered), int64(c.Shipped), int64(c.Evicted)
	e.Retried, e.Lost = int64(c.Retried), int64(c.Lost)
	e.Samples, e.SamplesShipped, e.SamplesEvicted = int64(c.Samples), int64(c.SamplesShipped), int64(c.SamplesEvicted)
	e.EvictedMessages = int64(c.EvictedMessages)
	e.Replayed = int64(c.Replayed)
	v.unfinished = v.unfinished || !st.SourceEnded
	for _, u := range st.Unacked {
		v.waiting[message{u.Edge, u.Boot, string(u.Stream), strconv.FormatUint(u.N, 10)}] = u.Readings + int(u.Samples)
	}
}

// tables reads what arrived, and where it ended.
func (v *verifier) tables(ctx context.Context) (err error) {
	db, err := duck.Open(ctx, duck.Options{MemoryLimit: "512MB", Threads: 2, TempDir: v.Scratch})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s, err := db.Session(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	cat, err := catalog.Open(ctx, v.Lake)
	if err != nil {
		return err
	}
	if _, err := cat.Snapshot(bronzeTable); errors.Is(err, catalog.ErrNoTable) {
		v.inFlight(nil) // nothing ever arrived
		return nil
	}
	if _, err := cat.Mount(ctx, s, nil); err != nil {
		return err
	}
	if err := v.spine(ctx, cat); err != nil {
		return err
	}
	if err := v.pending(ctx, s, cat); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *duck.Session) error{v.bronze, v.raw, v.silver, v.arrived} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	tally, err := pipeline.Tally(ctx, v.Lake)
	if err != nil {
		return err
	}
	for name, t := range tally {
		e := v.edge(name)
		e.Dropped, e.Duplicates, e.Late = t.Dropped, t.Duplicates, t.Late
	}
	return nil
}

// inFlight adds up the messages that wait and are not in bronze.
func (v *verifier) inFlight(inBronze func(message) bool) {
	for m, readings := range v.waiting {
		if inBronze == nil || !inBronze(m) {
			if m.raw() {
				v.edge(m.edge).SamplesInFlight += int64(readings)
			} else {
				v.edge(m.edge).InFlight += int64(readings)
			}
		}
	}
}
