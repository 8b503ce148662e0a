package edge_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// waving is a source of blocks of noise, in sizes that are not the window's, one a
// second, each with the speed of that moment.
type waving struct {
	n, at, read int
	first       uint64 // of block at
	samples     []source.Sample
}

const (
	wavingRate = 1000.0
	wavingLess = 300 // samples in a block, at least
)

func wavingSize(block int) uint64 { return uint64(wavingLess + block*37%200) }

func (w *waving) open(position []byte, _ *slog.Logger) (source.Source, error) {
	s := *w
	if len(position) > 0 {
		if err := json.Unmarshal(position, &s.at); err != nil {
			return nil, err
		}
	}
	for i := range s.at {
		s.first += wavingSize(i)
	}
	s.read = s.at
	return &s, nil
}

func (w *waving) Next(ctx context.Context) (source.Chunk, error) {
	w.Take()
	if w.at >= w.n {
		return source.Chunk{}, io.EOF
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return source.Chunk{}, ctx.Err()
	}
	w.read = w.at + 1
	rng := rand.New(rand.NewPCG(uint64(w.at), 1))
	wave := record.Waveform{First: w.first, Rate: wavingRate, Format: record.FormatI16, Scale: 0.001}
	for range wavingSize(w.at) {
		wave.Samples = binary.LittleEndian.AppendUint16(wave.Samples, uint16(int16(1000*rng.NormFloat64())))
	}
	at := time.Unix(1_600_000_000, 0).Add(time.Duration(w.first) * time.Millisecond)
	when := signal.MicrosOf(at)
	reading := func(class signal.Class, sensor, unit string, v signal.Value) source.Sample {
		return source.Sample{Asset: "skab/valve1/a", Class: class, Reading: signal.Reading{
			Sensor: sensor, EventTime: when, AliveAt: when, Value: v, Unit: unit, Quality: signal.QualityGood,
		}}
	}
	w.samples = append(w.samples[:0],
		reading(signal.Telemetry, "speed", "/min", signal.NumberValue(1000+float64(w.at%9)*20)),
		reading(signal.Raw, "de", "[g]", signal.WaveValue(string(record.AppendWaveform(nil, &wave)))))
	return source.Chunk{Time: at, Samples: w.samples}, nil
}

func (w *waving) Take() {
	for ; w.at < w.read; w.at++ {
		w.first += wavingSize(w.at)
	}
}
func (w *waving) Figures() []signal.Counter { return nil }
func (w *waving) Close() error              { return nil }
func (w *waving) Position() []byte {
	b, _ := json.Marshal(w.at)
	return b
}

// features are those that came, by name and time.
func (b *bridge) features(t *testing.T) map[string]signal.Value {
	t.Helper()
	out := map[string]signal.Value{}
	b.set(func() {
		for _, batch := range b.got {
			for _, r := range batch.Readings {
				k := fmt.Sprintf("%s at %d", r.Sensor, r.EventTime)
				if old, ok := out[k]; ok && old != r.Value {
					t.Errorf("%s is %v, and %v", k, old, r.Value)
				}
				out[k] = r.Value
			}
		}
	})
	return out
}

// TestVibrationSurvivesKills leaves an agent's files as they stand in the middle of
// windows and averages, and another goes on with a copy of them: its features are
// those of an agent that was left alone.
func TestVibrationSurvivesKills(t *testing.T) {
	set, err := vibration.New(vibration.Config{Name: "test", Rules: []vibration.Rule{{
		Window: 1024, Overlap: 0.5, Average: 3, SpeedSensor: "speed", OrderTracking: true, Bearing: vibration.Orders{BPFO: 3.1},
		EnvelopeLow: 100, EnvelopeHigh: 400, Velocity: &vibration.Velocity{Low: 10, High: 400, Group: "1", Mounting: "rigid"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	const blocks = 60
	run := func(kills int) (features map[string]signal.Value, gaps int64) {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			defer startBroker(t, l)()
			src := &waving{n: blocks}
			dir := t.TempDir()
			opt := func() edge.Options {
				o := options(dir, nil, l)
				o.Open, o.Vibration = src.open, set
				return o
			}
			for range kills {
				a, stop := start(t, opt())
				time.Sleep(5500 * time.Millisecond)
				synctest.Wait()
				next := t.TempDir()
				if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
					t.Error(err)
				}
				gaps += counters(a)["vibration_gaps"]
				stop()
				dir = next
			}
			b := newBridge(t)
			b.up(l.Dial)
			a, stop := start(t, opt())
			drained(t, a, time.Hour)
			gaps += counters(a)["vibration_gaps"]
			if c := counters(a); kills == 0 && c["vibration_windows"] != (c["samples"]-1024)/512+1 {
				t.Errorf("%d windows of %d samples", c["vibration_windows"], c["samples"])
			}
			features = b.features(t)
			stop()
			b.away()
		})
		return features, gaps
	}
	alone, gaps := run(0)
	if len(alone) < 200 || gaps != 0 {
		t.Fatalf("%d features, %d gaps", len(alone), gaps)
	}
	killed, gaps := run(7)
	if d := cmp.Diff(alone, killed); d != "" || gaps != 0 {
		t.Errorf("%d gaps; left alone (-), killed (+):\n%s", gaps, d)
	}
}
