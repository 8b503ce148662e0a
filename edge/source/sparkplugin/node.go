package sparkplugin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

const (
	// maxNodes and maxSensors bound what others can make the source remember.
	maxNodes   = 4096
	maxSensors = 1 << 18
)

// node is an edge node of the plant.
type node struct {
	topic   sparkplug.Topic // group and edge alone
	host    *sparkplug.HostSession
	order   order[held]
	asked   time.Time // when a rebirth was last asked for
	born    bool      // the session has the node's birth
	bdSeq   uint64    // of that
	unborn  []held    // what waits in the session for a birth, the oldest first
	sensors map[string]map[string]*sensor
}

// held is a message that waits for one before it.
type held struct {
	topic   sparkplug.Topic
	message mqttc.Message
}

// sensor is a metric's place and its newest value, which a death makes stale.
type sensor struct {
	asset  signal.Asset
	name   string
	class  signal.Class
	unit   string
	refuse error // it has no place
	last   signal.Reading
	known  bool // last is a value, and alive
}

// plantAsset stands for every device inside of the host session: which asset a
// metric is of, the rules say.
const plantAsset = signal.Asset("plant/of/others")

func (s *subscriber) node(t sparkplug.Topic) (*node, error) {
	id := t.EdgeID()
	n := s.nodes[id]
	if n == nil {
		if len(s.nodes) >= maxNodes {
			return nil, fmt.Errorf("more than %d edge nodes", maxNodes)
		}
		n = &node{topic: sparkplug.Topic{Group: t.Group, Edge: t.Edge}, sensors: map[string]map[string]*sensor{}}
		n.host = sparkplug.NewHostSession(sparkplug.HostConfig{
			Group: t.Group, Edge: t.Edge, WaitFor: s.opt.WaitFor, RebirthEvery: 1, // n.asked throttles
			Asset:  func(sparkplug.Topic) (signal.Asset, error) { return plantAsset, nil },
			Sensor: func(metric string) (string, error) { return metric, nil },
		})
		s.nodes[strings.Clone(id)] = n
	}
	return n, nil
}

// message takes one message of the broker.
func (s *subscriber) message(m mqttc.Message) {
	t, err := sparkplug.ParseTopic(m.Topic)
	switch {
	case err != nil:
		s.refuse(m, err)
		return
	case t.Type == sparkplug.StateT:
		s.state(t, m)
		return
	case m.Retained || t.Type == sparkplug.NCmd || t.Type == sparkplug.DCmd:
		return // from another time, or for the nodes
	}
	if err := sparkplug.DecodePayload(m.Payload, &s.payload); err != nil {
		if t.Type != sparkplug.NDeath {
			s.refuse(m, err)
			return
		}
		s.payload = sparkplug.Payload{} // a will is the broker's to send, and some change it
	}
	n, err := s.node(t)
	if err != nil {
		s.refuse(m, err)
		return
	}
	wall := time.Now()
	seq, has := uint8(s.payload.Seq), s.payload.HasSeq
	switch {
	case t.Type == sparkplug.NBirth:
		s.giveUpAll(n, wall)
		n.order.reset(seq)
	case t.Type == sparkplug.NDeath:
		s.giveUpAll(n, wall)
	case !has:
	default:
		switch n.order.take(wall, seq, func() held { return held{t, m} }) {
		case later:
			s.gapped[n] = struct{}{}
			if due, ok := n.order.due(s.opt.ReorderFor); ok && !due.After(wall) {
				s.giveUp(n, wall)
			}
			return
		case late:
			s.count(func() { s.counts.late++ })
		}
	}
	s.deliver(n, t, m, &s.payload)
	s.drain(n)
}

// drain delivers what waited for the message before.
func (s *subscriber) drain(n *node) {
	for {
		h, ok := n.order.ready()
		if !ok {
			return
		}
		// It could be decoded before.
		if err := sparkplug.DecodePayload(h.message.Payload, &s.waited); err == nil {
			s.deliver(n, h.topic, h.message, &s.waited)
		}
	}
}

// giveUp counts the gap before what waits and delivers that.
func (s *subscriber) giveUp(n *node, wall time.Time) {
	gap := n.order.skip()
	if gap > 0 {
		s.count(func() { s.counts.gaps += int64(gap) })
		s.log.Warn("messages of a Sparkplug node are missing", "node", n.topic.EdgeID(), "messages", gap)
		s.ask(n, wall)
	}
	s.drain(n)
}

