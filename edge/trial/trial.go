// Package trial tries filter sets on what an edge's ring has kept: what would have
// left, how far off the far end would have been, and which exceptions it would
// have missed.
//
// It reads the ring and changes nothing.
package trial

import (
	"fmt"
	"math"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Figures are of one class of sensors under one set.
type Figures struct {
	Samples int64 `json:"samples"` // measured
	Kept    int64 `json:"kept"`    // of those, sent
	Added   int64 `json:"added"`   // heartbeats and samples held back before
	// Bytes are those of the records that would have been sent, in messages of a
	// stream and ten seconds; the transport's share comes on top.
	Bytes int64 `json:"bytes"`
	// Missed are samples that the set compared with sends as beyond its band, and
	// that the far end would have been further off from than that band.
	Missed int64 `json:"missed_exceptions"`
}

// Result is what a set makes of the ring.
type Result struct {
	Config  string                   `json:"config"` // hash of the set
	Classes map[egress.Class]Figures `json:"classes"`
	// Worst is the largest difference between a value and what the far end would
	// have made of those that were sent.
	Worst filter.Error `json:"worst"`
}

// packMicros is how much event time a message holds.
const packMicros = signal.Micros(10_000_000)

// arm is one set under trial.
type arm struct {
	set    *filter.Set
	filter *filter.Filter
	tally  filter.Tally
	out    []signal.Reading
	shown  map[key]float64
	packs  map[signal.Stream]*pack
	Result
}

type key struct {
	asset  signal.Asset
	sensor string
}

// pack is a message that is being filled.
type pack struct {
	batch signal.Batch
	class egress.Class
	since signal.Micros
}

// Compare runs sets over what a ring has kept in [from, to). Exceptions are those of
// the first set. It returns a result a set, and how many samples there were.
func Compare(dir string, from, to signal.Micros, sets ...*filter.Set) (results []Result, samples int64, err error) {
	r, err := ring.OpenReader(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("trying filters: %w", err)
	}
	defer r.Close()
	arms := make([]*arm, len(sets))
	for i, s := range sets {
		f, err := s.Open(nil)
		if err != nil {
			return nil, 0, fmt.Errorf("trying filters: %w", err)
		}
		arms[i] = &arm{set: s, filter: f, shown: map[key]float64{}, packs: map[signal.Stream]*pack{}, Result: Result{Config: s.Hash(), Classes: map[egress.Class]Figures{}}}
	}
	err = r.Read("", from, to, func(s *ring.Sample) error {
		if s.Class == signal.Raw {
			return nil // no filter decides on waveforms
		}
		samples++
		var exception bool
		var band float64
		for i, a := range arms {
			v := a.take(s)
			if i == 0 {
				exception, band = v.Sent, v.Band
				continue
			}
			a.judge(s, v, exception, band)
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("trying filters: %w", err)
	}
	for _, a := range arms {
		for _, p := range a.packs {
			a.flush(p)
		}
		a.Worst = a.filter.Worst()
		results = append(results, a.Result)
	}
	return results, samples, nil
}

// take runs a sample through the arm's filter.
func (a *arm) take(s *ring.Sample) filter.Verdict {
	class := egress.ClassOf(s.Class, s.Reading.Value.Kind)
	f := a.Classes[class]
	var v filter.Verdict
	a.out, v = a.filter.Apply(a.out[:0], s.Asset, s.Reading, &a.tally)
	f.Samples++
	if v.Sent {
		f.Kept++
	}
	f.Added += int64(len(a.out))
	if v.Sent {
		f.Added--
	}
	a.Classes[class] = f
	for _, r := range a.out {
		a.put(s, class, r)
		if r.Value.Kind == signal.Number {
			a.shown[key{s.Asset, s.Reading.Sensor}] = r.Value.Number
		}
	}
	return v
}

// judge counts an exception of the first set that this one misses. Where sent
// values are ends of lines, the line is not known yet: its error is bounded by the
// set's own band.
func (a *arm) judge(s *ring.Sample, v filter.Verdict, exception bool, band float64) {
	r := &s.Reading
	if !exception || v.Sent || r.Value.Kind != signal.Number {
		return
	}
	off := v.Band
	if !a.set.Linear(r.Sensor, r.Unit) {
		off = math.Abs(r.Value.Number - a.shown[key{s.Asset, r.Sensor}])
	}
	if off > band {
		class := egress.ClassOf(s.Class, r.Value.Kind)
		f := a.Classes[class]
		f.Missed++
		a.Classes[class] = f
	}
}

func (a *arm) put(s *ring.Sample, class egress.Class, r signal.Reading) {
	stream := signal.NewStream(s.Asset, s.Class)
	p := a.packs[stream]
	at := max(r.EventTime, r.AliveAt)
	if p == nil {
		p = &pack{class: class}
		a.packs[stream] = p
	}
	if len(p.batch.Readings) > 0 && at-p.since >= packMicros {
		a.flush(p)
	}
	if len(p.batch.Readings) == 0 {
		p.since, p.class = at, class
		p.batch.Origin = signal.Origin{Edge: "site/edge", Boot: "00000000-0000-7000-8000-000000000000", Stream: stream, Config: a.set.Hash()}
	}
	p.batch.Readings = append(p.batch.Readings, r)
}

func (a *arm) flush(p *pack) {
	f := a.Classes[p.class]
	f.Bytes += int64(len(record.Append(nil, &p.batch)))
	a.Classes[p.class] = f
	p.batch.Readings = p.batch.Readings[:0]
}
