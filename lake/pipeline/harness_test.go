package pipeline

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// TestMain lowers the number of rapid's checks: each runs a whole lake.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "5"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// spine is a log in memory with one consumer group whose assignment the test
// decides.
type spine struct {
	mu         sync.Mutex
	changed    chan struct{}
	partitions int
	id         string
	logs       map[TopicPartition][]kafkac.Record
	starts     map[TopicPartition]int64
	now        signal.Micros
}

func newSpine(partitions int) *spine {
	return &spine{changed: make(chan struct{}), partitions: partitions, id: "topic", logs: map[TopicPartition][]kafkac.Record{}, starts: map[TopicPartition]int64{}}
}

func (s *spine) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *spine) Routed(context.Context) (map[string]bool, error) { return nil, nil }

func (s *spine) Topics(context.Context, ...string) (map[string]kafkac.Topic, error) {
	return map[string]kafkac.Topic{
		record.TopicReadings: {ID: s.id, Partitions: s.partitions}, record.TopicEvents: {ID: s.id + "-events", Partitions: s.partitions},
		record.TopicRaw: {ID: s.id + "-raw", Partitions: s.partitions},
	}, nil
}

func (s *spine) Offsets(context.Context, ...string) (map[TopicPartition]kafkac.Offsets, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[TopicPartition]kafkac.Offsets{}
	for _, topic := range readTopics() {
		for p := range s.partitions {
			tp := TopicPartition{Topic: topic, Partition: int32(p)}
			out[tp] = kafkac.Offsets{Start: s.starts[tp], End: int64(len(s.logs[tp]))}
		}
	}
	return out, nil
}

func (s *spine) put(r kafkac.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tp := TopicPartition{Topic: r.Topic, Partition: int32(kafkac.Partition(r.Key, s.partitions))}
	r.Partition, r.Offset, r.Timestamp = tp.Partition, int64(len(s.logs[tp])), s.now.Time()
	s.logs[tp] = append(s.logs[tp], r)
	s.notify()
}

// send produces a message as the bridge does.
func (s *spine) send(b *signal.Batch) {
	_, class := b.Stream.Split()
	r := kafkac.Record{Topic: record.Topic(class), Key: record.Key(b), Value: record.Append(nil, b)}
	for _, h := range record.Headers(b) {
		r.Headers = append(r.Headers, kafkac.Header(h))
	}
	s.put(r)
}

type groupMember struct {
	s        *spine
	assigned func(context.Context, []TopicPartition) (map[TopicPartition]int64, error)
	revoked  func(context.Context, []TopicPartition, bool)
	at       map[TopicPartition]int64
	failed   error
}

// feed is the spine as one worker sees it; partitions are those it gets when
// it joins.
type feed struct {
	*spine
	partitions []TopicPartition
	joined     chan *groupMember
	member     *groupMember
}

func (s *spine) all() []TopicPartition {
	var out []TopicPartition
	for _, topic := range readTopics() {
		for p := range s.partitions {
			out = append(out, TopicPartition{Topic: topic, Partition: int32(p)})
		}
	}
	return out
}

func (f *feed) Join(topics []string, assigned func(context.Context, []TopicPartition) (map[TopicPartition]int64, error), revoked func(context.Context, []TopicPartition, bool)) (Member, error) {
	m := &groupMember{s: f.spine, assigned: assigned, revoked: revoked, at: map[TopicPartition]int64{}}
	if topics[0] == record.TopicRaw {
		m.take(slices.DeleteFunc(f.all(), func(tp TopicPartition) bool { return tp.Topic != record.TopicRaw }))
		return m, nil
	}
	m.take(slices.DeleteFunc(slices.Clone(f.partitions), func(tp TopicPartition) bool { return tp.Topic == record.TopicRaw }))
	f.joined <- m
	return m, nil
}

// AddTopics implements [Member].
func (m *groupMember) AddTopics(...string) {}

// take assigns partitions.
func (m *groupMember) take(tps []TopicPartition) {
	if len(tps) == 0 {
		return
	}
	at, err := m.assigned(context.Background(), tps)
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.failed = err
	maps.Copy(m.at, at)
	m.s.notify()
}

// give takes partitions away; a sleeping member is not told.
func (m *groupMember) give(tps []TopicPartition, told bool) {
	m.s.mu.Lock()
	if told {
		for _, tp := range tps {
			delete(m.at, tp)
		}
	}
	m.s.mu.Unlock()
	if told {
		m.revoked(context.Background(), tps, false)
	}
}