// giveUpAll is giveUp for every gap: the node begins anew.
func (s *subscriber) giveUpAll(n *node, wall time.Time) {
	for len(n.order.waiting) > 0 {
		s.giveUp(n, wall)
	}
}

// expired gives up what has waited for the reorder time, and tells how long the
// next one waits.
func (s *subscriber) expired(wall time.Time) time.Duration {
	wait := time.Hour
	for n := range s.gapped {
		due, ok := n.order.due(s.opt.ReorderFor)
		for ok && !due.After(wall) {
			s.giveUp(n, wall)
			due, ok = n.order.due(s.opt.ReorderFor)
		}
		if !ok {
			delete(s.gapped, n)
			continue
		}
		wait = min(wait, due.Sub(wall))
	}
	return wait
}

// ask asks a node for its births, no more often than it can answer.
func (s *subscriber) ask(n *node, wall time.Time) {
	if !n.asked.IsZero() && wall.Sub(n.asked) < s.opt.RebirthEvery {
		return
	}
	n.asked = wall
	s.count(func() { s.counts.rebirths++ })
	s.commands = append(s.commands, sparkplug.RebirthCommand(n.topic.Group, n.topic.Edge, signal.MicrosOf(s.opt.Clock.Now())))
}

// deliver does what the node's session makes of a message and its payload.
func (s *subscriber) deliver(n *node, t sparkplug.Topic, m mqttc.Message, p *sparkplug.Payload) {
	wall := time.Now()
	plant := signal.MicrosOf(s.opt.Clock.Now())
	if plant%1000 == 0 {
		plant++ // no time of Sparkplug's: what has it, had none
	}
	p.HasSeq = false // the order is kept here
	// A Headrace edge is a node like any other: it is its own bridge's to
	// acknowledge.
	p.UUID, p.Body = "", nil
	if m := bdSeqOf(p); m != nil && n.born && t.Type == sparkplug.NDeath && m.Value.Bits == (n.bdSeq+1)%256 {
		// pysparkplug says goodbye with the number of the connection that it would
		// make next. No other death can have it.
		m.Value.Bits = n.bdSeq
	}
	r := n.host.Receive(plant, wall, t, p)
	s.count(func() {
		s.counts.messages++
		s.counts.skipped += int64(r.Skipped)
		s.counts.expired += int64(r.Expired)
		if r.Outcome == sparkplug.Waiting {
			s.counts.waiting++
		}
	})
	if r.Rebirth {
		s.ask(n, wall)
	}
	for _, h := range n.unborn[:min(r.Expired, len(n.unborn))] {
		s.refuse(h.message, fmt.Errorf("it waited %s for the birth that says what its aliases mean", s.opt.WaitFor))
	}
	n.unborn = slices.Delete(n.unborn, 0, min(r.Expired, len(n.unborn)))
	if r.Outcome == sparkplug.Waiting {
		n.unborn = append(n.unborn, held{t, m})
	}
	switch r.Outcome {
	case sparkplug.Refused:
		s.refuse(m, fmt.Errorf("%s", r.Reason))
		return
	case sparkplug.Accepted:
	default:
		return
	}
	if r.Event != nil {
		switch r.Event.Kind {
		case record.KindNDeath:
			n.order.forget()
			n.born = false
			s.count(func() { s.counts.deaths++ })
			for _, device := range slices.Sorted(maps.Keys(n.sensors)) {
				s.stale(n, device, plant, true)
			}
		case record.KindDDeath:
			s.count(func() { s.counts.deaths++ })
			s.stale(n, t.Device, r.Event.Time, r.Event.Time == plant)
		default:
			s.count(func() { s.counts.births++ })
			if r.Event.Kind == record.KindNBirth {
				n.born, n.bdSeq = true, r.Event.BdSeq
			}
			if n.born { // what waited for it is among the batches
				n.unborn = slices.DeleteFunc(n.unborn, func(h held) bool { return h.topic.Device == t.Device })
			}
			// The values that a birth holds are the newest: what changes once a
			// year is heard of in no other way.
			s.readings(n, t, m, plant, r.Event.Held, true)
		}
	}
	for i := range r.Batches {
		s.readings(n, t, m, plant, r.Batches[i].Readings, false)
	}
}

