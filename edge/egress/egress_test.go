package egress

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

const asset = signal.Asset("s/l/m")

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
	m.Taken(asset, signal.Raw, &wave[0], 0)
	m.Taken(asset, signal.Event, &readings[3], 0)
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
