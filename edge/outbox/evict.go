package outbox

import (
	"fmt"
	"slices"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// carryHead is at most what stands before the record of a message.
const carryHead = 512

// carry is a message that is written again, since its segment goes.
type carry struct {
	frozen
	boot   *bootIndex
	stream uint32
}

func (o *Outbox) wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.wantRoom = false }()
	return o.wantRoom && o.bytes()+int64(o.queued) >= o.opt.QuotaBytes
}

// makeRoom gives up the messages of the oldest segment that can go, and deletes
// it. Its messages of class event are written again in the newest, unless nothing
// but events is left; then they go too, if events may. What was given up is
// counted by a durable frame before the file goes. It tells whether one went.
func (o *Outbox) makeRoom(events bool) (did bool, err error) {
	o.mu.Lock()
	o.stateDirty = true
	reapable := o.beginAcks()
	var keep []carry
	var victim *segment
	if len(reapable) == 0 {
		var alsoEvents bool
		if victim, alsoEvents = o.victim(events); victim == nil {
			o.mu.Unlock()
			return false, nil
		}
		if keep, err = o.evict(victim, alsoEvents); err != nil {
			o.mu.Unlock()
			return false, fmt.Errorf("giving up the oldest of it: %w", err)
		}
		o.beginAcks()
	}
	o.mu.Unlock()
	where, payloadAt, err := o.writeFrame(nil, keep)
	if err != nil {
		return false, err
	}
	o.committed(nil, keep, where, payloadAt)
	if victim != nil {
		o.opt.Reached.At("edge.evicted")
		o.mu.Lock()
		if victim.waiting == 0 {
			reapable = append(reapable, victim.number)
		}
		o.mu.Unlock()
	}
	o.reap(reapable)
	return len(reapable) > 0, nil
}

// victim is the oldest segment with something to give up, which is not one of the
// newest two; alsoEvents tells that only events are left. o.mu is held.
func (o *Outbox) victim(events bool) (s *segment, alsoEvents bool) {
	old := o.index.segments[:max(len(o.index.segments)-2, 0)]
	if i := slices.IndexFunc(old, func(s *segment) bool { return s.waiting > s.events }); i >= 0 {
		return old[i], false
	}
	if i := slices.IndexFunc(old, func(s *segment) bool { return s.waiting > 0 }); i >= 0 && events {
		return old[i], true
	}
	return nil, false
}

// evict takes the messages of a segment out and counts them; it returns those
// that must be written again. o.mu is held.
func (o *Outbox) evict(s *segment, alsoEvents bool) (keep []carry, err error) {
	if !o.index.heat(s) || s.file == nil {
		return nil, nil // what it held is lost and counted as such
	}
	touched := map[*streamIndex]bool{}
	var batch signal.Batch
	_, err = scan(s.file, s.size, func(at int64, payload []byte) error {
		g, err := parseGroup(payload)
		if err != nil {
			return nil //nolint:nilerr // whole, but not a frame of ours
		}
		for i := range g.messages {
			m := &g.messages[i]
			if m.boot == "" {
				m.boot = g.boot
			}
			b := o.index.boot(m.boot)
			in, p, waits := o.index.get(b, m.seq)
			if !waits || in != s || int64(p.at) != at+m.at {
				continue
			}
			st := o.index.streams[p.stream]
			if st.class == signal.Event && !alsoEvents {
				m.record = slices.Clone(m.record)
				keep = append(keep, carry{*m, b, p.stream})
				continue
			}
			samples := uint64(0)
			if st.class == signal.Raw && record.Decode(m.record, &batch) == nil {
				samples = record.Samples(&batch)
			}
			o.index.take(b, m.seq, s, p)
			c := &o.st.counters
			c.Shipped -= m.readings
			c.Evicted += m.readings
			c.SamplesShipped -= min(samples, c.SamplesShipped)
			c.SamplesEvicted += samples
			c.EvictedMessages++
			if st.class == signal.Event {
				c.EvictedEvents += m.readings
			}
			if st.hole == (Hole{}) {
				o.holes++
			}
			st.hole.widen(m.readings, samples, m.from)
			touched[st] = true
		}
		return nil
	})
	for st := range touched {
		h := st.hole
		o.newHoles = append(o.newHoles, Progress{Stream: st.name, hole: &h})
	}
	return keep, err
}

// carried notes where messages lie that were written again; o.mu is held.
func (o *Outbox) carried(carry []carry, s *segment, payloadAt int64) {
	for i := range carry {
		c := &carry[i]
		in, old, waits := o.index.get(c.boot, c.seq)
		if !waits {
			continue // acknowledged meanwhile
		}
		o.index.count(c.boot, in, old, -1)
		p := c.place(payloadAt, c.stream)
		at, known := c.boot.findKept(c.seq)
		if known {
			c.boot.kept[at] = carried{c.seq, s, p}
		} else {
			c.boot.kept = slices.Insert(c.boot.kept, at, carried{c.seq, s, p})
		}
		c.boot.span(s.number)
		o.index.count(c.boot, s, p, 1)
	}
}

// untold is what remains of the holes of which commits tell; o.mu is held.
func (o *Outbox) untold(take []*pending) map[signal.Stream]Hole {
	var out map[signal.Stream]Hole
	for _, p := range take {
		for _, t := range p.commit.Told {
			if out == nil {
				out = map[signal.Stream]Hole{}
			}
			h, again := out[t.Stream]
			if !again {
				h = o.index.streams[o.index.stream(t.Stream)].hole
			}
			h.Readings -= min(h.Readings, t.Readings)
			h.Samples -= min(h.Samples, t.Samples)
			if h.Readings == 0 && h.Samples == 0 {
				h = Hole{}
			}
			out[t.Stream] = h
		}
	}
	return out
}

// Holes are what was given up and not told, once there is room to tell it.
func (o *Outbox) Holes() []Told {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holes == 0 || o.stalled != nil || o.bytes() > o.opt.QuotaBytes/4*3 {
		return nil
	}
	var out []Told
	for _, s := range o.index.streams {
		if s.hole != (Hole{}) {
			out = append(out, Told{s.name, s.hole})
		}
	}
	return out
}