// bdSeqOf finds the bdSeq of a node's birth or death.
func bdSeqOf(p *sparkplug.Payload) *sparkplug.Metric {
	for i := range p.Metrics {
		if m := &p.Metrics[i]; m.Name == "bdSeq" && (m.Value.Field == sparkplug.FieldInt || m.Value.Field == sparkplug.FieldLong) {
			return m
		}
	}
	return nil
}

// readings hands on what a message of a device says; of a birth what is news.
func (s *subscriber) readings(n *node, t sparkplug.Topic, m mqttc.Message, plant signal.Micros, readings []signal.Reading, birth bool) {
	var refused error
	for i := range readings {
		r := readings[i]
		x := s.sensor(n, t, r.Sensor)
		if x.refuse != nil {
			refused = x.refuse
			continue
		}
		if birth && (r.Value.Kind == signal.Null && r.Rescued == "" || x.known && x.last.EventTime == r.EventTime && x.last.Value.Equal(r.Value)) {
			continue
		}
		arrived := r.EventTime == plant
		r.Sensor = x.name
		if r.Unit == "" {
			r.Unit = x.unit
		}
		if !x.known || r.EventTime >= x.last.EventTime {
			x.last, x.known = r, true
		}
		s.put(item{sample: source.Sample{Asset: x.asset, Class: x.class, Reading: r, Arrived: arrived}})
	}
	if refused != nil {
		s.refuse(m, refused)
	}
}

// stale tells of every sensor of a device that has died that its value is not
// known to hold any more, at the time of the death. Nothing moves alive_at until
// the device is born again.
func (s *subscriber) stale(n *node, device string, at signal.Micros, arrived bool) {
	sensors := n.sensors[device]
	for _, metric := range slices.Sorted(maps.Keys(sensors)) {
		x := sensors[metric]
		if !x.known {
			continue
		}
		x.known = false
		r := x.last
		r.EventTime = max(at, r.EventTime)
		r.AliveAt, r.Quality, r.Historical, r.Rescued = r.EventTime, signal.QualityStale, false, ""
		s.put(item{sample: source.Sample{Asset: x.asset, Class: x.class, Reading: r, Arrived: arrived}})
	}
}

// sensor finds the place of a device's metric.
func (s *subscriber) sensor(n *node, t sparkplug.Topic, metric string) *sensor {
	sensors := n.sensors[t.Device]
	if x := sensors[metric]; x != nil {
		return x
	}
	x := &sensor{}
	p, err := s.opt.Rules.place(t, metric)
	if err == nil {
		x.asset, x.name, x.class, x.unit = p.Path.Asset(), p.Path.Sensor(), p.Class, p.Unit
		if site, _, _ := x.asset.Split(); site != s.opt.Site {
			err = fmt.Errorf("it is of site %s; this edge is of %s", site, s.opt.Site)
		}
	}
	owner := t.EdgeID() + "/" + t.Device + "/" + metric
	if other, taken := s.paths[p.Path]; err == nil && taken {
		err = fmt.Errorf("%s and %s would both be sensor %s; map one to another", other, owner, p.Path)
	}
	if err == nil && len(s.paths) >= maxSensors {
		x.refuse = fmt.Errorf("more than %d sensors", maxSensors)
		return x
	}
	if err != nil {
		x.refuse = fmt.Errorf("metric %q: %w", metric, err)
	} else {
		s.paths[p.Path] = owner
	}
	if s.remembered < maxSensors {
		if sensors == nil {
			sensors = map[string]*sensor{}
			n.sensors[strings.Clone(t.Device)] = sensors
		}
		sensors[strings.Clone(metric)] = x
		s.remembered++
	}
	return x
}

// refuse hands on a message that is no reading, or of which a metric is none.
func (s *subscriber) refuse(m mqttc.Message, err error) {
	s.count(func() { s.counts.refused++ })
	s.log.Warn("a message of the Sparkplug source is refused", "topic", m.Topic, "cause", err)
	s.put(item{refused: &source.Refusal{Source: Kind, From: m.Topic, Reason: err.Error(), Bytes: m.Payload}})
}
