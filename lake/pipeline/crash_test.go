package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// story sends waves of readings of several assets: some are impossible, some
// are sent twice, some come again by another edge.
type story struct {
	l     *lake
	e, f  *edge
	wave  int
	want  []string // rows of bronze
	good  int
	bad   int
	again int
}

func newStory(l *lake) *story {
	l.spine.now = day + 86400e6
	var sensors []signal.SensorMeta
	for a := range 6 {
		sensors = append(sensors, sensor(signal.Path(fmt.Sprintf("s/l/a%d/x", a)), "", -100, 100))
	}
	l.registry = newRegistry(sensors...)
	return &story{l: l, e: newEdge("s/e", "b1"), f: newEdge("s/f", "b1")}
}

func (s *story) send() {
	for a := range 6 {
		asset := signal.NewAsset("s", "l", fmt.Sprintf("a%d", a))
		t := day + signal.Micros(s.wave)*20e6
		readings := []signal.Reading{at("x", t, float64(s.wave)), at("x", t+5e6, 1000), at("x", t+10e6, float64(a))}
		b := s.e.message(asset, readings...)
		s.l.spine.send(b)
		s.note(b)
		s.good, s.bad = s.good+2, s.bad+1
		if a%2 == 0 {
			s.l.spine.send(b)
			o := s.f.message(asset, readings[0])
			s.l.spine.send(o)
			s.note(o)
			s.again++
		}
	}
	s.wave++
}

func (s *story) note(b *signal.Batch) {
	for i, r := range b.Readings {
		s.want = append(s.want, fmt.Sprintf("%s|%s|%d|%d|%d|%v", b.Edge, b.Stream, b.N, i, r.EventTime, r.Value.Number))
	}
}

// check compares the tables with what was sent.
func (s *story) check() {
	s.l.t.Helper()
	slices.Sort(s.want)
	bronze := s.l.table(tableBronze, "edge, stream, n, i, epoch_us(event_time), value")
	slices.Sort(bronze)
	if diff := cmp.Diff(s.want, bronze); diff != "" {
		s.l.t.Error("bronze (-sent +table)", diff)
	}
	const key = "path, event_time, alive_at, value"
	silver, quarantine := s.l.table(tableSilver, key), s.l.table(tableQuarantine, key)
	if len(silver) != s.good || len(slices.Compact(silver)) != s.good {
		s.l.t.Errorf("silver has %d rows, %d different ones; want %d", len(silver), len(slices.Compact(silver)), s.good)
	}
	if len(quarantine) != s.bad || len(slices.Compact(quarantine)) != s.bad {
		s.l.t.Errorf("quarantine has %d rows, want %d", len(quarantine), s.bad)
	}
	tally, err := Tally(context.Background(), s.l.dir)
	if err != nil {
		s.l.t.Fatal(err)
	}
	var sum EdgeTally
	for _, e := range tally {
		sum = sum.plus(e)
	}
	if sum.Duplicates != int64(s.again) || sum.Dropped != 0 {
		s.l.t.Errorf("silver counts %+v, want %d duplicates", sum, s.again)
	}
	s.l.checkGold(s.l.t, unique(s.l))
}

// crashAt stops the worker when a point is passed for the nth time.
func crashAt(point string, nth int) func(context.CancelFunc) signal.Reached {
	return func(stop context.CancelFunc) signal.Reached {
		var mu sync.Mutex
		seen := 0
		return func(p string) {
			mu.Lock()
			defer mu.Unlock()
			if p == point {
				if seen++; seen == nth {
					stop()
				}
			}
		}
	}
}

func TestCrashes(t *testing.T) {
	db := openDB(t)
	for _, c := range []struct {
		point string
		nth   []int
	}{
		{"lake.plan_written", []int{1, 3}}, {"lake.bronze_committed", []int{1}}, {"lake.quarantine_committed", []int{1}}, {"lake.silver_committed", []int{1}}, {"lake.gold_committed", []int{1, 2}},
	} {
		for _, nth := range c.nth {
			t.Run(fmt.Sprintf("%s/%d", c.point, nth), func(t *testing.T) {
				l := newLakeIn(t, t.TempDir(), db, 2)
				s := newStory(l)
				s.send()
				r := l.start(crashAt(c.point, nth))
				for crashed := false; !crashed; {
					select {
					case err := <-r.done:
						if err != nil {
							t.Fatal(err)
						}
						crashed = true
					case <-time.After(time.Second):
						if s.send(); s.wave > 50 {
							t.Fatalf("%s was not passed %d times: %+v", c.point, nth, r.Status())
						}
					}
				}
				s.send() // a retry must not take more than was planned
				r = l.start(nil)
				l.drain(r)
				if err := r.end(); err != nil {
					t.Fatal(err)
				}
				s.check()
			})
		}
	}
}

