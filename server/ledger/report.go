// Package ledger proves that nothing was lost or doubled: it compares what each
// edge counted for itself with what the spine holds and the tables keep, edge
// by edge, and names the station where a sum does not hold.
//
// It reads; it changes nothing, and it trusts no counter of the stations
// between the edge and the tables.
package ledger

import "fmt"

// Report is the answer for a data directory.
type Report struct {
	OK      bool     `json:"ok"`
	Drained bool     `json:"drained"`
	Edges   []Edge   `json:"edges"`
	Broken  []string `json:"broken"` // "edge, station: sum", one each
}

// Edge holds the sums of one edge, in readings.
type Edge struct {
	Edge string `json:"edge"` // group/node

	// The edge's own counters, committed with its outbox.
	Emitted  int64 `json:"emitted"`
	Derived  int64 `json:"derived"`
	Held     int64 `json:"held"`
	Filtered int64 `json:"filtered"`
	Shipped  int64 `json:"shipped"`
	Evicted  int64 `json:"evicted"`
	Replayed int64 `json:"replayed"` // sent from the ring because they were asked for
	Retried  int64 `json:"retried"`  // sent again; beside the sums
	Lost     int64 `json:"lost"`     // given back damaged by the edge's disk

	// Waveform samples have their own line: taken from the source, let through,
	// in messages that still wait, and in bronze.raw.
	Samples         int64 `json:"samples"`
	SamplesShipped  int64 `json:"samples_shipped"`
	SamplesEvicted  int64 `json:"samples_evicted"`
	SamplesInFlight int64 `json:"samples_in_flight"`

	EvictedMessages int64 `json:"evicted_messages"` // whose numbers are skipped
	Raw             int64 `json:"raw"`
	RawDoubled      int64 `json:"raw_doubled"` // blocks of bronze.raw that stand there twice

	// Between edge and table.
	InFlight   int64 `json:"in_flight"`
	Deadletter int64 `json:"deadletter"`

	// The tables.
	Bronze      int64 `json:"bronze"`
	Doubled     int64 `json:"doubled"` // rows of bronze that stand there twice
	Missing     int64 `json:"missing"` // messages whose number is skipped and which are nowhere
	Pending     int64 `json:"pending"` // in bronze, silver has yet to read them
	Silver      int64 `json:"silver"`
	Quarantined int64 `json:"quarantined"`
	Dropped     int64 `json:"dropped"`
	Duplicates  int64 `json:"duplicates"` // repeats that silver left out
	Repeated    int64 `json:"repeated"`   // of those, the ones whose twin is in silver
	Late        int64 `json:"late"`       // part of silver
	Foreign     int64 `json:"foreign"`    // in silver or quarantine twice, or without a row of bronze
	Remote      bool  `json:"remote"`     // its outbox is not here, so only the tables are checked

	Checks []Check `json:"checks"`
}

// Check is one sum.
type Check struct {
	Station string `json:"station"`
	Sum     string `json:"sum"`
	Left    int64  `json:"left"`
	Right   int64  `json:"right"`
	OK      bool   `json:"ok"`
}

// check makes the sums of one edge.
func (e *Edge) check() {
	e.Checks = nil
	sum := func(station, words string, left, right int64) {
		e.Checks = append(e.Checks, Check{station, words, left, right, left == right})
	}
	if !e.Remote {
		sum("edge", "emitted + derived + held + replayed = filtered + shipped + evicted",
			e.Emitted+e.Derived+e.Held+e.Replayed, e.Filtered+e.Shipped+e.Evicted)
		sum("edge", "nothing was given back damaged by the disk", e.Lost, 0)
		sum("spine", "samples shipped = bronze.raw + samples in flight", e.SamplesShipped, less(e.Raw+e.SamplesInFlight, e.SamplesShipped, e.SamplesEvicted))
		sum("spine", "shipped = bronze + open deadletter + in flight + lost", e.Shipped, less(e.Bronze+e.Deadletter+e.InFlight+e.Lost, e.Shipped, e.Evicted))
	}
	if !e.Remote || e.Bronze > 0 { // dead letters alone prove nothing of an edge that is not here
		sum("spine", "no message number is skipped", less(e.Missing, 0, e.EvictedMessages), 0)
	}
	sum("bronze", "no reading stands twice", e.Doubled, 0)
	sum("bronze", "no block of samples stands twice", e.RawDoubled, 0)
	sum("silver", "bronze = silver + open quarantine + dropped + duplicates + pending",
		e.Bronze, e.Silver+e.Quarantined+e.Dropped+e.Duplicates+e.Pending)
	sum("silver", "every duplicate has its twin in silver", e.Duplicates, e.Repeated)
	sum("silver", "nothing is there twice or from nowhere", e.Foreign, 0)
}

// less is what arrived without what was given up at the edge and arrived even so: it
// was sent, and its acknowledgement came too late or never.
func less(arrived, shipped, evicted int64) int64 {
	return arrived - min(max(arrived-shipped, 0), evicted)
}

// conclude sums up.
func (r *Report) conclude() {
	r.Broken = []string{}
	for i := range r.Edges {
		e := &r.Edges[i]
		e.check()
		for _, c := range e.Checks {
			if !c.OK {
				r.Broken = append(r.Broken, fmt.Sprintf("%s, %s: %s: %d is not %d", e.Edge, c.Station, c.Sum, c.Left, c.Right))
			}
		}
	}
	r.OK = len(r.Broken) == 0
}
