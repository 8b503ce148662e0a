package outbox

import (
	"cmp"
	"slices"

	"github.com/headrace/headrace/signal"
)

func sortNumbers(n []uint32) { slices.Sort(n) }

// maxHot is how many segments have their messages indexed in memory: the one that
// is written, and for each of the ways out the one that is sent and the one that
// is acknowledged. Of the others only sums are kept.
const maxHot = 6

// place is where the record of one message lies in its segment.
type place struct {
	at       uint32
	size     uint32 // 0: there is no such message
	sum      uint32 // CRC32C of the record
	readings uint32
	stream   uint32 // number in the index
}

// run holds the messages that one boot has in one segment: seq first, first+1, …
type run struct {
	boot    *bootIndex
	segment *segment
	first   uint64
	count   uint64
	places  []place // nil while the segment is cold
}

func (r *run) end() uint64 { return r.first + r.count } // behind the last

// carried is a message that outlived its segment and was written again.
type carried struct {
	seq     uint64
	segment *segment
	place
}

// bootIndex holds the messages of one boot.
type bootIndex struct {
	name    string
	runs    []*run    // ascending by first, without overlap
	kept    []carried // ascending by seq
	acked   signal.Intervals
	waiting int
	// low and high are the first and last segment that hold messages of it.
	low, high uint32
}

func (b *bootIndex) span(segment uint32) {
	if b.low == 0 || segment < b.low {
		b.low = segment
	}
	b.high = max(b.high, segment)
}

func (b *bootIndex) findKept(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(b.kept, seq, func(c carried, s uint64) int { return cmp.Compare(c.seq, s) })
}

// findRun returns the run that holds seq, nil if none does.
func (b *bootIndex) findRun(seq uint64) *run {
	i, ok := slices.BinarySearchFunc(b.runs, seq, func(r *run, s uint64) int { return cmp.Compare(r.first, s) })
	if !ok {
		i--
	}
	if i < 0 || seq >= b.runs[i].end() {
		return nil
	}
	return b.runs[i]
}

// unacked is a message that waits for its acknowledgement, for complete_to.
type unacked struct {
	from signal.Micros
	boot *bootIndex
	seq  uint64
}

// coldFrom is the earliest time of which a stream has something in a cold segment.
type coldFrom struct {
	segment *segment
	from    signal.Micros
}

// Hole is what was given up of a stream and not told yet.
type Hole struct {
	Readings, Samples uint64
	From, To          signal.Micros // of its first and its last message
}

func (h *Hole) widen(readings, samples uint64, from signal.Micros) {
	if *h == (Hole{}) {
		h.From, h.To = from, from
	}
	h.Readings += readings
	h.Samples += samples
	h.From, h.To = min(h.From, from), max(h.To, from)
}

// streamIndex is what is known of one stream.
type streamIndex struct {
	name   signal.Stream
	class  signal.Class
	n      uint64        // the next n of the running boot
	seenTo signal.Micros // committed
	// waiting is a heap by from of what lies in hot segments; an acknowledged
	// message leaves it when it comes to the top.
	waiting []unacked
	cold    []coldFrom
	hole    Hole
}

func (s *streamIndex) push(u unacked) {
	h := append(s.waiting, u)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if h[parent].from <= h[i].from {
			break
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
	s.waiting = h
}

func (s *streamIndex) pop() {
	h := s.waiting
	last := len(h) - 1
	h[0], h[last] = h[last], unacked{}
	s.waiting = h[:last]
	sink(s.waiting, 0)
	if cap(h) > 1024 && last < cap(h)/4 {
		s.waiting = slices.Clone(s.waiting)
	}
}

func sink(h []unacked, i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h[c].from < h[least].from {
				least = c
			}
		}
		if least == i {
			return
		}
		h[least], h[i] = h[i], h[least]
		i = least
	}
}

