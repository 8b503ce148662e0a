package vibration

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/need"
)

const asset = signal.Asset("s/l/m")

// block makes the raw reading of a window at sample first.
func block(first uint64, rate float64, x []float64) (*signal.Reading, *record.Waveform) {
	w := &record.Waveform{First: first, Rate: rate, Format: record.FormatF32, Scale: 1}
	for _, v := range x {
		w.Samples = binary.LittleEndian.AppendUint32(w.Samples, math.Float32bits(float32(v)))
	}
	at := signal.Micros(math.Round(float64(first) / rate * 1e6))
	return &signal.Reading{Sensor: "de", EventTime: at, AliveAt: at, Unit: "[g]", Quality: signal.QualityGood}, w
}

func open(t rapid.TB, r Rule) *Stage {
	t.Helper()
	set, err := New(Config{Name: "test", Rules: []Rule{r}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := set.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// look returns the features of a window by suffix.
func look(t rapid.TB, st *Stage, rate float64, x []float64) map[string]float64 {
	t.Helper()
	r, w := block(0, rate, x)
	out, _, err := st.Window(asset, r, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := map[string]float64{}
	for _, d := range out {
		f[strings.TrimPrefix(d.Sensor, "de")] = d.Value.Number
	}
	return f
}

func near(t rapid.TB, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*math.Abs(want)) {
		t.Errorf("%s is %v, want %v to %v", what, got, want, tolerance)
	}
}

// A sine of known size, with an offset: every number is known.
func TestTone(t *testing.T) {
	const rate, n = 12800.0, 4096
	rpm := 60 * rate / n * 10 // 10 lines a revolution
	x := make([]float64, n)
	for i := range x {
		x[i] = 5 + 2*math.Sin(2*math.Pi*10*float64(i)/n) + 0.5*math.Sin(2*math.Pi*1200*float64(i)/n)
	}
	f := look(t, open(t, Rule{RPM: rpm, Bearing: Orders{BPFO: 3.5}}), rate, x)
	near(t, "rms", f[".rms"], math.Sqrt(2+0.125), 1e-6)
	near(t, "peak", f[".peak"], 2.5, 0.01)
	near(t, "crest", f[".crest"], f[".peak"]/f[".rms"], 1e-12)
	near(t, "1x", f[".band.1x"], math.Sqrt2, 1e-4)
	near(t, "high", f[".band.high"], 0.5/math.Sqrt2, 1e-4)
	if f[".band.2x"] > 1e-3 || f[".band.mid"] > 1e-3 {
		t.Errorf("bands without a tone: 2x %v, mid %v", f[".band.2x"], f[".band.mid"])
	}
	if _, there := f[".env.bpfi"]; there {
		t.Error("an order that is not known has a feature")
	}
}

// Impacts at an order stand out in the envelope at that order and no other.
func TestEnvelopeNamesTheOrder(t *testing.T) {
	const rate, n, rpm = 12000.0, 4096, 1797.0
	orders := Orders{BPFO: 3.5848, BPFI: 5.4152, BSF2: 4.7135, FTF: 0.3983}
	for name, order := range map[string]float64{".env.bpfo": orders.BPFO, ".env.bpfi": orders.BPFI, ".env.bsf": orders.BSF2} {
		rng := rand.New(rand.NewPCG(1, 2))
		x := make([]float64, n)
		for i := range x {
			x[i] = 0.05 * rng.NormFloat64()
		}
		for at := 0.0; at < n; at += rate / (order * rpm / 60) {
			for i := int(at); i < min(n, int(at)+100); i++ {
				d := float64(i) - at
				x[i] += math.Exp(-d/15) * math.Sin(2*math.Pi*3300/rate*d)
			}
		}
		f := look(t, open(t, Rule{RPM: rpm, Bearing: orders}), rate, x)
		for _, other := range []string{".env.bpfo", ".env.bpfi", ".env.bsf"} {
			if other != name && math.Pow(f[other]/f[name], 4) > 0.3 {
				t.Errorf("impacts at %s: energy at %s is %v of it", name, other, math.Pow(f[other]/f[name], 4))
			}
		}
		if share := math.Pow(f[name]/f[".env.total"], 4); share < 0.4 {
			t.Errorf("impacts at %s are %v of the envelope", name, share)
		}
		if f[".kurtosis"] < 5 {
			t.Errorf("kurtosis %v of impacts", f[".kurtosis"])
		}
	}
}

// The lines of a window add up to its mean square, and bands side by side to
// the band over both.
func TestBandsAddUp(tb *testing.T) {
	rapid.Check(tb, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		a := &open(tb, Rule{}).analyser
		x := make([]float64, 256)
		sum, weighted := 0.0, 0.0
		for i := range x {
			x[i] = rng.NormFloat64()
			sum += x[i] * x[i]
			w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/256)
			weighted += x[i] * x[i] * w * w
		}
		a.transform(x)
		power := a.spectrum(256, 128)
		total := 0.0
		for _, p := range power {
			total += p
		}
		if want := weighted / (0.375 * 256); math.Abs(total-want) > 1e-9*want {
			t.Fatalf("lines add up to %v, want %v (Parseval)", total, want)
		}
		hz := rapid.Float64Range(0.1, 10).Draw(t, "hz")
		cut := func(name string) float64 { return rapid.Float64Range(0, 130*hz).Draw(t, name) }
		lo, mid, hi := cut("a"), cut("b"), cut("c")
		lo, mid, hi = min(lo, mid, hi), max(min(lo, mid), min(max(lo, mid), hi)), max(lo, mid, hi)
		parts, whole := band(power, hz, lo, mid)+band(power, hz, mid, hi), band(power, hz, lo, hi)
		if math.Abs(parts-whole) > 1e-9*total {
			t.Fatalf("[%v, %v] and [%v, %v]: %v, together %v", lo, mid, mid, hi, parts, whole)
		}
	})
}

// Scaling a channel scales what has its unit and nothing else.
func TestGain(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	x, y := make([]float64, 4096), make([]float64, 4096)
	for i := range x {
		x[i] = rng.NormFloat64() + math.Sin(float64(i)/3)
		y[i] = 8 * x[i]
	}
	rule := Rule{RPM: 1797, Bearing: Orders{BPFO: 3.58, BPFI: 5.41, BSF2: 4.71, FTF: 0.39}}
	f, g := look(t, open(t, rule), 12000, x), look(t, open(t, rule), 12000, y)
	if len(f) != 14 {
		t.Fatalf("%d features, want 14", len(f))
	}
	for name, v := range f {
		want := 8 * v
		if name == ".kurtosis" || name == ".crest" {
			want = v
		}
		near(t, name, g[name], want, 1e-6)
	}
}

func TestNoNumbers(t *testing.T) {
	x := make([]float64, 4096)
	x[77] = math.NaN()
	r, w := block(0, 12000, x)
	out, pass, err := open(t, Rule{RPM: 1797, Trigger: Trigger{Kurtosis: 1}}).Window(asset, r, w, nil)
	if err != nil || pass.Ship || len(out) == 0 {
		t.Fatalf("%d readings, %+v, %v", len(out), pass, err)
	}
	for _, d := range out {
		if d.Value.Kind != signal.Null || d.Quality.Good() {
			t.Errorf("%s is %+v", d.Sensor, d)
		}
	}
}

// The trigger against a plain model: windows of interest with those before and
// after them leave, each once, also over restarts.
func TestTriggerAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := Rule{RPM: 600, Window: 64, Trigger: Trigger{
			Kurtosis: 5, PreWindows: rapid.IntRange(0, 3).Draw(t, "pre"), PostWindows: rapid.IntRange(0, 3).Draw(t, "post"),
		}}
		set, err := New(Config{Name: "model", Rules: []Rule{rule}})
		if err != nil {
			t.Fatal(err)
		}
		st, err := set.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		hot := rapid.SliceOfN(rapid.Bool(), 1, 30).Draw(t, "hot")
		want := map[uint64]bool{}
		for i, h := range hot {
			for k := i - rule.Trigger.PreWindows; h && k <= i+rule.Trigger.PostWindows; k++ {
				if k >= 0 && k < len(hot) {
					want[uint64(k)] = true
				}
			}
		}
		got := map[uint64]bool{}
		for i, h := range hot {
			x := make([]float64, 64)
			for k := range x {
				x[k] = float64(k%2)*2 - 1
			}
			if h {
				x[10] = 50
			}
			r, w := block(uint64(i)*64, 6400, x)
			_, p, err := st.Window(asset, r, w, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k := p.From; p.Ship && k <= w.First; k += 64 {
				if got[k/64] {
					t.Fatalf("window %d left twice", k/64)
				}
				got[k/64] = true
			}
			if rapid.Bool().Draw(t, "restart") {
				if st, err = set.Open(st.State()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestCaptureBudget(t *testing.T) {
	st := open(t, Rule{RPM: 600, Window: 64, EverySeconds: 0.02, Trigger: Trigger{Kurtosis: 5, PreWindows: 2, PostWindows: 1, MaxWindows: 4, RearmSeconds: 0.2}})
	var left []uint64
	for i := range uint64(40) {
		x := make([]float64, 64)
		x[3], x[7] = 9, -1
		r, w := block(i*64, 6400, x)
		_, p, err := st.Window(asset, r, w, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k := p.From; p.Ship && k <= w.First; k += 64 {
			left = append(left, k/64)
		}
	}
	// Every second window is looked at. The first capture has nothing before it
	// and ends when nothing more is of interest; the next begins 200 ms later.
	if d := cmp.Diff([]uint64{0, 1, 18, 19, 20, 21}, left); d != "" {
		t.Error(d)
	}
}

func recording(t *testing.T, name string) []float64 {
	t.Helper()
	dir := os.Getenv("HEADRACE_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	b, err := os.ReadFile(filepath.Join(dir, "cwru", name+".f32"))
	need.Suite(t, "data", err == nil, "no recordings of bearings in "+dir+"; set HEADRACE_DATA to their folder")
	x := make([]float64, len(b)/4)
	for i := range x {
		x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
	}
	return x
}

// Of real bearings all of the damaged ones leaves, and nothing of the healthy
// one, however loud.
func TestRealBearings(t *testing.T) {
	for _, c := range []struct {
		name string
		all  bool
	}{{"1797_Normal", false}, {"1797_IR_7_DE12", true}, {"1797_OR_at_6_7_DE12", true}} {
		x := recording(t, c.name)
		for _, gain := range []float64{1, 10} {
			st, err := CWRU().Open(nil)
			if err != nil {
				t.Fatal(err)
			}
			left, low, high := 0, math.Inf(1), 0.0
			for first := 0; first < len(x); first += DefaultWindow {
				part := make([]float64, min(DefaultWindow, len(x)-first))
				for i := range part {
					part[i] = gain * x[first+i]
				}
				r, w := block(uint64(first), 12000, part)
				out, p, err := st.Window("cwru/rig/m", r, w, nil)
				if err != nil {
					t.Fatal(err)
				}
				if p.Ship {
					left += first + len(part) - int(p.From)
				}
				for _, d := range out {
					if d.Sensor == "de.kurtosis" {
						low, high = min(low, d.Value.Number), max(high, d.Value.Number)
					}
				}
			}
			t.Logf("%s × %v: %d of %d samples leave, kurtosis %.2f to %.2f", c.name, gain, left, len(x), low, high)
			if want := map[bool]int{true: len(x)}[c.all]; left != want {
				t.Errorf("%s × %v: %d samples leave, want %d", c.name, gain, left, want)
			}
		}
	}
}

// FuzzOpen opens states of all kinds, and goes on from them.
func FuzzOpen(f *testing.F) {
	set, err := New(Config{Name: "test", Rules: []Rule{everything()}})
	if err != nil {
		f.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	x := make([]float64, 300)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	st, err := set.Open(nil)
	if err != nil {
		f.Fatal(err)
	}
	fd := &feed{st: st}
	fd.say("state", "", signal.TextValue("on"), 1)
	for i := range 3 {
		fd.say("speed", "/min", signal.NumberValue(1500+float64(i)), signal.Micros(i))
		fd.wave(f, uint64(i)*300, x)
		f.Add(fd.st.State())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := set.Open(b)
		if err != nil {
			return
		}
		if _, err := set.Open(st.State()); err != nil {
			t.Fatal(err)
		}
		g := &feed{st: st, kept: fd.kept, starts: fd.starts}
		if err := st.Refill(g.read); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			g.wave(t, 900+uint64(i)*300, x)
		}
	})
}

func TestConfig(t *testing.T) {
	if None().Hash() != "" || CWRU().Hash() == "" || None().Matches(asset, "de") || !CWRU().Matches(asset, "de") {
		t.Error("the shipped sets are not what they say")
	}
	for name, r := range map[string]Rule{
		"window":   {Window: 1000},
		"negative": {RPM: -1},
		"envelope": {EnvelopeLow: 10, EnvelopeHigh: 5},
		"glob":     {Asset: "["},
	} {
		if _, err := New(Config{Name: "bad", Rules: []Rule{r}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 4))
	x := make([]float64, 4096)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	r, w := block(0, 12000, x)
	st := open(b, Rule{RPM: 1797, Bearing: Orders{BPFO: 3.58, BPFI: 5.41, BSF2: 4.71, FTF: 0.39}})
	var out []signal.Reading
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, _, err = st.Window(asset, r, w, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(4096*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
