package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/headrace/headrace/signal"
)

const (
	readBytes    = 64 << 10
	maxLineBytes = 1 << 20
	maxColumns   = 10_000
	// maxBadRanges bounds the list of refused rows in a position.
	maxBadRanges = 200
)

var errTooLong = fmt.Errorf("the line is longer than %d bytes", maxLineBytes)

// position is where a file's replay stands.
type position struct {
	Offset int64         `json:"offset"` // of the next line
	Line   int64         `json:"line"`   // its number, from 1
	Header uint32        `json:"header"` // CRC32 of the header line
	Tail   uint32        `json:"tail"`   // CRC32 of the last bytes before Offset
	Time   signal.Micros `json:"time"`   // newest event time delivered
	Rows   int64         `json:"rows"`   // delivered
	// Refused rows and their line numbers, as far as the list holds.
	Bad      int64          `json:"bad_rows,omitempty"`
	BadLines []signal.Range `json:"bad_lines,omitempty"`
}

// file is a recording: ;-separated cells with a header whose first title is
// datetime.
type file struct {
	name    string
	asset   signal.Asset
	f       *os.File
	in      lineReader
	sensors []column
	pos     position // after what was taken
	read    position // after what was read
	bad     signal.Intervals
	samples []Sample
	log     *slog.Logger // told of each row that is left out, once
}

type column struct {
	sensor, unit string
	label        bool
}

func openFile(name string, asset signal.Asset, at []byte, log *slog.Logger) (*file, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening recording: %w", err)
	}
	s := &file{name: name, asset: asset, f: f, in: lineReader{r: bufio.NewReaderSize(f, readBytes)}, log: log}
	if err := s.begin(at); err != nil {
		return nil, fmt.Errorf("opening recording %s: %w", name, errors.Join(err, f.Close()))
	}
	return s, nil
}

func (s *file) begin(at []byte) error {
	header, err := s.in.next()
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty; the first line must be datetime;…; mend it or move it away")
	}
	if err != nil {
		return err
	}
	sum := crc32.ChecksumIEEE(header)
	if err := s.header(string(header)); err != nil {
		return err
	}
	s.read = position{Offset: s.in.offset, Line: 2, Header: sum}
	s.Take()
	if len(at) == 0 {
		return nil
	}
	var p position
	if err := json.Unmarshal(at, &p); err != nil {
		return fmt.Errorf("reading the position where the replay stood: %w", err)
	}
	st, err := s.f.Stat()
	if err != nil {
		return err
	}
	same := p.Header == sum && p.Offset <= st.Size() && p.Offset >= s.read.Offset
	if same {
		tail, err := s.tail(p.Offset)
		if err != nil {
			return err
		}
		same = tail == p.Tail
	}
	if !same {
		return errors.New("the file is not the one that was being replayed; restore it, or begin anew with another --dir")
	}
	if _, err := s.f.Seek(p.Offset, io.SeekStart); err != nil {
		return err
	}
	s.in = lineReader{r: bufio.NewReaderSize(s.f, readBytes), offset: p.Offset}
	s.read = p
	s.Take()
	for _, r := range p.BadLines {
		s.bad.AddRange(r)
	}
	return nil
}

// tailBytes tell a recording from another with the same header.
const tailBytes = 4096

// tail is the CRC32 of the last bytes before an offset.
func (s *file) tail(offset int64) (uint32, error) {
	b := make([]byte, min(offset, tailBytes))
	if _, err := s.f.ReadAt(b, offset-int64(len(b))); err != nil {
		return 0, err
	}
	return crc32.ChecksumIEEE(b), nil
}

func (s *file) header(line string) error {
	titles := strings.Split(strings.TrimPrefix(line, "\ufeff"), ";")
	if !strings.EqualFold(strings.TrimSpace(titles[0]), "datetime") {
		return fmt.Errorf("the first line begins with %q, want datetime;… with cells parted by ;; mend it or move it away", clip(titles[0]))
	}
	if len(titles) > maxColumns {
		return fmt.Errorf("%d columns are more than %d", len(titles), maxColumns)
	}
	taken := map[string]string{}
	for i, title := range titles[1:] {
		sensor := clean(snake(title))
		if sensor == "" {
			sensor = "column_" + strconv.Itoa(i+2)
		}
		if err := signal.CheckName(sensor); err != nil {
			return fmt.Errorf("column %d: %w", i+2, err)
		}
		if other, ok := taken[sensor]; ok {
			return fmt.Errorf("columns %q and %q would both be sensor %s; rename one", other, clip(title), sensor)
		}
		taken[sensor] = title
		s.sensors = append(s.sensors, column{sensor, unitOf(sensor), isLabel(sensor)})
	}
	return nil
}

// Take says that the row is taken.
func (s *file) Take() { s.pos = s.read }