// A worker that is put to sleep between plan and commit, and wakes after
// another one has taken over, must not write anything twice.
func TestZombie(t *testing.T) {
	db := openDB(t)
	for _, nth := range []int{1, 2} {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			l := newLakeIn(t, t.TempDir(), db, 2)
			s := newStory(l)
			s.send()
			asleep, wake := make(chan struct{}), make(chan struct{})
			var once sync.Once
			zombie := l.start(func(context.CancelFunc) signal.Reached {
				var mu sync.Mutex
				seen := 0
				return func(p string) {
					mu.Lock()
					if p == "lake.plan_written" {
						seen++
					}
					sleep := seen >= nth
					mu.Unlock()
					if sleep {
						once.Do(func() { close(asleep) })
						<-wake
					}
				}
			})
			<-asleep
			zombie.feed.member.give(l.spine.all(), false)
			heir := l.start(nil)
			s.send()
			l.drain(heir)
			close(wake)
			s.send() // both take it
			l.drain(heir)
			if err := zombie.end(); err != nil {
				t.Fatal(err)
			}
			l.drain(heir)
			if err := heir.end(); err != nil {
				t.Fatal(err)
			}
			s.check()
		})
	}
}

// Partitions that move to and fro between two workers while data comes in.
func TestPartitionsMove(t *testing.T) {
	l := newLake(t, 4)
	s := newStory(l)
	all := l.spine.all()
	a, b := l.start(nil, all...), l.start(nil, all[0])
	a.feed.member.give(all[:1], true)
	for i := range 6 {
		s.send()
		from, to := a, b
		if i%3 == 2 {
			from, to = b, a
		}
		tp := all[i%len(all)]
		_, held := from.feed.member.position(tp)
		if held {
			from.feed.member.give([]TopicPartition{tp}, true)
			to.feed.member.take([]TopicPartition{tp})
		}
	}
	for range 2 { // what one drains, the other follows
		l.drain(a)
		l.drain(b)
	}
	if err := errors.Join(a.end(), b.end()); err != nil {
		t.Fatal(err)
	}
	s.check()
}

func (m *groupMember) position(tp TopicPartition) (int64, bool) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	at, ok := m.at[tp]
	return at, ok
}

// A half-committed batch is finished under the pipeline that it was planned
// with; one of which nothing is committed is made anew under the new one.
func TestPipelineChangesBetween(t *testing.T) {
	for _, c := range []struct {
		point string
		nth   int
		want  int // quarantined: 6 under the first pipeline, 0 under the second
	}{{"lake.quarantine_committed", 1, 6}, {"lake.plan_written", 2, 0}} {
		t.Run(c.point, func(t *testing.T) {
			l := newLake(t, 1)
			s := newStory(l)
			s.send()
			r := l.start(crashAt(c.point, c.nth))
			if err := <-r.done; err != nil {
				t.Fatal(err)
			}
			l.changeSilver("value BETWEEN min_possible AND max_possible", "value < 1e9")
			r = l.start(nil)
			l.drain(r)
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			if q := l.table(tableQuarantine, "path"); len(q) != c.want {
				t.Errorf("%d rows are quarantined, want %d", len(q), c.want)
			}
			if got, want := len(l.table(tableSilver, "path")), s.good+s.bad-c.want; got != want {
				t.Errorf("silver has %d rows, want %d", got, want)
			}
		})
	}
}

func (l *lake) changeSilver(old, with string) {
	l.t.Helper()
	files := shipped(l.t)
	i := slices.IndexFunc(files, func(f File) bool { return f.Name == "silver.sql" })
	if !strings.Contains(files[i].Text, old) {
		l.t.Fatalf("silver.sql has no %q", old)
	}
	files[i].Text = strings.Replace(files[i].Text, old, with, 1)
	p, err := Parse(files)
	if err != nil {
		l.t.Fatal(err)
	}
	l.pipeline = p
}

// A retry sees the registry's version of the plan, not the newest.
func TestRegistryIsPinned(t *testing.T) {
	l := newLake(t, 1)
	s := newStory(l)
	s.send()
	r := l.start(crashAt("lake.quarantine_committed", 1))
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	var wider []signal.SensorMeta
	for _, m := range l.registry.versions[0] {
		m.MaxPossible = 1e6
		wider = append(wider, m)
	}
	l.registry.versions = append(l.registry.versions, wider)
	r = l.start(nil)
	l.drain(r)
	s.check()
	e := newEdge("s/z", "b")
	l.spine.send(e.message("s/l/a1", at("x", day+3600e6, 1000)))
	l.drain(r)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if got := l.query("SELECT count(*) FROM " + l.relation(tableSilver) + " WHERE edge = 's/z'"); got[0] != "1" {
		t.Errorf("the next batch does not use the newest version: %v", got)
	}
}

