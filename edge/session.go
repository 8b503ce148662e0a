package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

const (
	subscribeTimeout = 10 * time.Second
	// maxHosts and maxAcks bound what others can make a session hold. An
	// acknowledgement beyond it frees its window when its messages are due.
	maxHosts = 1000
	maxAcks  = 4096
	tick     = time.Second
)

// session is one connection. receive fills it from the connection's goroutine,
// and the publisher's takes it out.
type session struct {
	p        *publisher
	conn     *mqttc.Conn
	ackTopic string
	cmdTopic string
	remote   remoteTopics
	said     said
	granted  bool // the broker lets the edge be asked
	signal   chan struct{}

	mu      sync.Mutex
	payload sparkplug.Payload
	hosts   map[string]sparkplug.State
	news    news
}

// news is what came in.
type news struct {
	acks   []sparkplug.Ack
	born   bool // a host came online, or asked for a birth
	online bool
}

// session connects and sends until the connection ends, ctx ends, or no host
// has been online there for long enough. The error is why.
func (p *publisher) session(ctx context.Context, address string) error {
	o := &p.a.opt
	p.node.Connect(p.nextBdSeq())
	s := &session{
		p: p, signal: make(chan struct{}, 1), hosts: map[string]sparkplug.State{},
		ackTopic: sparkplug.AckTopic(o.Group, o.Node), cmdTopic: sparkplug.CommandTopic(o.Group, o.Node),
		remote: remoteTopicsOf(o),
	}
	will := p.node.Will(p.now())
	cfg := o.MQTT
	cfg.Addresses, cfg.ClientID, cfg.CleanSession = []string{address}, clientID(o.Group, o.Node), true
	cfg.Will = &mqttc.Will{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS, Retained: will.Retained}
	cfg.OnMessage = s.receive
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	s.conn = conn
	p.sessions.Add(1)
	p.connected.Store(true)
	defer func() {
		conn.Abort()
		<-conn.Done()
		p.connected.Store(false)
		p.online.Store(false)
	}()
	subscribing, cancel := context.WithTimeout(ctx, subscribeTimeout)
	err = conn.Subscribe(subscribing, map[string]byte{s.ackTopic: 0, s.cmdTopic: 1, sparkplug.StateTopic("+"): 1})
	if err == nil {
		s.granted = s.listen(subscribing)
	}
	cancel()
	if err == nil {
		err = s.run(ctx)
	}
	if conn.Err() != nil {
		return conn.Err()
	}
	return errors.Join(err, s.leave())
}

// leave says goodbye.
func (s *session) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	death := s.p.node.Death(s.p.now())
	if err := s.conn.Publish(ctx, death.Topic, death.QoS, death.Retained, death.Payload); err != nil {
		return err
	}
	return s.conn.Close(ctx)
}

// receive is called by the connection for each message.
func (s *session) receive(m mqttc.Message) {
	m.Ack()
	switch m.Topic {
	case s.ackTopic:
		a, err := sparkplug.ParseAck(m.Payload)
		if err != nil {
			s.p.log.Warn("acknowledgement cannot be read", "error", err)
			return
		}
		s.p.a.meter.Ack(egress.Packet(m.Topic, len(m.Payload)))
		s.p.box.Ack(a.Boot, a.Ranges)
		s.mu.Lock()
		if len(s.news.acks) < maxAcks {
			s.news.acks = append(s.news.acks, a)
		}
		s.mu.Unlock()
	case s.cmdTopic:
		s.mu.Lock()
		if err := sparkplug.DecodePayload(m.Payload, &s.payload); err != nil {
			s.p.log.Warn("command cannot be read", "error", err)
		} else if s.p.node.Rebirth(&s.payload) {
			s.news.born = true
		}
		s.mu.Unlock()
	case s.remote.request:
		s.asked(m.Payload)
	case s.remote.config:
		s.desired(m.Payload)
	default:
		s.state(m)
	}
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// maxAhead is how far a host's clock may be ahead of ours.
const maxAhead = 24 * time.Hour

// clockSet is a time that has been: a clock behind it was never set, as that of a
// gateway that has just started, and judges nobody.
func clockSet() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }

