package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

const eventStream = signal.Stream("skab/valve1/0:event")

// event is a commit of one state.
func event(at int) outbox.Commit {
	c := one(at, 1)
	c.Messages[0].Stream = eventStream
	c.Messages[0].Readings[0].Value = signal.TextValue("running")
	c.Seen[0].Stream = eventStream
	c.Evict = true
	return c
}

func telemetry(at, readings int) outbox.Commit {
	c := one(at, readings)
	c.Evict = true
	return c
}

// A full outbox gives up its oldest telemetry for what comes from a source that
// cannot wait, keeps the events, counts by class, and tells of the hole.
func TestFullOutboxEvictsTheOldestTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newMemFS()
		opt := options(fsys)
		opt.QuotaBytes = 20_000
		o := mustOpen(t, opt)
		const rounds = 2000
		events := 0
		for i := range rounds {
			if err := o.Append(t.Context(), telemetry(i*10, 5)); err != nil {
				t.Fatal(err)
			}
			if i%200 == 0 {
				events++
				if err := o.Append(t.Context(), event(i*10)); err != nil {
					t.Fatal(err)
				}
			}
		}
		check := func(o *outbox.Outbox) {
			t.Helper()
			st := o.Stats()
			if err := st.Check(); err != nil || st.Bytes > 26_000 || st.Evicted == 0 || st.EvictedEvents != 0 {
				t.Errorf("%+v: %v", st, err)
			}
			if got := st.WaitingReadings + st.Evicted; got != uint64(rounds*5+events) || st.Shipped != st.WaitingReadings {
				t.Errorf("%d readings wait, %d were evicted, %d shipped, of %d", st.WaitingReadings, st.Evicted, st.Shipped, rounds*5+events)
			}
			var at, eventsAt []signal.Micros
			for _, b := range waiting(t, o) {
				if b.Stream == eventStream {
					eventsAt = append(eventsAt, b.Readings[0].EventTime)
				} else {
					at = append(at, b.Readings[0].EventTime)
				}
			}
			if len(eventsAt) != events || !slices.IsSorted(eventsAt) {
				t.Errorf("events %v, want %d", eventsAt, events)
			}
			// The newest telemetry is there, without a gap.
			for i, a := range at {
				if want := signal.Micros(10 * (rounds - len(at) + i)); a != want {
					t.Fatalf("telemetry %d is of %d, want %d", i, a, want)
				}
			}
			for _, s := range o.Streams() {
				if s.Stream == stream && s.CompleteTo != at[0] {
					t.Errorf("complete to %d, want %d", s.CompleteTo, at[0])
				}
			}
		}
		check(o)
		if h := o.Holes(); h != nil {
			t.Errorf("without room holes are told: %v", h)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		o = mustOpen(t, opt)
		defer func() { o.Close() }()
		check(o)
		evicted := o.Stats().Evicted
		for _, boot := range o.Boots() {
			o.Ack(boot, []signal.Range{{From: 1, To: 1 << 60}})
		}
		time.Sleep(time.Second)
		holes := o.Holes()
		want := []outbox.Told{{Stream: stream, Hole: outbox.Hole{Readings: evicted, From: 0, To: signal.Micros(10 * (int(evicted)/5 - 1))}}}
		if d := cmp.Diff(want, holes); d != "" {
			t.Error("holes (-want +got):\n", d)
		}
		// It is told once, and that survives a restart.
		c := event(1)
		c.Told = holes
		if err := o.Append(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if h := o.Holes(); h != nil {
				t.Errorf("told again: %v", h)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			o = mustOpen(t, opt)
		}
	})
}

