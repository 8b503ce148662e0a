package rules

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

const asset = signal.Asset("lyon/hall/pump-1")

func sample(second int, x float64) *signal.Reading {
	at := signal.Micros(second) * 1e6
	return &signal.Reading{Sensor: "temperature", EventTime: at, AliveAt: at, Value: signal.NumberValue(x), Unit: "Cel", Quality: signal.QualityGood}
}

func set(t rapid.TB, list ...Rule) *Set {
	t.Helper()
	s, err := New(Config{Rules: list})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// said puts alarms into words: state@second(started).
func said(list []At) (out []string) {
	for _, a := range list {
		out = append(out, fmt.Sprintf("%s %s@%d from %d", a.Rule, a.State, a.At()/1e6, a.Started/1e6))
	}
	return out
}

func TestAlarms(t *testing.T) {
	for name, c := range map[string]struct {
		rule Rule
		in   []float64 // a sample a second
		want []string
	}{
		"above, at the level is not beyond": {Rule{Name: "r", Sensor: "*", Above: new(90.0)}, []float64{90, 91, 91, 90, 91}, []string{"r raised@2 from 2", "r cleared@4 from 2", "r raised@5 from 5"}},
		"set and clear":                     {Rule{Name: "r", Sensor: "temp*", Above: new(90.0), Clear: new(85.0)}, []float64{91, 89, 86, 85, 89}, []string{"r raised@1 from 1", "r cleared@4 from 1"}},
		"below":                             {Rule{Name: "r", Sensor: "*", Below: new(1.0), Clear: new(2.0)}, []float64{1, 0.5, 1.5, 2, 1.5}, []string{"r raised@2 from 2", "r cleared@4 from 2"}},
		"for a time":                        {Rule{Name: "r", Sensor: "*", Above: new(90.0), ForSeconds: 2}, []float64{91, 91, 90, 91, 91, 91, 91}, []string{"r raised@6 from 4"}},
		"rate":                              {Rule{Name: "r", Sensor: "*", Of: Rate, Above: new(5.0)}, []float64{0, 5, 11, 12}, []string{"r raised@3 from 3", "r cleared@4 from 3"}},
		"another sensor":                    {Rule{Name: "r", Sensor: "speed", Above: new(0.0)}, []float64{1, 2}, nil},
		"another asset":                     {Rule{Name: "r", Asset: "fan-*", Sensor: "*", Above: new(0.0)}, []float64{1, 2}, nil},
		"no numbers":                        {Rule{Name: "r", Sensor: "*", Above: new(0.0)}, []float64{math.NaN(), math.Inf(1)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := set(t, c.rule).Open("lyon/e", nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []At
			for i, x := range c.in {
				got = r.Apply(got, asset, sample(i+1, x))
			}
			if d := cmp.Diff(c.want, said(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

// What is late, not good or only held changes no alarm.
func TestWhatDoesNotCount(t *testing.T) {
	r, err := set(t, Rule{Name: "r", Sensor: "*", Above: new(90.0)}).Open("lyon/e", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := r.Apply(nil, asset, sample(10, 50))
	got = r.Apply(got, asset, sample(9, 99))
	bad := sample(11, 99)
	bad.Quality = signal.QualityBad
	got = r.Apply(got, asset, bad)
	held := sample(12, 99)
	held.AliveAt += 1e6
	got = r.Apply(got, asset, held)
	if len(got) != 0 {
		t.Errorf("%v", said(got))
	}
}

func TestModesAndReading(t *testing.T) {
	r, err := set(t, Rule{Name: "rough", Sensor: "*.rms", Above: new(2.0), Severity: "high"}, Rule{Name: "hot", Sensor: "temp*", Above: new(90.0)}).Open("lyon/e", nil)
	if err != nil {
		t.Fatal(err)
	}
	v := sample(1, 3)
	v.Sensor = "de_acceleration.rms"
	got := r.Apply(nil, asset, v)
	got = r.Apply(got, asset, sample(1, 95))
	if len(got) != 2 || got[0].FailureMode != Vibration || got[0].Channel != "de_acceleration" || got[0].Severity != "high" ||
		got[1].FailureMode != ParameterDeviation || got[1].Channel != "temperature" || got[1].Severity != "medium" {
		t.Fatalf("%+v", got)
	}
	reading, err := got[0].Reading()
	if err != nil {
		t.Fatal(err)
	}
	back, ok := signal.ParseAlarm(reading.Sensor, reading.Value)
	if d := cmp.Diff(got[0].Alarm, back); !ok || d != "" {
		t.Errorf("%v %s", ok, d)
	}
	if reading.Sensor != "de_acceleration.rms.alarm.rough" || reading.EventTime != 1e6 {
		t.Errorf("%+v", reading)
	}
	if _, ok := signal.ParseAlarm("other.alarm.rough", reading.Value); ok {
		t.Error("an alarm under another's name was taken")
	}
}

// Against a plain reading of the rule, with a restart anywhere.
func TestAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := 10.0
		clear := level - float64(rapid.IntRange(0, 4).Draw(t, "hysteresis"))
		hold := rapid.IntRange(0, 4).Draw(t, "for")
		rate := rapid.Bool().Draw(t, "rate")
		rule := Rule{Name: "r", Sensor: "*", Above: &level, Clear: &clear, ForSeconds: float64(hold)}
		if rate {
			rule.Of = Rate
		}
		s := set(t, rule)
		xs := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 60).Draw(t, "x")
		var want []string
		open, since, started := false, -1, 0
		for i, x := range xs {
			y := float64(x)
			if rate {
				if i == 0 {
					continue
				}
				y = float64(x - xs[i-1])
			}
			switch {
			case open && y <= clear:
				want = append(want, fmt.Sprintf("r cleared@%d from %d", i+1, started))
				open, since = false, -1
			case open:
			case y <= level:
				since = -1
			default:
				if since < 0 {
					since = i
				}
				if i-since >= hold {
					started = since + 1
					want = append(want, fmt.Sprintf("r raised@%d from %d", i+1, started))
					open, since = true, -1
				}
			}
		}
		r, err := s.Open("lyon/e", nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []At
		for i, x := range xs {
			got = r.Apply(got, asset, sample(i+1, float64(x)))
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				active := r.Active()
				if r, err = s.Open("lyon/e", r.State()); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(active, r.Active()); d != "" {
					t.Fatal(d)
				}
			}
		}
		if d := cmp.Diff(want, said(got)); d != "" {
			t.Fatal(d)
		}
	})
}

// An alarm whose rule is gone clears with the next sample, over restarts too.
func TestARuleThatIsGone(t *testing.T) {
	r, err := set(t, Rule{Name: "hot", Sensor: "*", Above: new(90.0)}).Open("lyon/e", nil)
	if err != nil {
		t.Fatal(err)
	}
	first := r.Apply(nil, asset, sample(1, 95))
	for range 2 {
		if r, err = None().Open("lyon/e", r.State()); err != nil {
			t.Fatal(err)
		}
		if len(r.Active()) != 1 {
			t.Fatalf("active %v", r.Active())
		}
	}
	got := r.Apply(nil, asset, sample(2, 95))
	if len(got) != 1 || got[0].State != signal.AlarmCleared || got[0].ID != first[0].ID || len(r.Active()) != 0 || r.State() != nil {
		t.Errorf("%+v, active %v", got, r.Active())
	}
}

// Samples of an alarm that is over come again after a restart, but for the first of
// them: they raise nothing.
func TestSamplesThatComeAgain(t *testing.T) {
	s := set(t, Rule{Name: "hot", Sensor: "*", Above: new(90.0)})
	r, err := s.Open("lyon/e", nil)
	if err != nil {
		t.Fatal(err)
	}
	xs := []float64{50, 95, 96, 97, 50}
	for i, x := range xs {
		r.Apply(nil, asset, sample(i+1, x))
	}
	if r, err = s.Open("lyon/e", r.State()); err != nil {
		t.Fatal(err)
	}
	for i := 2; i < len(xs); i++ {
		if got := r.Apply(nil, asset, sample(i+1, xs[i])); len(got) > 0 {
			t.Errorf("%q", said(got))
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, r := range map[string]Rule{
		"name":                  {Name: "Hot!", Sensor: "*", Above: new(1.0)},
		"no sensor":             {Name: "r", Above: new(1.0)},
		"either above or below": {Name: "r", Sensor: "*"},
		"no finite":             {Name: "r", Sensor: "*", Above: new(math.NaN())},
		"clears at 2":           {Name: "r", Sensor: "*", Above: new(1.0), Clear: new(2.0)},
		"of \"slope\"":          {Name: "r", Sensor: "*", Above: new(1.0), Of: "slope"},
		"for_seconds":           {Name: "r", Sensor: "*", Above: new(1.0), ForSeconds: -1},
		"severity":              {Name: "r", Sensor: "*", Above: new(1.0), Severity: "bad"},
		"no glob":               {Name: "r", Sensor: "[", Above: new(1.0)},
	} {
		if _, err := New(Config{Rules: []Rule{r}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
	if _, err := New(Config{Rules: []Rule{{Name: "r", Sensor: "*", Above: new(1.0)}, {Name: "r", Sensor: "*", Below: new(1.0)}}}); err == nil {
		t.Error("two rules of one name were taken")
	}
}

func FuzzState(tf *testing.F) {
	s := set(tf, Rule{Name: "r", Sensor: "*", Above: new(1.0)})
	r, err := s.Open("lyon/e", nil)
	if err != nil {
		tf.Fatal(err)
	}
	r.Apply(nil, asset, sample(1, 2))
	tf.Add(r.State())
	tf.Fuzz(func(t *testing.T, b []byte) {
		r, err := s.Open("lyon/e", b)
		if err != nil {
			return
		}
		r.Apply(nil, asset, sample(3, 0))
		if _, err := s.Open("lyon/e", r.State()); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	r, err := set(b, Rule{Name: "hot", Sensor: "temp*", Above: new(90.0)}).Open("lyon/e", nil)
	if err != nil {
		b.Fatal(err)
	}
	v := sample(1, 50)
	var out []At
	b.ReportAllocs()
	for b.Loop() {
		v.EventTime++
		v.AliveAt++
		out = r.Apply(out[:0], asset, v)
	}
	_ = out
}
