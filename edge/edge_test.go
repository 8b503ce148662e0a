package edge_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// start runs an agent; stop ends it and checks that it was quick.
func start(t *testing.T, opt edge.Options) (a *edge.Agent, stop func()) {
	t.Helper()
	a, err := edge.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return a, func() {
		t.Helper()
		cancel()
		asked := time.Now()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(asked); d > 5*time.Second {
			t.Errorf("stopping took %s", d)
		}
	}
}

func drained(t *testing.T, a *edge.Agent, within time.Duration) {
	t.Helper()
	select {
	case <-a.DrainedC():
	case <-time.After(within):
		t.Fatalf("not drained after %s: %v", within, a.Counters())
	}
}

func counters(a *edge.Agent) map[string]int64 {
	out := map[string]int64{}
	for _, c := range a.Counters() {
		out[c.Name] = c.Value
	}
	return out
}

func TestEverythingArrivesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		src := &counting{n: 500, step: time.Second}
		dir := t.TempDir()
		a, stop := start(t, options(dir, src, l))
		drained(t, a, time.Minute)
		last := signal.MicrosOf(time.Unix(1_600_000_000+499, 0))
		synctest.Wait()
		b.set(func() {
			checkAll(t, b.got, 500)
			checkOrder(t, b.got)
			want := map[signal.Stream]signal.Micros{"skab/valve1/a:telemetry": last, "skab/valve1/b:telemetry": last}
			if diff := cmp.Diff(want, b.complete); diff != "" {
				t.Error("complete to (-want +got):\n", diff)
			}
			for _, x := range b.got {
				if x.Config != filter.None().Hash() || x.Edge != "skab/valve1-0" {
					t.Fatalf("origin %+v", x.Origin)
				}
			}
		})
		c := counters(a)
		if c["emitted"] != 2000 || c["shipped"] != 2000 || c["retried"] != 0 || c["in_flight_now"] != 0 {
			t.Errorf("counters %v", c)
		}
		stop()
		synctest.Wait()
		b.set(func() {
			if n := len(b.kinds); n == 0 || b.kinds[n-1] != "NDEATH" {
				t.Errorf("births and deaths: %v", b.kinds)
			}
		})
		b.away()
		st, err := outbox.ReadState(edge.OutboxDir(dir))
		if err != nil || !st.Drained() || st.Counters.Shipped != 2000 {
			t.Errorf("on disk: %+v, %v", st, err)
		}
	})
}

// TestOutages cuts connections, takes the bridge away, loses messages and
// acknowledgements, and restarts the agent, for an hour of a plant.
func TestOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 7))
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		noise := rand.New(rand.NewPCG(8, 8))
		b.set(func() {
			b.lose = func(signal.Batch) bool { return noise.IntN(10) == 0 }
			b.deaf = func(signal.Batch) bool { return noise.IntN(10) == 0 }
		})
		b.up(l.Dial)
		const rows = 1200
		src := &counting{n: rows, step: 3 * time.Second, every: 3 * time.Second}
		dir := t.TempDir()
		began := time.Now()
		a, stop := start(t, options(dir, src, l))
		for time.Since(began) < time.Hour {
			time.Sleep(time.Duration(rng.IntN(300)) * time.Second)
			switch rng.IntN(4) {
			case 0: // the edge's connection; the bridge's too, which comes back
				l.cut(false)
				<-b.conn.Done()
				close(b.in)
				<-b.done
				b.up(l.Dial)
			case 1:
				l.cut(true)
				<-b.conn.Done()
				close(b.in)
				<-b.done
				time.Sleep(time.Duration(rng.IntN(200)) * time.Second)
				l.cut(false)
				b.up(l.Dial)
			case 2:
				b.away()
				time.Sleep(time.Duration(rng.IntN(200)) * time.Second)
				b.up(l.Dial)
			case 3:
				stop()
				time.Sleep(time.Duration(rng.IntN(30)) * time.Second)
				a, stop = start(t, options(dir, src, l))
			}
		}
		b.set(func() { b.lose, b.deaf = nil, nil })
		drained(t, a, time.Hour)
		b.set(func() { checkAll(t, b.got, rows) })
		c := counters(a)
		if c["emitted"] != 4*rows || c["shipped"] != 4*rows || c["lost"] != 0 {
			t.Errorf("counters %v", c)
		}
		b.set(func() { t.Logf("%d messages came, %d readings were sent again", len(b.got), c["retried"]) })
		stop()
		b.away()
	})
}

// TestRestartsKeepFirstCopiesInOrder has an agent restarted before anything of
// it is sent: what it left goes out as history, in order.
func TestRestartsKeepFirstCopiesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		src := &counting{n: 400, step: time.Second, every: time.Second}
		dir := t.TempDir()
		for range 3 {
			_, stop := start(t, options(dir, src, l))
			time.Sleep(100 * time.Second)
			stop()
		}
		b := newBridge(t)
		b.up(l.Dial)
		a, stop := start(t, options(dir, src, l))
		drained(t, a, time.Hour)
		b.set(func() {
			checkAll(t, b.got, 400)
			checkOrder(t, b.got)
			boots := map[string]bool{}
			newest := ""
			for _, x := range b.got {
				boots[x.Boot] = true
				newest = max(newest, x.Boot)
			}
			for _, x := range b.got {
				for _, r := range x.Readings {
					if r.Historical != (x.Boot != newest) {
						t.Fatalf("reading %v: historical %v", r.Value.Number, r.Historical)
					}
				}
			}
			if len(boots) != 4 {
				t.Errorf("%d boots, want 4", len(boots))
			}
		})
		stop()
		b.away()
	})
}