// With nothing but events the oldest of them go, and are counted apart.
func TestEventsGoLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(newMemFS())
		opt.QuotaBytes = 20_000
		o := mustOpen(t, opt)
		defer o.Close()
		for i := range 20 {
			if err := o.Append(t.Context(), telemetry(i, 5)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 500 {
			if err := o.Append(t.Context(), event(100+i)); err != nil {
				t.Fatal(err)
			}
			if st := o.Stats(); st.EvictedEvents > 0 && st.Evicted-st.EvictedEvents != 100 {
				t.Fatalf("events were given up before telemetry: %+v", st)
			}
		}
		if st := o.Stats(); st.EvictedEvents == 0 || st.Bytes > 26_000 {
			t.Errorf("%+v", st)
		}
	})
}

// Waveforms go with telemetry, and are counted in samples.
func TestEvictedWaveforms(t *testing.T) {
	opt := options(newMemFS())
	opt.QuotaBytes = 20_000
	o := mustOpen(t, opt)
	defer o.Close()
	wave := record.Waveform{Rate: 100, Format: record.FormatI16, Scale: 1, Samples: make([]byte, 100)}
	block := record.AppendWaveform(nil, &wave)
	for i := range 500 {
		c := one(i, 1)
		c.Evict, c.Emitted, c.Samples, c.SamplesShipped = true, 0, 50, 50
		c.Messages[0].Stream = "skab/valve1/0:raw"
		c.Messages[0].Readings[0].Value = signal.WaveValue(string(block))
		if err := o.Append(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	st := o.Stats()
	if err := st.Check(); err != nil || st.SamplesEvicted == 0 || st.SamplesShipped+st.SamplesEvicted != 500*50 || st.SamplesShipped != uint64(50*st.WaitingMessages) {
		t.Errorf("%+v: %v", st, err)
	}
}

// A disk that others fill has telemetry given up, never events; with space the
// outbox goes on by itself.
func TestFullDiskEvictsForASourceThatCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newMemFS()
		opt := options(fsys)
		opt.FloorBytes = 1000
		o := mustOpen(t, opt)
		defer o.Close()
		for i := range 40 {
			c := telemetry(i, 5)
			if i%10 == 0 {
				c = event(i)
			}
			if err := o.Append(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		fsys.setSpace(900)
		for i := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := o.Append(ctx, telemetry(1000+i, 5))
			cancel()
			if err != nil {
				if _, full := errors.AsType[*outbox.SpaceError](err); !full {
					t.Fatal(err)
				}
				break
			}
		}
		st := o.Stats()
		if st.Evicted == 0 || st.EvictedEvents != 0 || st.Check() != nil {
			t.Errorf("%+v", st)
		}
		fsys.setSpace(1 << 30)
		if err := o.Append(t.Context(), telemetry(5000, 5)); err != nil {
			t.Fatal(err)
		}
		events := 0
		for _, b := range waiting(t, o) {
			if b.Stream == eventStream {
				events++
			}
		}
		if events != 4 {
			t.Errorf("%d events wait, want 4", events)
		}
	})
}

