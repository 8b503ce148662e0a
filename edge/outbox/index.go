package outbox

import (
	"cmp"
	"slices"

	"github.com/headrace/headrace/signal"
)

func sortNumbers(n []uint32) { slices.Sort(n) }

// place is where the record of one message lies.
type place struct {
	segment  uint32 // 0: there is no such message
	at       uint32
	size     uint32
	sum      uint32 // CRC32C of the record
	readings uint32
	stream   uint32 // number in streamIndex
}

// bootIndex holds the messages of one boot: places[i] is that of seq first+i.
type bootIndex struct {
	name   string
	first  uint64
	places []place
	acked  signal.Intervals
	// low and high are the first and last segment that hold messages of it.
	low, high uint32
}

func (b *bootIndex) get(seq uint64) (place, bool) {
	if seq < b.first || seq-b.first >= uint64(len(b.places)) {
		return place{}, false
	}
	p := b.places[seq-b.first]
	return p, p.segment != 0 && !b.acked.Contains(seq)
}

func (b *bootIndex) span(segment uint32) {
	if b.low == 0 {
		b.low = segment
	}
	b.high = max(b.high, segment)
}

// put adds a message. A seq that is there already keeps its first place.
func (b *bootIndex) put(seq uint64, p place) bool {
	if len(b.places) == 0 {
		b.first = seq
	}
	if seq < b.first {
		return false
	}
	i := seq - b.first
	if i < uint64(len(b.places)) {
		if b.places[i].segment != 0 {
			return false
		}
		b.places[i] = p
		return true
	}
	b.places = append(b.places, make([]place, i-uint64(len(b.places)))...)
	b.places = append(b.places, p)
	return true
}

// trim forgets the acknowledged messages at the front.
func (b *bootIndex) trim() {
	if to, ok := b.acked.Prefix(b.first); ok {
		n := min(to-b.first+1, uint64(len(b.places)))
		b.places = b.places[n:]
		b.first += n
	}
	if cap(b.places) > 1024 && len(b.places) < cap(b.places)/4 {
		b.places = slices.Clone(b.places)
	}
}

// next returns the first unacknowledged seq after the given one.
func (b *bootIndex) next(after uint64) (uint64, place, bool) {
	for seq := max(after+1, b.first); seq-b.first < uint64(len(b.places)); {
		if to, ok := b.acked.Prefix(seq); ok {
			seq = to + 1
			continue
		}
		if p := b.places[seq-b.first]; p.segment != 0 {
			return seq, p, true
		}
		seq++
	}
	return 0, place{}, false
}

// unacked is a message that waits for its acknowledgement, for complete_to.
type unacked struct {
	from signal.Micros
	boot *bootIndex
	seq  uint64
}

// streamIndex is what is known of one stream.
type streamIndex struct {
	name   signal.Stream
	n      uint64        // the next n of the running boot
	seenTo signal.Micros // committed
	// waiting is a heap by from; an acknowledged message leaves it when it
	// comes to the top.
	waiting []unacked
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
	h = h[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h[c].from < h[least].from {
				least = c
			}
		}
		if least == i {
			break
		}
		h[least], h[i] = h[i], h[least]
		i = least
	}
	if cap(h) > 1024 && len(h) < cap(h)/4 {
		h = slices.Clone(h)
	}
	s.waiting = h
}

// completeTo is the time before which nothing of the stream waits.
func (s *streamIndex) completeTo() signal.Micros {
	for len(s.waiting) > 0 {
		top := s.waiting[0]
		if !top.boot.acked.Contains(top.seq) {
			return top.from
		}
		s.pop()
	}
	return s.seenTo
}

// idle tells whether nothing of the stream waits.
func (s *streamIndex) idle() bool {
	s.completeTo()
	return len(s.waiting) == 0
}

// segment is one file.
type segment struct {
	number  uint32
	file    File
	size    int64 // end of its last whole frame
	waiting int   // unacknowledged messages in it
	states  int   // frames with a state
	sealed  bool  // nothing more is written to it
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
		x.streams = append(x.streams, &streamIndex{name: name})
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

// add makes a message known; it tells whether it was new.
func (x *index) add(b *bootIndex, seq uint64, p place) bool {
	if b.acked.Contains(seq) || !b.put(seq, p) {
		return false
	}
	b.span(p.segment)
	x.messages++
	x.readings += uint64(p.readings)
	x.segment(p.segment).waiting++
	return true
}

// acknowledge takes the messages of a range out and reports how many and how
// many readings they had. Numbers without a message are passed over.
func (x *index) acknowledge(b *bootIndex, r signal.Range) (messages int, readings uint64) {
	if len(b.places) == 0 {
		return 0, 0
	}
	r.From, r.To = max(r.From, b.first), min(r.To, b.first+uint64(len(b.places))-1)
	for seq, p, ok := b.next(r.From - 1); ok && seq <= r.To; seq, p, ok = b.next(seq) {
		b.acked.Add(seq)
		dirty := x.unwritten[b]
		if dirty == nil {
			dirty = &signal.Intervals{}
			x.unwritten[b] = dirty
		}
		dirty.Add(seq)
		messages++
		readings += uint64(p.readings)
		x.messages--
		x.readings -= uint64(p.readings)
		if s := x.segment(p.segment); s != nil {
			s.waiting--
		}
	}
	b.trim()
	return messages, readings
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
