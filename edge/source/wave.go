package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// The recordings of the Case Western Reserve University Bearing Data Center say
// neither when nor how fast: this is their sampling rate, and a day that is ours.
const (
	cwruRate    = 12_000
	cwruWindow  = 4096
	cwruSensor  = "de_acceleration"
	sampleBytes = 4
)

func cwruStart() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// wavePosition is where a replay of samples stands.
type wavePosition struct {
	Next uint64 `json:"next"` // index of the next sample
	Size int64  `json:"size"` // of the file, in bytes
	Tail uint32 `json:"tail"` // CRC32 of the last bytes before Next
}

// wave is a recording of samples: one channel, a block a window.
type wave struct {
	rec     Recording
	f       *os.File
	samples uint64
	taken   wavePosition
	read    wavePosition
	buf     []byte
	block   []byte
	chunk   [1]Sample
}

// samples is how many samples the file has.
func (r Recording) samples() (uint64, error) {
	st, err := os.Stat(r.File)
	if err != nil {
		return 0, fmt.Errorf("opening recording: %w", err)
	}
	if st.Size() == 0 || st.Size()%sampleBytes != 0 {
		return 0, fmt.Errorf("opening recording %s: its %d bytes are no samples of %d bytes each (little-endian float32 without header); mend it or move it away", r.File, st.Size(), sampleBytes)
	}
	return uint64(st.Size() / sampleBytes), nil
}

func openWave(r Recording, at []byte) (*wave, error) {
	n, err := r.samples()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(r.File)
	if err != nil {
		return nil, fmt.Errorf("opening recording: %w", err)
	}
	w := &wave{rec: r, f: f, samples: n}
	w.taken.Size = int64(n) * sampleBytes
	if err := w.begin(at); err != nil {
		return nil, fmt.Errorf("opening recording %s: %w", r.File, errors.Join(err, f.Close()))
	}
	w.read = w.taken
	return w, nil
}

func (w *wave) begin(at []byte) error {
	if len(at) == 0 {
		return nil
	}
	var p wavePosition
	if err := json.Unmarshal(at, &p); err != nil {
		return fmt.Errorf("reading the position where the replay stood: %w", err)
	}
	other := errors.New("the file is not the one that was being replayed; restore it, or begin anew with another --dir")
	if p.Size != w.taken.Size || p.Next > w.samples {
		return other
	}
	if tail, err := w.tail(p.Next); err != nil || tail != p.Tail {
		return errors.Join(err, other)
	}
	w.taken = p
	return nil
}

func (w *wave) tail(next uint64) (uint32, error) {
	end := int64(next) * sampleBytes
	b := make([]byte, min(end, tailBytes))
	if _, err := w.f.ReadAt(b, end-int64(len(b))); err != nil {
		return 0, err
	}
	return crc32.ChecksumIEEE(b), nil
}

// Next returns the next window, at its end.
func (w *wave) Next(ctx context.Context) (Chunk, error) {
	if err := ctx.Err(); err != nil {
		return Chunk{}, err
	}
	w.Take()
	first := w.taken.Next
	if first >= w.samples {
		return Chunk{}, io.EOF
	}
	n := min(w.samples-first, cwruWindow)
	if uint64(cap(w.buf)) < n*sampleBytes {
		w.buf = make([]byte, n*sampleBytes)
	}
	w.buf = w.buf[:n*sampleBytes]
	if _, err := w.f.ReadAt(w.buf, int64(first)*sampleBytes); err != nil {
		return Chunk{}, fmt.Errorf("reading recording %s: %w", w.rec.File, err)
	}
	w.block = record.AppendWaveform(w.block[:0], &record.Waveform{First: first, Rate: cwruRate, Format: record.FormatF32, Scale: 1, Samples: w.buf})
	at := signal.MicrosOf(sampleTime(first))
	w.chunk[0] = Sample{Asset: w.rec.Asset, Class: signal.Raw, Reading: signal.Reading{
		Sensor: cwruSensor, EventTime: at, AliveAt: at, Value: signal.WaveValue(string(w.block)), Unit: "[g]", Quality: signal.QualityGood,
	}}
	tail, err := w.tail(first + n)
	if err != nil {
		return Chunk{}, fmt.Errorf("reading recording %s: %w", w.rec.File, err)
	}
	w.read = wavePosition{Next: first + n, Size: w.taken.Size, Tail: tail}
	return Chunk{Time: sampleTime(first + n), Samples: w.chunk[:]}, nil
}

// sampleTime is the time of a sample, to the microsecond.
func sampleTime(i uint64) time.Time {
	return cwruStart().Add(time.Duration((i*1_000_000+cwruRate/2)/cwruRate) * time.Microsecond)
}

// Take says that the window is taken.
func (w *wave) Take() { w.taken = w.read }

// Position stands after the last window taken.
func (w *wave) Position() []byte {
	b, _ := json.Marshal(w.taken) // numbers cannot fail
	return b
}

// Reached is the time before the position.
func (w *wave) Reached() time.Time {
	if w.taken.Next == 0 {
		return time.Time{}
	}
	return sampleTime(w.taken.Next)
}

// Figures of samples are the agent's own.
func (w *wave) Figures() []signal.Counter { return nil }

// Close closes the file.
func (w *wave) Close() error { return w.f.Close() }
