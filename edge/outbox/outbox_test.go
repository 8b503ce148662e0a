package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/signal"
)

const stream = signal.Stream("skab/valve1/0:telemetry")

func options(fsys outbox.FS) outbox.Options {
	return outbox.Options{
		Dir: "/o", Edge: "skab/valve1-0", FS: fsys, SegmentBytes: 2000, FloorBytes: 1,
		CommitDelay: time.Millisecond, AckDelay: time.Millisecond, RetryEvery: time.Millisecond,
	}
}

func mustOpen(t testing.TB, opt outbox.Options) *outbox.Outbox {
	t.Helper()
	o, err := outbox.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// one is a commit of one message with readings whose event times are from, from+1, …
func one(from, readings int) outbox.Commit {
	b := signal.Batch{Origin: signal.Origin{Stream: stream, Config: "c0"}}
	for i := range readings {
		at := signal.Micros(from + i)
		b.Readings = append(b.Readings, signal.Reading{
			Sensor: "current", EventTime: at, AliveAt: at, Value: signal.NumberValue(float64(from + i)), Quality: signal.QualityGood,
		})
	}
	pos, _ := json.Marshal(from + readings)
	return outbox.Commit{
		Messages: []signal.Batch{b}, Position: pos, Emitted: uint64(readings),
		Seen: []outbox.Progress{{Stream: stream, SeenTo: signal.Micros(from + readings - 1)}},
	}
}

// waiting reads every unacknowledged message back.
func waiting(t testing.TB, o *outbox.Outbox) []signal.Batch {
	t.Helper()
	var out []signal.Batch
	for _, boot := range o.Boots() {
		for m, ok := o.Next(boot, 0); ok; m, ok = o.Next(boot, m.Seq) {
			var b signal.Batch
			if err := o.Read(boot, m.Seq, &b); err != nil {
				t.Fatalf("reading %s/%d: %v", boot, m.Seq, err)
			}
			out = append(out, b)
		}
	}
	return out
}

func TestCommitReadAckReopen(t *testing.T) {
	fsys := newMemFS()
	o := mustOpen(t, options(fsys))
	for i := range 3 {
		if err := o.Append(t.Context(), one(10*i, 2)); err != nil {
			t.Fatal(err)
		}
	}
	first := o.Boot()
	got := waiting(t, o)
	want := one(10, 2).Messages[0]
	want.Origin = signal.Origin{Edge: "skab/valve1-0", Boot: first, Seq: 2, Stream: stream, N: 1, Config: "c0", CompleteTo: 0}
	if diff := cmp.Diff(want, got[1]); diff != "" {
		t.Error("second message (-want +got):\n", diff)
	}
	if m, r := o.Ack(first, []signal.Range{{From: 1, To: 1}, {From: 3, To: 1 << 60}}); m != 2 || r != 4 {
		t.Errorf("Ack took out %d messages, %d readings, want 2 and 4", m, r)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}

	o = mustOpen(t, options(fsys))
	defer o.Close()
	if o.Boot() == first {
		t.Error("the boot is the old one")
	}
	if got := waiting(t, o); len(got) != 1 || got[0].Boot != first || got[0].Seq != 2 || got[0].N != 1 {
		t.Errorf("waiting after reopening: %+v", got)
	}
	pos, _, ended := o.Position()
	if string(pos) != "22" || ended {
		t.Errorf("position %s, ended %v", pos, ended)
	}
	if got, want := o.Stats().Counters, (outbox.Counters{Emitted: 6, Shipped: 6}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
	if s := o.Streams(); len(s) != 1 || s[0].CompleteTo != 10 || s[0].Idle {
		t.Errorf("streams %+v", s)
	}
	c := one(30, 1)
	c.SourceEnded = true
	if err := o.Append(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	o.Ack(first, []signal.Range{{From: 2, To: 2}})
	o.Ack(o.Boot(), []signal.Range{{From: 1, To: 1}})
	if s := o.Streams(); s[0].CompleteTo != 30 || !s[0].Idle || !o.Drained() {
		t.Errorf("drained %v, streams %+v", o.Drained(), s)
	}
}

func TestRefusesWhatDoesNotAddUp(t *testing.T) {
	o := mustOpen(t, options(newMemFS()))
	defer o.Close()
	c := one(0, 2)
	c.Emitted = 3
	if err := o.Append(t.Context(), c); err == nil {
		t.Error("a commit whose counters do not add up was taken")
	}
	c.Filtered = 1
	if err := o.Append(t.Context(), c); err != nil {
		t.Error(err)
	}
	if err := o.Stats().Check(); err != nil {
		t.Error(err)
	}
}

// TestPowerCutAtEverySyncPoint runs one scripted life of an outbox, cuts the
// power at each of its sync points, and checks that nothing promised is lost
// and that nothing comes twice.
func TestPowerCutAtEverySyncPoint(t *testing.T) { synctest.Test(t, powerCuts) }

func powerCuts(t *testing.T) {
	life := func(fsys *memFS) (promised, acked []string, position int, err error) {
		o, err := outbox.Open(options(fsys))
		if err != nil {
			return nil, nil, 0, err
		}
		defer o.Close()
		for i := range 40 {
			if err := o.Append(context.Background(), one(100*i, 5)); err != nil {
				return promised, acked, position, err
			}
			promised = append(promised, fmt.Sprintf("%s/%d", o.Boot(), i+1))
			position = 100*i + 5
			if i%4 == 3 { // all but each fourth
				o.Ack(o.Boot(), []signal.Range{{From: uint64(i - 2), To: uint64(i)}})
				for s := i - 2; s <= i; s++ {
					acked = append(acked, fmt.Sprintf("%s/%d", o.Boot(), s))
				}
			}
			if i == 30 {
				o.Ack(o.Boot(), []signal.Range{{From: 1, To: 20}})
				for s := 1; s <= 20; s++ {
					acked = append(acked, fmt.Sprintf("%s/%d", o.Boot(), s))
				}
			}
		}
		return promised, acked, position, nil
	}
	whole := newMemFS()
	if _, _, _, err := life(whole); err != nil {
		t.Fatal(err)
	}
	if whole.syncs < 40 {
		t.Fatalf("only %d sync points", whole.syncs)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for cut := 1; cut <= whole.syncs; cut++ {
		for _, mode := range []string{"before", "after", "torn", "torn", "torn", "torn"} {
			fsys := newMemFS()
			fsys.cutAt, fsys.after = cut, mode == "after"
			promised, acked, position, _ := life(fsys)
			var torn *rand.Rand
			if mode == "torn" {
				torn = rng
			}
			o, err := outbox.Open(options(fsys.reboot(torn)))
			if err != nil {
				t.Fatalf("cut %d %s: %v", cut, mode, err)
			}
			seen := map[string]bool{}
			for _, b := range waiting(t, o) {
				id := fmt.Sprintf("%s/%d", b.Boot, b.Seq)
				if seen[id] {
					t.Errorf("cut %d %s: %s twice", cut, mode, id)
				}
				seen[id] = true
			}
			for _, id := range promised {
				if !seen[id] && !slices.Contains(acked, id) {
					t.Errorf("cut %d %s: %s was promised and is lost", cut, mode, id)
				}
			}
			pos, _, _ := o.Position()
			at := 0
			_ = json.Unmarshal(pos, &at)
			// One commit may have become durable without a promise.
			if at < position || at > position+105 {
				t.Errorf("cut %d %s: position %d, promised %d", cut, mode, at, position)
			}
			st := o.Stats()
			if err := st.Check(); err != nil || st.CorruptFrames != 0 || st.LostMessages != 0 {
				t.Errorf("cut %d %s: %+v: %v", cut, mode, st, err)
			}
			if wantShipped := uint64(at/100*5 + min(at%100, 5)); st.Shipped != wantShipped {
				t.Errorf("cut %d %s: shipped %d at position %d, want %d", cut, mode, st.Shipped, at, wantShipped)
			}
			if err := o.Append(t.Context(), one(9000, 1)); err != nil {
				t.Errorf("cut %d %s: %v", cut, mode, err)
			}
			o.Close()
		}
	}
}

func TestDamagedFrameCostsThatFrame(t *testing.T) {
	fsys := newMemFS()
	opt := options(fsys)
	opt.SegmentBytes = 1 << 20
	o := mustOpen(t, opt)
	var ends []int64
	for i := range 5 {
		if err := o.Append(t.Context(), one(10*i, 3)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, o.Stats().Bytes)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	name := fsys.names()[0]
	for _, at := range []int64{ends[1], ends[1] + 5, ends[1] + 40, ends[2] - 1} {
		fsys.flip(name, int(at))
		st, err := outbox.ReadStateFS(fsys, "/o")
		if err != nil {
			t.Fatal(err)
		}
		if st.CorruptFrames != 1 || st.LostMessages != 1 || len(st.Unacked) != 4 || st.Counters.Lost != 3 || st.Counters.Shipped != 15 {
			t.Errorf("damaged at %d: %+v", at, st)
		}
		fsys.flip(name, int(at))
	}
	fsys.flip(name, int(ends[1]+40))
	for range 2 { // the second time the loss is known and not counted again
		o = mustOpen(t, opt)
		if got := o.Stats(); got.Lost != 3 || got.WaitingMessages != 4 {
			t.Errorf("stats %+v", got)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Damage that comes while it is open.
	o = mustOpen(t, opt)
	defer o.Close()
	fsys.flip(name, int(ends[3])+90)
	m := o.Boots()[0]
	var b signal.Batch
	if err := o.Read(m, 5, &b); !errors.Is(err, outbox.ErrLost) {
		t.Errorf("reading a damaged message: %v", err)
	}
	if err := o.Read(m, 5, &b); !errors.Is(err, outbox.ErrGone) {
		t.Errorf("reading it again: %v", err)
	}
	if got := o.Stats(); got.Lost != 6 || got.WaitingMessages != 3 {
		t.Errorf("stats %+v", got)
	}
}

func TestFullDiskStopsIntakeAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newMemFS()
		opt := options(fsys)
		opt.FloorBytes = 1000
		o := mustOpen(t, opt)
		if err := o.Append(t.Context(), one(0, 3)); err != nil {
			t.Fatal(err)
		}
		for _, space := range []int64{1001, 0} {
			fsys.setSpace(space)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := o.Append(ctx, one(100, 3))
			cancel()
			if _, full := errors.AsType[*outbox.SpaceError](err); !full {
				t.Fatalf("with %d bytes left: %v, want a SpaceError", space, err)
			}
		}
		fsys.setSpace(1 << 30)
		if err := o.Append(t.Context(), one(200, 3)); err != nil {
			t.Fatal(err)
		}
		if o.Stats().Stalled != nil {
			t.Error("still stalled")
		}
		// A write that stops half way.
		fsys.mu.Lock()
		fsys.writeTo = fsys.writes + 1
		fsys.mu.Unlock()
		if err := o.Append(t.Context(), one(300, 3)); err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		st, err := outbox.ReadStateFS(fsys, "/o")
		if err != nil || len(st.Unacked) != 5 || st.CorruptFrames != 0 || st.LostMessages != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// Files that are removed under an open outbox end it at the next commit, and an
// outbox opened in their place begins a boot of its own.
func TestWipedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newMemFS()
		o := mustOpen(t, options(fsys))
		first := o.Boot()
		if err := o.Append(t.Context(), one(0, 3)); err != nil {
			t.Fatal(err)
		}
		fsys.wipe()
		if err := o.Append(t.Context(), one(10, 3)); !errors.Is(err, outbox.ErrWiped) || !strings.Contains(err.Error(), "/o") {
			t.Errorf("a commit to a wiped disk: %v", err)
		}
		if !errors.Is(o.Err(), outbox.ErrWiped) {
			t.Errorf("the outbox says %v", o.Err())
		}
		if err := o.Close(); !errors.Is(err, outbox.ErrWiped) {
			t.Errorf("closing: %v", err)
		}
		o = mustOpen(t, options(fsys))
		defer o.Close()
		if err := o.Append(t.Context(), one(0, 3)); err != nil {
			t.Fatal(err)
		}
		got := waiting(t, o)
		if o.Boot() == first || len(got) != 1 || got[0].Boot == first || got[0].Seq != 1 || got[0].N != 0 {
			t.Errorf("after the wipe: %+v", got)
		}
		// An acknowledgement of the boot that is gone touches nothing.
		if n, _ := o.Ack(first, []signal.Range{{From: 1, To: 5}}); n != 0 || len(waiting(t, o)) != 1 {
			t.Errorf("an old acknowledgement took %d messages", n)
		}
	})
}

func TestQuotaBlocksUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(newMemFS())
		opt.QuotaBytes = 20_000
		o := mustOpen(t, opt)
		defer o.Close()
		n := uint64(0)
		for ; ; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := o.Append(ctx, one(int(n)*10, 5))
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if b := o.Stats().Bytes; b < 20_000 || b > 24_000 {
			t.Errorf("%d bytes at the quota of 20000", b)
		}
		o.Ack(o.Boot(), []signal.Range{{From: 1, To: n}})
		if err := o.Append(t.Context(), one(int(n)*10, 5)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if s := o.Stats(); s.Segments > 2 || s.Evicted != 0 {
			t.Errorf("after acknowledgement: %+v", s)
		}
	})
}

func TestEventsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(newMemFS())
		opt.CommitDelay = time.Hour
		o := mustOpen(t, opt)
		defer o.Close()
		for class, want := range map[signal.Class]time.Duration{signal.Event: 0, signal.Telemetry: time.Hour} {
			c := one(0, 1)
			c.Messages[0].Stream = signal.NewStream("skab/valve1/0", class)
			asked := time.Now()
			if err := o.Append(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(asked); d != want {
				t.Errorf("a commit of class %s took %s, want %s", class, d, want)
			}
		}
	})
}

