package edge

import (
	"container/heap"
	"time"

	"github.com/headrace/headrace/signal"
)

// message names one message of the outbox.
type message struct {
	boot string
	seq  uint64
}

// lane is one of the two ways out, each with a window of its own: what this
// boot froze, in order, and what earlier boots left.
type lane int

const (
	live lane = iota
	history
)

// sent is a message that is on its way and not acknowledged.
type sent struct {
	message
	lane     lane
	bytes    int
	readings int
	due      time.Time     // when it is sent again
	wait     time.Duration // and how long that takes the next time
	index    int           // in the heap
}

// flight is what has been sent and not been acknowledged: the window.
type flight struct {
	window [2]int
	bytes  [2]int
	all    map[message]*sent
	byDue  dueHeap
	span   map[string]signal.Range // least and greatest seq of each boot, or wider
}

func newFlight(liveWindow, historyWindow int) *flight {
	return &flight{window: [2]int{liveWindow, historyWindow}, all: map[message]*sent{}, span: map[string]signal.Range{}}
}

// room tells whether a message of n bytes may go out; one always may.
func (f *flight) room(l lane, n int) bool { return f.bytes[l] == 0 || f.bytes[l]+n <= f.window[l] }

func (f *flight) add(s *sent) {
	f.all[s.message] = s
	f.bytes[s.lane] += s.bytes
	heap.Push(&f.byDue, s)
	r, ok := f.span[s.boot]
	if !ok {
		r = signal.Range{From: s.seq, To: s.seq}
	}
	f.span[s.boot] = signal.Range{From: min(r.From, s.seq), To: max(r.To, s.seq)}
}

func (f *flight) drop(s *sent) {
	delete(f.all, s.message)
	f.bytes[s.lane] -= s.bytes
	heap.Remove(&f.byDue, s.index)
}

// acked takes out what an acknowledgement names.
func (f *flight) acked(boot string, ranges []signal.Range) {
	span, ok := f.span[boot]
	if !ok {
		return
	}
	for _, r := range ranges {
		r.From, r.To = max(r.From, span.From), min(r.To, span.To)
		if r.From > r.To {
			continue
		}
		if r.To-r.From > uint64(4*len(f.all)) { // sparse: look at what there is
			for m, s := range f.all {
				if m.boot == boot && m.seq >= r.From && m.seq <= r.To {
					f.drop(s)
				}
			}
		} else {
			for seq := r.From; seq <= r.To; seq++ {
				if s := f.all[message{boot, seq}]; s != nil {
					f.drop(s)
				}
			}
		}
		if r.From == span.From {
			span.From = r.To + 1
		}
	}
	if span.From > span.To {
		delete(f.span, boot)
		return
	}
	f.span[boot] = span
}

// first is the message that is due first, nil if there is none.
func (f *flight) first() *sent {
	if len(f.byDue) == 0 {
		return nil
	}
	return f.byDue[0]
}

// again notes that s went out once more. It keeps its place in the window that
// it was sent in first.
func (f *flight) again(s *sent, now time.Time, most time.Duration) {
	s.wait = min(2*s.wait, most)
	s.due = now.Add(s.wait)
	heap.Fix(&f.byDue, s.index)
}

// hasten makes everything due at a time, if it is not earlier.
func (f *flight) hasten(due time.Time, wait time.Duration) {
	for _, s := range f.all {
		if s.due.After(due) {
			s.due = due
		}
		s.wait = wait
	}
	heap.Init(&f.byDue)
}

// dueHeap orders by due time, then by seq, so that what goes again goes in order.
type dueHeap []*sent

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	if h[i].boot != h[j].boot {
		return h[i].boot < h[j].boot
	}
	return h[i].seq < h[j].seq
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push and Pop are container/heap's.
func (h *dueHeap) Push(x any) {
	s := x.(*sent)
	s.index = len(*h)
	*h = append(*h, s)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
