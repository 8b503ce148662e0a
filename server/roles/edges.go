package roles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
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
	filters    *filter.Set
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
	if r.filters, err = filter.ByName(p.Filters); err != nil {
		return err
	}
	if r.recordings, err = source.List(dir, site); err != nil {
		return err
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

// startEdges starts one agent a recording.
func (p *process) startEdges(context.Context) error {
	r := p.replay
	if r == nil {
		return nil
	}
	agents := make([]*edge.Agent, 0, len(r.recordings))
	for _, rec := range r.recordings {
		agent, err := edge.New(edge.Options{
			Dir:        p.edgeDir(r, rec),
			Group:      r.site,
			Node:       rec.Node,
			Open:       rec.Open,
			Filter:     r.filters,
			MQTT:       mqttc.Config{Addresses: p.mqtt},
			Clock:      r.clock,
			Pace:       r.clock.Join(),
			FloorBytes: floorBytes,
			Log:        p.Log.With("edge", r.site+"/"+rec.Node),
			Reached:    p.Reached,
		})
		if err != nil {
			return fmt.Errorf("edge %s of recording %s: %w", rec.Node, filepath.Base(rec.File), err)
		}
		agents = append(agents, agent)
	}
	p.mu.Lock()
	p.agents = agents
	p.mu.Unlock()
	for i, agent := range agents {
		p.stack.run("edge "+r.recordings[i].Node, agent.Run)
	}
	return nil
}

// assets lists what the recordings are of.
func (r *replay) assets() []signal.Asset {
	out := make([]signal.Asset, 0, len(r.recordings))
	for _, rec := range r.recordings {
		out = append(out, rec.Asset)
	}
	return out
}