func TestFailUpdateStopsOneFlow(t *testing.T) {
	l := newLake(t, 1)
	s := newStory(l)
	l.changeSilver("value BETWEEN min_possible AND max_possible)                                     ON VIOLATION QUARANTINE", "value BETWEEN min_possible AND max_possible) ON VIOLATION FAIL UPDATE")
	s.send()
	r := l.start(nil)
	deadline := time.Now().Add(30 * time.Second)
	for r.Status()[2].Err == nil && time.Now().Before(deadline) {
		wait(t.Context(), time.Millisecond, nil)
	}
	if err := r.Status()[2].Err; err == nil || !strings.Contains(err.Error(), "constraint possible_value of silver.readings") {
		t.Errorf("status is %v", err)
	}
	s.send()
	for len(l.table(tableBronze, "n")) < len(s.want) && time.Now().Before(deadline) {
		wait(t.Context(), time.Millisecond, nil)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if got := len(l.table(tableSilver, "n")) + len(l.table(tableQuarantine, "n")); got != 0 {
		t.Errorf("%d rows were written", got)
	}
	// Mended, it goes on.
	p, err := Parse(shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	l.pipeline = p
	r = l.start(nil)
	l.drain(r)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

func TestDropRow(t *testing.T) {
	l := newLake(t, 1)
	s := newStory(l)
	l.changeSilver("value BETWEEN min_possible AND max_possible)                                     ON VIOLATION QUARANTINE", "value BETWEEN min_possible AND max_possible) ON VIOLATION DROP ROW")
	s.send()
	r := l.start(nil)
	l.drain(r)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	tally, err := Tally(t.Context(), l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]EdgeTally{"s/e": {Dropped: 6}, "s/f": {Duplicates: 3}}, tally); diff != "" {
		t.Error(diff)
	}
}

func TestSpineThatDoesNotFitStops(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(*spine, TopicPartition)
		want   string
	}{
		{"reset", func(s *spine, tp TopicPartition) { s.logs[tp] = nil }, "spine was reset"},
		{"trimmed", func(s *spine, tp TopicPartition) { s.starts[tp] = 100; s.logs[tp] = make([]kafkac.Record, 100) }, "records are missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLake(t, 1)
			s := newStory(l)
			s.send()
			r := l.start(nil)
			l.drain(r)
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			c.damage(l.spine, TopicPartition{Topic: record.TopicReadings, Partition: 0})
			r = l.start(nil)
			err := <-r.done
			var stop *StopError
			if !errors.As(err, &stop) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a stop: %s", err, c.want)
			}
		})
	}
}

// What was fetched before a seek must not be taken for what comes after it.
func TestRecordsAheadAreAskedForAgain(t *testing.T) {
	l := newLake(t, 1)
	tp := TopicPartition{Topic: record.TopicReadings}
	m := &groupMember{s: l.spine, at: map[TopicPartition]int64{tp: 9}}
	b := newBronze(&Worker{Options: Options{Log: l.options(nil, nil).Log}}, spineTables()[0])
	b.member = m
	p := &part{TopicPartition: tp}
	b.buffer(p, []kafkac.Record{{Offset: 5}, {Offset: 6}})
	b.tell(t.Context())
	if len(p.buffer) != 0 || m.at[tp] != 0 {
		t.Errorf("took %d records ahead, position %d", len(p.buffer), m.at[tp])
	}
	b.buffer(p, []kafkac.Record{{Offset: 0}, {Offset: 1}})
	b.buffer(p, []kafkac.Record{{Offset: 1}, {Offset: 4}})
	b.tell(t.Context())
	if p.fetched != 2 || m.at[tp] != 2 {
		t.Errorf("fetched to %d, position %d, want 2", p.fetched, m.at[tp])
	}
	b.buffer(p, []kafkac.Record{{Offset: 4}}) // again: nothing is in between
	if p.fetched != 5 || len(p.buffer) != 3 {
		t.Errorf("fetched to %d with %d records", p.fetched, len(p.buffer))
	}
}

func TestTailSilver(t *testing.T) {
	l := newLake(t, 1)
	s := newStory(l)
	s.send()
	r := l.start(nil)
	l.drain(r)
	defer func() { _ = r.end() }()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var got []SilverRow
	sentAgain := false
	err := TailSilver(ctx, TailOptions{Dir: l.dir, DB: l.db, Wake: r.Wake()}, func(_ int64, rows []SilverRow) error {
		got = append(got, rows...)
		if len(got) == s.good && !sentAgain {
			sentAgain = true
			s.send()
		}
		if len(got) == s.good && s.wave == 2 {
			stop()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(got) != s.good {
		t.Fatalf("told of %d rows, want %d", len(got), s.good)
	}
	first := got[0]
	if first.Path == "" || first.EventTime != day || first.Value.Kind != signal.Number || !first.Good || first.Edge == "" {
		t.Errorf("first row is %+v", first)
	}
	if _, err := delta.Open(t.Context(), tableDir(l.dir, tableSilver), delta.Options{}); err != nil {
		t.Fatal(err)
	}
}
