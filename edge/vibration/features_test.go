package vibration

import (
	"bytes"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// However a spectrum is cut into bands, they add up to all of it, which is the
// mean square of the windowed signal (Parseval).
func TestOwnBandsAddUpToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 256
		rate := rapid.SampledFrom([]float64{1000, 12800, 51200}).Draw(t, "rate")
		inOrders := rapid.Bool().Draw(t, "orders")
		const rpm = 900.0
		cuts := rapid.SliceOfNDistinct(rapid.Float64Range(0.001, 0.999), 0, 8, func(v float64) float64 { return v }).Draw(t, "cuts")
		edges := append([]float64{0, 1}, cuts...)
		scale := rate / 2
		if inOrders {
			scale = rate / 2 / (rpm / 60)
		}
		var bands []Band
		for sorted, i := sortedCopy(edges), 1; i < len(sorted); i++ {
			e := []float64{sorted[i-1] * scale, sorted[i] * scale}
			b := Band{Name: "b" + string(rune('0'+i)), Hz: e}
			if inOrders {
				b.Hz, b.Orders = nil, e
			}
			bands = append(bands, b)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		x, mean := make([]float64, n), 0.0
		for i := range x {
			x[i] = float64(float32(rng.NormFloat64()))
			mean += x[i] / n
		}
		whole := 0.0
		for i, v := range x {
			w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/n)
			whole += (v - mean) * (v - mean) * w * w / (0.375 * n)
		}
		sum := 0.0
		for name, v := range look(t, open(t, Rule{Window: n, RPM: rpm, Bands: bands, BandsOnly: true}), rate, x) {
			if strings.HasPrefix(name, ".band.") {
				sum += v * v
			}
		}
		if math.Abs(sum-whole) > 1e-9*whole {
			t.Fatalf("%d bands add up to %v, want %v", len(bands), sum, whole)
		}
	})
}

func sortedCopy(x []float64) []float64 {
	out := append([]float64(nil), x...)
	for i := range out {
		for k := i; k > 0 && out[k] < out[k-1]; k-- {
			out[k], out[k-1] = out[k-1], out[k]
		}
	}
	return out
}

// Ten times the signal is ten times what has its unit, velocity and, by angle,
// orders too; ratios stay.
func TestGainOfEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		gain := math.Ldexp(1, rapid.IntRange(-8, 8).Draw(t, "log2"))
		rule := everything()
		rule.Average, rule.Regimes = 1, nil
		rule.SpeedProfile = []ProfilePoint{{0, 1500}, {0.03, 1900}}
		x, y := make([]float64, 256), make([]float64, 256)
		for i := range x {
			x[i] = rng.NormFloat64()
			y[i] = gain * float64(float32(x[i]))
		}
		f, g := look(t, open(t, rule), 5000, x), look(t, open(t, rule), 5000, y)
		for name, v := range f {
			want := gain * v
			switch name {
			case ".kurtosis", ".crest", ".skewness", ".zone":
				want = v
			}
			if math.Abs(g[name]-want) > 1e-9*math.Abs(want) {
				t.Fatalf("%s is %v, %v times as loud %v", name, v, gain, g[name])
			}
		}
	})
}

// The squared envelope of few samples has the lines of that of all of them, whatever
// the band and however many lines are wanted.
func TestThinEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 1 << rapid.IntRange(6, 12).Draw(t, "log2")
		low := rapid.IntRange(1, n/2-1).Draw(t, "low")
		high := rapid.IntRange(low, n/2-1).Draw(t, "high")
		want := rapid.IntRange(1, n/2).Draw(t, "want")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		x := make([]float64, n)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		thin, whole := &open(t, Rule{}).analyser, &open(t, Rule{}).analyser
		thin.transform(x)
		whole.transform(x)
		few := thin.envelope(n, low, high, want)
		got, all := thin.envelopeSpectrum(few, want), whole.envelopeSpectrum(whole.envelope(n, low, high, n), want)
		sum := 0.0
		for _, v := range all {
			sum += v
		}
		for k := range all {
			if math.Abs(got[k]-all[k]) > 1e-12*sum {
				t.Fatalf("line %d of %d samples is %v, of %d samples %v", k, len(few), got[k], n, all[k])
			}
		}
	})
}