// TestWindowIsBounded has a bridge that acknowledges nothing: at most a window
// is sent, and all arrives once it does.
func TestWindowIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.set(func() { b.lose = func(signal.Batch) bool { return true } })
		b.up(l.Dial)
		src := &counting{n: 2000, step: time.Second}
		opt := options(t.TempDir(), src, l)
		opt.LiveWindow = 10_000
		a, stop := start(t, opt)
		time.Sleep(10 * time.Minute)
		b.set(func() {
			first := map[uint64]bool{}
			for _, x := range b.got {
				first[x.Seq] = true
			}
			// A message of 20 readings is some 700 bytes.
			if len(first) < 8 || len(first) > 30 {
				t.Errorf("%d messages were sent without an acknowledgement", len(first))
			}
			// 10 s, 20 s, 40 s … 5 min: six tries in ten minutes.
			if tries := len(b.got) / len(first); tries < 5 || tries > 7 {
				t.Errorf("each was sent %d times in ten minutes", tries)
			}
			b.lose = nil
		})
		drained(t, a, time.Hour)
		b.set(func() { checkAll(t, b.got, 2000); checkOrder(t, b.got) })
		stop()
		b.away()
	})
}

func TestGoesToTheBrokerWithAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lonely, l := newPipes(), newPipes()
		defer startBroker(t, lonely)()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		opt := options(t.TempDir(), &counting{n: 10, step: time.Second}, l)
		opt.MQTT.Addresses = []string{"tcp://lonely:1", "tcp://broker:2"}
		opt.MQTT.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "lonely:1" {
				return lonely.Dial(ctx, network, addr)
			}
			return l.Dial(ctx, network, addr)
		}
		began := time.Now()
		a, stop := start(t, opt)
		drained(t, a, 5*time.Minute)
		if d := time.Since(began); d < time.Minute || d > 70*time.Second {
			t.Errorf("it took %s, want the grace of a minute", d)
		}
		b.set(func() { checkAll(t, b.got, 10) })
		stop()
		b.away()
	})
}

func TestBdSeqGoesOnOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		dir := t.TempDir()
		for i, want := range []string{"0\n", "1\n", "2\n"} {
			a, stop := start(t, options(dir, &counting{n: 1}, l))
			time.Sleep(time.Second)
			stop()
			if got, err := os.ReadFile(filepath.Join(dir, "bdseq")); err != nil || string(got) != want {
				t.Errorf("start %d: bdseq %q, %v, want %q (%v)", i, got, err, want, a.Status())
			}
		}
	})
}

func TestStopsWhileNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes() // nobody accepts
		opt := options(t.TempDir(), &counting{n: 1 << 30, step: time.Second}, l)
		opt.QuotaBytes = 100_000 // full at once: intake is blocked
		a, stop := start(t, opt)
		time.Sleep(time.Minute)
		c := counters(a)
		if c["emitted"] != c["shipped"] || c["outbox_bytes_now"] < 90_000 || c["outbox_bytes_now"] > 200_000 || c["evicted"] != 0 {
			t.Errorf("counters %v", c)
		}
		stop()
	})
}

func TestSourceErrorsEndTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		opt := options(t.TempDir(), nil, l)
		opt.Open = func([]byte, *slog.Logger) (source.Source, error) { return nil, errors.New("no such thing") }
		a, err := edge.New(opt)
		if err == nil {
			err = a.Run(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("error %v", err)
		}
	})
}

// TestReplayMergesRecordings replays files through agents that share a clock.
func TestReplayMergesRecordings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		dir := t.TempDir()
		file := filepath.Join(dir, "valve1", "0.csv")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		content := "datetime;x;y\n"
		for i := range 300 {
			content += time.Unix(int64(1_600_000_000+i), 0).UTC().Format(time.DateTime) + ";1;2\n"
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		recs, _, err := source.List(dir, group)
		if err != nil {
			t.Fatal(err)
		}
		startAt, err := recs[0].Start()
		if err != nil {
			t.Fatal(err)
		}
		clock := source.NewReplayClock(source.ReplayOptions{Start: startAt, Speed: 10})
		opt := options(t.TempDir(), nil, l)
		opt.Open, opt.Clock, opt.Pace, opt.Filter = recs[0].Open, clock, clock.Join(), filter.Default()
		began := time.Now()
		a, stop := start(t, opt)
		drained(t, a, time.Hour)
		if d := time.Since(began); d < 29*time.Second || d > 32*time.Second {
			t.Errorf("300 s at ten times the speed took %s", d)
		}
		c := counters(a)
		if c["emitted"] != 600 || c["rows"] != 300 || c["held"] != 8 || c["shipped"] != 10 || c["filtered"] != 598 {
			t.Errorf("counters %v", c)
		}
		stop()
		b.away()
	})
}
