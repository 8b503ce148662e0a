package features

import (
	"cmp"
	"slices"

	"github.com/headrace/headrace/signal"
)

// Row is a row of a feature view, as far as reading it as of a time needs.
type Row struct {
	Event     signal.Micros // end of the window
	Available signal.Micros // when it could first be read
	Retracted bool          // op D: the row takes back what it names
	Seq       int64         // order of commit, for equal Available
}

// Status says what an as-of read found.
type Status string

// The statuses.
const (
	Found        Status = "found"
	NotAvailable Status = "not_available" // nothing was available then
	OutsideTTL   Status = "outside_ttl"   // what was available is too old
	Retracted    Status = "retracted"     // what was available was taken back
)

// Known returns which of one entity's rows hold for somebody who knows what was
// available at k, ascending by event time: of rows with Available ≤ k, per Event
// the one with the greatest Available; a retraction drops its Event.
func Known(rows []Row, k signal.Micros) []int {
	return slices.DeleteFunc(newest(rows, k), func(i int) bool { return rows[i].Retracted })
}

// newest is [Known] with the retractions that hold.
func newest(rows []Row, k signal.Micros) []int {
	var known []int
	for i := range rows {
		if rows[i].Available <= k {
			known = append(known, i)
		}
	}
	slices.SortFunc(known, func(a, b int) int {
		return cmp.Or(cmp.Compare(rows[a].Event, rows[b].Event), cmp.Compare(rows[b].Available, rows[a].Available), cmp.Compare(rows[b].Seq, rows[a].Seq))
	})
	return slices.CompactFunc(known, func(a, b int) bool { return rows[a].Event == rows[b].Event })
}

// AsOf returns which of one entity's rows holds at t for somebody who knows what
// was available at k, which is no later than t: of the rows that are [Known] at k
// with t − ttl < Event ≤ t the one with the greatest Event. Retractions drop
// their Event after the newest row of each is found: one that was filtered first
// would bring back what it takes back.
func AsOf(rows []Row, t, k, ttl signal.Micros) (int, Status) {
	status := NotAvailable
	for _, i := range slices.Backward(newest(rows, min(k, t))) {
		r := &rows[i]
		switch {
		case r.Event > t:
		case r.Event <= t-ttl:
			if status == NotAvailable {
				status = OutsideTTL
			}
			return -1, status
		case r.Retracted:
			status = Retracted
		default:
			return i, Found
		}
	}
	return -1, status
}
