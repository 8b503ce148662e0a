package roles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/plant"
	"github.com/headrace/headrace/signal"
)

// floorBytes is the free space below which intake stops.
const floorBytes = 32 << 20

// maxGap is the longest time without any event that a replay waits out.
const maxGap = time.Hour

// feed is one edge and what it measures.
type feed struct {
	group, node string
	what        string // "recording 0.csv", for errors
	assets      []signal.Asset
	start       func() (time.Time, error) // its first event
	open        source.Opener
	vibration   *vibration.Set
	network     plant.Network // the way to the broker
}

// feeds are the edges of --replay or --plant, and the clock that they share.
type feeds struct {
	site  string
	edges []feed
	clock *source.ReplayClock
	plant *plant.Plant // nil under a replay
}

// openFeeds finds the recordings, or builds the plant, and sets the plant's
// clock to the first event that is still to come.
func (p *process) openFeeds(context.Context) error {
	var f *feeds
	var err error
	switch {
	case p.Replay != "":
		f, err = p.recordings()
	case p.Plant != "":
		f, err = p.simulated()
	default:
		return nil
	}
	if err != nil {
		return err
	}
	start, err := p.resumesAt(f)
	if err != nil {
		return err
	}
	f.clock = source.NewReplayClock(source.ReplayOptions{Start: start, Speed: p.Speed, MaxGap: maxGap})
	p.clock, p.feeds = f.clock, f
	return nil
}

func (p *process) recordings() (*feeds, error) {
	kind, dir, err := source.ParseSpec(p.Replay)
	if err != nil {
		return nil, err
	}
	list, leftOut, err := source.List(dir, kind)
	if err != nil {
		return nil, err
	}
	for _, line := range leftOut {
		p.Log.Warn("not replayed: " + line)
	}
	f := &feeds{site: kind}
	set := vibration.None()
	if kind == source.CWRU {
		set = vibration.CWRU()
	}
	for _, rec := range list {
		f.edges = append(f.edges, feed{
			group: kind, node: rec.Node, what: "recording " + filepath.Base(rec.File), assets: []signal.Asset{rec.Asset},
			start: rec.Start, open: rec.Open, vibration: set,
		})
	}
	return f, nil
}

func (p *process) simulated() (*feeds, error) {
	cfg, err := plant.Parse(p.Plant)
	if err != nil {
		return nil, err
	}
	sim, err := plant.Open(cfg, p.Dir.Path("plant"))
	if err != nil {
		return nil, err
	}
	f := &feeds{site: sim.Site(), plant: sim}
	edges, err := sim.Edges()
	if err != nil {
		return nil, err
	}
	for _, e := range edges {
		f.edges = append(f.edges, feed{
			group: sim.Site(), node: e.Node, what: "plant " + p.Plant, assets: e.Assets,
			start: func() (time.Time, error) { return sim.Start(), nil },
			open:  e.Open, vibration: e.Vibration, network: e.Network,
		})
	}
	return f, nil
}

// resumesAt is the newest time that an earlier run has reached, so that what
// waits in the outboxes does not lie ahead of the plant's clock; without an
// earlier run it is the earliest of the feeds' starts.
func (p *process) resumesAt(f *feeds) (time.Time, error) {
	var first, reached time.Time
	for _, e := range f.edges {
		start, err := e.start()
		if err != nil {
			return first, err
		}
		if first.IsZero() || start.Before(first) {
			first = start
		}
		st, err := outbox.ReadState(edge.OutboxDir(p.edgeDir(e.group, e.node)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return first, fmt.Errorf("edge %s of %s: %w", e.node, e.what, err)
		}
		if len(st.Position) == 0 {
			continue
		}
		at, err := e.reached(st.Position, p.Log)
		if err != nil {
			return first, fmt.Errorf("edge %s of %s: %w", e.node, e.what, err)
		}
		if at.After(reached) {
			reached = at
		}
	}
	if reached.After(first) {
		return reached, nil
	}
	return first, nil
}

// reached is the newest time before a position of the feed's source.
func (e *feed) reached(position []byte, log *slog.Logger) (time.Time, error) {
	src, err := e.open(position, log)
	if err != nil {
		return time.Time{}, err
	}
	var at time.Time
	if r, ok := src.(source.Resumer); ok {
		at = r.Reached()
	}
	return at, src.Close()
}

func (p *process) edgeDir(group, node string) string { return p.Dir.Path("edges", group, node) }

// startEdges starts an agent for each feed, and for each outbox that still
// holds something of a feed that is not there any more.
func (p *process) startEdges(context.Context) error {
	agents, err := p.leftAgents()
	if err != nil {
		return err
	}
	if p.feeds != nil {
		for _, e := range p.feeds.edges {
			agent, err := p.agent(e, p.feeds.clock.Join())
			if err != nil {
				return fmt.Errorf("edge %s of %s: %w", e.node, e.what, err)
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

func (p *process) agent(e feed, pace *source.Member) (*edge.Agent, error) {
	set, err := filter.ByName(p.Filters)
	if err != nil {
		return nil, err
	}
	broker := p.mqttConfig()
	broker.Dial = e.network.Over(p.clock, (&net.Dialer{}).DialContext)
	return edge.New(edge.Options{
		Dir:        p.edgeDir(e.group, e.node),
		Group:      e.group,
		Node:       e.node,
		Open:       e.open,
		Filter:     set,
		Vibration:  e.vibration,
		MQTT:       broker,
		Clock:      p.clock,
		Pace:       pace,
		FloorBytes: floorBytes,
		Log:        p.Log,
		Reached:    p.Reached,
	})
}

// leftAgents are the agents of outboxes without a feed.
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
		if p.feeds != nil && p.feeds.has(group, node) {
			continue
		}
		st, err := outbox.ReadState(edge.OutboxDir(dir))
		if err != nil {
			return nil, fmt.Errorf("edge %s/%s: %w", group, node, err)
		}
		if len(st.Unacked) == 0 {
			continue
		}
		p.Log.Warn("an edge without a source still has readings; they are sent", "edge", group+"/"+node, "messages", len(st.Unacked))
		agent, err := p.agent(feed{group: group, node: node, open: source.Gone}, nil)
		if err != nil {
			return nil, fmt.Errorf("edge %s/%s: %w", group, node, err)
		}
		out = append(out, agent)
	}
	return out, nil
}

func (f *feeds) has(group, node string) bool {
	return slices.ContainsFunc(f.edges, func(e feed) bool { return e.group == group && e.node == node })
}

// assets lists what the edges measure.
func (f *feeds) assets() []signal.Asset {
	var out []signal.Asset
	for _, e := range f.edges {
		out = append(out, e.assets...)
	}
	return out
}
