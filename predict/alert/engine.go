package alert

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
)

// The delays, in scored windows: an episode begins when On of the last Of pass
// the limit, and ends after Off in a row that do not.
const (
	On  = 5
	Of  = 6
	Off = 10
)

// FailureMode is what an episode of vibration stands for (ISO 14224).
const FailureMode = "VIB"

// The defects. Which it is follows from the parts that the defect orders have in
// the energy of the envelope, averaged over the windows beyond the limit: the
// greatest names the defect if it is at least LeastShare, and at least Margin
// times the second. The cage's order is slow turning as well and names nothing.
const (
	OuterRace    = "outer_race"
	InnerRace    = "inner_race"
	Ball         = "ball"
	Inconclusive = "inconclusive"

	LeastShare = 0.15
	Margin     = 1.5
)

// Evidence is a feature's part in an episode, at its worst window so far.
type Evidence struct {
	Feature string  `json:"feature"`
	Value   float64 `json:"value"`
	Healthy float64 `json:"healthy"`
	Z       float64 `json:"z"`
	Share   float64 `json:"share"`
}

// Episode is a time in which a channel was beyond its limit: that of its model, that
// of an edge's rule, or both. Without a model's part Model is empty.
type Episode struct {
	ID          string        `json:"id"` // the same for the same predictions
	Asset       signal.Asset  `json:"asset"`
	Sensor      string        `json:"sensor"`
	Defect      string        `json:"defect"`
	FailureMode string        `json:"failure_mode"`
	Confidence  float64       `json:"confidence"` // 0..1; see [Episode.judge]
	Started     signal.Micros `json:"started"`    // end of the first window beyond the limit
	Raised      signal.Micros `json:"raised"`     // end of the window that made it an episode
	Cleared     signal.Micros `json:"cleared,omitempty"`
	// Peak is the greatest score, at the window that ended at PeakAt; T2, Q and
	// their limits are that window's.
	Peak       float64       `json:"peak"`
	PeakAt     signal.Micros `json:"peak_at"`
	T2         float64       `json:"t2"`
	T2Limit    float64       `json:"t2_limit"`
	Q          float64       `json:"q"`
	QLimit     float64       `json:"q_limit"`
	Model      string        `json:"model"`
	OuterShare float64       `json:"outer_share"` // of the envelope's energy
	InnerShare float64       `json:"inner_share"`
	BallShare  float64       `json:"ball_share"`
	// Alarms are what local rules of edges said of it, Found what the centre did; of
	// both the times above are made.
	Alarms   []signal.Alarm `json:"alarms,omitempty"`
	Found    Found          `json:"found,omitzero"`
	Evidence []Evidence     `json:"evidence"`
}

// point is what is remembered of a scored window.
type point struct {
	Event signal.Micros `json:"event"`
	Above bool          `json:"above"`
	// Shares of outer race, inner race and ball.
	Shares [3]float64 `json:"shares"`
}

// channel is the state of one channel.
type channel struct {
	Cursor signal.Micros `json:"cursor"` // newest window seen
	Recent []point       `json:"recent,omitempty"`
	Below  int           `json:"below,omitempty"`
	Open   *Episode      `json:"open,omitempty"`
}

// change is what a prediction made of a channel.
type change int

const (
	nothing change = iota
	raised
	worse
	cleared
)

// observe takes the next prediction. One that is not after the newest window
// seen comes late and changes nothing; one without a score neither.
func (c *channel) observe(p *model.Prediction, faulty bool) (change, *Episode) {
	if p.Event <= c.Cursor {
		return nothing, nil
	}
	c.Cursor = p.Event
	if p.Status != model.Scored || faulty {
		// A sensor's fault says nothing of the machine.
		return nothing, nil
	}
	pt := point{Event: p.Event, Above: p.Score > 1, Shares: shares(p)}
	c.Recent = append(c.Recent, pt)
	if len(c.Recent) > Of {
		c.Recent = slices.Delete(c.Recent, 0, len(c.Recent)-Of)
	}
	if e := c.Open; e != nil {
		if pt.Above {
			c.Below = 0
			if p.Score > e.Peak {
				e.worst(p)
				return worse, e
			}
			return nothing, nil
		}
		if c.Below++; c.Below >= Off {
			e.Cleared = p.Event
			c.Open, c.Recent, c.Below = nil, nil, 0
			return cleared, e
		}
		return nothing, nil
	}
	above := slices.DeleteFunc(slices.Clone(c.Recent), func(p point) bool { return !p.Above })
	if len(above) < On {
		return nothing, nil
	}
	e := &Episode{
		ID: id(p, above[0].Event), Asset: p.Asset, Sensor: p.Sensor, FailureMode: FailureMode, Model: p.Model,
		Started: above[0].Event, Raised: p.Event,
	}
	e.judge(above, len(c.Recent))
	e.worst(p)
	c.Open, c.Below = e, 0
	return raised, e
}

func id(p *model.Prediction, started signal.Micros) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d|%s", p.Asset, p.Sensor, started, p.Model))
	return hex.EncodeToString(sum[:8])
}

// shares are the parts of the defect orders in the energy of the envelope. The
// features are logarithms of fourth roots of energies.
func shares(p *model.Prediction) (out [3]float64) {
	for _, c := range p.Contributions {
		for i, name := range [3]string{"env_bpfo", "env_bpfi", "env_bsf"} {
			if c.Feature == name {
				out[i] = math.Exp(4 * c.Value)
			}
		}
	}
	return out
}

// judge names the defect and says how sure that is: the part of the windows that
// are beyond the limit, times how far the named order stands above the second
// (its part of both); half of it when no order stands out.
func (e *Episode) judge(above []point, seen int) {
	var mean [3]float64
	for _, p := range above {
		for i, s := range p.Shares {
			mean[i] += s / float64(len(above))
		}
	}
	e.OuterShare, e.InnerShare, e.BallShare = mean[0], mean[1], mean[2]
	type candidate struct {
		defect string
		share  float64
	}
	of := []candidate{{OuterRace, mean[0]}, {InnerRace, mean[1]}, {Ball, mean[2]}}
	slices.SortStableFunc(of, func(a, b candidate) int { return cmp.Compare(b.share, a.share) })
	part := float64(len(above)) / float64(seen)
	e.Defect, e.Confidence = Inconclusive, 0.5*part
	if of[0].share >= LeastShare && of[0].share >= Margin*of[1].share {
		e.Defect = of[0].defect
		e.Confidence = part * of[0].share / (of[0].share + of[1].share)
	}
}

// worst notes the window that is furthest beyond the limit.
func (e *Episode) worst(p *model.Prediction) {
	e.Peak, e.PeakAt, e.T2, e.T2Limit, e.Q, e.QLimit = p.Score, p.Event, p.T2, p.T2Limit, p.Q, p.QLimit
	e.Evidence = nil
	for _, c := range p.Contributions {
		e.Evidence = append(e.Evidence, Evidence{Feature: c.Feature, Value: c.Value, Healthy: c.Healthy, Z: c.Z, Share: c.Share})
	}
}