// A tone of known acceleration has the velocity a / 2πf, whatever the unit.
func TestVelocityOfATone(t *testing.T) {
	const rate, n = 12800.0, 8192
	for _, c := range []struct {
		name, unit string
		hz, rpm    float64
		amplitude  float64 // in the unit
		want       float64 // mm/s
	}{
		{"g", "[g]", 100, 1500, 1, standardGravity / (2 * math.Pi * 100) / math.Sqrt2},
		{"m/s2", "m/s2", 100, 1500, 9.80665, standardGravity / (2 * math.Pi * 100) / math.Sqrt2},
		{"below the band", "[g]", 2 * rate / n, 1500, 1, 0},
		{"of a slow shaft", "[g]", 5 * rate / n, 300, 0.01, 0.01 * standardGravity / (2 * math.Pi * 5 * rate / n) / math.Sqrt2},
		{"above the band", "[g]", 3000, 1500, 1, 0},
	} {
		x := make([]float64, n)
		for i := range x {
			x[i] = 3 + c.amplitude*math.Sin(2*math.Pi*c.hz*float64(i)/rate)
		}
		st := open(t, Rule{Window: n, RPM: c.rpm, Velocity: &Velocity{Group: "2", Mounting: "rigid"}})
		r, w := block(0, rate, x)
		r.Unit = c.unit
		out, _, err := st.Window(asset, r, w, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range out {
			switch d.Sensor {
			case "de.velocity":
				if got := d.Value.Number; d.Unit != "mm/s" || math.Abs(got-c.want) > 0.02*c.want+0.01 {
					t.Errorf("%s: %v %s, want %v mm/s", c.name, got, d.Unit, c.want)
				}
			case "de.zone":
				if want := ShippedZones().find("2", "rigid").Of(c.want); d.Value.Text != want {
					t.Errorf("%s: zone %q, want %s", c.name, d.Value.Text, want)
				}
			}
		}
	}
}

// What is no acceleration has no velocity; it is null, counted, and said once by name.
func TestVelocityOfOtherUnits(t *testing.T) {
	for name, c := range map[string]struct {
		unit, declared string
		rate           float64
	}{
		"gram": {"g", "", 12800}, "none": {"", "", 12800}, "velocity": {"mm/s", "", 12800},
		"not the declared": {"m/s2", "[g]", 12800}, "too slow": {"[g]", "", 1999},
	} {
		st := open(t, Rule{Window: 1024, Unit: c.declared, RPM: 1500, Velocity: &Velocity{Group: "1", Mounting: "rigid"}})
		var said bytes.Buffer
		st.LogTo(slog.New(slog.NewTextHandler(&said, nil)))
		for i := range uint64(3) {
			r, w := block(i*1024, c.rate, make([]float64, 1024))
			r.Unit = c.unit
			out, _, err := st.Window(asset, r, w, nil)
			if err != nil {
				t.Fatal(err)
			}
			bad := 0
			for _, d := range out {
				if d.Sensor == "de.velocity" || d.Sensor == "de.zone" {
					bad++
					if d.Value.Kind != signal.Null || d.Quality.Good() {
						t.Errorf("%s: %+v", name, d)
					}
				}
			}
			if bad != 2 {
				t.Errorf("%s: %d readings", name, bad)
			}
		}
		if st.Counts().NoVelocity != 3 || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "unit="+quoted(c.unit)) {
			t.Errorf("%s: %+v, log %s", name, st.Counts(), said.String())
		}
	}
}

func quoted(unit string) string {
	if unit == "" {
		return `""`
	}
	return unit
}