// completeTo is the time before which nothing of the stream waits.
func (s *streamIndex) completeTo() signal.Micros {
	to, waits := s.seenTo, false
	for len(s.waiting) > 0 {
		top := s.waiting[0]
		if !top.boot.acked.Contains(top.seq) {
			to, waits = top.from, true
			break
		}
		s.pop()
	}
	for _, c := range s.cold {
		if !waits || c.from < to {
			to, waits = c.from, true
		}
	}
	return to
}

// idle tells whether nothing of the stream waits.
func (s *streamIndex) idle() bool {
	s.completeTo()
	return len(s.waiting) == 0 && len(s.cold) == 0
}

// segment is one file.
type segment struct {
	number   uint32
	file     File  // nil while the segment is cold
	size     int64 // end of its last whole frame
	waiting  int   // unacknowledged messages in it
	events   int   // of them, of class event
	readings uint64
	states   int  // frames with a state
	sealed   bool // nothing more is written to it
	runs     []*run
	hot      bool
	used     uint64 // when it was looked at last, in looks
}

// index is everything that is known without reading bodies. The outbox's lock
// guards it.
type index struct {
	boots     []*bootIndex // ascending by name: UUIDv7 sorts by time
	streams   []*streamIndex
	byName    map[signal.Stream]uint32
	segments  []*segment // ascending by number
	messages  int        // unacknowledged
	readings  uint64     // in them
	unwritten map[*bootIndex]*signal.Intervals
	looks     uint64

	// open opens a segment's file; lost is told of messages that are not where they
	// were. Without cooling every segment stays hot.
	open    func(number uint32) (File, error)
	lost    func(messages int, readings uint64, cause error)
	cooling bool
}

func newIndex() *index {
	return &index{byName: make(map[signal.Stream]uint32), unwritten: make(map[*bootIndex]*signal.Intervals)}
}

func (x *index) boot(name string) *bootIndex {
	i, ok := slices.BinarySearchFunc(x.boots, name, func(b *bootIndex, n string) int { return cmp.Compare(b.name, n) })
	if !ok {
		x.boots = slices.Insert(x.boots, i, &bootIndex{name: name})
	}
	return x.boots[i]
}

func (x *index) findBoot(name string) *bootIndex {
	i, ok := slices.BinarySearchFunc(x.boots, name, func(b *bootIndex, n string) int { return cmp.Compare(b.name, n) })
	if !ok {
		return nil
	}
	return x.boots[i]
}

func (x *index) stream(name signal.Stream) uint32 {
	i, ok := x.byName[name]
	if !ok {
		i = uint32(len(x.streams))
		_, class := name.Split()
		x.streams = append(x.streams, &streamIndex{name: name, class: class})
		x.byName[name] = i
	}
	return i
}

func (x *index) segment(number uint32) *segment {
	i, ok := slices.BinarySearchFunc(x.segments, number, func(s *segment, n uint32) int { return cmp.Compare(s.number, n) })
	if !ok {
		return nil
	}
	return x.segments[i]
}

// get returns where an unacknowledged message lies.
func (x *index) get(b *bootIndex, seq uint64) (*segment, place, bool) {
	if b.acked.Contains(seq) {
		return nil, place{}, false
	}
	if i, ok := b.findKept(seq); ok {
		s := b.kept[i].segment
		return s, b.kept[i].place, x.heat(s)
	}
	r := b.findRun(seq)
	if r == nil || !x.heat(r.segment) {
		return nil, place{}, false
	}
	p := r.places[seq-r.first]
	return r.segment, p, p.size != 0 && !b.acked.Contains(seq)
}

