package outbox

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
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
//
// The newest segment is read first: acknowledgements stand in the segment of
// their message or in a newer one, so that what waits in a segment is known when
// it has been read, and no more of them need be in memory than when it runs.
func load(fsys FS, dir, edge string, repair bool) (l *loaded, err error) {
	numbers, err := segmentNumbers(fsys, dir)
	if err != nil {
		return nil, err
	}
	l = &loaded{index: newIndex(), edge: edge}
	x := l.index
	x.cooling = repair
	x.open = func(number uint32) (File, error) { return fsys.Open(segmentName(dir, number), !repair) }
	defer func() {
		if err != nil {
			_ = closeAll(x)
		}
	}()
	r := &reader{loaded: l}
	newest := true
	for _, number := range slices.Backward(numbers) {
		name := segmentName(dir, number)
		f, err := x.open(number)
		if errors.Is(err, fs.ErrNotExist) && !repair {
			continue // acknowledged and deleted while we read
		}
		if err != nil {
			return nil, err
		}
		s := &segment{number: number, file: f, hot: true}
		x.segments = slices.Insert(x.segments, 0, s)
		if err := r.segment(s, newest); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if newest && repair {
			if err := mend(fsys, dir, l, s); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		newest = false
		x.looks++
		s.used = x.looks
		x.cool(s)
	}
	r.finish()
	return l, nil
}

func closeAll(x *index) (err error) {
	for _, s := range x.segments {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

// mend cuts the torn tail off the newest segment and makes the rest durable.
func mend(fsys FS, dir string, l *loaded, s *segment) error {
	if s.size == 0 { // never had a whole frame
		l.index.segments = slices.DeleteFunc(l.index.segments, func(o *segment) bool { return o == s })
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

// reader builds the index while it passes over the segments.
type reader struct {
	*loaded
	hasState bool
	hasHoles bool    // a segment's first state tells all of them
	pieces   []piece // newest first
	now      *piece
}

// piece is what a segment says of the readings that were shipped: where frames
// are gone, the counters tell how many readings were in them.
type piece struct {
	states              int
	head, tail          uint64 // readings of the messages before the first state, with its frame's, and behind the last
	headGone, tailGone  bool   // frames were passed over there
	firstTotal, lastTot uint64 // shipped and evicted, by the first and by the last state
	missing             uint64 // between them
}

func (r *reader) segment(s *segment, newest bool) error {
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	r.pieces = append(r.pieces, piece{})
	r.now = &r.pieces[len(r.pieces)-1]
	var last *state
	expected := int64(0)
	res, err := scan(s.file, size, func(at int64, payload []byte) error {
		if at-headerBytes != expected {
			r.now.tailGone = true
		}
		expected = at + int64(len(payload))
		g, err := parseGroup(payload)
		if err != nil {
			r.corruptFrames++ // whole, but not a frame of ours
			r.now.tailGone = true
			return nil
		}
		if err := r.group(s, at, g); err != nil {
			return err
		}
		if g.state != nil {
			last = g.state
		}
		return nil
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
		r.now.tailGone = true
	}
	if last != nil && !r.hasState {
		last.streams = nil
		r.state, r.hasState = *last, true
	}
	r.hasHoles = r.hasHoles || r.now.states > 0
	r.tally(s)
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
	for i := range g.messages {
		r.message(s, at, g.boot, &g.messages[i])
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

// message notes where a message lies. One that stands in a newer segment too
// counts there.
func (r *reader) message(s *segment, at int64, boot string, m *frozen) {
	x := r.index
	number := x.stream(m.stream)
	p := m.place(at, number)
	if m.boot != "" {
		b := x.boot(m.boot)
		b.span(s.number)
		if i, known := b.findKept(m.seq); !known {
			b.kept = slices.Insert(b.kept, i, carried{m.seq, s, p})
			x.streams[number].push(unacked{m.from, b, m.seq})
		}
		return
	}
	b := x.boot(boot)
	b.span(s.number)
	r.now.tail += m.readings
	var own *run
	if n := len(s.runs); n > 0 && s.runs[n-1].boot == b {
		own = s.runs[n-1]
	}
	switch {
	case own == nil && len(b.runs) > 0 && m.seq >= b.runs[0].first:
		return // it was written again in a newer segment
	case own == nil:
		own = &run{boot: b, segment: s, first: m.seq}
		b.runs, s.runs = slices.Insert(b.runs, 0, own), append(s.runs, own)
	case m.seq < own.end():
		return
	case m.seq > own.end()+maxGap:
		r.corruptFrames++
		return
	}
	if _, known := b.findKept(m.seq); known {
		p = place{}
	}
	if len(b.runs) > 1 && b.runs[0] == own && m.seq >= b.runs[1].first {
		return
	}
	own.places = append(own.places, make([]place, m.seq-own.end())...)
	own.places = append(own.places, p)
	own.count = uint64(len(own.places))
	if p.size != 0 {
		x.streams[number].push(unacked{m.from, b, m.seq})
	}
}

func (r *reader) setState(st *state) {
	n := r.now
	total := st.counters.Shipped + st.counters.Evicted
	switch {
	case n.states == 0:
		n.head, n.headGone, n.firstTotal = n.tail, n.tailGone, total
	case n.tailGone && total > n.lastTot+n.tail:
		n.missing += total - n.lastTot - n.tail
	}
	n.states++
	n.lastTot, n.tail, n.tailGone = total, 0, false
	for _, p := range st.streams {
		s := r.index.streams[r.index.stream(p.Stream)]
		s.seenTo = max(s.seenTo, p.SeenTo)
		if p.hole != nil && !r.hasHoles {
			s.hole = *p.hole
		}
	}
}

// tally counts what waits in a segment, all of whose acknowledgements are known,
// and gives up the messages whose frames are gone: their numbers are
// acknowledged, so that they are counted once.
func (r *reader) tally(s *segment) {
	x := r.index
	for _, run := range s.runs {
		for i, p := range run.places {
			seq := run.first + uint64(i)
			if run.boot.acked.Contains(seq) {
				continue
			}
			if _, again := run.boot.findKept(seq); again {
				continue
			}
			if p.size == 0 {
				r.lostMessages++
				x.note(run.boot, seq)
				continue
			}
			x.count(run.boot, s, p, 1)
		}
	}
	for _, b := range x.boots {
		b.kept = slices.DeleteFunc(b.kept, func(c carried) bool {
			if c.segment != s {
				return false
			}
			if b.acked.Contains(c.seq) {
				return true
			}
			x.count(b, s, c.place, 1)
			return false
		})
	}
}

// finish gives up what lies between the segments and is nowhere.
func (r *reader) finish() {
	x := r.index
	for _, b := range x.boots {
		for i := 1; i < len(b.runs); i++ {
			if b.runs[i].first-b.runs[i-1].end() > maxGap {
				r.corruptFrames++
				continue
			}
			for seq := b.runs[i-1].end(); seq < b.runs[i].first; seq++ {
				if to, acked := b.acked.Prefix(seq); acked {
					seq = to
					continue
				}
				if _, known := b.findKept(seq); !known {
					r.lostMessages++
					x.note(b, seq)
				}
			}
		}
	}
	var missing, last, seen uint64
	had, gone := false, false
	for _, p := range slices.Backward(r.pieces) {
		if p.states == 0 {
			seen, gone = seen+p.tail, gone || p.tailGone
			continue
		}
		if had && (gone || p.headGone) && p.firstTotal > last+seen+p.head {
			missing += p.firstTotal - last - seen - p.head
		}
		missing += p.missing
		had, last, seen, gone = true, p.lastTot, p.tail, p.tailGone
	}
	if r.lostMessages > 0 {
		r.state.counters.Lost += missing
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
