package ownclock

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// waiting is a reading whose time is not known yet, a line of the spool.
type waiting struct {
	Boot    string         `json:"boot"`
	At      int64          `json:"at"` // µs since boot
	Asset   signal.Asset   `json:"asset"`
	Class   signal.Class   `json:"class"`
	Sensor  string         `json:"sensor"`
	Kind    signal.Kind    `json:"kind"`
	Bits    uint64         `json:"bits,omitempty"`  // of the number
	Text    []byte         `json:"text,omitempty"`  // or the text
	Shown   string         `json:"value,omitempty"` // the value, for who reads the line
	Unit    string         `json:"unit,omitempty"`
	Quality signal.Quality `json:"quality"`
	Rescued string         `json:"rescued,omitempty"`
}

func newWaiting(s *source.Sample, boot string, at time.Duration) waiting {
	r := &s.Reading
	w := waiting{
		Boot: boot, At: at.Microseconds(), Asset: s.Asset, Class: s.Class, Sensor: r.Sensor, Kind: r.Value.Kind,
		Bits: math.Float64bits(r.Value.Number), Unit: r.Unit, Quality: r.Quality, Rescued: r.Rescued,
	}
	switch {
	case r.Value.Text != "":
		w.Text, w.Shown = []byte(r.Value.Text), clip(r.Value.Text)
	case r.Value.Kind != signal.Null:
		w.Shown = strconv.FormatFloat(r.Value.Number, 'g', -1, 64)
	}
	return w
}

func clip(s string) string { return s[:min(len(s), 80)] }

// sample is the reading, with the time that it has once the boot's is known.
func (w *waiting) sample(booted time.Time) source.Sample {
	at := signal.MicrosOf(booted.Add(time.Duration(w.At) * time.Microsecond))
	return source.Sample{Asset: w.Asset, Class: w.Class, Reading: signal.Reading{
		Sensor: w.Sensor, EventTime: at, AliveAt: at, Value: signal.Value{Kind: w.Kind, Number: math.Float64frombits(w.Bits), Text: string(w.Text)},
		Unit: w.Unit, Quality: w.Quality, Historical: true, Rescued: w.Rescued,
	}}
}

// spool keeps what waits: lines of a CRC32, a blank and JSON.
type spool struct {
	name    string
	f       *os.File
	written int64 // its end
	read    int64 // of what is delivered next
	lines   int64 // between them
}

// openSpool opens the spool where a position left it: what was written behind it
// the source delivers again.
func openSpool(name string, written, read int64) (s *spool, missing int64, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if have := st.Size(); have < written {
		if read < written {
			missing = written - max(have, read)
		}
		written = have
		read = min(read, have)
	}
	s = &spool{name: name, f: f, written: written, read: read}
	if read == written {
		s.written, s.read = 0, 0
	}
	if err := f.Truncate(s.written); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	in := bufio.NewReaderSize(io.NewSectionReader(f, s.read, s.written-s.read), 64<<10)
	for {
		part, err := in.ReadSlice('\n')
		if bytes.HasSuffix(part, []byte("\n")) {
			s.lines++
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			break
		}
	}
	return s, missing, nil
}

// append adds lines and has them on disk when it returns.
func (s *spool) append(all []waiting) error {
	var b []byte
	for i := range all {
		line, err := json.Marshal(&all[i])
		if err != nil {
			return err
		}
		b = fmt.Appendf(b, "%08x ", crc32.ChecksumIEEE(line))
		b = append(b, line...)
		b = append(b, '\n')
	}
	if _, err := s.f.WriteAt(b, s.written); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	s.written += int64(len(b))
	s.lines += int64(len(all))
	return nil
}

// next gives up to n lines; of a damaged one the bytes alone.
func (s *spool) next(n int, visit func(w *waiting, line []byte) (more bool)) error {
	in := bufio.NewReaderSize(io.NewSectionReader(s.f, s.read, s.written-s.read), 64<<10)
	for range n {
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		sum, text, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		var w *waiting
		want, bad := strconv.ParseUint(string(sum), 16, 32)
		if bad == nil && uint32(want) == crc32.ChecksumIEEE(text) {
			w = new(waiting)
			if json.Unmarshal(text, w) != nil {
				w = nil
			}
		}
		if !visit(w, text) {
			return nil
		}
		s.read += int64(len(line))
		s.lines--
	}
	return nil
}

// empty gives the disk back what was delivered and committed.
func (s *spool) empty() error {
	if err := s.f.Truncate(0); err != nil {
		return err
	}
	s.written, s.read, s.lines = 0, 0, 0
	return nil
}
