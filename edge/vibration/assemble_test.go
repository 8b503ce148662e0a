package vibration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// everything is a rule with all there is.
func everything() Rule {
	return Rule{
		Window: 256, Overlap: 0.5, Average: 3, RPM: 1797, SpeedSensor: "speed", OrderTracking: true,
		Bearing: Orders{BPFO: 3.58, BPFI: 5.41, BSF2: 4.71, FTF: 0.39}, Statistics: []string{PeakToPeak, Skewness},
		Bands: []Band{{Name: "a", Hz: []float64{0, 500}}, {Name: "b", Orders: []float64{0.5, 4}}}, Velocity: &Velocity{Group: "1", Mounting: "flexible"},
		Regimes: []Regime{{Name: "run", RPM: []float64{600, 6000}, State: &StateIn{Sensor: "state", Values: []string{"on"}}}},
		Trigger: Trigger{Kurtosis: 1000},
	}
}

// feed is what a stage was given, and what a ring has kept of it.
type feed struct {
	st     *Stage
	out    []signal.Reading
	kept   [][]byte
	starts []uint64
}

func (f *feed) wave(t rapid.TB, first uint64, x []float64) {
	r, w := block(first, 5000, x)
	f.starts, f.kept = append(f.starts, first), append(f.kept, record.AppendWaveform(nil, w))
	var err error
	if f.out, _, err = f.st.Window(asset, r, w, f.out); err != nil {
		t.Fatal(err)
	}
}

func (f *feed) say(sensor, unit string, v signal.Value, at signal.Micros) {
	f.st.Reading(asset, &signal.Reading{Sensor: sensor, Unit: unit, Value: v, EventTime: at, AliveAt: at, Quality: signal.QualityGood})
}

// read is [Stage.Refill]'s, from what was kept.
func (f *feed) read(_ signal.Asset, _ string, from, before uint64, visit func([]byte) error) error {
	for i, first := range f.starts {
		if first >= from && first < before {
			if err := visit(f.kept[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Neither where blocks end nor a restart, in the middle of a window or an average,
// changes a feature.
func TestBlocksAndRestartsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := everything()
		rule.Overlap = rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.9}).Draw(t, "overlap")
		rule.Average = rapid.IntRange(0, 4).Draw(t, "average")
		rule.EverySeconds = rapid.SampledFrom([]float64{0, 0.3}).Draw(t, "every")
		rule.OrderTracking = rapid.Bool().Draw(t, "tracking")
		set, err := New(Config{Name: "test", Rules: []Rule{rule}})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 7))
		x := make([]float64, rapid.IntRange(0, 4000).Draw(t, "samples"))
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		fresh := func() *feed {
			st, err := set.Open(nil)
			if err != nil {
				t.Fatal(err)
			}
			f := &feed{st: st}
			f.say("state", "", signal.TextValue("on"), 1)
			return f
		}
		once, often := fresh(), fresh()
		// What the machine says comes with the sample at which it is said, to both.
		tell := func(f *feed, i int) {
			if i%300 == 0 {
				f.say("speed", "/min", signal.NumberValue(1500+float64(i%700)), signal.Micros(i)*200)
			}
			if i == 1500 || i == 1900 {
				f.say("state", "", signal.TextValue(map[bool]string{true: "on", false: "off"}[i == 1900]), signal.Micros(i)*200)
			}
		}
		for i := range x {
			if i%300 == 0 || i == 1500 || i == 1900 {
				tell(once, i)
			}
			once.wave(t, uint64(i), x[i:i+1])
		}
		for i := 0; i < len(x); {
			tell(often, i)
			next := (i/100 + 1) * 100 // no further than something is said
			n := min(rapid.IntRange(1, 100).Draw(t, "block"), next-i, len(x)-i)
			often.wave(t, uint64(i), x[i:i+n])
			i += n
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				if often.st, err = set.Open(often.st.State()); err != nil {
					t.Fatal(err)
				}
				if err := often.st.Refill(often.read); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff(once.out, often.out, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("sample by sample (-), in blocks (+):\n%s", d)
		}
		if len(x) >= 3000 && len(once.out) == 0 {
			t.Fatal("no features")
		}
	})
}