func TestZones(t *testing.T) {
	z := ShippedZones()
	if err := z.check(); err != nil || z.Version != "iso10816-3-2009" {
		t.Errorf("the shipped table %q: %v", z.Version, err)
	}
	for _, c := range []struct {
		group, mounting string
		velocity        float64
		want            string
	}{
		{"1", "rigid", 2.3, "A"},
		{"1", "rigid", 2.31, "B"},
		{"1", "rigid", 4.5, "B"},
		{"1", "rigid", 7.1, "C"},
		{"1", "rigid", 7.2, "D"},
		{"1", "flexible", 3.5, "A"},
		{"1", "flexible", 7.2, "C"},
		{"1", "flexible", 11.1, "D"},
		{"2", "rigid", 1.4, "A"},
		{"2", "rigid", 2.9, "C"},
		{"2", "rigid", 4.6, "D"},
		{"2", "flexible", 2.2, "A"},
		{"2", "flexible", 4.6, "C"},
		{"2", "flexible", 7.2, "D"},
	} {
		if got := z.find(c.group, c.mounting).Of(c.velocity); got != c.want {
			t.Errorf("group %s %s at %v mm/s is %s, want %s", c.group, c.mounting, c.velocity, got, c.want)
		}
	}
	velocity := func(z *Zones, v Velocity) (*Set, error) {
		return New(Config{Name: "test", Zones: z, Rules: []Rule{{Velocity: &v}}})
	}
	for _, v := range []Velocity{{Group: "3", Mounting: "rigid"}, {Group: "1"}, {Mounting: "rigid"}, {Group: "1", Mounting: "soft"}} {
		if _, err := velocity(nil, v); err == nil || !strings.Contains(err.Error(), "1 rigid, 1 flexible, 2 rigid, 2 flexible") {
			t.Errorf("%+v: %v", v, err)
		}
	}
	plain, err := velocity(nil, Velocity{})
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := velocity(nil, Velocity{Group: "1", Mounting: "rigid"})
	if err != nil {
		t.Fatal(err)
	}
	own := &Zones{Version: "ours-2", Machines: []Zone{{"1", "rigid", 1, 2, 3}, {"pump", "rigid", 2, 3, 4}}}
	other, err := velocity(own, Velocity{Group: "pump", Mounting: "rigid"})
	if err != nil {
		t.Fatal(err)
	}
	if plain.Hash() == shipped.Hash() || shipped.Hash() == other.Hash() {
		t.Error("the hash does not tell the tables apart")
	}
	for name, z := range map[string]*Zones{
		"version": {Machines: own.Machines}, "order": {Version: "x", Machines: []Zone{{"1", "rigid", 2, 1, 3}}},
		"twice": {Version: "x", Machines: []Zone{{"1", "rigid", 1, 2, 3}, {"1", "rigid", 1, 2, 3}}}, "group": {Version: "x", Machines: []Zone{{"", "rigid", 1, 2, 3}}},
		"nan": {Version: "x", Machines: []Zone{{"1", "rigid", math.NaN(), 2, 3}}},
	} {
		if _, err := velocity(z, Velocity{}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// The 6205-2RS JEM: the multipliers that the CWRU Bearing Data Center gives.
func TestGeometry(t *testing.T) {
	o, err := Geometry(9, 0.3126, 1.537, 0) // inch
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]float64{"bpfo": {o.BPFO, 3.5848}, "bpfi": {o.BPFI, 5.4152}, "bsf2": {o.BSF2, 4.7135}, "ftf": {o.FTF, 0.39828}} {
		if math.Abs(c[0]-c[1]) > 5e-4 {
			t.Errorf("%s is %.5f, want %v", name, c[0], c[1])
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n, d, phi := rapid.IntRange(2, 60).Draw(t, "n"), rapid.Float64Range(0.01, 0.99).Draw(t, "d"), rapid.Float64Range(0, 89).Draw(t, "phi")
		o, err := Geometry(n, d, 1, phi)
		if err != nil {
			t.Fatal(err)
		}
		// All balls pass both races once while the cage and the ring turn apart.
		if math.Abs(o.BPFO+o.BPFI-float64(n)) > 1e-9 || math.Abs(o.FTF*float64(n)-o.BPFO) > 1e-9 || !(o.BSF2 > 0) {
			t.Fatalf("%+v", o)
		}
	})
	set, err := New(Config{Name: "test", Rules: []Rule{{Bearing: Orders{Balls: 9, BallDiameter: 7.94, PitchDiameter: 39.04}}}})
	if err != nil {
		t.Fatal(err)
	}
	if b := set.cfg.Rules[0].Bearing; math.Abs(b.BPFO-3.5848) > 1e-3 || math.Abs(b.BSF2-4.7135) > 1e-2 {
		t.Errorf("%+v", b)
	}
	for name, b := range map[string]Orders{
		"both": {BPFO: 3, Balls: 9, BallDiameter: 1, PitchDiameter: 5}, "balls": {BallDiameter: 1, PitchDiameter: 5}, "large": {Balls: 9, BallDiameter: 5, PitchDiameter: 5},
		"angle": {Balls: 9, BallDiameter: 1, PitchDiameter: 5, ContactAngle: 90}, "nan": {Balls: 9, BallDiameter: math.NaN(), PitchDiameter: 5},
		"half": {Balls: 9, BallDiameter: 1},
	} {
		if _, err := New(Config{Name: "test", Rules: []Rule{{Bearing: b}}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// A tone that follows a shaft through a change of speed is smeared in Hz and sharp in
// orders; the sensor's readings and the declared profile say the same.
func TestOrderTracking(t *testing.T) {
	const rate, n = 12800.0, 8192
	x := make([]float64, n)
	for i := range x {
		at := float64(i) / rate
		turns := 20*at + 15*at*at/0.64/2 // 1,200 to 2,100 rpm over 0.64 s
		x[i] = math.Sin(2 * math.Pi * 6 * turns)
	}
	bands := []Band{{Name: "sixth", Orders: []float64{5.7, 6.3}}, {Name: "rest", Orders: []float64{6.3, 12}}}
	say := func(st *Stage, seconds, rpm float64) {
		st.Reading(asset, &signal.Reading{Sensor: "speed", Unit: "/min", Quality: signal.QualityGood, EventTime: signal.Micros(seconds * 1e6), Value: signal.NumberValue(rpm)})
	}
	profile := look(t, open(t, Rule{Window: n, Bands: bands, SpeedProfile: []ProfilePoint{{0, 1200}, {0.64, 2100}}}), rate, x)
	st := open(t, Rule{Window: n, Bands: bands, SpeedSensor: "speed", OrderTracking: true})
	say(st, -5, 0)
	say(st, 0, 1200)
	say(st, 0.32, 1650)
	say(st, 0.64, 2100)
	sensor := look(t, st, rate, x)
	newest := open(t, Rule{Window: n, Bands: bands, SpeedSensor: "speed"})
	say(newest, 0, 1650)
	smeared := look(t, newest, rate, x)
	for name, f := range map[string]map[string]float64{"profile": profile, "sensor": sensor} {
		near(t, name+": sixth order", f[".band.sixth"], math.Sqrt(0.5), 0.01)
		if f[".band.rest"] > 0.02 {
			t.Errorf("%s: %v beside the order", name, f[".band.rest"])
		}
		near(t, name, f[".band.sixth"], profile[".band.sixth"], 1e-6)
	}
	if smeared[".band.sixth"] > 0.6 {
		t.Errorf("at one speed the sixth order has %v of %v", smeared[".band.sixth"], math.Sqrt(0.5))
	}
	// From standstill there are no orders, and the rest is there.
	st = open(t, Rule{Window: n, Bands: bands, SpeedProfile: []ProfilePoint{{0, 100}, {0.64, 2100}}})
	r, w := block(0, rate, x)
	out, _, err := st.Window(asset, r, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range out {
		orders := strings.HasPrefix(d.Sensor, "de.env.") || d.Sensor == "de.band.1x" || d.Sensor == "de.band.2x" || d.Sensor == "de.band.sixth" || d.Sensor == "de.band.rest"
		if orders != (d.Value.Kind == signal.Null) {
			t.Errorf("%s from standstill is %+v", d.Sensor, d.Value)
		}
	}
}

// The angle of time and the time of an angle are one another's inverse, for any
// speed that bends anywhere.
func TestSpeedProfile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := &Rule{}
		at := 0.0
		for range rapid.IntRange(1, 6).Draw(t, "points") {
			rule.SpeedProfile = append(rule.SpeedProfile, ProfilePoint{at, rapid.Float64Range(1000, 1500).Draw(t, "rpm")})
			at += rapid.Float64Range(0.01, 1).Draw(t, "seconds")
		}
		if err := checkProfile(rule.SpeedProfile); err != nil {
			t.Fatal(err)
		}
		st := &Stage{}
		const seconds, n = 1.0, 100
		sp := st.shaft(asset, rule, 0, seconds)
		if !sp.known || sp.lowest < 1000.0/60-1e-9 || sp.highest > 1500.0/60+1e-9 || sp.mean < sp.lowest-1e-9 || sp.mean > sp.highest+1e-9 {
			t.Fatalf("%+v", sp)
		}
		if !sp.varies {
			return
		}
		dt := seconds / n
		total := sp.turns((n - 1) * dt)
		for j, p := range st.places(sp, n, dt, total, 50) {
			if got, want := sp.turns(p*dt), total*float64(j)/50; math.Abs(got-want) > 1e-9*total {
				t.Fatalf("angle %d is at sample %v, which is at %v turns, want %v", j, p, got, want)
			}
		}
	})
}

// Features are made in declared regimes alone; what is outside is counted by cause,
// and its beginning said.
func TestRegimes(t *testing.T) {
	rule := Rule{
		Window: 64, BandsOnly: true, RPM: 3000, SpeedSensor: "speed",
		Regimes: []Regime{
			{Name: "low", RPM: []float64{1000, 1200}, State: &StateIn{Sensor: "state", Values: []string{"running", "true"}}},
			{Name: "high", RPM: []float64{1800, 2200}, Load: &LoadRange{Sensor: "power", Low: 10, High: 20}, State: &StateIn{Sensor: "state", Values: []string{"running"}}},
		},
	}
	st := open(t, rule)
	f := &feed{st: st}
	type step struct {
		sensor, unit string
		value        signal.Value
		regime       string // said with the next window, "" nothing
		features     bool
	}
	at := uint64(0)
	for i, s := range []step{
		{"other", "", signal.NumberValue(1), Outside, false}, // nothing is known
		{"state", "", signal.TextValue("running"), "", false},
		{"speed", "/min", signal.NumberValue(1100), "low", true},
		{"speed", "/min", signal.NumberValue(1500), Outside, false},
		{"speed", "/min", signal.NumberValue(2000), "", false}, // load is not known
		{"power", "kW", signal.NumberValue(15), "high", true},
		{"power", "kW", signal.NumberValue(25), Outside, false},
		{"power", "kW", signal.NumberValue(20), "high", true},
		{"state", "", signal.TextValue("standby"), Outside, false},
		{"speed", "/min", signal.NumberValue(1000), "", false},
		{"state", "", signal.BoolValue(true), "low", true},
		{"speed", "/min", signal.NumberValue(1200), "low", true},
	} {
		f.say(s.sensor, s.unit, s.value, signal.Micros(at)*200)
		before := len(f.out)
		f.wave(t, at, make([]float64, 64))
		at += 64
		var regime string
		features := false
		for _, d := range f.out[before:] {
			if d.Sensor == "de.regime" {
				regime = d.Value.Text
			} else {
				features = true
			}
		}
		if regime != s.regime || features != s.features {
			t.Errorf("step %d: regime %q, features %v; want %q, %v", i, regime, features, s.regime, s.features)
		}
	}
	want := Counts{Windows: 12, OutsideUnknown: 2, OutsideSpeed: 2, OutsideLoad: 1, OutsideState: 2}
	if d := cmp.Diff(want, st.Counts()); d != "" {
		t.Error(d)
	}
	// A speed that is too old does not count, though the rule says one.
	f.wave(t, 1<<20, make([]float64, 64))
	if c := st.Counts(); c.OutsideUnknown != 3 {
		t.Errorf("%+v", c)
	}
}

// A regime that ends cuts an average short, also where another begins.
func TestRegimeEndsAnAverage(t *testing.T) {
	f := &feed{st: open(t, Rule{Window: 64, Average: 3, BandsOnly: true, Regimes: []Regime{
		{Name: "on", State: &StateIn{Sensor: "state", Values: []string{"on"}}}, {Name: "boost", State: &StateIn{Sensor: "state", Values: []string{"boost"}}},
	}})}
	for i, state := range []string{"on", "on", "off", "on", "on", "on", "on", "boost", "boost", "boost"} {
		f.say("state", "", signal.TextValue(state), signal.Micros(i))
		f.wave(t, uint64(i)*64, make([]float64, 64))
	}
	type set struct {
		Regime string
		End    signal.Micros
	}
	var got []set
	for i, d := range f.out {
		if d.Sensor == "de.rms" {
			got = append(got, set{f.out[i-1].Value.Text, d.EventTime})
		}
	}
	if d := cmp.Diff([]set{{"on", 6 * 64 * 200}, {"boost", 10 * 64 * 200}}, got); d != "" || f.st.Counts().Broken != 3 {
		t.Errorf("%s %+v", d, f.st.Counts())
	}
}

func TestRulesRefused(t *testing.T) {
	run := []Regime{{Name: "a", RPM: []float64{1, 2}}}
	for name, r := range map[string]Rule{
		"overlap":        {Overlap: 1},
		"negative":       {Overlap: -0.1},
		"average":        {Average: -1},
		"harmonics":      {Harmonics: 21},
		"statistic":      {Statistics: []string{"median"}},
		"tracking":       {OrderTracking: true, RPM: 100},
		"velocity unit":  {Unit: "mm/s", Velocity: &Velocity{}},
		"velocity band":  {Velocity: &Velocity{Low: 100, High: 10}},
		"band name":      {Bands: []Band{{Name: "a.b", Hz: []float64{1, 2}}}},
		"band twice":     {Bands: []Band{{Name: "a", Hz: []float64{1, 2}}, {Name: "a", Hz: []float64{1, 2}}}},
		"band both":      {Bands: []Band{{Name: "a", Hz: []float64{1, 2}, Orders: []float64{1, 2}}}},
		"band none":      {Bands: []Band{{Name: "a"}}},
		"band edges":     {Bands: []Band{{Name: "a", Hz: []float64{2, 1}}}},
		"band nan":       {Bands: []Band{{Name: "a", Hz: []float64{math.NaN(), 1}}}},
		"profile order":  {SpeedProfile: []ProfilePoint{{1, 100}, {1, 200}}},
		"profile still":  {SpeedProfile: []ProfilePoint{{0, 0}}},
		"regime speed":   {Regimes: run},
		"regime name":    {RPM: 1, Regimes: []Regime{{Name: Outside, RPM: []float64{1, 2}}}},
		"regime twice":   {RPM: 1, Regimes: append(run, run...)},
		"regime of all":  {Regimes: []Regime{{Name: "a"}}},
		"regime load":    {Regimes: []Regime{{Name: "a", Load: &LoadRange{Sensor: "x", Low: 2, High: 1}}}},
		"regime state":   {Regimes: []Regime{{Name: "a", State: &StateIn{Sensor: "x"}}}},
		"regime backing": {RPM: 1, Regimes: []Regime{{Name: "a", RPM: []float64{2, 1}}}},
	} {
		if _, err := New(Config{Name: "bad", Rules: []Rule{r}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
