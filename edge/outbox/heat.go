package outbox

import (
	"slices"

	"github.com/headrace/headrace/signal"
)

// A segment is hot while its messages are indexed one by one and its file is
// open, and cold while only their sums are in memory. One that is looked at
// becomes hot; the one that was not for the longest becomes cold for it. So an
// outbox of any size takes the same memory, but for a few bytes a segment.

// heat makes a segment hot. What it does not hold any more is lost. It returns
// false if nothing of it can be read.
func (x *index) heat(s *segment) bool {
	x.looks++
	s.used = x.looks
	if s.hot {
		return true
	}
	err := x.load(s)
	if err != nil {
		for _, r := range s.runs {
			r.places = make([]place, r.count)
		}
	}
	s.hot = true
	messages, waiting, events, readings := 0, 0, 0, uint64(0)
	for _, r := range s.runs {
		for i := range r.places {
			seq, p := r.first+uint64(i), &r.places[i]
			if r.boot.acked.Contains(seq) {
				continue
			}
			if _, again := r.boot.findKept(seq); again {
				continue
			}
			if p.size == 0 {
				messages++
				x.note(r.boot, seq)
				r.boot.waiting--
				continue
			}
			waiting++
			readings += uint64(p.readings)
			if x.streams[p.stream].class == signal.Event {
				events++
			}
		}
	}
	for _, b := range x.boots {
		for i := range b.kept {
			if c := &b.kept[i]; c.segment == s {
				waiting++
				readings += uint64(c.readings)
				if x.streams[c.stream].class == signal.Event {
					events++
				}
			}
		}
	}
	if messages > 0 {
		gone := s.readings - min(readings, s.readings)
		x.messages -= messages
		x.readings -= gone
		s.waiting, s.events, s.readings = waiting, events, readings
		x.lost(messages, gone, err)
	}
	x.cool(s)
	return err == nil
}

// load reads where the messages of a segment lie, and its waiting ones into the
// heaps of their streams.
func (x *index) load(s *segment) (err error) {
	if s.file == nil {
		if s.file, err = x.open(s.number); err != nil {
			return err
		}
	}
	for _, r := range s.runs {
		r.places = make([]place, r.count)
	}
	x.forgetCold(s)
	_, err = scan(s.file, s.size, func(at int64, payload []byte) error {
		g, err := parseGroup(payload)
		if err != nil {
			return nil //nolint:nilerr // whole, but not a frame of ours
		}
		for i := range g.messages {
			m := &g.messages[i]
			b := x.boot(g.boot)
			if m.boot != "" {
				b = x.boot(m.boot)
			}
			if b.acked.Contains(m.seq) {
				continue
			}
			number := x.stream(m.stream)
			if k, ok := b.findKept(m.seq); ok {
				if b.kept[k].segment == s {
					x.streams[number].push(unacked{m.from, b, m.seq})
				}
				continue
			}
			r := b.findRun(m.seq)
			if r == nil || r.segment != s || r.places[m.seq-r.first].size != 0 {
				continue
			}
			r.places[m.seq-r.first] = m.place(at, number)
			x.streams[number].push(unacked{m.from, b, m.seq})
		}
		return nil
	})
	return err
}

// place is where m lies, being of a frame whose payload is at payloadAt.
func (m *frozen) place(payloadAt int64, stream uint32) place {
	return place{
		at: uint32(payloadAt + m.at), size: uint32(len(m.record)), sum: checksum(m.record),
		readings: uint32(m.readings), stream: stream,
	}
}

// cool makes segments cold until no more are hot than may be; keep stays.
func (x *index) cool(keep *segment) {
	if !x.cooling {
		return
	}
	for {
		var coldest *segment
		hot := 0
		for i, s := range x.segments {
			if !s.hot {
				continue
			}
			hot++
			// The newest is written, or may be.
			if s != keep && i < len(x.segments)-1 && (coldest == nil || s.used < coldest.used) {
				coldest = s
			}
		}
		if hot <= maxHot || coldest == nil {
			return
		}
		x.chill(coldest)
	}
}

// chill makes a segment cold.
func (x *index) chill(s *segment) {
	in := func(u unacked) bool {
		if i, ok := u.boot.findKept(u.seq); ok {
			return u.boot.kept[i].segment == s
		}
		r := u.boot.findRun(u.seq)
		return r != nil && r.segment == s
	}
	for _, st := range x.streams {
		from, has := signal.MaxTime, false
		st.waiting = slices.DeleteFunc(st.waiting, func(u unacked) bool {
			if u.boot.acked.Contains(u.seq) {
				return true
			}
			if !in(u) {
				return false
			}
			from, has = min(from, u.from), true
			return true
		})
		if has {
			st.cold = append(st.cold, coldFrom{s, from})
		}
		if cap(st.waiting) > 64 && len(st.waiting) < cap(st.waiting)/4 {
			st.waiting = slices.Clone(st.waiting)
		}
		for i := len(st.waiting)/2 - 1; i >= 0; i-- {
			sink(st.waiting, i)
		}
	}
	for _, r := range s.runs {
		r.places = nil
	}
	s.hot = false
	if s.file != nil {
		_ = s.file.Close() // it was synced when it was written
		s.file = nil
	}
}