// Windows are those of a plain model: so many samples, each so much after the last,
// anew after each gap; and a state is no longer than what it says.
func TestGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := Rule{Window: 64, Overlap: rapid.SampledFrom([]float64{0, 0.5, 0.75}).Draw(t, "overlap"), BandsOnly: true}
		set, err := New(Config{Name: "test", Rules: []Rule{rule}})
		if err != nil {
			t.Fatal(err)
		}
		st, err := set.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		f := &feed{st: st}
		var want []signal.Micros
		gaps := int64(0)
		at, run, hop := uint64(0), 0, set.cfg.Rules[0].hop()
		for range rapid.IntRange(1, 40).Draw(t, "blocks") {
			if rapid.IntRange(0, 5).Draw(t, "gap") == 0 {
				at += uint64(rapid.IntRange(1, 500).Draw(t, "missing"))
				if run > 0 {
					gaps++
				}
				run = 0
			}
			n := rapid.IntRange(1, 200).Draw(t, "n")
			x := make([]float64, n)
			for i := range x {
				x[i] = float64(i%7) - 3
				run++
				if run == 64 {
					want = append(want, signal.Micros(at+uint64(i)+1)*200)
					run -= hop
				}
			}
			f.wave(t, at, x)
			at += uint64(n)
			if len(st.State()) > 1000 {
				t.Fatalf("the state has %d bytes", len(st.State()))
			}
		}
		var got []signal.Micros
		for _, d := range f.out {
			if d.Sensor == "de.rms" {
				got = append(got, d.EventTime)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("ends of windows (-model +stage):\n%s", d)
		}
		if st.Counts().Gaps != gaps || st.Counts().Windows != int64(len(want)) {
			t.Fatalf("%+v, want %d gaps and %d windows", st.Counts(), gaps, len(want))
		}
	})
}

// A change of rate, unit or quality, or a jump of time, begins anew as a gap does.
func TestBreaks(t *testing.T) {
	x := make([]float64, 40)
	for i := range x {
		x[i] = float64(i % 5)
	}
	for name, change := range map[string]func(*signal.Reading, *record.Waveform){
		"rate":     func(_ *signal.Reading, w *record.Waveform) { w.Rate = 6000 },
		"unit":     func(r *signal.Reading, _ *record.Waveform) { r.Unit = "m/s2" },
		"quality":  func(r *signal.Reading, _ *record.Waveform) { r.Quality = signal.QualityBad },
		"time":     func(r *signal.Reading, _ *record.Waveform) { r.EventTime += 10_000 },
		"repeated": func(_ *signal.Reading, w *record.Waveform) { w.First = 0 },
		"none":     func(*signal.Reading, *record.Waveform) {},
	} {
		st := open(t, Rule{Window: 64})
		r, w := block(0, 5000, x)
		if _, _, err := st.Window(asset, r, w, nil); err != nil {
			t.Fatal(err)
		}
		r, w = block(40, 5000, x)
		change(r, w)
		out, _, err := st.Window(asset, r, w, nil)
		if err != nil {
			t.Fatal(err)
		}
		if whole := name == "none"; whole != (len(out) > 0) || whole != (st.Counts().Gaps == 0) {
			t.Errorf("%s: %d features, %+v", name, len(out), st.Counts())
		}
	}
}

