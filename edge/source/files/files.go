// Package files is a source of an edge: readings in CSV and JSON-lines files that
// other programs drop into a folder, or append to.
//
// It looks at the folder again and again, since not every file system tells of
// changes, and reads each row once: a file is known by its first and last bytes
// that were read, under whatever name it stands. It changes nothing in the folder.
package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// Kind names the source in configurations and dead letters.
const Kind = "files"

const (
	readBytes = 4 * maxRecordBytes
	// maxChunk bounds the readings that are handed on at once, roughly.
	maxChunk   = 2048
	maxRefused = 64
)

// Options say what is read.
type Options struct {
	Set   *Set
	Site  string       // the edge's; what belongs to another is refused
	Clock signal.Clock // the plant's; the time of rows that say none
}

// Opener opens the source.
func Opener(o Options) source.Opener {
	return func(position []byte, log *slog.Logger) (source.Source, error) {
		if o.Set == nil || o.Site == "" || o.Clock == nil {
			return nil, errors.New("opening the files source: configuration, site and clock must be given")
		}
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		s := &watcher{opt: o, log: log, buf: make([]byte, readBytes)}
		if len(position) > 0 {
			var p place
			if err := json.Unmarshal(position, &p); err != nil {
				return nil, fmt.Errorf("reading the position of the files source: %w", err)
			}
			s.totals, s.takenTotals = p.Totals, p.Totals
			for _, e := range p.Files {
				s.files = append(s.files, newFile(e))
			}
		}
		s.tell()
		return s, nil
	}
}

// place is a position.
type place struct {
	Files  []entry `json:"files"`
	Totals totals  `json:"totals"`
}

// totals are counted over all openings.
type totals struct {
	Rows    int64 `json:"rows"`
	Refused int64 `json:"refused"`
	Rotated int64 `json:"rotated"`
	Lost    int64 `json:"lost"`
}

type watcher struct {
	opt Options
	log *slog.Logger
	buf []byte

	files       []*file
	turn        int
	scanned     time.Time
	more        int // files beyond those that are followed
	moreSaid    bool
	troubleSaid string
	totals      totals
	takenTotals totals
	current     *file // of the chunk that Next returned
	samples     []source.Sample
	refused     []source.Refusal

	mu      sync.Mutex
	figures []signal.Counter
}

