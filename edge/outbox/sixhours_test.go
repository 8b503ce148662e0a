package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/signal"
)

// hall is a plant of assets with twenty sensors each, all of which change twice a
// second: 10,000 changes a second with 250 assets.
type hall struct {
	assets  int
	commits int
}

const hallSensors = 20

// commit is what changed in the next half second: a message for each asset.
func (h *hall) commit() outbox.Commit {
	at := signal.Micros(1_700_000_000_000_000) + signal.Micros(h.commits)*500_000
	h.commits++
	c := outbox.Commit{Emitted: uint64(h.assets * hallSensors)}
	c.Position, _ = json.Marshal(h.commits)
	for a := range h.assets {
		stream := signal.Stream(fmt.Sprintf("lyon/hall/machine-%03d:telemetry", a))
		b := signal.Batch{Origin: signal.Origin{Stream: stream, Config: "0123456789abcdef"}}
		for s := range hallSensors {
			x := math.Round(1000*math.Sin(float64(h.commits)/50+float64(a+s))) / 100
			b.Readings = append(b.Readings, signal.Reading{
				Sensor: fmt.Sprintf("temperature_%02d", s), EventTime: at, AliveAt: at, Value: signal.NumberValue(x), Unit: "Cel", Quality: signal.QualityGood,
			})
		}
		c.Messages = append(c.Messages, b)
		c.Seen = append(c.Seen, outbox.Progress{Stream: stream, SeenTo: at})
	}
	return c
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Six hours without a link at 10,000 changes a second, 216 million readings: the
// memory does not grow with what waits, and while it drains what is new is on disk
// and readable as quickly as ever. HEADRACE_SOAK=1 runs the whole, which takes 11 GB of
// disk, or as many hours as HEADRACE_HOURS says; otherwise it is a hundredth, in
// segments a hundredth as large.
func TestSixHoursOffline(t *testing.T) {
	const (
		assets = 250
		second = 2 * time.Second // how late what is live may be, on any machine
	)
	hours, scale, growth := 6, 100, uint64(2<<20)
	if os.Getenv("HEADRACE_SOAK") != "" {
		scale, growth = 1, 16<<20
	}
	if h, err := strconv.Atoi(os.Getenv("HEADRACE_HOURS")); err == nil {
		hours = h
	}
	opt := outbox.Options{
		Dir: t.TempDir(), Edge: "lyon/hall-1", FloorBytes: 1, QuotaBytes: 16 << 30, SegmentBytes: outbox.DefaultSegmentBytes / int64(scale), CommitBytes: 1 << 18,
	}
	o := mustOpen(t, opt)
	h := &hall{assets: assets}
	commits := hours * 3600 * 2 / scale
	began := time.Now()
	var early uint64
	for i := range commits {
		if _, err := o.Begin(t.Context(), h.commit()); err != nil {
			t.Fatal(err)
		}
		if i == commits/10 {
			early = heap()
		}
	}
	if err := o.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	full := heap()
	st := o.Stats()
	readings := uint64(commits) * assets * hallSensors
	t.Logf("%d readings in %d messages and %d segments, %.1f bytes a reading, taken at %.2f million a second; heap %.1f MiB at a tenth, %.1f MiB at the end",
		readings, st.WaitingMessages, st.Segments, float64(st.Bytes)/float64(readings), float64(readings)/took.Seconds()/1e6, mib(early), mib(full))
	if st.WaitingReadings != readings || st.Bytes > int64(readings)*60 {
		t.Errorf("%+v", st)
	}
	if limit := early + growth; full > limit {
		t.Errorf("the heap grew from %.1f to %.1f MiB with what waits", mib(early), mib(full))
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	o = mustOpen(t, opt)
	defer o.Close()
	t.Logf("opened again in %s, heap %.1f MiB", time.Since(began).Round(time.Millisecond), mib(heap()))
	if got := o.Stats(); got.WaitingReadings != readings || got.WaitingMessages != st.WaitingMessages {
		t.Errorf("opened again: %+v", got)
	}
	drainBesideLive(t, o, h, st.WaitingMessages, second)
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// drainBesideLive reads and acknowledges what waits, in windows, while commits go
// on twice a second, and measures how long one takes until it can be read.
func drainBesideLive(t *testing.T, o *outbox.Outbox, h *hall, messages int, limit time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	var latest time.Duration
	lives := 0
	running.Go(func() {
		ticker := time.NewTicker(500 * time.Millisecond)
		defer ticker.Stop()
		var b signal.Batch
		after := uint64(0)
		for {
			asked := time.Now()
			if err := o.Append(ctx, h.commit()); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			from := after + 1
			for m, ok := o.Next(o.Boot(), after); ok; m, ok = o.Next(o.Boot(), after) {
				if err := o.Read(o.Boot(), m.Seq, &b); err != nil {
					t.Error(err)
					return
				}
				after = m.Seq
			}
			o.Ack(o.Boot(), []signal.Range{{From: from, To: after}})
			latest = max(latest, time.Since(asked))
			lives++
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	boot := o.Boots()[0]
	began := time.Now()
	var b signal.Batch
	var peak uint64
	var m runtime.MemStats
	after, from, drained := uint64(0), uint64(1), 0
	const window = 2000
	for info, ok := o.Next(boot, after); ok; info, ok = o.Next(boot, after) {
		if err := o.Read(boot, info.Seq, &b); err != nil {
			t.Fatal(err)
		}
		after = info.Seq
		if drained++; drained%window == 0 {
			o.Ack(boot, []signal.Range{{From: from, To: after}})
			from = after + 1
		}
		if drained%(10*window) == 0 {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	o.Ack(boot, []signal.Range{{From: from, To: after}})
	took := time.Since(began)
	stop()
	running.Wait()
	t.Logf("drained %d messages at %.2f million readings a second, heap at most %.1f MiB before a collection; %d live commits, the slowest was readable after %s",
		drained, float64(drained)*hallSensors/took.Seconds()/1e6, mib(peak), lives, latest.Round(time.Millisecond))
	if drained != messages || lives == 0 || latest > limit {
		t.Errorf("drained %d of %d messages, %d live commits, the slowest took %s", drained, messages, lives, latest)
	}
}
