package roles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
)

// floorBytes is the free space below which intake stops.
const floorBytes = 32 << 20

// maxGap is the longest time without any event that a replay waits out.
const maxGap = time.Hour

// replay is what --replay named: recordings, and the clock that they share.
type replay struct {
	site       string
	recordings []source.Recording
	clock      *source.ReplayClock
}

// openReplay finds the recordings and sets the plant's clock to the first event
// that is still to come.
func (p *process) openReplay(context.Context) error {
	if p.Replay == "" {
		return nil
	}
	site, dir, err := source.ParseSpec(p.Replay)
	if err != nil {
		return err
	}
	r := &replay{site: site}
	var leftOut []string
	if r.recordings, leftOut, err = source.List(dir, site); err != nil {
		return err
	}
	for _, line := range leftOut {
		p.Log.Warn("not replayed: " + line)
	}
	start, err := p.resumesAt(r)
	if err != nil {
		return err
	}
	r.clock = source.NewReplayClock(source.ReplayOptions{Start: start, Speed: p.Speed, MaxGap: maxGap})
	p.clock, p.replay = r.clock, r
	return nil
}

func (p *process) edgeDir(r *replay, rec source.Recording) string {
	return p.Dir.Path("edges", r.site, rec.Node)
}

// resumesAt is the earliest of the recordings' starts, those left out that an
// earlier run has read to the end.
func (p *process) resumesAt(r *replay) (time.Time, error) {
	var first, last time.Time
	for _, rec := range r.recordings {
		start, err := rec.Start()
		if err != nil {
			return first, err
		}
		if start.After(last) {
			last = start
		}
		st, err := outbox.ReadState(edge.OutboxDir(p.edgeDir(r, rec)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return first, fmt.Errorf("edge %s of recording %s: %w", rec.Node, filepath.Base(rec.File), err)
		}
		if err == nil && st.SourceEnded {
			continue
		}
		if first.IsZero() || start.Before(first) {
			first = start
		}
	}
	if first.IsZero() {
		return last, nil
	}
	return first, nil
}

// startEdges starts an agent for each recording, and for each outbox that still
// holds something of a recording that is not there any more.
func (p *process) startEdges(context.Context) error {
	agents, err := p.leftAgents()
	if err != nil {
		return err
	}
	if r := p.replay; r != nil {
		for _, rec := range r.recordings {
			agent, err := p.agent(r.site, rec.Node, rec.Open, r.clock.Join())
			if err != nil {
				return fmt.Errorf("edge %s of recording %s: %w", rec.Node, filepath.Base(rec.File), err)
			}
			agents = append(agents, agent)
		}
	}
	p.mu.Lock()
	p.agents = agents
	p.mu.Unlock()
	for _, agent := range agents {
		p.stack.run("edge "+agent.Status().Edge, agent.Run)
	}
	return nil
}

func (p *process) agent(group, node string, open source.Opener, pace *source.Member) (*edge.Agent, error) {
	set, err := filter.ByName(p.Filters)
	if err != nil {
		return nil, err
	}
	return edge.New(edge.Options{
		Dir:        p.Dir.Path("edges", group, node),
		Group:      group,
		Node:       node,
		Open:       open,
		Filter:     set,
		MQTT:       mqttc.Config{Addresses: p.mqtt},
		Clock:      p.clock,
		Pace:       pace,
		FloorBytes: floorBytes,
		Log:        p.Log,
		Reached:    p.Reached,
	})
}

// leftAgents are the agents of outboxes without a recording.
func (p *process) leftAgents() ([]*edge.Agent, error) {
	if len(p.mqtt) == 0 {
		return nil, nil
	}
	dirs, err := filepath.Glob(p.Dir.Path("edges", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("looking for outboxes: %w", err)
	}
	var out []*edge.Agent
	for _, dir := range dirs {
		group, node := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if p.replay != nil && p.replay.has(group, node) {
			continue
		}
		st, err := outbox.ReadState(edge.OutboxDir(dir))
		if err != nil {
			return nil, fmt.Errorf("edge %s/%s: %w", group, node, err)
		}
		if len(st.Unacked) == 0 {
			continue
		}
		p.Log.Warn("an edge without a recording still has readings; they are sent", "edge", group+"/"+node, "messages", len(st.Unacked))
		agent, err := p.agent(group, node, source.Gone, nil)
		if err != nil {
			return nil, fmt.Errorf("edge %s/%s: %w", group, node, err)
		}
		out = append(out, agent)
	}
	return out, nil
}

// has tells whether the replay has the edge's recording.
func (r *replay) has(group, node string) bool {
	return group == r.site && slices.ContainsFunc(r.recordings, func(rec source.Recording) bool { return rec.Node == node })
}

// assets lists what the recordings are of.
func (r *replay) assets() []signal.Asset {
	out := make([]signal.Asset, 0, len(r.recordings))
	for _, rec := range r.recordings {
		out = append(out, rec.Asset)
	}
	return out
}