// TestEvictionModel has commits of both classes, acknowledgements, restarts and
// power cuts in any order, and compares with a map.
func TestEvictionModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fsys := newMemFS()
		opt := options(fsys)
		opt.CommitDelay, opt.AckDelay = 1, 1
		opt.QuotaBytes = int64(rapid.IntRange(10_000, 40_000).Draw(rt, "quota"))
		o := mustOpen(t, opt)
		defer func() { o.Close() }()
		type key struct {
			boot string
			seq  uint64
		}
		all := map[key]int{}
		isEvent := map[key]bool{}
		var total, acked uint64
		last := uint64(0)
		next := 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(rt, "commits") {
					next++
					c, n := telemetry(next, 1+next%6), 1+next%6
					if next%7 == 0 {
						c, n = event(next), 1
					}
					if err := o.Append(context.Background(), c); err != nil {
						rt.Fatal(err)
					}
					last++
					k := key{o.Boot(), last}
					all[k], isEvent[k] = n, next%7 == 0
					total += uint64(n)
				}
			},
			"ack": func(rt *rapid.T) {
				boots := o.Boots()
				if len(boots) == 0 {
					return
				}
				lo := rapid.Uint64Range(0, 300).Draw(rt, "from")
				_, n := o.Ack(rapid.SampledFrom(boots).Draw(rt, "boot"), []signal.Range{{From: lo, To: lo + rapid.Uint64Range(0, 100).Draw(rt, "more")}})
				acked += n
			},
			"reopen": func(rt *rapid.T) {
				before := o.Stats()
				if err := o.Close(); err != nil {
					rt.Fatal(err)
				}
				o, last = mustOpen(t, opt), 0
				after := o.Stats()
				if before.Counters != after.Counters || before.WaitingMessages != after.WaitingMessages || before.WaitingReadings != after.WaitingReadings {
					rt.Fatalf("before %+v, after %+v", before, after)
				}
			},
			"": func(rt *rapid.T) {
				st := o.Stats()
				waits, events := uint64(0), 0
				seen := map[key]bool{}
				for _, b := range waiting(t, o) {
					k := key{b.Boot, b.Seq}
					if seen[k] || all[k] != len(b.Readings) {
						rt.Fatalf("%v: twice %v, %d readings, want %d", k, seen[k], len(b.Readings), all[k])
					}
					seen[k] = true
					waits += uint64(len(b.Readings))
					if isEvent[k] {
						events++
					}
				}
				if err := st.Check(); err != nil || waits != st.WaitingReadings || len(seen) != st.WaitingMessages || st.LostMessages != 0 {
					rt.Fatalf("%d readings in %d messages: %+v: %v", waits, len(seen), st, err)
				}
				if waits+acked+st.Evicted != total {
					rt.Fatalf("%d wait + %d acknowledged + %d evicted, want %d", waits, acked, st.Evicted, total)
				}
				if max := opt.QuotaBytes + 8000; st.Bytes > max {
					rt.Fatalf("%d bytes, want at most %d", st.Bytes, max)
				}
			},
		})
	})
}

// A power cut at each sync point of a life with eviction: what is there again is
// neither twice nor against the counters, and no event is lost that was promised.
func TestPowerCutsWhileEvicting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := func(fsys *memFS) (events []string) {
			opt := options(fsys)
			opt.QuotaBytes = 10_000
			o, err := outbox.Open(opt)
			if err != nil {
				return nil
			}
			defer o.Close()
			for i := range 120 {
				c := telemetry(i*10, 5)
				if i%10 == 0 {
					c = event(i * 10)
				}
				if o.Append(context.Background(), c) != nil {
					return events
				}
				if i%10 == 0 {
					events = append(events, fmt.Sprintf("%s/%d", o.Boot(), i+1))
				}
			}
			return events
		}
		whole := newMemFS()
		life(whole)
		rng := rand.New(rand.NewPCG(3, 4))
		for cut := 1; cut <= whole.syncs; cut++ {
			for mode := range 5 {
				fsys := newMemFS()
				fsys.cutAt, fsys.after = cut, mode == 1
				events := life(fsys)
				var torn *rand.Rand
				if mode > 1 {
					torn = rng
				}
				o := mustOpen(t, options(fsys.reboot(torn)))
				st := o.Stats()
				waits := uint64(0)
				there := map[string]bool{}
				for _, b := range waiting(t, o) {
					id := fmt.Sprintf("%s/%d", b.Boot, b.Seq)
					if there[id] {
						t.Errorf("cut %d: %s twice", cut, id)
					}
					there[id] = true
					waits += uint64(len(b.Readings))
				}
				if err := st.Check(); err != nil || waits != st.Shipped || st.LostMessages != 0 || st.CorruptFrames != 0 {
					t.Errorf("cut %d: %d readings wait, %+v: %v", cut, waits, st, err)
				}
				for _, id := range events {
					if !there[id] {
						t.Errorf("cut %d: event %s was promised and is lost", cut, id)
					}
				}
				o.Close()
			}
		}
		t.Logf("%d sync points", whole.syncs)
	})
}
