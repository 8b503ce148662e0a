package edge_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
)

// memoryDir is a folder in memory where the machine has such a place: what runs in
// a bubble syncs real files for plant hours.
func memoryDir(t *testing.T) string {
	t.Helper()
	if d, err := os.MkdirTemp("/dev/shm", "headrace-edge-"); err == nil { //nolint:usetesting // t.TempDir is on a disk
		t.Cleanup(func() { _ = os.RemoveAll(d) })
		return d
	}
	return t.TempDir()
}

// watcher keeps what is shown on a broker under headrace/alarm.
type watcher struct {
	mu  sync.Mutex
	got []string // topic and state
}

func watch(t *testing.T, l *pipes) (*watcher, *mqttc.Conn) {
	t.Helper()
	w := &watcher{}
	conn, err := mqttc.Connect(t.Context(), mqttc.Config{
		Addresses: []string{"tcp://plant"}, ClientID: "panel", CleanSession: true, Dial: l.Dial,
		OnMessage: func(m mqttc.Message) {
			m.Ack()
			var a rules.At
			if err := json.Unmarshal(m.Payload, &a); err != nil {
				t.Error(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.got = append(w.got, m.Topic+" "+a.State)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Subscribe(t.Context(), map[string]byte{"headrace/alarm/#": 1}); err != nil {
		t.Fatal(err)
	}
	return w, conn
}

func (w *watcher) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

// alarmsOf are the alarms that came to a bridge, repeats by origin aside.
func alarmsOf(got []signal.Batch) (out []signal.Alarm) {
	seen := map[signal.Origin]bool{}
	for _, b := range got {
		o := signal.Origin{Boot: b.Boot, Stream: b.Stream, N: b.N}
		if seen[o] {
			continue
		}
		seen[o] = true
		for _, r := range b.Readings {
			if a, ok := signal.ParseAlarm(r.Sensor, r.Value); ok {
				out = append(out, a)
			}
		}
	}
	return out
}

// An alarm during a partition is raised and shown at the edge, outlives a restart
// of it, clears there, and both travel once the link is back.
func TestAlarmDuringAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, plant := newPipes(), newPipes()
		defer startBroker(t, l)()
		defer startBroker(t, plant)()
		l.cut(true)
		w, conn := watch(t, plant)
		defer conn.Abort()
		level, clear := 99.5, 300.0
		set, err := rules.New(rules.Config{Rules: []rules.Rule{
			{Name: "high", Asset: "a", Sensor: "x", Above: &level, ForSeconds: 10, Severity: "high"},
			{Name: "low", Asset: "b", Sensor: "y", Below: &level, Clear: &clear},
		}})
		if err != nil {
			t.Fatal(err)
		}
		src := &counting{n: 400, step: time.Second, every: time.Second}
		opt := options(t.TempDir(), src, l)
		opt.Rules, opt.AlarmMQTT = set, &mqttc.Config{Addresses: []string{"tcp://plant"}, Dial: plant.Dial}
		a, stop := start(t, opt)
		time.Sleep(115 * time.Second)
		if got := a.Alarms(); len(got) != 1 || got[0].Rule != "low" {
			t.Errorf("after 115 s: %+v", got)
		}
		time.Sleep(65 * time.Second)
		if got := a.Alarms(); len(got) != 2 {
			t.Errorf("after 180 s: %+v", got)
		}
		if a.Status().Connected {
			t.Error("the link is not parted")
		}
		stop()
		a, stop = start(t, opt)
		synctest.Wait()
		if got := a.Alarms(); len(got) != 2 {
			t.Errorf("after a restart: %+v", got)
		}
		time.Sleep(300 * time.Second)
		low := "headrace/alarm/skab/valve1-0/valve1/b/y/low "
		high := "headrace/alarm/skab/valve1-0/valve1/a/x/high "
		if got := slices.Compact(w.list()); !slices.Contains(got, low+"raised") || !slices.Contains(got, high+"raised") || got[len(got)-1] != low+"cleared" {
			t.Errorf("shown: %q", got)
		}
		l.cut(false)
		b := newBridge(t)
		b.up(l.Dial)
		drained(t, a, time.Hour)
		b.set(func() {
			checkAll(t, onlyNumbers(b.got), 400)
			var got []string
			for _, a := range alarmsOf(b.got) {
				got = append(got, a.Rule+" "+a.State+" "+a.At().Time().Sub(time.Unix(1_600_000_000, 0)).String())
			}
			slices.Sort(got)
			want := []string{"high raised 1m50s", "low cleared 5m0s", "low raised 0s"}
			if d := cmp.Diff(want, got); d != "" {
				t.Error("alarms (-want +got):\n", d)
			}
		})
		if c := counters(a); c["derived"] != 3 || c["emitted"] != 1600 || c["shipped"] != 1603 {
			t.Errorf("counters %v", c)
		}
		stop()
		b.away()
	})
}

// onlyNumbers leaves out what is of class event.
func onlyNumbers(got []signal.Batch) []signal.Batch {
	return slices.DeleteFunc(slices.Clone(got), func(b signal.Batch) bool {
		_, class := b.Stream.Split()
		return class == signal.Event
	})
}

// Without a broker of the plant alarms are shown where readings go.
func TestAlarmOnTheEdgesOwnBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		w, conn := watch(t, l)
		defer conn.Abort()
		b := newBridge(t)
		b.up(l.Dial)
		level := 5.0
		set, err := rules.New(rules.Config{Rules: []rules.Rule{{Name: "high", Asset: "a", Sensor: "x", Above: &level}}})
		if err != nil {
			t.Fatal(err)
		}
		opt := options(t.TempDir(), &counting{n: 20, step: time.Second, every: time.Second}, l)
		opt.Rules = set
		a, stop := start(t, opt)
		drained(t, a, time.Minute)
		synctest.Wait()
		if d := cmp.Diff([]string{"headrace/alarm/skab/valve1-0/valve1/a/x/high raised"}, w.list()); d != "" {
			t.Error(d)
		}
		stop()
		b.away()
	})
}