// TestModel compares the outbox with a map, over reopenings.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fsys := newMemFS()
		o := mustOpen(t, options(fsys))
		defer func() { o.Close() }()
		type key struct {
			boot string
			seq  uint64
		}
		model := map[key]int{} // readings
		from := map[key]int{}
		seqs := map[string]uint64{}
		next := 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				n := rapid.IntRange(1, 6).Draw(rt, "readings")
				next += rapid.IntRange(-50, 100).Draw(rt, "step")
				if err := o.Append(context.Background(), one(next, n)); err != nil {
					rt.Fatal(err)
				}
				seqs[o.Boot()]++
				k := key{o.Boot(), seqs[o.Boot()]}
				model[k], from[k] = n, next
			},
			"ack": func(rt *rapid.T) {
				boots := []string{o.Boot()}
				for k := range model {
					boots = append(boots, k.boot)
				}
				slices.Sort(boots)
				boot := rapid.SampledFrom(slices.Compact(boots)).Draw(rt, "boot")
				lo := rapid.Uint64Range(0, 30).Draw(rt, "from")
				hi := lo + rapid.Uint64Range(0, 10).Draw(rt, "more")
				want := 0
				for k, n := range model {
					if k.boot == boot && k.seq >= lo && k.seq <= hi {
						want += n
						delete(model, k)
					}
				}
				if _, got := o.Ack(boot, []signal.Range{{From: lo, To: hi}}); int(got) != want {
					rt.Fatalf("Ack(%d..%d) took %d readings, want %d", lo, hi, got, want)
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := o.Close(); err != nil {
					rt.Fatal(err)
				}
				o = mustOpen(t, options(fsys))
			},
			"": func(rt *rapid.T) {
				got := map[key]int{}
				complete := signal.Micros(1 << 62)
				for _, b := range waiting(t, o) {
					got[key{b.Boot, b.Seq}] = len(b.Readings)
				}
				if diff := cmp.Diff(fmt.Sprint(model), fmt.Sprint(got)); diff != "" {
					rt.Fatal(diff)
				}
				for k := range model {
					complete = min(complete, signal.Micros(from[k]))
				}
				if s := o.Streams(); len(model) > 0 && s[0].CompleteTo != complete {
					rt.Fatalf("complete to %d, want %d", s[0].CompleteTo, complete)
				}
				if err := o.Stats().Check(); err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}

func FuzzReadState(f *testing.F) {
	fsys := newMemFS()
	o := mustOpen(f, options(fsys))
	for i := range 4 {
		if err := o.Append(f.Context(), one(i*10, 2)); err != nil {
			f.Fatal(err)
		}
	}
	o.Ack(o.Boot(), []signal.Range{{From: 2, To: 2}})
	o.Close()
	for _, name := range fsys.names() {
		f.Add(fsys.live[name].data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := newMemFS()
		fsys.live["/o/0000000001.log"] = &memFile{data: data}
		// Whatever the bytes, there is an answer or an error, and an outbox
		// that opens also takes a commit.
		_, _ = outbox.ReadStateFS(fsys, "/o")
		o, err := outbox.Open(options(fsys))
		if err != nil {
			return
		}
		defer o.Close()
		if err := o.Append(t.Context(), one(1, 1)); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	o, err := outbox.Open(outbox.Options{Dir: b.TempDir(), Edge: "skab/valve1-0", FloorBytes: 1, QuotaBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	const readings = 500
	b.ReportAllocs()
	var last *outbox.Ticket
	from := 0
	for b.Loop() {
		c := one(from, readings)
		from += readings
		if last, err = o.Begin(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		if from%(100*readings) == 0 {
			o.Ack(o.Boot(), []signal.Range{{From: 1, To: 1 << 62}})
		}
	}
	if err := o.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	<-last.Done()
	b.ReportMetric(float64(from)/b.Elapsed().Seconds(), "readings/s")
}