// Next returns the next row. A row without a readable time is counted and left
// out.
func (s *file) Next(ctx context.Context) (Chunk, error) {
	s.Take()
	for {
		if err := ctx.Err(); err != nil {
			return Chunk{}, err
		}
		line, err := s.in.next()
		if err != nil && !errors.Is(err, errTooLong) {
			if errors.Is(err, io.EOF) {
				s.Take()
				return Chunk{}, io.EOF
			}
			return Chunk{}, fmt.Errorf("reading recording %s: %w", s.name, err)
		}
		number := s.read.Line
		s.read.Line, s.read.Offset = number+1, s.in.offset
		if err == nil {
			if len(bytes.TrimSpace(line)) == 0 {
				continue // an empty line says nothing
			}
			var chunk Chunk
			if chunk, err = s.row(string(line)); err == nil {
				s.read.Rows++
				s.read.Time = max(s.read.Time, signal.MicrosOf(chunk.Time))
				if len(chunk.Samples) == 0 {
					continue // labels alone
				}
				return chunk, nil
			}
		}
		s.read.Bad++
		s.bad.Add(uint64(number))
		s.log.Error("row of a recording is left out", "at", fmt.Sprintf("%s:%d", s.name, number), "error", err)
	}
}

func (s *file) row(line string) (Chunk, error) {
	cell, rest, more := strings.Cut(line, ";")
	at, err := parseTime(cell)
	if err != nil {
		return Chunk{}, err
	}
	event := signal.MicrosOf(at)
	s.samples = s.samples[:0]
	for i := range s.sensors {
		c := &s.sensors[i]
		cell = ""
		if more {
			cell, rest, more = strings.Cut(rest, ";")
		}
		if c.label {
			continue
		}
		r := signal.Reading{Sensor: c.sensor, Unit: c.unit, EventTime: event, AliveAt: event, Quality: signal.QualityGood}
		if r.Value = parseCell(cell); r.Value.Kind == signal.Null {
			r.Quality = signal.QualityBad
		}
		s.samples = append(s.samples, Sample{Asset: s.asset, Class: signal.Telemetry, Reading: r})
	}
	if more && strings.Trim(rest, "; \t") != "" {
		// Cells that no column names: nobody knows which cell is too many, so
		// the whole row says so.
		extra, err := json.Marshal(map[string][]string{"extra_cells": strings.Split(strings.ToValidUTF8(rest, "\uFFFD"), ";")})
		if err != nil {
			return Chunk{}, err
		}
		for i := range s.samples {
			s.samples[i].Reading.Rescued = string(extra)
		}
	}
	return Chunk{Time: at, Samples: s.samples}, nil
}

// parseCell reads a number; what is none stays a text, and nothing is null.
func parseCell(cell string) signal.Value {
	cell = strings.TrimSpace(cell)
	if cell == "" {
		return signal.Value{}
	}
	if v, err := strconv.ParseFloat(cell, 64); err == nil && !strings.ContainsAny(cell, "xX_") {
		return signal.NumberValue(v)
	}
	return signal.TextValue(strings.ToValidUTF8(cell, "\uFFFD"))
}

// parseTime reads "2020-03-09 10:14:33[.fraction]", also with T and with an
// offset; without one it is UTC.
func parseTime(cell string) (time.Time, error) {
	// Beyond it a time is a fault of the recorder, which would take the plant's
	// clock along, and soon no number of nanoseconds.
	const lastYear = 2199
	cell = strings.TrimSpace(cell)
	for _, layout := range [...]string{time.DateTime, "2006-01-02T15:04:05", time.RFC3339, "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, cell); err == nil {
			if t.Year() < 1 || t.Year() > lastYear {
				break
			}
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time like 2020-03-09 10:14:33", clip(cell))
}

// Position is JSON.
func (s *file) Position() []byte {
	p := s.pos
	// Bytes that cannot be read again are those of no file, which the next
	// opening refuses.
	p.Tail, _ = s.tail(p.Offset)
	p.BadLines = nil
	for _, r := range s.bad.Ranges() {
		if r.From >= uint64(p.Line) || len(p.BadLines) == maxBadRanges {
			break
		}
		r.To = min(r.To, uint64(p.Line)-1)
		p.BadLines = append(p.BadLines, r)
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers cannot fail to be JSON
	}
	return b
}

// Reached is the newest event time delivered.
func (s *file) Reached() time.Time {
	if s.pos.Rows == 0 {
		return time.Time{}
	}
	return s.pos.Time.Time()
}

// Figures counts rows.
func (s *file) Figures() []signal.Counter {
	return []signal.Counter{
		{Station: "edge", Name: "rows", Value: s.pos.Rows},
		{Station: "edge", Name: "rows_refused", Value: s.pos.Bad},
	}
}

func (s *file) Close() error { return s.f.Close() }

// lineReader reads lines without their ends and knows the offset after them.
type lineReader struct {
	r      *bufio.Reader
	offset int64
	buf    []byte
}

// next returns a line, valid until the next call. A line that is too long is
// passed over whole and reported.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		l.offset += int64(len(part))
		if len(l.buf)+len(part) > maxLineBytes {
			tooLong = true
		}
		switch {
		case err == nil && len(l.buf) == 0 && !tooLong:
			return trimEnd(part), nil
		case tooLong:
		default:
			l.buf = append(l.buf, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(l.buf) == 0 && !tooLong) {
			return nil, err
		}
		if tooLong {
			return nil, errTooLong
		}
		return trimEnd(l.buf), nil
	}
}

func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
