package plant

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/plant/truth"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/registry"
)

func open(t rapid.TB, p *Plant, k int, position []byte) source.Source {
	t.Helper()
	edges, err := p.Edges()
	if err != nil {
		t.Fatal(err)
	}
	s, err := edges[k].Open(position, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func chunk(t rapid.TB, s source.Source) (out []source.Sample, at time.Time) {
	t.Helper()
	c, err := s.Next(context.Background())
	if errors.Is(err, io.EOF) {
		return nil, time.Time{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(out, c.Samples...), c.Time
}

// From any position the same comes again, bit by bit, in the order of time.
func TestResumes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := build(Config{Seed: rapid.Uint64().Draw(t, "seed"), Faults: true, Duration: 20 * time.Second, Duty: time.Duration(rapid.IntRange(0, 3).Draw(t, "duty")) * time.Second})
		edge := rapid.IntRange(0, 2).Draw(t, "edge")
		s := open(t, p, edge, nil)
		from := rapid.IntRange(0, 30).Draw(t, "from")
		last := time.Time{}
		for range from {
			_, at := chunk(t, s)
			if !at.IsZero() && at.Before(last) {
				t.Fatalf("%v comes after %v", at, last)
			}
			last = at
			s.Take()
		}
		again := open(t, p, edge, s.Position())
		for range 5 {
			a, at := chunk(t, s)
			b, bt := chunk(t, again)
			if d := cmp.Diff(a, b); d != "" || !at.Equal(bt) {
				t.Fatalf("%v, %v: %s", at, bt, d)
			}
		}
	})
}

// The plant ends when it is told to, and has what it says it has.
func TestPlantIsWhatItSays(t *testing.T) {
	p := build(Config{Seed: 3, Duration: 10 * time.Second, Duty: 5 * time.Second})
	reg, err := registry.Open(t.Context(), t.TempDir()+"/r.db", registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if _, err := reg.Load(t.Context(), "plant", p.Registry()); err != nil {
		t.Fatal(err)
	}
	snap, err := reg.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	paths, channels, classes := map[signal.Path]bool{}, map[signal.Path]bool{}, map[string]bool{}
	for k := range 3 {
		s := open(t, p, k, nil)
		for {
			samples, _ := chunk(t, s)
			if samples == nil {
				break
			}
			for _, r := range samples {
				path := r.Asset.Sensor(r.Reading.Sensor)
				if r.Class == signal.Raw {
					channels[path] = true
					continue
				}
				paths[path] = true
				m, ok := snap.Sensor(path, r.Reading.EventTime)
				if !ok || m.Unit != r.Reading.Unit || r.Reading.Value.Kind == signal.Number && (r.Reading.Value.Number < m.MinPossible || r.Reading.Value.Number > m.MaxPossible) {
					t.Errorf("%s says %v %s; the registry has %+v", path, r.Reading.Value, r.Reading.Unit, m)
				}
			}
			s.Take()
		}
	}
	for _, a := range snap.Assets {
		classes[a.Class] = true
		if a.Healthy.To == 0 || a.Bearing.BPFO == 0 || a.RPM == 0 {
			t.Errorf("%+v", a)
		}
	}
	if len(snap.Assets) != 24 || len(channels) != 24 || len(classes) != 4 || len(paths) < 300 || len(paths) > 340 {
		t.Errorf("%d assets of %d classes, %d slow sensors, %d channels", len(snap.Assets), len(classes), len(paths), len(channels))
	}
}

// A healthy machine's windows look like noise to the trigger at every load and
// speed; a failing one's do not, and its envelope names the part.
func TestPhysics(t *testing.T) {
	for seed := range uint64(6) {
		p := build(Config{Seed: seed, Faults: true})
		set, err := p.vibration()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.machines {
			st, err := set.Open(nil)
			if err != nil {
				t.Fatal(err)
			}
			low, high := math.Inf(1), 0.0
			for second := int64(0); second < 660; second += 20 {
				if m.state(second) != running || m.state(second+1) != running {
					continue
				}
				first := uint64(second) * rate / window * window
				f := look(t, p, m, st, first)
				at := p.start.Add(time.Duration(first) * time.Second / rate)
				if d := m.defect; d != nil && at.After(d.Begins) {
					if at.Sub(d.Begins) > 250*time.Second {
						best, name := 0.0, ""
						for part, suffix := range map[string]string{"outer_race": ".env.bpfo", "inner_race": ".env.bpfi", "ball": ".env.bsf"} {
							if v := f[suffix]; v > best {
								best, name = v, part
							}
						}
						if name != d.Part || f[".kurtosis"] < 4 {
							t.Errorf("seed %d, %v after the %s defect of %s began: kurtosis %.2f, envelope says %s", seed, at.Sub(d.Begins), d.Part, m.asset, f[".kurtosis"], name)
						}
					}
					continue
				}
				low, high = min(low, f[".kurtosis"]), max(high, f[".kurtosis"])
			}
			if low < 2 || high > 3.6 {
				t.Errorf("seed %d: healthy windows of %s have a kurtosis of %.2f to %.2f", seed, m.asset, low, high)
			}
		}
	}
}

func look(t *testing.T, p *Plant, m *machine, st *vibration.Stage, first uint64) map[string]float64 {
	t.Helper()
	w := m.waveform(p.start, first, nil)
	at := signal.MicrosOf(p.start.Add(time.Duration(first) * time.Second / rate))
	speed := signal.Reading{Sensor: speedSensor, EventTime: at, Value: signal.NumberValue(m.speed(int64(first / rate))), Unit: "/min", Quality: signal.QualityGood}
	st.Reading(m.asset, &speed)
	out, _, err := st.Window(m.asset, &signal.Reading{Sensor: channel, EventTime: at, AliveAt: at, Quality: signal.QualityGood, Unit: "[g]"}, &w, nil)
	if err != nil || len(out) == 0 {
		t.Fatalf("%d features, %v", len(out), err)
	}
	f := map[string]float64{}
	for _, r := range out {
		f[r.Sensor[len(channel):]] = r.Value.Number
	}
	return f
}

func TestTruth(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Seed: 5, Faults: true, Outage: true}
	p, err := Open(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := truth.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p.truth, tr, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Format" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	seen := map[signal.Asset]bool{tr.Defect.Asset: true}
	for _, f := range tr.Faults {
		seen[f.Path.Asset()] = true
	}
	if len(seen) != 4 || len(tr.Faults) != 3 || tr.Outage.To.Sub(tr.Outage.From) < time.Minute {
		t.Errorf("%+v", tr)
	}
	if _, err := Open(cfg, dir); err != nil {
		t.Errorf("the same plant again: %v", err)
	}
	cfg.Seed++
	if _, err := Open(cfg, dir); !errors.Is(err, truth.ErrOther) {
		t.Errorf("another plant: %v", err)
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("demo:seed=7,duration=15m,faults=off,outage=off,duty=10s")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Config{Seed: 7, Duration: 15 * time.Minute, Duty: 10 * time.Second}, c); d != "" {
		t.Error(d)
	}
	if again, err := Parse(c.String()); err != nil || again != c {
		t.Errorf("%v, %v", again, err)
	}
	for _, bad := range []string{"", "real", "demo:speed=1", "demo:seed", "demo:seed=x", "demo:duration=-1s", "demo:faults=yes"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

type stillClock struct{ now time.Time }

func (c *stillClock) Now() time.Time { return c.now }

func (c *stillClock) WaitUntil(ctx context.Context, t time.Time) error {
	if !c.now.Before(t) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// During the outage nothing can be dialled; before it, a connection that is
// closed leaves nothing behind.
func TestNetwork(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n := Network{from: from, to: from.Add(time.Minute)}
	c := &stillClock{from.Add(-time.Second)}
	near, far := net.Pipe()
	defer far.Close()
	dial := n.Over(c, func(context.Context, string, string) (net.Conn, error) { return near, nil })
	conn, err := dial(t.Context(), "tcp", "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	c.now = from
	if _, err := dial(t.Context(), "tcp", "x"); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("during the outage: %v", err)
	}
	cut := cutAt(c, from, near)
	if _, err := cut.Read(make([]byte, 1)); err == nil {
		t.Error("a connection lives on in the outage")
	}
	if err := cut.Close(); err != nil { // its watcher reads the clock
		t.Error(err)
	}
	c.now = from.Add(time.Minute)
	if got, err := dial(t.Context(), "tcp", "x"); err != nil || got != near {
		t.Errorf("after the outage: %v", err)
	}
}

func BenchmarkWave(b *testing.B) {
	p := build(Config{Seed: 1, Faults: true})
	var buf []byte
	for b.Loop() {
		w := p.machines[0].waveform(p.start, 4096, buf)
		buf = w.Samples
		if bytes.Equal(buf[:8], make([]byte, 8)) {
			b.Fatal("silence")
		}
	}
	b.ReportMetric(float64(b.N)*window/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