// next returns the first unacknowledged seq after the given one.
func (x *index) next(b *bootIndex, after uint64) (seq uint64, p place, ok bool) {
	i, _ := b.findKept(after + 1)
	for ; i < len(b.kept); i++ {
		if c := &b.kept[i]; !b.acked.Contains(c.seq) {
			seq, p, ok = c.seq, c.place, true
			break
		}
	}
	at, found := slices.BinarySearchFunc(b.runs, after+1, func(r *run, s uint64) int { return cmp.Compare(r.first, s) })
	if !found && at > 0 {
		at--
	}
	for ; at < len(b.runs); at++ {
		r := b.runs[at]
		if ok && r.first > seq {
			break
		}
		for s := max(after+1, r.first); s < r.end(); {
			if to, acked := b.acked.Prefix(s); acked {
				s = to + 1
				continue
			}
			if ok && s >= seq || !x.heat(r.segment) {
				break
			}
			if q := r.places[s-r.first]; q.size != 0 && !b.acked.Contains(s) {
				if _, again := b.findKept(s); !again {
					return s, q, true
				}
			}
			s++
		}
	}
	return seq, p, ok
}

// append makes a message known that was just written.
func (x *index) append(b *bootIndex, seq uint64, s *segment, p place) {
	var r *run
	if n := len(b.runs); n > 0 && b.runs[n-1].segment == s {
		r = b.runs[n-1]
	} else {
		r = &run{boot: b, segment: s, first: seq}
		b.runs, s.runs = append(b.runs, r), append(s.runs, r)
		b.span(s.number)
	}
	r.places = append(r.places, p)
	r.count++
	x.count(b, s, p, 1)
}

// count adds or takes away an unacknowledged message.
func (x *index) count(b *bootIndex, s *segment, p place, sign int) {
	x.messages += sign
	b.waiting += sign
	s.waiting += sign
	if x.streams[p.stream].class == signal.Event {
		s.events += sign
	}
	if sign > 0 {
		x.readings += uint64(p.readings)
		s.readings += uint64(p.readings)
	} else {
		x.readings -= uint64(p.readings)
		s.readings -= uint64(p.readings)
	}
}

// acknowledge takes the messages of a range out and reports how many and how
// many readings they had. Numbers without a message are passed over.
func (x *index) acknowledge(b *bootIndex, r signal.Range) (messages int, readings uint64) {
	for seq, p, ok := x.next(b, max(r.From, 1)-1); ok && seq <= r.To; seq, p, ok = x.next(b, seq) {
		s, _, _ := x.get(b, seq)
		x.take(b, seq, s, p)
		messages++
		readings += uint64(p.readings)
	}
	return messages, readings
}

// take takes one message out.
func (x *index) take(b *bootIndex, seq uint64, s *segment, p place) {
	x.note(b, seq)
	if i, ok := b.findKept(seq); ok {
		b.kept = slices.Delete(b.kept, i, i+1)
	}
	if s != nil {
		x.count(b, s, p, -1)
	}
}

// note has a number written as acknowledged.
func (x *index) note(b *bootIndex, seq uint64) {
	b.acked.Add(seq)
	if x.unwritten[b] == nil {
		x.unwritten[b] = &signal.Intervals{}
	}
	x.unwritten[b].Add(seq)
}

// drop forgets a segment that is to be deleted.
func (x *index) drop(number uint32) *segment {
	s := x.segment(number)
	if s == nil {
		return nil
	}
	x.segments = slices.DeleteFunc(x.segments, func(o *segment) bool { return o == s })
	for _, r := range s.runs {
		r.boot.runs = slices.DeleteFunc(r.boot.runs, func(o *run) bool { return o == r })
	}
	x.forgetCold(s)
	return s
}

func (x *index) forgetCold(s *segment) {
	for _, st := range x.streams {
		st.cold = slices.DeleteFunc(st.cold, func(c coldFrom) bool { return c.segment == s })
	}
}

// onDisk tells whether a segment may still hold messages of b.
func (x *index) onDisk(b *bootIndex) bool {
	return slices.ContainsFunc(x.segments, func(s *segment) bool { return s.number >= b.low && s.number <= b.high })
}

// forget drops boots of which nothing is left on disk, but not keep.
func (x *index) forget(keep *bootIndex) {
	x.boots = slices.DeleteFunc(x.boots, func(b *bootIndex) bool {
		return b != keep && x.unwritten[b] == nil && !x.onDisk(b)
	})
}