func (m *groupMember) Poll(ctx context.Context, n int) ([]kafkac.Fetched, error) {
	for {
		m.s.mu.Lock()
		if m.failed != nil {
			defer m.s.mu.Unlock()
			return nil, m.failed
		}
		var out []kafkac.Fetched
		for tp, at := range m.at {
			if log := m.s.logs[tp]; at < int64(len(log)) {
				to := min(int64(len(log)), at+int64(n))
				out = append(out, kafkac.Fetched{TopicPartition: tp, Records: slices.Clone(log[at:to])})
				m.at[tp] = to
			}
		}
		changed := m.s.changed
		m.s.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *groupMember) Seek(to map[TopicPartition]int64) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	for tp, at := range to {
		if _, ok := m.at[tp]; ok {
			m.at[tp] = at
		}
	}
	m.s.notify()
}

func (m *groupMember) CommitOffsets(context.Context, map[TopicPartition]int64) error { return nil }
func (m *groupMember) Close()                                                        {}

// registryBook is a registry in memory; every Ensure that adds makes a version.
type registryBook struct {
	mu       sync.Mutex
	versions [][]signal.SensorMeta
	hold     int64
}

func newRegistry(sensors ...signal.SensorMeta) *registryBook {
	return &registryBook{versions: [][]signal.SensorMeta{sensors}, hold: 90_000_000}
}

func sensor(path signal.Path, unit string, lo, hi float64) signal.SensorMeta {
	return signal.SensorMeta{Path: path, SensorID: "id-" + string(path), Unit: unit, MinPossible: lo, MaxPossible: hi, Interpolation: "step", MaxHoldMicros: 90_000_000, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime}
}

func (r *registryBook) Version(context.Context) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.versions)), nil
}

func (r *registryBook) Rows(_ context.Context, v int64) ([]signal.AssetMeta, []signal.SensorMeta, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v < 1 || v > int64(len(r.versions)) {
		return nil, nil, fmt.Errorf("no version %d", v)
	}
	assets := map[signal.Asset]bool{}
	var out []signal.AssetMeta
	for _, s := range r.versions[v-1] {
		if a := s.Path.Asset(); !assets[a] {
			assets[a] = true
			out = append(out, signal.AssetMeta{Asset: a, AssetID: "id-" + string(a), ValidFrom: signal.MinTime, ValidTo: signal.MaxTime})
		}
	}
	return out, r.versions[v-1], nil
}

func (r *registryBook) Ensure(_ context.Context, paths []signal.Path) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.versions[len(r.versions)-1]
	next := slices.Clone(last)
	for _, p := range paths {
		if !slices.ContainsFunc(last, func(s signal.SensorMeta) bool { return s.Path == p }) {
			m := sensor(p, "", math.Inf(-1), math.Inf(1))
			m.MaxHoldMicros = r.hold
			next = append(next, m)
		}
	}
	if len(next) > len(last) {
		r.versions = append(r.versions, next)
	}
	return nil
}

// lake is one lake directory with its spine, over which workers come and go.
type lake struct {
	t        testing.TB
	dir      string
	db       *duck.DB
	spine    *spine
	registry *registryBook
	pipeline *Pipeline
	rows     int64 // BatchRows
}

func newLake(t testing.TB, partitions int) *lake {
	t.Helper()
	return newLakeIn(t, t.TempDir(), openDB(t), partitions)
}