// live is a source that cannot wait: what it offers is of now.
type live struct{ *counting }

func (live) Live() bool { return true }

// A source that cannot wait has the oldest given up while there is no link, and
// the hole is told for each stream when there is room; the sums hold.
func TestAFullOutboxTellsOfItsHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		l.cut(true)
		src := &counting{n: 4000, step: time.Second, every: time.Second}
		opt := options(memoryDir(t), src, l)
		opt.QuotaBytes = 60_000
		opt.Open = func(position []byte, log *slog.Logger) (source.Source, error) {
			s, err := src.open(position, log)
			if err != nil {
				return nil, err
			}
			return live{s.(*counting)}, nil
		}
		a, stop := start(t, opt)
		time.Sleep(time.Hour)
		c := counters(a)
		if c["evicted"] == 0 || c["evicted_events"] != 0 || c["outbox_bytes_now"] > 90_000 || c["emitted"] != c["shipped"]+c["evicted"] || c["emitted"] < 4*2900 {
			t.Errorf("counters %v", c)
		}
		stop()
		a, stop = start(t, opt)
		l.cut(false)
		b := newBridge(t)
		b.up(l.Dial)
		drained(t, a, 24*time.Hour)
		c = counters(a)
		b.set(func() {
			told, events := uint64(0), 0
			came := map[signal.Path]map[float64]bool{}
			for _, m := range b.got {
				asset, class := m.Stream.Split()
				for _, r := range m.Readings {
					if class == signal.Event {
						var e edge.Evicted
						if err := json.Unmarshal([]byte(r.Value.Text), &e); err != nil || r.Sensor != "evicted.telemetry" || e.From > e.To || e.Class != signal.Telemetry {
							t.Errorf("%+v: %v", r, err)
						}
						told += e.Readings
						events++
						continue
					}
					path := asset.Sensor(r.Sensor)
					if came[path] == nil {
						came[path] = map[float64]bool{}
					}
					came[path][r.Value.Number] = true
				}
			}
			n := 0
			for _, values := range came {
				n += len(values)
			}
			if int64(told) != c["evicted"] || events != 2 || n != 16_000-int(c["evicted"]) {
				t.Errorf("%d told by %d events, %d came, counters %v", told, events, n, c)
			}
		})
		stop()
		b.away()
	})
}

