package plant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// position is where an edge's part of the plant stands.
type position struct {
	Second int64 `json:"second"` // the next one
	Window int64 `json:"window"` // the next one, in windows since the start or in duties
}

// feed is what an edge measures: all its machines once a second, and their
// windows of acceleration.
type feed struct {
	p        *Plant
	machines []*machine
	duty     time.Duration // between the starts of windows
	taken    position
	read     position
	names    []quantity
	samples  []source.Sample
	block    []byte
	buf      []byte
}

func (p *Plant) opener(machines []*machine) source.Opener {
	return func(at []byte, _ *slog.Logger) (source.Source, error) {
		f := &feed{p: p, machines: machines, duty: max(p.cfg.Duty.Truncate(windowTime), windowTime), names: quantities()}
		if len(at) > 0 {
			if err := json.Unmarshal(at, &f.taken); err != nil {
				return nil, fmt.Errorf("reading the position where the plant stood: %w", err)
			}
			if f.taken.Second < 0 || f.taken.Window < 0 {
				return nil, errors.New("reading the position where the plant stood: it lies before the start")
			}
		}
		f.read = f.taken
		return f, nil
	}
}

// windowEnd is when the n-th window is complete.
func (f *feed) windowEnd(n int64) time.Time {
	return f.p.start.Add(time.Duration(n)*f.duty + windowTime)
}

// Next returns a second of slow readings, or the machines' next windows.
func (f *feed) Next(ctx context.Context) (source.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return source.Chunk{}, err
	}
	f.Take()
	second := f.p.start.Add(time.Duration(f.taken.Second) * time.Second)
	end := f.windowEnd(f.taken.Window)
	next := second
	if end.Before(second) {
		next = end
	}
	if d := f.p.cfg.Duration; d > 0 && next.After(f.p.start.Add(d)) {
		return source.Chunk{}, io.EOF
	}
	f.samples = f.samples[:0]
	f.read = f.taken
	if end.Before(second) {
		f.waves(f.taken.Window)
		f.read.Window++
	} else {
		f.slow(f.taken.Second, second)
		f.read.Second++
	}
	return source.Chunk{Time: next, Samples: f.samples}, nil
}

func (f *feed) slow(second int64, at time.Time) {
	t := signal.MicrosOf(at)
	add := func(m *machine, class signal.Class, sensor, unit string, v signal.Value) {
		f.samples = append(f.samples, source.Sample{Asset: m.asset, Class: class, Reading: signal.Reading{
			Sensor: sensor, EventTime: t, AliveAt: t, Value: v, Unit: unit, Quality: signal.QualityGood,
		}})
	}
	for _, m := range f.machines {
		if s := m.state(second); second == 0 || s != m.state(second-1) {
			add(m, signal.Event, "state", "", signal.TextValue(s))
		}
		add(m, signal.Telemetry, speedSensor, "/min", signal.NumberValue(m.speed(second)))
		for i := range f.names {
			q := &f.names[i]
			if v, ok := m.slow(q, f.p.start, second); ok {
				add(m, signal.Telemetry, q.name, q.unit, signal.NumberValue(v))
			}
		}
	}
}

func (f *feed) waves(n int64) {
	first := uint64(time.Duration(n)*f.duty/windowTime) * window
	at := signal.MicrosOf(f.p.start.Add(time.Duration(n) * f.duty))
	for _, m := range f.machines {
		w := m.waveform(f.p.start, first, f.buf)
		f.buf = w.Samples
		f.block = record.AppendWaveform(f.block[:0], &w)
		f.samples = append(f.samples, source.Sample{Asset: m.asset, Class: signal.Raw, Reading: signal.Reading{
			Sensor: channel, EventTime: at, AliveAt: at, Value: signal.WaveValue(string(f.block)), Unit: "[g]", Quality: signal.QualityGood,
		}})
	}
}

// Take says that the chunk is taken.
func (f *feed) Take() { f.taken = f.read }

// Position stands after the last chunk taken.
func (f *feed) Position() []byte {
	b, _ := json.Marshal(f.taken) // numbers cannot fail
	return b
}

// Reached is the plant's time before the position.
func (f *feed) Reached() time.Time {
	if f.taken == (position{}) {
		return time.Time{}
	}
	at := f.p.start
	if s := f.taken.Second; s > 0 {
		at = at.Add(time.Duration(s-1) * time.Second)
	}
	if n := f.taken.Window; n > 0 && f.windowEnd(n-1).After(at) {
		at = f.windowEnd(n - 1)
	}
	return at
}

// Figures of a plant are its agents' own.
func (f *feed) Figures() []signal.Counter { return nil }

// Close has nothing to close.
func (f *feed) Close() error { return nil }
