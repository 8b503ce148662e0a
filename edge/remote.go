package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// Remote decides what a configuration that came over MQTT does. Its methods may not
// block.
type Remote interface {
	// Desired is told of the configuration that the edge shall run by.
	Desired(command.Desired)
	// Plan tells what a configuration would change; sensors, with their units, are
	// those measured of late.
	Plan(text string, sensors map[signal.Path]string) (command.Change, error)
	// Describe fills in what a report says of the configuration.
	Describe(*command.Report)
}

// remoteTopics are those on which the edge is asked.
type remoteTopics struct{ request, answer, config, state string }

func remoteTopicsOf(o *Options) remoteTopics {
	return remoteTopics{
		command.RequestTopic(o.Group, o.Node), command.AnswerTopic(o.Group, o.Node),
		command.ConfigTopic(o.Group, o.Node), command.StateTopic(o.Group, o.Node),
	}
}

// said is what this connection's broker has heard of the edge itself.
type said struct {
	at       time.Time // when that was looked at last
	reported time.Time
	text     []byte
	birth    []sparkplug.Said
}

// listen subscribes to what an edge may be asked. A broker that does not grant it
// still carries the readings; it is then told nothing of the edge either, since some
// end the connection of who publishes without the right to.
func (s *session) listen(ctx context.Context) bool {
	for _, topic := range []string{s.remote.request, s.remote.config} {
		if err := s.conn.Subscribe(ctx, map[string]byte{topic: 1}); err != nil {
			s.p.log.Warn("the broker grants no commands; the edge works without", "topic", topic, "error", err)
			return false
		}
	}
	return true
}

// asked takes a request.
func (s *session) asked(payload []byte) {
	r := s.p.a.replay
	q, err := command.ParseRequest(payload)
	switch {
	case err != nil:
		s.p.log.Warn("request cannot be read", "error", err)
		if q.ID != "" {
			r.answer(command.Answer{ID: q.ID, State: command.Refused, Reason: err.Error()})
		}
	case q.Verb == command.Replay, q.Verb == command.Plan:
		r.receive(q)
	default:
		r.answer(command.Answer{ID: q.ID, State: command.Refused, Reason: "the verb " + q.Verb + " is not known; this edge knows replay and plan"})
	}
}

const noConfig = "this edge has no configuration file of its own: it is part of a process of several roles"

// desired takes the configuration that the edge shall run by.
func (s *session) desired(payload []byte) {
	if len(payload) == 0 {
		return // a retained message was cleared
	}
	d, err := command.ParseDesired(payload)
	switch {
	case err != nil:
		s.p.log.Warn("desired configuration cannot be read", "error", err)
	case s.p.a.opt.Remote == nil:
		s.p.log.Warn("desired configuration is refused: " + noConfig)
	default:
		s.p.a.opt.Remote.Desired(d)
	}
}

// wake has the session look what it has to say.
func (p *publisher) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// speak publishes answers, and how the edge fares if that is news or due. It tells
// whether the births have something new to say.
func (s *session) speak(ctx context.Context) (born bool, err error) {
	now := time.Now()
	if now.Sub(s.said.at) < tick {
		return false, nil
	}
	s.said.at = now
	a := s.p.a
	answers := a.replay.takeAnswers()
	if !s.granted {
		answers = nil
	}
	for _, answer := range answers {
		b, err := json.Marshal(answer)
		if err != nil {
			return false, err
		}
		if _, err := s.conn.PublishAsync(ctx, s.remote.answer, 1, false, b); err != nil {
			return false, err
		}
	}
	r := a.Report()
	birth := []sparkplug.Said{{Name: "Config/Hash", Text: r.Config}, {Name: "Config/Status", Text: r.State}}
	if audit := a.replay.lastAudit(); audit != "" {
		birth = append(birth, sparkplug.Said{Name: "Command/Last", Text: audit})
	}
	if r.Request != "" {
		b, err := json.Marshal(map[string]string{"id": r.Request, "who": r.RequestWho, "why": r.RequestWhy})
		if err != nil {
			return false, err
		}
		birth = append(birth, sparkplug.Said{Name: "Config/Request", Text: string(b)})
	}
	if !slices.Equal(birth, s.said.birth) {
		born = s.said.birth != nil // the first birth is made anyway
		s.said.birth = birth
		s.p.node.Say(birth)
	}
	if !s.granted {
		return born, nil
	}
	figures := r.Figures
	r.Figures, r.Assets = nil, a.assets()
	text, err := json.Marshal(r)
	if err != nil {
		return born, err
	}
	if bytes.Equal(text, s.said.text) && now.Sub(s.said.reported) < command.ReportEvery {
		return born, nil
	}
	s.said.reported, s.said.text = now, text
	r.Time, r.Figures = now.UTC(), figures
	if text, err = json.Marshal(r); err != nil {
		return born, err
	}
	_, err = s.conn.PublishAsync(ctx, s.remote.state, 1, true, text)
	return born, err
}

// maxAssets bounds what a report lists.
const maxAssets = 5000

// assets are those whose readings the outbox has carried.
func (a *Agent) assets() []signal.Asset {
	var out []signal.Asset
	for _, s := range a.outbox.Streams() {
		asset, _ := s.Stream.Split()
		out = append(out, asset)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxAssets)]
}

// Report is what the edge says of itself; its time is not set.
func (a *Agent) Report() command.Report {
	st := a.Status()
	r := command.Report{Version: command.Version, Edge: st.Edge, Config: a.opt.config(), State: command.Applied, Host: st.Online, Figures: map[string]int64{}}
	if st.Stalled != nil {
		r.Stalled = st.Stalled.Error()
	}
	if a.opt.Remote != nil {
		a.opt.Remote.Describe(&r)
	}
	for _, c := range a.Counters() {
		r.Figures[c.Name] = c.Value
	}
	return r
}
