package record

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

func TestWaveformRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Waveform{
			First: rapid.Uint64().Draw(t, "first"), Rate: rapid.Float64Range(1e-3, 1e6).Draw(t, "rate"),
			Format: rapid.SampledFrom([]string{FormatF32, FormatI16}).Draw(t, "format"), Scale: rapid.Float64Range(-1, 1).Draw(t, "scale"),
		}
		n := rapid.IntRange(0, 300).Draw(t, "n") * sampleBytes(w.Format)
		w.Samples = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "samples")
		var got Waveform
		if err := DecodeWaveform(AppendWaveform(nil, &w), &got); err != nil {
			t.Fatal(err)
		}
		if got.Samples == nil {
			got.Samples = []byte{}
		}
		if d := cmp.Diff(w, got); d != "" {
			t.Fatal(d)
		}
	})
}

// What an accelerometer says compresses, and comes back byte for byte through a
// record as well.
func TestWaveformInRecord(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := Waveform{First: 4096, Rate: 12800, Format: FormatI16, Scale: 1.0 / 2048}
	for i := range 4096 {
		v := 200*math.Sin(float64(i)/10) + 20*rng.NormFloat64()
		w.Samples = binary.LittleEndian.AppendUint16(w.Samples, uint16(int16(v)))
	}
	block := AppendWaveform(nil, &w)
	if len(block) > len(w.Samples)*7/10 {
		t.Errorf("%d bytes of %d", len(block), len(w.Samples))
	}
	b := signal.Batch{Origin: signal.Origin{Edge: "s/e", Boot: "b", Stream: "s/l/a:raw"}, Readings: []signal.Reading{{
		Sensor: "de_acceleration", EventTime: 5, AliveAt: 5, Value: signal.WaveValue(string(block)), Unit: "[g]", Quality: signal.QualityGood,
	}}}
	var got signal.Batch
	if err := Decode(Append(nil, &b), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, got); d != "" {
		t.Fatal(d)
	}
	var back Waveform
	if err := DecodeWaveform([]byte(got.Readings[0].Value.Text), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, back); d != "" {
		t.Fatal(d)
	}
	x := back.Floats(nil)
	if want := w.Scale * float64(int16(binary.LittleEndian.Uint16(w.Samples[20:]))); len(x) != 4096 || x[10] != want {
		t.Errorf("%d values, x[10] = %v, want %v", len(x), x[10], want)
	}
}

func TestWaveformRefusals(t *testing.T) {
	good := Waveform{Rate: 1, Format: FormatF32, Scale: 1, Samples: make([]byte, 8)}
	for name, change := range map[string]func(*Waveform){
		"format": func(w *Waveform) { w.Format = "pcm" },
		"rate":   func(w *Waveform) { w.Rate = 0 },
		"scale":  func(w *Waveform) { w.Scale = math.NaN() },
	} {
		w := good
		change(&w)
		if err := DecodeWaveform(AppendWaveform(nil, &w), &Waveform{}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzDecodeWaveform(f *testing.F) {
	f.Add(AppendWaveform(nil, &Waveform{Rate: 1, Format: FormatF32, Scale: 1, Samples: make([]byte, 8)}))
	f.Add(AppendWaveform(nil, &Waveform{Rate: 1, Format: FormatI16, Scale: 1, Samples: make([]byte, 4096)}))
	f.Fuzz(func(t *testing.T, p []byte) {
		var w, again Waveform
		if DecodeWaveform(p, &w) != nil {
			return
		}
		if len(w.Floats(nil)) != w.Len() || w.Len() > MaxSamples {
			t.Fatal(w.Len())
		}
		if err := DecodeWaveform(AppendWaveform(nil, &w), &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(w.Samples, again.Samples); d != "" {
			t.Fatal(d)
		}
	})
}
