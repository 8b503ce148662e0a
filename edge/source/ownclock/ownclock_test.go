package ownclock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// machine is a clock that shows bubble time shifted, and boots.
type machine struct {
	mu     sync.Mutex
	skew   time.Duration
	boot   string
	booted time.Time // bubble time
	synced bool
}

func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.skew)
}

func (m *machine) Since() (string, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot, time.Since(m.booted)
}

func (m *machine) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// plc is a source that stamps by the machine's clock what has no time; its
// position is how many it has delivered.
type plc struct {
	clock *machine
	queue chan source.Sample
	at    byte
	next  bool
}

// measured is a value of which the test knows when it was true.
func (p *plc) measure(own bool, sensor string) {
	s := source.Sample{Asset: "s/l/a", Class: signal.Telemetry, Arrived: !own, Reading: signal.Reading{
		Sensor: sensor, Value: signal.NumberValue(float64(time.Now().Unix())), Unit: "s", Quality: signal.QualityGood, Rescued: `{"a":1}`,
	}}
	s.Reading.EventTime = signal.MicrosOf(p.clock.Now())
	if own {
		s.Reading.EventTime = signal.MicrosOf(time.Now())
	}
	s.Reading.AliveAt = s.Reading.EventTime
	p.queue <- s
}

func (p *plc) Next(ctx context.Context) (source.Chunk, error) {
	p.Take()
	select {
	case s := <-p.queue:
		p.next = true
		return source.Chunk{Time: p.clock.Now(), Samples: []source.Sample{s}}, nil
	case <-ctx.Done():
		return source.Chunk{}, ctx.Err()
	}
}

func (p *plc) Take() {
	if p.next {
		p.at++
		p.next = false
	}
}
func (p *plc) Position() []byte          { return []byte{p.at} }
func (p *plc) Figures() []signal.Counter { return nil }
func (p *plc) Close() error              { return nil }

// gateway runs the spool over restarts.
type gateway struct {
	t        *testing.T
	clock    *machine
	plc      *plc
	opt      Options
	position []byte
	src      source.Source
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{t: t, clock: &machine{boot: "one", booted: time.Now().Add(-time.Minute)}}
	g.plc = &plc{clock: g.clock, queue: make(chan source.Sample, 10_000)}
	g.opt = Options{
		Open: func(position []byte, _ *slog.Logger) (source.Source, error) {
			if len(position) > 0 && position[0] != g.plc.at {
				t.Errorf("opened at %d, want %d", position[0], g.plc.at)
			}
			return g.plc, nil
		},
		File: filepath.Join(t.TempDir(), "clock", "spool"), Clock: g.clock, NotBefore: time.Now().Add(-time.Hour), Asset: "s/edge/n",
	}
	g.open()
	return g
}

func (g *gateway) open() {
	g.t.Helper()
	var err error
	if g.src, err = Opener(g.opt)(g.position, nil); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) restart() {
	g.t.Helper()
	if err := g.src.Close(); err != nil {
		g.t.Fatal(err)
	}
	g.open()
}

func (g *gateway) commit() {
	g.src.Take()
	g.position = g.src.Position()
	g.src.(source.Confirmer).Mark()()
}

// read reads for a time of the bubble, committing each chunk: "sensor ±error".
func (g *gateway) read(d time.Duration) (out []string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for {
		c, err := g.src.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return out
		}
		if err != nil {
			g.t.Fatal(err)
		}
		for _, s := range c.Samples {
			r := s.Reading
			if s.Class == signal.Event {
				out = append(out, fmt.Sprintf("%s/%s %g%s", s.Asset, r.Sensor, r.Value.Number, r.Unit))
				continue
			}
			off := r.EventTime.Time().Sub(time.Unix(int64(r.Value.Number), 0)).Round(time.Second)
			text := fmt.Sprintf("%s off by %s", r.Sensor, off)
			if r.Historical {
				text += " historical"
			}
			if r.AliveAt != r.EventTime || r.Unit != "s" || r.Rescued != `{"a":1}` || s.Asset != "s/l/a" || s.Class != signal.Telemetry || r.Quality != signal.QualityGood {
				text += fmt.Sprintf(" %+v", s)
			}
			out = append(out, text)
		}
		for _, f := range c.Refused {
			out = append(out, fmt.Sprintf("%s: %s: %d lines", f.Source, f.Reason, strings.Count(string(f.Bytes), "\n")))
		}
		g.commit()
	}
}

