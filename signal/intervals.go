package signal

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
)

// Range is the closed interval [From, To].
type Range struct{ From, To uint64 }

// MarshalJSON writes [from, to].
func (r Range) MarshalJSON() ([]byte, error) { return json.Marshal([2]uint64{r.From, r.To}) }

// UnmarshalJSON reads [from, to] and refuses a range that runs backwards.
func (r *Range) UnmarshalJSON(b []byte) error {
	var v []uint64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if len(v) != 2 || v[0] > v[1] {
		return fmt.Errorf("range %s is not [from, to] with from <= to", b)
	}
	r.From, r.To = v[0], v[1]
	return nil
}

// Intervals is a set of numbers kept as sorted, disjoint, non-adjacent closed
// ranges. The zero value is empty. It is not safe for concurrent use.
type Intervals struct{ r []Range }

// Ranges returns the ranges in ascending order; the caller must not change them.
func (s *Intervals) Ranges() []Range { return s.r }

// Len is the number of ranges, not of numbers.
func (s *Intervals) Len() int { return len(s.r) }

// Count is the number of numbers in the set. The set of all has one more than
// a uint64 holds and counts as the most it does.
func (s *Intervals) Count() uint64 {
	var n uint64
	for _, r := range s.r {
		if n += r.To - r.From + 1; n == 0 {
			return math.MaxUint64
		}
	}
	return n
}

// Contains tells whether n is in the set.
func (s *Intervals) Contains(n uint64) bool {
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To >= n })
	return i < len(s.r) && s.r[i].From <= n
}

// Add puts n into the set and tells whether it was new.
func (s *Intervals) Add(n uint64) bool {
	// The common case: the next number.
	if k := len(s.r); k > 0 && n > 0 && s.r[k-1].To == n-1 {
		s.r[k-1].To = n
		return true
	}
	if s.Contains(n) {
		return false
	}
	s.AddRange(Range{n, n})
	return true
}

// AddRange puts every number of r into the set. A range that runs backwards is
// ignored.
func (s *Intervals) AddRange(r Range) {
	if r.From > r.To {
		return
	}
	// lo: first range that overlaps or touches r; hi: one past the last.
	lo := sort.Search(len(s.r), func(i int) bool { return s.r[i].To >= r.From || s.r[i].To+1 == r.From })
	hi := lo
	for hi < len(s.r) && (s.r[hi].From <= r.To || s.r[hi].From == r.To+1) {
		r.From, r.To = min(r.From, s.r[hi].From), max(r.To, s.r[hi].To)
		hi++
	}
	s.r = slices.Replace(s.r, lo, hi, r)
}

// Prefix returns the end of the run that starts at from, and whether from is
// in the set: all of [from, to] is.
func (s *Intervals) Prefix(from uint64) (to uint64, ok bool) {
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To >= from })
	if i < len(s.r) && s.r[i].From <= from {
		return s.r[i].To, true
	}
	return 0, false
}

// DropBelow removes every number < n.
func (s *Intervals) DropBelow(n uint64) {
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].To >= n })
	s.r = slices.Delete(s.r, 0, i)
	if len(s.r) > 0 && s.r[0].From < n {
		s.r[0].From = n
	}
}

// Clone returns a copy that shares nothing.
func (s *Intervals) Clone() *Intervals { return &Intervals{r: slices.Clone(s.r)} }
