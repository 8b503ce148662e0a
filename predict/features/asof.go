package features

import "github.com/headrace/headrace/signal"

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

// AsOf returns which of one entity's rows holds at t for somebody who knows what
// was available at k, which is no later than t: of rows with Available ≤ k and
// t − ttl < Event ≤ t, per Event the one with the greatest Available; a
// retraction drops its Event; then the greatest Event. The order matters: a
// retraction that was filtered first would bring back what it takes back.
func AsOf(rows []Row, t, k, ttl signal.Micros) (int, Status) {
	k = min(k, t)
	newest := map[signal.Micros]int{}
	old := false
	for i := range rows {
		r := &rows[i]
		if r.Available > k || r.Event > t {
			continue
		}
		if r.Event <= t-ttl {
			old = true
			continue
		}
		j, ok := newest[r.Event]
		if !ok || r.Available > rows[j].Available || r.Available == rows[j].Available && r.Seq > rows[j].Seq {
			newest[r.Event] = i
		}
	}
	best := -1
	for _, i := range newest {
		if !rows[i].Retracted && (best < 0 || rows[i].Event > rows[best].Event) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return best, Found
	case len(newest) > 0:
		return -1, Retracted
	case old:
		return -1, OutsideTTL
	}
	return -1, NotAvailable
}
