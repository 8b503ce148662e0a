package edge

import (
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// What sources refuse goes to the dead letters by way of the outbox, whole up to a
// rate: a sender that has gone mad must not take the wire from its neighbours.
// What is beyond it is counted, and the next letter says how many those were.
const (
	refusedPerSecond = 10
	refusedBurst     = 100
	maxRefusedBytes  = 64 << 10
	maxRefusedText   = 1 << 10
)

// refusals decide which are carried.
type refusals struct {
	tokens float64
	at     time.Time // when they were counted last; zero before the first
	unsaid int64     // counted since the last one that was carried

	refused, carried atomic.Int64
}

// take tells whether one more is carried now.
func (r *refusals) take(now time.Time) bool {
	r.refused.Add(1)
	if r.at.IsZero() {
		r.tokens = refusedBurst
	} else {
		r.tokens = min(refusedBurst, r.tokens+now.Sub(r.at).Seconds()*refusedPerSecond)
	}
	r.at = now
	if r.tokens < 1 {
		r.unsaid++
		return false
	}
	r.tokens--
	r.carried.Add(1)
	return true
}

// refusedAsset stands for the edge itself among the assets of its site.
func (o *Options) refusedAsset() signal.Asset { return signal.NewAsset(o.Group, "edge", o.Node) }

// addRefused puts what a source refused into the pack, each in a message of its
// own: one message is one record.
func (p *packer) addRefused(refused []source.Refusal) {
	for i := range refused {
		in := &refused[i]
		if !p.a.refusals.take(time.Now()) {
			continue
		}
		r := record.Refusal{
			Source: in.Source, From: clipText(in.From), Reason: clipText(in.Reason), Bytes: in.Bytes, Uncarried: p.a.refusals.unsaid,
		}
		p.a.refusals.unsaid = 0
		if n := len(r.Bytes); n > maxRefusedBytes {
			r.Cut, r.Bytes = int64(n), r.Bytes[:maxRefusedBytes]
		}
		stream := signal.NewStream(p.a.opt.refusedAsset(), signal.Refused)
		at := signal.MicrosOf(p.a.opt.Clock.Now())
		p.messages = append(p.messages, signal.Batch{Origin: signal.Origin{Stream: stream, Config: p.a.opt.config()}})
		p.seen = append(p.seen, outbox.Progress{Stream: stream, SeenTo: at})
		p.taken++
		p.put(len(p.messages)-1, []signal.Reading{r.Reading(at)})
		p.bytes += len(in.Bytes)
	}
}

func clipText(s string) string {
	if len(s) <= maxRefusedText {
		return s
	}
	return s[:maxRefusedText] + "…"
}
