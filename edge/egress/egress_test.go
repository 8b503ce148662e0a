package egress

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

const asset = signal.Asset("s/l/m")

// The largest error is what a step-hold of the sent values misses, reading by
// reading, and no more than the deadband.
func TestErrorAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := filter.New(filter.Config{Name: "t", Rules: []filter.Rule{{Deadband: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := set.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMeter()
		var tally filter.Tally
		shown, want, have := 0.0, 0.0, false
		for i, v := range rapid.SliceOfN(rapid.Float64Range(-5, 5), 1, 200).Draw(t, "values") {
			at := signal.Micros(i+1) * 1e6
			r := signal.Reading{Sensor: "x", EventTime: at, AliveAt: at, Value: signal.NumberValue(v), Unit: "bar", Quality: signal.QualityGood}
			sent := false
			for _, o := range f.Apply(nil, asset, r, &tally) {
				sent = sent || !o.Held()
			}
			if sent || !have {
				shown, have = v, true
			}
			want = max(want, math.Abs(v-shown))
			m.Taken(asset, signal.Telemetry, &r, sent, set.Deadband("x", "bar"))
		}
		got := m.Report().Classes[Process]
		if got.MaxError != want || got.MaxError > 1 || got.MaxErrorBand != want {
			t.Fatalf("%+v, want %v", got, want)
		}
	})
}

func TestSharesAddUp(t *testing.T) {
	m := NewMeter()
	readings := []signal.Reading{
		{Sensor: "de.rms", EventTime: 1, AliveAt: 1, Value: signal.NumberValue(1)},
		{Sensor: "t", EventTime: 1, AliveAt: 1, Value: signal.NumberValue(1)},
		{Sensor: "t", EventTime: 1, AliveAt: 9, Value: signal.NumberValue(1)},
		{Sensor: "state", EventTime: 1, AliveAt: 1, Value: signal.TextValue("running")},
	}
	derived := func(s string) bool { return s == "de.rms" }
	m.Message(&signal.Batch{Origin: signal.Origin{Stream: "s/l/m:telemetry"}, Readings: readings}, 400, false, derived)
	m.Message(&signal.Batch{Origin: signal.Origin{Stream: "s/l/m:telemetry"}, Readings: readings[:1]}, 50, true, derived)
	w := record.AppendWaveform(nil, &record.Waveform{Rate: 1, Format: record.FormatF32, Scale: 1, Samples: make([]byte, 400)})
	wave := []signal.Reading{{Sensor: "de", EventTime: 1, AliveAt: 1, Value: signal.WaveValue(string(w))}}
	m.Message(&signal.Batch{Origin: signal.Origin{Stream: "s/l/m:raw"}, Readings: wave}, 900, false, derived)
	m.Taken(asset, signal.Raw, &wave[0], true, 0)
	m.Taken(asset, signal.Event, &readings[3], true, 0)
	m.Birth(7)
	m.Idle(8)
	m.Ack(9)
	got := m.Report()
	if raw := got.Classes[Vibration].Raw; raw <= 0 || raw > 200 {
		t.Errorf("100 samples of silence are %d bytes raw", raw)
	}
	v := got.Classes[Vibration]
	v.Raw = 0
	got.Classes[Vibration] = v
	want := Report{Births: 7, Idle: 8, Acks: 9, Classes: map[Class]Figures{
		Vibration: {Data: 100, Waveforms: 900, Resent: 50, Readings: 100},
		Process:   {Data: 100, Heartbeats: 100},
		State:     {Data: 100, Raw: 7, Readings: 1},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := Packet("abc", 200); n != 1+2+2+3+200 {
		t.Errorf("a packet of %d bytes", n)
	}
}