func openDB(t testing.TB) *duck.DB {
	t.Helper()
	db, err := duck.Open(t.Context(), duck.Options{MemoryLimit: "128MB", Threads: 2, TempDir: filepath.Join(t.TempDir(), "duck")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func newLakeIn(t testing.TB, dir string, db *duck.DB, partitions int) *lake {
	t.Helper()
	p, err := Parse(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	return &lake{t: t, dir: filepath.Join(dir, "lake"), db: db, spine: newSpine(partitions), registry: newRegistry(), pipeline: p}
}

type frozenClock struct{ now signal.Micros }

func (c frozenClock) Now() time.Time                                   { return c.now.Time() }
func (c frozenClock) WaitUntil(ctx context.Context, _ time.Time) error { return ctx.Err() }

// running is a worker at work.
type running struct {
	*Worker
	feed *feed
	stop context.CancelFunc
	done chan error
}

func (l *lake) options(f *feed, reached signal.Reached) Options {
	return Options{
		Dir: l.dir, DB: l.db, Feed: f, Registry: l.registry, Pipeline: l.pipeline, Clock: frozenClock{l.spine.now}, Reached: reached,
		Log:            slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		CommitInterval: time.Millisecond, WindowInterval: time.Millisecond, StateInterval: time.Millisecond, PollInterval: 5 * time.Millisecond, BatchRows: l.rows,
	}
}

// start runs a worker that gets the given partitions, all if none are named.
func (l *lake) start(reached func(stop context.CancelFunc) signal.Reached, partitions ...TopicPartition) *running {
	l.t.Helper()
	if len(partitions) == 0 {
		partitions = l.spine.all()
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &feed{spine: l.spine, partitions: partitions, joined: make(chan *groupMember, 1)}
	var hook signal.Reached
	if reached != nil {
		hook = reached(stop)
	}
	w, err := New(ctx, l.options(f, hook))
	if err != nil {
		l.t.Fatal(err)
	}
	r := &running{Worker: w, feed: f, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- w.Run(ctx) }()
	select {
	case f.member = <-f.joined:
	case err := <-r.done: // it was ended before it joined
		r.done <- err
	}
	l.t.Cleanup(stop)
	return r
}

// end stops the worker and returns what it ended with.
func (r *running) end() error {
	r.stop()
	return <-r.done
}

// drain runs a worker until everything has reached gold.
func (l *lake) drain(r *running) {
	l.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ok, err := r.Drained(context.Background())
		if err != nil {
			l.t.Fatal(err)
		}
		if ok {
			return
		}
		select {
		case err := <-r.done:
			l.t.Fatalf("worker ended before everything was done: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not drained after a minute: %+v %+v", r.Status(), r.Counters())
		}
	}
}

// table returns a table's rows as text, in order.
func (l *lake) table(name, columns string) []string {
	l.t.Helper()
	return l.query("SELECT " + columns + " FROM " + l.relation(name) + " ORDER BY ALL")
}

func (l *lake) relation(name string) string {
	l.t.Helper()
	t, err := delta.Open(context.Background(), tableDir(l.dir, name), delta.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	from, err := relation(t, t.Last().Files())
	if err != nil {
		l.t.Fatal(err)
	}
	return from
}

func (l *lake) query(sql string) []string {
	l.t.Helper()
	w := &Worker{Options: Options{DB: l.db}}
	s, err := w.session(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Close()
	return queryText(l.t, s, sql)
}

func queryText(t testing.TB, s *duck.Session, sql string) []string {
	t.Helper()
	rows, err := s.Query(context.Background(), sql)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		vals := make([]any, len(cols))
		for i := range vals {
			vals[i] = new(any)
		}
		if err := rows.Scan(vals...); err != nil {
			t.Fatal(err)
		}
		line := ""
		for i, v := range vals {
			if i > 0 {
				line += "|"
			}
			switch x := (*v.(*any)).(type) {
			case time.Time:
				line += x.UTC().Format("2006-01-02T15:04:05.999999")
			case float64:
				line += strconv.FormatFloat(x, 'g', -1, 64)
			default:
				line += fmt.Sprint(x)
			}
		}
		out = append(out, line)
	}
	if err := errors.Join(rows.Err()); err != nil {
		t.Fatal(err)
	}
	return out
}

// day is where the tests' times start: 2026-01-02 00:00 UTC.
const day signal.Micros = 1767312000_000_000

// edge is a sender in tests: it numbers its messages per stream.
type edge struct {
	name, boot string
	n          map[signal.Stream]uint64
}

func newEdge(name, boot string) *edge {
	return &edge{name: name, boot: boot, n: map[signal.Stream]uint64{}}
}

func (e *edge) message(asset signal.Asset, readings ...signal.Reading) *signal.Batch {
	stream := signal.NewStream(asset, signal.Telemetry)
	b := &signal.Batch{Origin: signal.Origin{Edge: e.name, Boot: e.boot, Stream: stream, N: e.n[stream], Config: "c"}, Readings: readings}
	e.n[stream]++
	return b
}

func at(sensor string, t signal.Micros, v float64) signal.Reading {
	return signal.Reading{Sensor: sensor, EventTime: t, AliveAt: t, Value: signal.NumberValue(v), Quality: signal.QualityGood}
}