// What the ring has lost, or keeps damaged, is a gap, never a window of other samples.
func TestRefillWithoutTheSamples(t *testing.T) {
	for name, read := range map[string]func(*feed, signal.Asset, string, uint64, uint64, func([]byte) error) error{
		"nothing": func(*feed, signal.Asset, string, uint64, uint64, func([]byte) error) error { return nil },
		"a hole": func(f *feed, _ signal.Asset, _ string, _, _ uint64, visit func([]byte) error) error {
			for _, i := range []int{0, 2} {
				if err := visit(f.kept[i]); err != nil {
					return err
				}
			}
			return nil
		},
		"damage": func(f *feed, _ signal.Asset, _ string, _, _ uint64, visit func([]byte) error) error {
			for range f.kept {
				if err := visit([]byte("no block")); err != nil {
					return err
				}
			}
			return nil
		},
		"not asked": nil,
	} {
		rule := Rule{Window: 64, BandsOnly: true}
		f := &feed{st: open(t, rule)}
		x := make([]float64, 20)
		for i := range 3 {
			f.wave(t, uint64(i*20), x)
		}
		st, err := f.st.set.Open(f.st.State())
		if err != nil {
			t.Fatal(err)
		}
		f.st = st
		if read != nil {
			err := st.Refill(func(a signal.Asset, s string, from, before uint64, visit func([]byte) error) error {
				return read(f, a, s, from, before, visit)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		f.wave(t, 60, x)
		if len(f.out) != 0 || st.Counts().Gaps != 1 {
			t.Errorf("%s: %d features, %+v", name, len(f.out), st.Counts())
		}
		f.wave(t, 80, make([]float64, 44)) // 64 from where it began anew
		if len(f.out) == 0 {
			t.Errorf("%s: no window after the gap", name)
		}
	}
}

// A source that cannot give windows: the last of a long block is as if alone.
func TestLongBlocks(t *testing.T) {
	x := make([]float64, 1000)
	for i := range x {
		x[i] = math.Sin(float64(i * i))
	}
	long := &feed{st: open(t, Rule{Window: 128, RPM: 1200})}
	long.wave(t, 0, x)
	short := &feed{st: open(t, Rule{Window: 128, RPM: 1200})}
	for i := 0; i+128 <= len(x); i += 128 {
		short.wave(t, uint64(i), x[i:i+128])
	}
	if d := cmp.Diff(short.out, long.out); d != "" || len(long.out) != 7*10 {
		t.Errorf("%d features (-short +long)\n%s", len(long.out), d)
	}
}

// In the steady state nothing is allocated, whatever is asked for.
func TestNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{100, 256, 1000} {
		st := open(t, everything())
		x := make([]float64, size)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		r, w := block(0, 5000, x)
		var out []signal.Reading
		say := func() {
			s := signal.Reading{Sensor: "speed", Unit: "/min", Quality: signal.QualityGood, EventTime: r.EventTime, Value: signal.NumberValue(1700 + float64(r.EventTime%1000))}
			st.Reading(asset, &s)
		}
		next := func() {
			var err error
			if out, _, err = st.Window(asset, r, w, out[:0]); err != nil {
				t.Fatal(err)
			}
			w.First += uint64(size)
			r.EventTime += signal.Micros(size) * 200
			say()
		}
		s := signal.Reading{Sensor: "state", Quality: signal.QualityGood, Value: signal.TextValue("on")}
		st.Reading(asset, &s)
		for range 2000 {
			say()
			next()
		}
		if n := testing.AllocsPerRun(200, next); n != 0 {
			t.Errorf("blocks of %d: %v allocations", size, n)
		}
		if c := st.Counts(); c.Windows == 0 || c.OutsideUnknown > 0 {
			t.Errorf("%+v", c)
		}
	}
}

// FuzzWindow has blocks, speeds and states that cannot be: nothing panics, and
// what comes out is finite, or null and bad.
func FuzzWindow(f *testing.F) {
	f.Add(uint64(0), 5000.0, int64(0), 1700.0, 1.0, []byte("some samples, not many"), uint16(512))
	f.Add(uint64(math.MaxUint64-100), 1e-300, int64(math.MaxInt64), 0.0, 1e300, []byte{0xff, 0x7f, 0, 0x80}, uint16(1000))
	f.Add(uint64(1), math.SmallestNonzeroFloat64, int64(math.MinInt64), 1e300, math.SmallestNonzeroFloat64, []byte{1, 2, 3, 4}, uint16(300))
	f.Add(uint64(1), math.MaxFloat64, int64(-1), math.SmallestNonzeroFloat64, -1.0, []byte{1, 2, 3, 4}, uint16(700))
	f.Fuzz(func(t *testing.T, first uint64, rate float64, at int64, rpm, scale float64, pattern []byte, count uint16) {
		if !(rate > 0) || math.IsInf(rate, 0) || math.IsNaN(scale) || math.IsInf(scale, 0) || len(pattern) == 0 {
			return // a record never says so
		}
		rule := everything()
		rule.Average = 1
		tracked, plain := rule, rule
		plain.OrderTracking, plain.Regimes = false, nil
		for _, r := range []Rule{tracked, plain} {
			fd := &feed{st: open(t, r)}
			fd.say("state", "", signal.TextValue("on"), signal.Micros(at))
			fd.say("speed", "/min", signal.NumberValue(rpm), signal.Micros(at))
			fd.say("speed", "/min", signal.NumberValue(rpm*1.5), signal.Micros(at+1000))
			for i := range uint64(3) {
				w := &record.Waveform{First: first + i*uint64(count), Rate: rate, Format: record.FormatI16, Scale: scale}
				for k := range 2 * int(count) {
					w.Samples = append(w.Samples, pattern[k%len(pattern)]+byte(k))
				}
				rd := &signal.Reading{Sensor: "de", Unit: "[g]", Quality: signal.QualityGood, EventTime: signal.Micros(at)}
				out, _, err := fd.st.Window(asset, rd, w, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range out {
					if v := d.Value.Number; math.IsNaN(v) || math.IsInf(v, 0) || d.Value.Kind == signal.Null && d.Quality.Good() {
						t.Fatalf("%+v", d)
					}
				}
				st, err := fd.st.set.Open(fd.st.State())
				if err != nil {
					t.Fatal(err)
				}
				fd.st = st
			}
		}
	})
}

func benchmark(b *testing.B, rule Rule, size int) {
	rng := rand.New(rand.NewPCG(3, 4))
	x := make([]float64, size)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	r, w := block(0, 25600, x)
	st := open(b, rule)
	var out []signal.Reading
	step := signal.Micros(math.Round(float64(size) / 25600 * 1e6))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, _, err = st.Window(asset, r, w, out[:0]); err != nil {
			b.Fatal(err)
		}
		w.First += uint64(size)
		r.EventTime += step
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}

// BenchmarkEverything is a channel of 25.6 kHz with all features: statistics,
// spectrum, bands in Hz and orders, velocity and zone, envelope and its orders.
func BenchmarkEverything(b *testing.B) {
	for _, c := range []struct{ window, block int }{{2048, 2048}, {8192, 8192}, {8192, 1000}, {65536, 8192}} {
		rule := everything()
		rule.Window, rule.Overlap, rule.Average, rule.OrderTracking, rule.SpeedSensor, rule.Regimes = c.window, 0, 0, false, "", nil
		b.Run(fmt.Sprintf("window=%d/block=%d", c.window, c.block), func(b *testing.B) { benchmark(b, rule, c.block) })
	}
	rule := everything()
	rule.Window, rule.Overlap, rule.Average, rule.OrderTracking, rule.SpeedSensor, rule.Regimes = 8192, 0.5, 4, false, "", nil
	b.Run("window=8192/overlap=50%/average=4", func(b *testing.B) { benchmark(b, rule, 8192) })
	rule.Overlap, rule.Average, rule.SpeedProfile = 0, 0, []ProfilePoint{{0, 1500}, {0.32, 1800}}
	b.Run("window=8192/tracking", func(b *testing.B) { benchmark(b, rule, 8192) })
}
