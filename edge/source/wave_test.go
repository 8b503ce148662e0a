package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

func writeWave(t *testing.T, dir, name string, n int) []byte {
	t.Helper()
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(math.Sin(float64(i)))))
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// drainWave reads up to limit chunks and returns their samples.
func drainWave(t *testing.T, s Source, limit int) (out []byte, position []byte) {
	t.Helper()
	var w record.Waveform
	for range limit {
		c, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		r := c.Samples[0].Reading
		if err := record.DecodeWaveform([]byte(r.Value.Text), &w); err != nil {
			t.Fatal(err)
		}
		if want := signal.MicrosOf(sampleTime(w.First)); r.EventTime != want || c.Samples[0].Class != signal.Raw || w.First%4096 != 0 {
			t.Fatalf("block at %d: %v, want %v", w.First, r.EventTime, want)
		}
		if end := sampleTime(w.First + uint64(w.Len())); !c.Time.Equal(end) {
			t.Fatalf("chunk at %v, want %v", c.Time, end)
		}
		out = append(out, w.Samples...)
		s.Take()
	}
	return out, s.Position()
}

// A recording comes whole, from every position at which it was left.
func TestWaveResumes(t *testing.T) {
	dir := t.TempDir()
	want := writeWave(t, dir, "1797_IR_7.f32", 3*4096+100)
	recs, _, err := List(dir, CWRU)
	if err != nil {
		t.Fatal(err)
	}
	if r := recs[0]; r.Asset != "cwru/rig/1797_ir_7" || r.Node != "1797_ir_7" {
		t.Fatalf("%+v", r)
	}
	if start, err := recs[0].Start(); err != nil || !start.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Fatalf("%v, %v", start, err)
	}
	for first := range 5 {
		s, err := recs[0].Open(nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		a, position := drainWave(t, s, first)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = recs[0].Open(position, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		b, _ := drainWave(t, s, 100)
		if !bytes.Equal(append(a, b...), want) {
			t.Errorf("left after %d windows: %d and %d bytes are not the file's %d", first, len(a), len(b), len(want))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		writeWave(t, dir, "1797_IR_7.f32", 3*4096+101)
		if _, err := recs[0].Open(position, slog.New(slog.DiscardHandler)); first > 0 && (err == nil || !strings.Contains(err.Error(), "not the one")) {
			t.Errorf("another file was taken: %v", err)
		}
		writeWave(t, dir, "1797_IR_7.f32", 3*4096+100)
	}
}

func TestWaveRefusals(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "odd": 4097} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.f32"), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		recs, _, err := List(dir, CWRU)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recs[0].Start(); err == nil || !strings.Contains(err.Error(), "mend it or move it away") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	writeWave(t, dir, "a.f32", 1)
	writeWave(t, dir, "A.F32", 1)
	if _, _, err := List(dir, CWRU); err == nil || !strings.Contains(err.Error(), "rename one") {
		t.Errorf("two names of one asset: %v", err)
	}
	if d := cmp.Diff(sampleTime(12_000), cwruStart().Add(time.Second)); d != "" {
		t.Error(d)
	}
}