// After an outage the newest goes out at once, and what waited beside it: a
// backlog of six hours at a thousandth of a large plant's rate.
func TestABacklogDoesNotDelayWhatIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		// A bridge that takes ten messages a second makes the drain last.
		slow := time.NewTicker(100 * time.Millisecond)
		defer slow.Stop()
		var backlog, late time.Duration
		b.set(func() {
			b.deaf = func(m signal.Batch) bool {
				<-slow.C
				age := time.Since(m.Readings[len(m.Readings)-1].EventTime.Time())
				if m.Readings[0].Historical {
					backlog = max(backlog, age)
				} else {
					late = max(late, age)
				}
				return false
			}
		})
		const hours = 6
		src := &counting{n: hours * 400, every: 10 * time.Second}
		opt := options(memoryDir(t), src, l)
		opt.LiveWindow, opt.HistoryWindow = 4000, 2000
		a, stop := start(t, opt)
		time.Sleep(time.Minute)
		l.cut(true)
		<-b.conn.Done()
		close(b.in)
		<-b.done
		time.Sleep(hours * time.Hour)
		b.set(func() { backlog, late = 0, 0 })
		l.cut(false)
		b.up(l.Dial)
		time.Sleep(10 * time.Minute)
		b.set(func() {
			if backlog < (hours-1)*time.Hour {
				t.Errorf("the backlog was at most %s old", backlog)
			}
			if late > 10*time.Second || late == 0 {
				t.Errorf("live readings were %s old while the backlog went out", late)
			}
			t.Logf("live readings at most %s old beside a backlog of %s", late, backlog)
			b.deaf = nil
		})
		drained(t, a, 24*time.Hour)
		b.set(func() { checkAll(t, b.got, hours*400) })
		stop()
		b.away()
	})
}

// A disk that was wiped while the edge was away: it begins a boot of its own, and
// nothing that it sends is taken for a repeat of what it sent before.
func TestAWipedDiskIsNoRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		dir := filepath.Join(t.TempDir(), "edge")
		boots := map[string]int{}
		for range 2 {
			a, stop := start(t, options(dir, &counting{n: 100, step: time.Second}, l))
			drained(t, a, time.Minute)
			stop()
			b.set(func() {
				checkAll(t, b.got, 100) // all of it, by origin once
				for _, m := range b.got {
					boots[m.Boot]++
				}
				b.got = nil
			})
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		if len(boots) != 2 {
			t.Errorf("boots %v, want two", boots)
		}
		b.away()
	})
}

// A disk that is wiped while the edge runs ends it with the reason.
func TestADiskWipedUnderTheEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		dir := filepath.Join(t.TempDir(), "edge")
		a, err := edge.New(options(dir, &counting{n: 1 << 30, step: time.Second, every: time.Second}, l))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- a.Run(t.Context()) }()
		time.Sleep(10 * time.Second)
		files, err := filepath.Glob(filepath.Join(edge.OutboxDir(dir), "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), edge.OutboxDir(dir)) || !strings.Contains(err.Error(), outbox.ErrWiped.Error()) {
				t.Errorf("the edge ended with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the edge did not notice")
			a.Close()
		}
	})
}

// steps is a clock that somebody sets again and again.
type steps struct {
	mu     sync.Mutex
	offset time.Duration
}

func (s *steps) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.offset)
}

func (s *steps) WaitUntil(ctx context.Context, at time.Time) error {
	return signal.WallClock{}.WaitUntil(ctx, at)
}

func (s *steps) set(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = d
}