// state notes what a host says of itself.
func (s *session) state(m mqttc.Message) {
	t, err := sparkplug.ParseTopic(m.Topic)
	if err != nil || t.Type != sparkplug.StateT {
		return
	}
	heard, err := sparkplug.ParseState(m.Payload)
	if err != nil {
		s.p.log.Warn("state of a host cannot be read", "host", t.Host, "error", err)
		return
	}
	if now := time.Now(); now.After(clockSet()) && heard.Timestamp > uint64(now.Add(maxAhead).UnixMilli()) {
		// Taken for true, it would outlast every honest state.
		s.p.log.Warn("state of a host is from the future and is ignored; check the clocks", "host", t.Host)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.hosts[t.Host]
	if !known && len(s.hosts) >= maxHosts {
		return
	}
	after := before.Next(heard)
	s.hosts[t.Host] = after
	// A host that comes online anew knows no alias of ours.
	if after.Online && (!before.Online || after.Timestamp != before.Timestamp) {
		s.news.born = true
	}
	s.news.online = false
	for _, h := range s.hosts {
		s.news.online = s.news.online || h.Online
	}
}

// take returns what came in since the last call.
func (s *session) take() news {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.news
	s.news.acks, s.news.born = nil, false
	return n
}

// run is the session's loop.
func (s *session) run(ctx context.Context) error {
	p := s.p
	offline := time.Now() // since when
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := p.box.Changed()
		n := s.take()
		news, err := s.speak(ctx)
		if err != nil {
			return err
		}
		n.born = n.born || news
		for _, a := range n.acks {
			p.flight.acked(a.Boot, a.Ranges)
		}
		more := false
		if n.online {
			if !p.online.Swap(true) {
				n.born = true
			}
			offline = time.Now()
			if n.born {
				if err := s.birth(ctx); err != nil {
					return err
				}
			}
			if more, err = s.send(ctx); err != nil {
				return err
			}
			if err := s.tell(ctx); err != nil {
				return err
			}
			if p.a.opt.AlarmMQTT == nil {
				if err := p.a.board.publish(ctx, s.conn, p.a.opt.Group, p.a.opt.Node, n.born); err != nil {
					return err
				}
			}
		} else {
			p.online.Store(false)
			// With one address there is no better place to go to.
			if d := time.Since(offline); d >= p.a.opt.HostGrace && len(p.a.opt.MQTT.Addresses) > 1 {
				return fmt.Errorf("no bridge has been online there for %s", p.a.opt.HostGrace)
			}
		}
		wait := tick
		if first := p.flight.first(); first != nil && n.online {
			wait = min(wait, time.Until(first.due))
		}
		if more {
			wait = 0
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.conn.Done():
			return s.conn.Err()
		case <-changed:
		case <-s.signal:
		case <-p.woken:
			s.said.at = time.Time{}
		case <-timer.C:
		}
	}
}

// birth declares the node and what it knows of its devices. Whoever asked for
// it has dropped what came before: it goes again soon.
func (s *session) birth(ctx context.Context) error {
	p := s.p
	for _, m := range p.node.Birth(p.now()) {
		if err := s.publish(ctx, m); err != nil {
			return err
		}
		p.a.meter.Birth(egress.Packet(m.Topic, len(m.Payload)))
	}
	p.births.Add(1)
	p.flight.hasten(time.Now().Add(afterBirth), p.a.opt.ResendAfter)
	// What waited through an outage is older than what the births say.
	if time.Since(p.liveAt) > p.a.opt.ResendAfter {
		if last := p.box.Durable(); last > p.liveAfter {
			p.older = append(p.older, backlog{p.box.Boot(), p.liveAfter, last})
			p.liveAfter = last
		}
	}
	return nil
}

func (s *session) publish(ctx context.Context, m sparkplug.Message) error {
	_, err := s.conn.PublishAsync(ctx, m.Topic, m.QoS, m.Retained, m.Payload)
	return err
}

func (p *publisher) now() signal.Micros { return signal.MicrosOf(p.a.opt.Clock.Now()) }
