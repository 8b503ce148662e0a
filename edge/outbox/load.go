package outbox

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/headrace/headrace/signal"
)

// found is what a scan of the segments found wrong.
type found struct {
	corruptFrames int   // damaged stretches between whole frames
	tornBytes     int64 // after the last whole frame of the newest segment
	lostMessages  uint64
}

type loaded struct {
	index *index
	state state
	found
	edge string
}

// load reads all segments in dir. If repair is set, files are opened for
// writing, a torn tail is cut off, and what is there is synced, so that
// nothing is sent that a power cut could still take back.
func load(fsys FS, dir, edge string, repair bool) (l *loaded, err error) {
	numbers, err := segmentNumbers(fsys, dir)
	if err != nil {
		return nil, err
	}
	l = &loaded{index: newIndex(), edge: edge}
	defer func() {
		if err != nil {
			for _, s := range l.index.segments {
				_ = s.file.Close()
			}
		}
	}()
	r := &reader{loaded: l}
	for i, number := range numbers {
		name := segmentName(dir, number)
		f, err := fsys.Open(name, !repair)
		if errors.Is(err, fs.ErrNotExist) && !repair {
			continue // acknowledged and deleted while we read
		}
		if err != nil {
			return nil, err
		}
		s := &segment{number: number, file: f}
		l.index.segments = append(l.index.segments, s)
		newest := i == len(numbers)-1
		if err := r.segment(s, newest); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if newest && repair {
			if err := mend(fsys, dir, l, s); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	r.finish()
	return l, nil
}

// mend cuts the torn tail off the newest segment and makes the rest durable.
func mend(fsys FS, dir string, l *loaded, s *segment) error {
	if s.size == 0 { // never had a whole frame
		l.index.segments = l.index.segments[:len(l.index.segments)-1]
		if err := errors.Join(s.file.Close(), fsys.Remove(segmentName(dir, s.number))); err != nil {
			return err
		}
		return fsys.SyncDir(dir)
	}
	if l.tornBytes > 0 {
		if err := s.file.Truncate(s.size); err != nil {
			return err
		}
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// reader builds the index while it passes over the frames.
type reader struct {
	*loaded
	lastShipped uint64 // counters of the last state
	hadState    bool
	damaged     bool   // frames were passed over since the last state
	seen        uint64 // readings of the messages since the last state
	missing     uint64 // readings that the counters knew and no frame had
}

func (r *reader) segment(s *segment, newest bool) error {
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	expected := int64(0)
	res, err := scan(s.file, size, func(at int64, payload []byte) error {
		if at-headerBytes != expected {
			r.damaged = true
		}
		expected = at + int64(len(payload))
		g, err := parseGroup(payload)
		if err != nil {
			r.corruptFrames++ // whole, but not a frame of ours
			r.damaged = true
			return nil
		}
		return r.group(s, at, g)
	})
	if err != nil {
		return err
	}
	s.size = res.end
	r.corruptFrames += res.corrupt
	switch {
	case newest:
		r.tornBytes = res.tail
	case res.tail > 0:
		r.damaged = true
	}
	return nil
}

func (r *reader) group(s *segment, at int64, g *group) error {
	if g.format > format {
		return fmt.Errorf("it is of format %d, this build reads up to %d; use the newer build", g.format, format)
	}
	if g.edge != "" {
		if r.edge == "" {
			r.edge = g.edge
		}
		if g.edge != r.edge {
			return fmt.Errorf("it belongs to edge %s, not to %s; give each edge a directory of its own", g.edge, r.edge)
		}
	}
	b := r.index.boot(g.boot)
	for _, m := range g.messages {
		number := r.index.stream(m.stream)
		p := place{
			segment: s.number, at: uint32(at + m.at), size: uint32(len(m.record)),
			sum: checksum(m.record), readings: uint32(m.readings), stream: number,
		}
		if len(b.places) > 0 && m.seq > b.first+uint64(len(b.places))+maxGap {
			r.corruptFrames++
			continue
		}
		r.seen += m.readings
		if b.put(m.seq, p) {
			b.span(s.number)
			r.index.streams[number].push(unacked{m.from, b, m.seq})
		}
	}
	for _, a := range g.acks {
		b := r.index.boot(a.boot)
		for _, rg := range a.ranges {
			b.acked.AddRange(rg)
		}
	}
	if g.state != nil {
		s.states++
		r.setState(g.state)
	}
	return nil
}

func (r *reader) setState(st *state) {
	if shipped := st.counters.Shipped; r.hadState && r.damaged && shipped > r.lastShipped+r.seen {
		r.missing += shipped - r.lastShipped - r.seen
	}
	r.lastShipped, r.hadState, r.damaged, r.seen = st.counters.Shipped, true, false, 0
	for _, p := range st.streams {
		s := r.index.streams[r.index.stream(p.Stream)]
		s.seenTo = max(s.seenTo, p.SeenTo)
	}
	st.streams = nil
	r.state = *st
}

// finish counts what waits, and gives up the messages whose frames are gone:
// their numbers are acknowledged, so that they are counted once.
func (r *reader) finish() {
	x := r.index
	for _, b := range x.boots {
		for i, p := range b.places {
			seq := b.first + uint64(i)
			switch {
			case b.acked.Contains(seq):
			case p.segment == 0:
				r.lostMessages++
				b.acked.Add(seq)
				if x.unwritten[b] == nil {
					x.unwritten[b] = &signal.Intervals{}
				}
				x.unwritten[b].Add(seq)
			default:
				x.messages++
				x.readings += uint64(p.readings)
				x.segment(p.segment).waiting++
			}
		}
		b.trim()
	}
	if r.lostMessages > 0 {
		r.state.counters.Lost += r.missing
	}
	for _, s := range x.streams {
		s.waiting = slices.DeleteFunc(s.waiting, func(u unacked) bool { return u.boot.acked.Contains(u.seq) })
		// A sorted list is a heap.
		slices.SortFunc(s.waiting, func(a, b unacked) int {
			switch {
			case a.from < b.from:
				return -1
			case a.from > b.from:
				return 1
			}
			return 0
		})
	}
	x.forget(nil)
}
