package roles

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/headrace/headrace/server"
)

// restEvery is how often the tables are asked whether all is where it ends.
const restEvery = time.Second

// resting remembers the last answer.
type resting struct {
	mu    sync.Mutex
	asked time.Time
	rests bool
}

// status is what the page shows of the process itself.
func (p *process) status() server.Status {
	p.mu.Lock()
	ready, agents, twinErr, run := p.ready, p.agents, p.twinErr, p.run
	p.mu.Unlock()
	s := server.Status{Ready: ready, Speed: 1, Version: p.Version, Roles: run.Roles, Addresses: addresses(run)}
	drained := p.feeds != nil && p.lake != nil
	if p.feeds != nil {
		s.Speed = p.Speed
	}
	offline := 0
	for _, a := range agents {
		drained = drained && a.Drained()
		st := a.Status()
		if st.Stalled != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("edge %s: intake waits: %v", st.Edge, st.Stalled))
		}
		if !st.Online {
			offline++
		}
	}
	if offline > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d of %d edges see no bridge online at their broker; they keep what they measure", offline, len(agents)))
	}
	if p.log != nil {
		for _, c := range p.log.Counters() {
			if c.Name == "intake_stopped_now" && c.Value > 0 {
				s.Problems = append(s.Problems, fmt.Sprintf("spine: intake is stopped: less than %d MiB are free on the disk of %s; make room there", floorBytes>>20, p.Dir.Path()))
			}
		}
	}
	if p.lake != nil {
		for _, f := range p.lake.Status() {
			if f.Err != nil {
				s.Problems = append(s.Problems, fmt.Sprintf("%s: %v", f.Flow, f.Err))
			}
		}
	}
	if p.predict != nil {
		if err := p.predict.worker.Err(); err != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("predict: %v", err))
		}
	}
	if twinErr != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("live twin: %v", twinErr))
	}
	s.Drained = drained && p.atRest()
	return s
}

// atRest asks the lake, once in a while.
func (p *process) atRest() bool {
	p.rest.mu.Lock()
	defer p.rest.mu.Unlock()
	if time.Since(p.rest.asked) >= restEvery {
		ctx, cancel := context.WithTimeout(context.Background(), restEvery)
		defer cancel()
		rests, err := p.lake.AtRest(ctx)
		if rests && err == nil {
			rests, err = p.predict.drained(ctx)
		}
		p.rest.rests, p.rest.asked = rests && err == nil, time.Now()
	}
	return p.rest.rests
}