func (g *gateway) figure(name string) int64 {
	for _, c := range g.src.Figures() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

const years = 56 * 365 * 24 * time.Hour

// A gateway boots in 1970: what has a time goes, what has none waits, and gets its
// own when the clock is set; a restart of the process in between changes nothing.
func TestBootIn1970(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t)
			g.restart()
			g.clock.set(func() { g.clock.skew = -years })
			g.restart()
			g.plc.measure(false, "a")
			g.plc.measure(true, "own")
			same(t, "before", g.read(10*time.Second), "own off by 0s")
			g.plc.measure(false, "b")
			same(t, "before", g.read(time.Minute))
			if g.figure("clock_right_now") != 0 || g.figure("clock_held") != 2 || g.figure("clock_held_now") != 2 {
				t.Errorf("%v", g.src.Figures())
			}
			if restart {
				g.restart()
			}
			g.plc.measure(false, "queued") // stamped by the wrong clock, and read by the right one
			g.clock.set(func() { g.clock.skew = 0 })
			if restart {
				g.read(0)
			}
			time.Sleep(30 * time.Second)
			g.plc.measure(false, "now")
			got := g.read(time.Minute)
			want := []string{"s/edge/n/clock_step 1.766016e+09s", "a off by 0s historical", "b off by 0s historical", "queued off by 0s historical", "now off by 0s"}
			same(t, "after", got, want...)
			if st, err := os.Stat(g.opt.File); err != nil || st.Size() != 0 {
				t.Errorf("the spool has %d bytes, %v", st.Size(), err)
			}
			if g.figure("clock_right_now") != 1 || g.figure("clock_corrected") != 3 || g.figure("clock_steps") != 1 || g.figure("clock_held_now") != 0 {
				t.Errorf("%v", g.src.Figures())
			}
			g.restart()
			same(t, "nothing comes again", g.read(time.Minute))
		})
	}
}

// A second boot's clock knows nothing of the first's: what waited then goes to the
// dead letters, whole and counted, and what waits now gets its time.
func TestTwoBoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.clock.set(func() { g.clock.skew = -years })
		g.restart()
		for range 2000 {
			g.plc.measure(false, "lost")
		}
		same(t, "first boot", g.read(time.Minute))
		g.clock.set(func() { g.clock.boot, g.clock.booted = "two", time.Now() })
		g.restart()
		g.plc.measure(false, "kept")
		letters, lines := 0, 0
		for _, l := range g.read(time.Minute) {
			var n, m int
			if _, err := fmt.Sscanf(l, "clock: %d readings came while", &n); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			if _, err := fmt.Sscanf(l[strings.LastIndex(l, ": ")+2:], "%d lines", &m); err != nil || n != m {
				t.Errorf("%s", l)
			}
			letters++
			lines += n
		}
		if lines != 2000 || letters < 5 || letters > 20 || g.figure("clock_unknown") != 2000 {
			t.Errorf("%d letters of %d readings, %v", letters, lines, g.src.Figures())
		}
		g.clock.set(func() { g.clock.skew = 0 })
		same(t, "second boot", g.read(time.Minute), "s/edge/n/clock_step 1.766016e+09s", "kept off by 0s historical")
	})
}

