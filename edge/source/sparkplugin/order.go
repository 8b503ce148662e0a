package sparkplugin

import (
	"time"
)

// maxAhead bounds the messages of one node that wait for those before them; a
// seq further behind than ahead is taken for late.
const maxAhead = 64

// order puts the messages of one edge node in the order of their seq, from its
// NBIRTH on, as far as they come within the reorder time.
type order[M any] struct {
	next    uint8
	known   bool // next is
	waiting map[uint8]early[M]
}

// early is a message that waits for those before it.
type early[M any] struct {
	message M
	came    time.Time
}

// fate says what becomes of a message.
type fate uint8

const (
	now   fate = iota // deliver it, then what [order.ready] gives
	later             // it waits
	late              // it fills a gap that was given up, or is there again
)

// reset begins at an NBIRTH's seq.
func (o *order[M]) reset(seq uint8) {
	o.next, o.known = seq+1, true
	clear(o.waiting)
}

// forget leaves the order open until the next message.
func (o *order[M]) forget() {
	o.known = false
	clear(o.waiting)
}

// take places a message; keep is called if it waits.
func (o *order[M]) take(at time.Time, seq uint8, keep func() M) fate {
	if !o.known {
		o.next, o.known = seq+1, true
		return now
	}
	switch ahead := seq - o.next; {
	case ahead == 0:
		o.next++
		return now
	case ahead >= 128:
		return late
	}
	if o.waiting == nil {
		o.waiting = map[uint8]early[M]{}
	}
	if _, twice := o.waiting[seq]; twice {
		return late
	}
	o.waiting[seq] = early[M]{keep(), at}
	return later
}

// ready gives the message that is next, if it waits.
func (o *order[M]) ready() (m M, ok bool) {
	e, ok := o.waiting[o.next]
	if ok {
		delete(o.waiting, o.next)
		o.next++
	}
	return e.message, ok
}

// due is when the gap before the first message that waits is given up.
func (o *order[M]) due(reorder time.Duration) (at time.Time, ok bool) {
	if len(o.waiting) == 0 {
		return at, false
	}
	_, first := o.first()
	if len(o.waiting) >= maxAhead {
		return first, true
	}
	return first.Add(reorder), true
}

// first is how far ahead the first message that waits is, and when it came.
func (o *order[M]) first() (ahead int, came time.Time) {
	for {
		if e, ok := o.waiting[o.next+uint8(ahead)]; ok {
			return ahead, e.came
		}
		ahead++
	}
}

// skip gives up the gap before the first message that waits, and tells how many
// messages it was long.
func (o *order[M]) skip() (gap int) {
	if len(o.waiting) == 0 {
		return 0
	}
	gap, _ = o.first()
	o.next += uint8(gap)
	return gap
}