// Next returns rows as they come.
func (s *watcher) Next(ctx context.Context) (source.Chunk, error) {
	s.Take()
	for {
		if err := ctx.Err(); err != nil {
			return source.Chunk{}, err
		}
		now := time.Now()
		if s.scanned.IsZero() || now.Sub(s.scanned) >= s.opt.Set.poll {
			s.trouble(s.scan(now))
			s.scanned = now
			s.tell()
		}
		if s.look(now) {
			return source.Chunk{Time: s.opt.Clock.Now(), Samples: s.samples, Refused: s.refused}, nil
		}
		timer := time.NewTimer(s.opt.Set.poll - time.Since(s.scanned))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// look reads of the first file in turn that has something.
func (s *watcher) look(now time.Time) bool {
	for range s.files {
		s.turn = (s.turn + 1) % len(s.files)
		f := s.files[s.turn]
		due, last := f.due(now, s.opt.Set.lastLine)
		if !due {
			continue
		}
		s.samples, s.refused = s.samples[:0], s.refused[:0]
		moved, err := s.next(f, last)
		s.trouble(err)
		if moved {
			s.current = f
			return true
		}
	}
	return false
}

// trouble says once what keeps the source from reading; it tries again.
func (s *watcher) trouble(err error) {
	if err == nil {
		return
	}
	if text := err.Error(); text != s.troubleSaid {
		s.troubleSaid = text
		s.log.Error("the files source cannot read; it tries again", "error", err)
	}
}

// rows reads the records of b, which begin where f stands.
func (s *watcher) rows(f *file, b []byte, last bool) {
	set := s.opt.Set
	arrived := signal.MicrosOf(s.opt.Clock.Now())
	if f.read.Offset == 0 {
		rest := trimBOM(b)
		f.read.Offset += int64(len(b) - len(rest))
		b = rest
	}
	if f.asset == "" && set.Asset != "" {
		var err error
		if f.asset, err = set.asset(stem(f.read.First)); err != nil {
			s.leaveOut(f, b, err)
			f.read.Offset = max(f.read.Offset, 1) // it has been looked at
			return
		}
	}
	for len(s.samples) < maxChunk && len(s.refused) < maxRefused {
		if f.read.Skip {
			end := bytes.IndexByte(b, '\n') + 1
			f.read.Skip = end == 0
			if end == 0 {
				end = len(b)
			} else {
				f.read.Line++
			}
			f.read.Offset += int64(end)
			if b = b[end:]; len(b) == 0 {
				return
			}
		}
		record, lines, why, ok := set.cut(b, last)
		if !ok {
			return
		}
		line := f.read.Line
		b = b[len(record):]
		f.read.Skip = lines == 0
		f.read.Offset += int64(len(record))
		f.read.Line += lines
		if why == nil && len(bytes.TrimSpace(record)) == 0 {
			continue
		}
		if why == nil && set.Format == CSV && f.titles == nil {
			if err := s.setTitles(f, record); err != nil {
				s.leaveOut(f, record, err)
				return
			}
			if !set.NoHeader {
				continue
			}
		}
		if set.Format == CSV && f.titles == nil {
			s.leaveOut(f, record, why)
			return
		}
		if why == nil {
			why = s.one(f, record, arrived)
		}
		if why != nil {
			s.refuse(f, line, record, why)
			continue
		}
		s.totals.Rows++
	}
}

// one reads a row.
func (s *watcher) one(f *file, record []byte, arrived signal.Micros) error {
	was := len(s.samples)
	var err error
	if s.opt.Set.Format == JSONL {
		s.samples, err = s.opt.Set.object(s.samples, f.asset, bytes.TrimSpace(record), arrived)
	} else {
		var cells []string
		if cells, err = s.opt.Set.cells(record); err == nil {
			s.samples, err = s.opt.Set.row(s.samples, f.titles, f.asset, cells, arrived)
		}
	}
	for i := was; err == nil && i < len(s.samples); i++ {
		if site, _, _ := s.samples[i].Asset.Split(); site != s.opt.Site {
			err = fmt.Errorf("it is of site %s; this edge is of %s", site, s.opt.Site)
		}
	}
	if err != nil {
		s.samples = s.samples[:was]
	}
	return err
}

func (s *watcher) refuse(f *file, line int64, record []byte, why error) {
	at := fmt.Sprintf("%s:%d", s.path(f.read.Name), line)
	s.totals.Refused++
	s.log.Warn("a row of the files source is refused", "at", at, "cause", why)
	s.refused = append(s.refused, source.Refusal{Source: Kind, From: at, Reason: why.Error(), Bytes: bytes.Clone(record)})
}

// leaveOut refuses a whole file, whose rows nobody could name.
func (s *watcher) leaveOut(f *file, first []byte, why error) {
	f.read.Broken = true
	s.refuse(f, 1, first[:min(len(first), maxRecordBytes)], fmt.Errorf("the whole file is left out: %w; mend it and put it there again", why))
}

// Take says that the chunk is taken.
func (s *watcher) Take() {
	if s.current == nil {
		return
	}
	s.current.taken = s.current.read
	s.current, s.takenTotals = nil, s.totals
	s.tell()
}

// Mark has nothing to let go of; the source is a Confirmer so that its figures may
// be asked for while nothing comes.
func (s *watcher) Mark() (committed func()) { return func() {} }

// Position is JSON: where each file is read.
func (s *watcher) Position() []byte {
	p := place{Totals: s.takenTotals, Files: make([]entry, 0, len(s.files))}
	for _, f := range s.files {
		if f.taken.Offset > 0 {
			p.Files = append(p.Files, f.taken)
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // texts and numbers cannot fail to be JSON
	}
	return b
}

// tell notes the figures for whoever asks.
func (s *watcher) tell() {
	figures := s.counters()
	s.mu.Lock()
	s.figures = figures
	s.mu.Unlock()
}

func (s *watcher) counters() []signal.Counter {
	open, left := 0, int64(0)
	for _, f := range s.files {
		if f.size > f.read.Offset && !f.read.Broken {
			open++
			left += f.size - f.read.Offset
		}
	}
	var out []signal.Counter
	for _, c := range []struct {
		name  string
		value int64
	}{
		{"rows", s.takenTotals.Rows},
		{"rows_refused", s.takenTotals.Refused},
		{"files_rotated", s.totals.Rotated},
		{"files_lost", s.totals.Lost},
		{"files_now", int64(len(s.files))},
		{"files_unread_now", int64(open + s.more)},
		{"files_unread_bytes_now", left},
	} {
		out = append(out, signal.Counter{Station: "edge", Name: c.name, Value: c.value})
	}
	return out
}

// Figures are over all openings, those of now aside.
func (s *watcher) Figures() []signal.Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures
}

// Close has nothing open.
func (s *watcher) Close() error { return nil }