// What was held and not committed the source delivers again: once.
func TestCrashBeforeCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.clock.set(func() { g.clock.skew = -years })
		g.restart()
		g.plc.measure(false, "a")
		g.read(time.Second)
		g.plc.measure(false, "b")
		if _, err := g.src.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.plc.next = false // killed
		g.restart()
		g.plc.measure(false, "b")
		g.clock.set(func() { g.clock.skew = 0 })
		same(t, "each once", g.read(time.Minute), "s/edge/n/clock_step 1.766016e+09s", "a off by 0s historical", "b off by 0s historical")

		// A line that is damaged is told of; a spool that is gone too.
		g.clock.set(func() { g.clock.skew = -years })
		g.plc.measure(false, "c")
		g.plc.measure(false, "d")
		same(t, "waiting", g.read(time.Minute))
		b, err := os.ReadFile(g.opt.File)
		if err != nil {
			t.Fatal(err)
		}
		b[30] ^= 1
		if err := os.WriteFile(g.opt.File, b, 0o600); err != nil {
			t.Fatal(err)
		}
		g.clock.set(func() { g.clock.skew = 0 })
		got := g.read(time.Minute)
		if len(got) != 3 || !strings.HasSuffix(got[1], ": 1 lines") || got[2] != "d off by 0s historical" {
			t.Errorf("damaged: %q", got)
		}
		g.clock.set(func() { g.clock.skew = -years })
		g.plc.measure(false, "e")
		g.read(time.Minute)
		if err := os.Remove(g.opt.File); err != nil {
			t.Fatal(err)
		}
		g.restart()
		got = g.read(time.Minute)
		if len(got) != 1 || !strings.Contains(got[0], "are not there any more") {
			t.Errorf("gone: %q", got)
		}
	})
}

// A running edge's clock is set: an event says so, and readings keep the times
// that they had.
func TestStepsOfARunningClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.plc.measure(false, "a")
		same(t, "before", g.read(time.Minute), "a off by 0s")
		g.clock.set(func() { g.clock.skew += 90 * time.Second })
		same(t, "ahead", g.read(time.Minute), "s/edge/n/clock_step 90s")
		g.clock.set(func() { g.clock.skew -= 90 * time.Second })
		same(t, "back", g.read(time.Minute), "s/edge/n/clock_step -90s")
		for range 100 {
			g.clock.set(func() { g.clock.skew += 100 * time.Millisecond }) // slewed
			g.read(5 * time.Second)
		}
		if g.figure("clock_steps") != 2 {
			t.Errorf("%v", g.src.Figures())
		}
	})
}

// A clock that shows a likely time is not right before the machine says so, if
// that is asked for.
func TestNeedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.opt.NeedSync = true
		g.clock.set(func() { g.clock.skew = -10 * time.Minute })
		g.restart()
		g.plc.measure(false, "a")
		same(t, "before", g.read(time.Minute))
		g.plc.measure(false, "queued")
		g.clock.set(func() { g.clock.skew, g.clock.synced = 0, true })
		same(t, "after", g.read(time.Minute), "s/edge/n/clock_step 600s", "a off by 0s historical", "queued off by 0s historical")
	})
}

// What waits is bounded: beyond it the source keeps what it has.
func TestFullSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t)
		g.opt.MaxBytes = 1000
		g.clock.set(func() { g.clock.skew = -years })
		g.restart()
		for range 50 {
			g.plc.measure(false, "a")
		}
		same(t, "before", g.read(time.Minute))
		if left := len(g.plc.queue); left == 0 || left == 50 || g.figure("clock_full_now") != 1 {
			t.Errorf("%d are left, %v", left, g.src.Figures())
		}
		g.clock.set(func() { g.clock.skew = 0 })
		got := g.read(time.Minute)
		if len(got) != 51 {
			t.Errorf("%d came", len(got))
		}
		for _, s := range got[1:] {
			if s != "a off by 0s historical" {
				t.Error(s)
			}
		}
	})
}

func TestMachine(t *testing.T) {
	m := NewMachine()
	boot, a := m.Since()
	again, b := m.Since()
	if boot == "" || boot != again || b < a || m.Now().IsZero() {
		t.Errorf("%s %s, %s %s", boot, a, again, b)
	}
	m.Synced()
	if Built().Year() < 2026 {
		t.Errorf("built %s", Built())
	}
	if _, err := Opener(Options{})(nil, nil); err == nil {
		t.Error("options of nothing are taken")
	}
}

func FuzzSpool(f *testing.F) {
	f.Add([]byte("00000000 {}\n\nff {\"boot\":1}"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, "spool")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := openSpool(name, int64(len(b)), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.f.Close()
		for at := int64(-1); s.read > at && s.read < s.written; {
			at = s.read
			if err := s.next(10, func(w *waiting, _ []byte) bool { return w == nil || w.sample(time.Time{}).Asset == w.Asset }); err != nil {
				t.Fatal(err)
			}
		}
		if s.read != s.written {
			t.Errorf("%d of %d bytes were read", s.read, s.written)
		}
	})
}
