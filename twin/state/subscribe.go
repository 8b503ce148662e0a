package state

import (
	"slices"
	"sync"

	"github.com/headrace/headrace/signal"
)

// Subscription tells one reader what changed. What it holds is bounded by the
// number of sensors: a reader that is slow misses values in between, never the
// newest one, and never delays Apply.
type Subscription struct {
	twin  *Twin
	match func(signal.Path) bool
	ready chan struct{} // holds one token while something waits

	mu     sync.Mutex
	seen   int      // sensors that match has been asked about
	wanted []uint64 // bit per sensor: match said yes
	queued []uint64 // bit per sensor: it is in the queue
	queue  []int32  // sensors in the order of their first untold change
}

// Subscribe returns a subscription to the sensors that match says yes to, all
// of them if it is nil. Everything that there is waits at first. match is asked
// once per sensor and must be quick; the caller must Close.
func (t *Twin) Subscribe(match func(signal.Path) bool) *Subscription {
	s := &Subscription{twin: t, match: match, ready: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]int32, len(t.index))
	for k := range all {
		all[k] = int32(k)
	}
	s.mark(t, all)
	t.subs = append(t.subs, s)
	return s
}

// mark queues the sensors; the twin is locked.
func (s *Subscription) mark(t *Twin, changed []int32) {
	if len(changed) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.seen < len(t.index); s.seen++ {
		if s.seen%64 == 0 {
			s.wanted, s.queued = append(s.wanted, 0), append(s.queued, 0)
		}
		if s.match == nil || s.match(t.at(int32(s.seen)).path) {
			s.wanted[s.seen/64] |= 1 << (s.seen % 64)
		}
	}
	for _, k := range changed {
		word, bit := k/64, uint64(1)<<(k%64)
		if s.wanted[word]&bit != 0 && s.queued[word]&bit == 0 {
			s.queued[word] |= bit
			s.queue = append(s.queue, k)
		}
	}
	if len(s.queue) > 0 {
		s.announce()
	}
}

func (s *Subscription) announce() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Ready is signalled while changes wait for Take. It may be once too often.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns at most limit of the waiting rows, each path once, as they are
// now; none if nothing waits. It does not block.
func (s *Subscription) Take(limit int) []Row {
	told := s.take(limit)
	// A change in between is told twice, never lost.
	s.twin.mu.RLock()
	defer s.twin.mu.RUnlock()
	rows := make([]Row, len(told))
	for n, k := range told {
		rows[n] = s.twin.at(k).row()
	}
	return rows
}

func (s *Subscription) take(limit int) []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := slices.Clone(s.queue[:min(limit, len(s.queue))])
	for _, k := range told {
		s.queued[k/64] &^= 1 << (k % 64)
	}
	s.queue = slices.Delete(s.queue, 0, len(told))
	if len(s.queue) > 0 {
		s.announce()
	}
	return told
}

// Close ends the subscription: nothing waits any more.
func (s *Subscription) Close() {
	s.twin.mu.Lock()
	s.twin.subs = slices.DeleteFunc(s.twin.subs, func(o *Subscription) bool { return o == s })
	s.twin.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.queued, s.wanted = nil, nil, nil
}
