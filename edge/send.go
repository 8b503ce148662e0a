package edge

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/signal"
)

const (
	// maxRound bounds how many messages of each kind go out before the session
	// looks up again.
	maxRound = 64
	// quiet is how long a stream is silent before its complete_to goes alone.
	quiet = time.Second
	// refreshEvery is how often hosts get the newest values beside history.
	refreshEvery = 5 * time.Second
)

// send sends what the windows allow: what is due again, what earlier boots
// left, and what is new, in turns. It tells whether there may be more.
func (s *session) send(ctx context.Context) (more bool, err error) {
	p := s.p
	p.liveAt = time.Now()
	for range maxRound {
		again, err := s.sendAgain(ctx)
		if err != nil {
			return false, err
		}
		older, err := s.sendOlder(ctx)
		if err != nil {
			return false, err
		}
		newer, err := s.sendNewer(ctx)
		if err != nil {
			return false, err
		}
		if !again && !older && !newer {
			return false, nil
		}
	}
	return true, nil
}

// sendAgain sends the message that is due first.
func (s *session) sendAgain(ctx context.Context) (did bool, err error) {
	p := s.p
	m := p.flight.first()
	now := time.Now()
	if m == nil || m.due.After(now) {
		return false, nil
	}
	gone, err := s.sendMessage(ctx, m.message, true)
	switch {
	case err != nil:
		return false, err
	case gone:
		p.flight.drop(m)
	default:
		p.flight.again(m, now, p.a.opt.MaxResendAfter)
		p.box.Retried(m.readings)
	}
	return true, nil
}

// sendOlder sends the next message of what waited.
func (s *session) sendOlder(ctx context.Context) (did bool, err error) {
	p := s.p
	for len(p.older) > 0 {
		b := &p.older[0]
		info, ok := p.box.Next(b.boot, b.after)
		if !ok || info.Seq > b.to {
			p.older = p.older[1:]
			continue
		}
		if !p.flight.room(history, info.Bytes) {
			return false, nil
		}
		b.after = info.Seq
		return true, s.sendFirst(ctx, info, history, true)
	}
	return false, nil
}

// sendNewer sends the next message of this boot. Without an outage first copies of
// a stream so go out in the order of their n.
func (s *session) sendNewer(ctx context.Context) (did bool, err error) {
	p := s.p
	info, ok := p.box.Next(p.box.Boot(), p.liveAfter)
	if !ok || !p.flight.room(live, info.Bytes) {
		return false, nil
	}
	p.liveAfter = info.Seq
	return true, s.sendFirst(ctx, info, live, false)
}

func (s *session) sendFirst(ctx context.Context, info outbox.Info, l lane, historical bool) error {
	p := s.p
	m := &sent{
		message: message{info.Boot, info.Seq}, lane: l, bytes: info.Bytes, readings: info.Readings,
		wait: p.a.opt.ResendAfter, due: time.Now().Add(p.a.opt.ResendAfter),
	}
	// In flight before it is on the wire: its acknowledgement may be as quick,
	// and if the wire breaks it goes again.
	p.flight.add(m)
	gone, err := s.sendMessage(ctx, m.message, historical)
	if gone {
		p.flight.drop(m)
	}
	return err
}

// sendMessage reads a message back and publishes it, with the birth it may
// need before. gone tells that there is nothing to send any more.
func (s *session) sendMessage(ctx context.Context, m message, historical bool) (gone bool, err error) {
	p := s.p
	err = p.box.Read(m.boot, m.seq, &p.batch)
	switch {
	case errors.Is(err, outbox.ErrGone), errors.Is(err, outbox.ErrLost):
		return true, nil
	case err != nil:
		return false, err
	}
	b := &p.batch
	asset, class := b.Stream.Split()
	if historical {
		for i := range b.Readings {
			b.Readings[i].Historical = true
		}
		p.refresh[asset] = true
	}
	var refused error
	p.out, refused = p.node.Data(p.out[:0], p.now(), b)
	for i, out := range p.out {
		if err := s.publish(ctx, out); err != nil {
			return false, err
		}
		size := egress.Packet(out.Topic, len(out.Payload))
		switch {
		case i < len(p.out)-1 || refused != nil:
			p.a.meter.Birth(size)
		case class == signal.Refused:
			p.a.meter.Idle(size) // it holds no reading
		default:
			p.a.meter.Message(b, size, historical, func(sensor string) bool { return p.a.opt.derived(asset, sensor) })
		}
	}
	if refused != nil {
		// It stays in the outbox, where it can be looked at.
		p.refusedMessages.Add(1)
		p.log.Error("message cannot be sent and stays in the outbox", "error", refused)
		return true, nil
	}
	p.published.Add(1)
	p.sentReadings.Add(int64(len(b.Readings)))
	t := p.toldTo[b.Stream]
	p.toldTo[b.Stream] = told{max(t.completeTo, b.CompleteTo), time.Now()}
	return false, nil
}

// tell repeats how far idle streams are complete, and gives other hosts the
// newest values after history was sent.
func (s *session) tell(ctx context.Context) error {
	p := s.p
	now := time.Now()
	drained := p.box.Drained()
	if now.Sub(p.idleAt) < tick && (!drained || p.allTold.Load()) {
		return nil
	}
	p.idleAt = now
	all := true
	for _, st := range p.box.Streams() {
		t := p.toldTo[st.Stream]
		news := st.Idle && st.CompleteTo > t.completeTo
		silent := now.Sub(t.at)
		if due := news && (drained || silent >= quiet) || silent >= p.a.opt.IdleEvery; !due {
			all = all && !news
			continue
		}
		p.toldTo[st.Stream] = told{max(t.completeTo, st.CompleteTo), now}
		m, ok := p.node.Idle(p.now(), signal.Origin{
			Edge: p.node.ID(), Boot: p.box.Boot(), Stream: st.Stream, Config: p.a.opt.config(), CompleteTo: st.CompleteTo,
		})
		if !ok {
			continue
		}
		if err := s.publish(ctx, m); err != nil {
			return err
		}
		p.a.meter.Idle(egress.Packet(m.Topic, len(m.Payload)))
	}
	if p.allTold.Swap(all && drained) != (all && drained) {
		select {
		case p.toldSignal <- struct{}{}:
		default:
		}
	}
	return s.refresh(ctx, now)
}

// refresh sends the newest values of the assets of which history was sent.
func (s *session) refresh(ctx context.Context, now time.Time) error {
	p := s.p
	if len(p.refresh) == 0 || now.Sub(p.refreshAt) < refreshEvery {
		return nil
	}
	p.refreshAt = now
	assets := make([]signal.Asset, 0, len(p.refresh))
	for a := range p.refresh {
		assets = append(assets, a)
	}
	slices.Sort(assets)
	clear(p.refresh)
	for _, a := range assets {
		m, ok := p.node.Held(p.now(), a)
		if !ok {
			continue
		}
		if err := s.publish(ctx, m); err != nil {
			return err
		}
		p.a.meter.Idle(egress.Packet(m.Topic, len(m.Payload)))
	}
	return nil
}
