package edge_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/source/ownclock"
	"github.com/headrace/headrace/signal"
)

// wrong is a machine whose clock is behind by skew.
type wrong struct {
	signal.WallClock
	skew   atomic.Int64 // ns
	boot   string
	booted time.Time
}

func (w *wrong) Now() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }
func (w *wrong) Since() (string, time.Duration) {
	return w.boot, time.Since(w.booted)
}
func (w *wrong) Synced() bool { return true }

// timeless is a source of one value a second, with the time at which it was true
// for a value, and that of its arrival by the machine's clock.
type timeless struct {
	clock *wrong
	next  time.Time
}

func (c *timeless) Next(ctx context.Context) (source.Chunk, error) {
	if c.next.IsZero() {
		c.next = time.Now().Add(time.Second)
	}
	select {
	case <-time.After(time.Until(c.next)):
		c.next = c.next.Add(time.Second)
	case <-ctx.Done():
		return source.Chunk{}, ctx.Err()
	}
	now := signal.MicrosOf(c.clock.Now())
	return source.Chunk{Time: c.clock.Now(), Samples: []source.Sample{{Asset: "skab/valve1/a", Class: signal.Telemetry, Arrived: true, Reading: signal.Reading{
		Sensor: "x", EventTime: now, AliveAt: now, Value: signal.NumberValue(float64(time.Now().UnixMicro())), Quality: signal.QualityGood,
	}}}}, nil
}
func (c *timeless) Take()                     {}
func (c *timeless) Figures() []signal.Counter { return nil }
func (c *timeless) Close() error              { return nil }
func (c *timeless) Position() []byte          { return nil }

// A gateway boots in 1970, and its agent is restarted before it knows the time:
// nothing that has no time of its own leaves before, and all of it with its own.
func TestAgentThatBootsIn1970(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		clock := &wrong{boot: "one", booted: time.Now()}
		clock.skew.Store(int64(-30 * 365 * 24 * time.Hour))
		dir := t.TempDir()
		opt := func() edge.Options {
			o := options(dir, nil, l)
			o.Clock = clock
			o.Open = ownclock.Opener(ownclock.Options{
				Open: func([]byte, *slog.Logger) (source.Source, error) { return &timeless{clock: clock}, nil },
				File: filepath.Join(dir, "clock"), Clock: clock, NotBefore: time.Now().Add(-time.Hour), Asset: "skab/edge/valve1-0",
			})
			return o
		}
		_, stop := start(t, opt())
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		stop()
		b.set(func() {
			if len(b.got) != 0 {
				t.Errorf("%d messages left before the time was known", len(b.got))
			}
		})
		time.Sleep(time.Minute)
		a, stop := start(t, opt())
		time.Sleep(time.Minute + 500*time.Millisecond)
		clock.skew.Store(0)
		time.Sleep(time.Minute)
		stop()
		historical, values, steps := 0, map[float64]bool{}, 0
		b.set(func() {
			for _, m := range b.got {
				for _, r := range m.Readings {
					if r.Sensor == ownclock.Sensor {
						steps++
						continue
					}
					if off := r.EventTime.Time().Sub(time.UnixMicro(int64(r.Value.Number))); off.Abs() > time.Millisecond {
						t.Fatalf("a time is off by %s", off)
					}
					if r.Historical && !values[r.Value.Number] {
						historical++
					}
					values[r.Value.Number] = true
				}
			}
		})
		if steps != 1 || historical < 659 || len(values) < 718 || len(values) > 721 {
			t.Errorf("%d values, %d of them historical, %d steps", len(values), historical, steps)
		}
		if c := counters(a); c["clock_corrected"] != int64(historical) {
			t.Errorf("%v, %d historical", c, historical)
		}
		b.away()
	})
}