// A clock that is set forth and back by years neither has anything sent again nor
// keeps anything back.
func TestClockSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		clock := &steps{}
		opt := options(t.TempDir(), &counting{n: 600, step: time.Second, every: time.Second}, l)
		opt.Clock = clock
		a, stop := start(t, opt)
		rng := rand.New(rand.NewPCG(5, 5))
		for range 60 {
			time.Sleep(10 * time.Second)
			clock.set(time.Duration(rng.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour)
		}
		drained(t, a, time.Hour)
		b.set(func() { checkAll(t, b.got, 600); checkOrder(t, b.got) })
		if c := counters(a); c["retried"] != 0 || c["births"] != 1 || c["sessions"] != 1 {
			t.Errorf("counters %v", c)
		}
		stop()
		b.away()
	})
}

// junk is a source that delivers whatever bytes say.
type junk struct {
	data    []byte
	chunks  int
	samples []source.Sample
}

func (j *junk) byte() byte {
	if len(j.data) == 0 {
		return 0
	}
	b := j.data[0]
	j.data = j.data[1:]
	return b
}

func (j *junk) text(good string) string {
	switch n := int(j.byte()); {
	case n < 128:
		return good
	default:
		k := min(n-128, len(j.data))
		s := string(j.data[:k])
		j.data = j.data[k:]
		return s
	}
}

func (j *junk) number() (v uint64) {
	for range 8 {
		v = v<<8 | uint64(j.byte())
	}
	return v
}

func (j *junk) sample() source.Sample {
	at := signal.Micros(1_600_000_000_000_000)
	s := source.Sample{
		Asset: signal.Asset(j.text("skab/valve1/a")), Class: []signal.Class{signal.Telemetry, signal.Event, signal.Raw, "x"}[j.byte()%4],
		Reading: signal.Reading{Sensor: j.text("x"), EventTime: at, AliveAt: at, Unit: j.text("A"), Quality: signal.Quality(j.byte()), Rescued: j.text("")},
	}
	if j.byte() > 128 {
		s.Reading.EventTime = signal.Micros(j.number())
	}
	if j.byte() > 128 {
		s.Reading.AliveAt = signal.Micros(j.number())
	}
	s.Reading.Value = signal.Value{Kind: signal.Kind(j.byte() % 8), Number: math.Float64frombits(j.number()), Text: j.text("")}
	return s
}

func (j *junk) Next(ctx context.Context) (source.Chunk, error) {
	if len(j.data) == 0 {
		<-ctx.Done()
		return source.Chunk{}, ctx.Err()
	}
	j.chunks++
	j.samples = append(j.samples[:0], j.sample())
	return source.Chunk{Time: time.Now(), Samples: j.samples}, nil
}

func (j *junk) Take()                     {}
func (j *junk) Figures() []signal.Counter { return nil }
func (j *junk) Close() error              { return nil }
func (j *junk) Position() []byte          { return nil }

// Whatever a source delivers, the agent lives on, and every sample is taken or
// counted as refused.
func FuzzSourceJunk(f *testing.F) {
	f.Add([]byte("\xff\x00a/b/c"))
	f.Add([]byte(strings.Repeat("\x00\x02\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\xffjunk that is no waveform", 3)))
	rng := rand.New(rand.NewPCG(9, 9))
	for range 40 {
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(rng.Uint32())
			if rng.IntN(2) == 0 {
				b[i] = 0
			}
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			src := &junk{data: data}
			opt := options(t.TempDir(), nil, newPipes())
			opt.Open = func([]byte, *slog.Logger) (source.Source, error) { return src, nil }
			a, stop := start(t, opt)
			time.Sleep(time.Minute)
			synctest.Wait()
			c := counters(a)
			taken := c["emitted"] + c["samples_refused"]
			if raw := int64(src.chunks) - taken; raw < 0 || raw > 0 && c["samples"] == 0 {
				t.Errorf("%d samples came: %v", src.chunks, c)
			}
			if c["emitted"] != c["filtered"]+c["shipped"]-c["derived"]-c["held"] {
				t.Errorf("counters %v", c)
			}
			stop()
		})
	})
}
