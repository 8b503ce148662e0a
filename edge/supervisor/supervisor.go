// Package supervisor runs an edge by its configuration file: a file that changes
// takes effect, a broken one stops neither a running edge nor a restart, and one
// under which the edge does not work is given up for the last that was good.
//
// What an edge does is package edge's, what a file says is package edge/config's.
package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/internal/wholefile"
	"github.com/headrace/headrace/signal"
)

// Options of a supervisor; durations that are zero take their defaults.
type Options struct {
	File    string // the configuration
	Dir     string // the edge's own directory
	Clock   signal.Clock
	Log     *slog.Logger
	Reached signal.Reached
	// Getenv reads the variables of passwords.
	Getenv func(string) string
	// LookEvery is how often the file is looked at.
	LookEvery time.Duration
	// Probation is how long an edge must work under a new file before that counts
	// as good.
	Probation time.Duration
}

// The defaults of [Options].
const (
	DefaultLookEvery = 2 * time.Second
	DefaultProbation = time.Minute
)

// The states of a configuration.
const (
	Applying = "applying" // on probation
	Applied  = "applied"
	Failed   = "failed" // the edge runs by the last good one
)

// Status is how the edge fares, and by which configuration.
type Status struct {
	Edge    string `json:"edge"`
	Config  string `json:"config"` // hash of what it runs by
	State   string `json:"state"`
	Cause   string `json:"cause,omitempty"` // of Failed
	Link    bool   `json:"connected"`       // to a broker
	Host    bool   `json:"host_online"`     // a bridge is online there
	Stalled string `json:"stalled,omitempty"`
	// Alarms are those of the local rules that last.
	Alarms  []rules.At       `json:"alarms,omitempty"`
	Figures map[string]int64 `json:"figures"`
}

// Supervisor runs one edge.
type Supervisor struct {
	opt     Options
	tried   []byte // the file as it was read last, good or not
	refused bool   // so it was, or what was pushed, and the edge runs by another
	desired chan command.Desired

	mu     sync.Mutex
	agent  *edge.Agent
	hash   string
	state  string
	cause  string
	edgeID string
	config *config.Config // that the agent runs by
	byPush bool
	pushed pushed // written by Run alone
}

// plan is a configuration and the text that says so.
type plan struct {
	*config.Config
	text   []byte
	pushed bool // it came over MQTT
}

// GoodName is the last good configuration in the edge's directory.
const GoodName = "config.good.yaml"

// New returns a supervisor that does nothing until Run.
func New(o Options) *Supervisor {
	if o.LookEvery <= 0 {
		o.LookEvery = DefaultLookEvery
	}
	if o.Probation <= 0 {
		o.Probation = DefaultProbation
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{opt: o, desired: make(chan command.Desired, 1)}
}

func (s *Supervisor) goodFile() string { return filepath.Join(s.opt.Dir, GoodName) }

// Run runs the edge until ctx ends. It fails only if there is no configuration
// that works, now or before.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.opt.Dir, 0o700); err != nil {
		return fmt.Errorf("starting the edge: %w", err)
	}
	s.loadPushed()
	now, err := s.first()
	state := Applying
	if err != nil {
		good, was := s.lastGood()
		if was != nil {
			return fmt.Errorf("starting the edge: %w", errors.Join(err, was))
		}
		s.opt.Log.Error("the configuration is refused; the edge goes on by the last good one", "cause", err)
		now, state = good, Failed
		s.note(Failed, err)
	}
	for ctx.Err() == nil {
		if now, state, err = s.runBy(ctx, now, state); err != nil {
			return err
		}
	}
	return nil
}

// read reads the file as it is now.
func (s *Supervisor) read() (plan, error) { return readPlan(s.opt.File) }

func readPlan(file string) (p plan, err error) {
	if p.text, err = os.ReadFile(file); err != nil {
		return p, fmt.Errorf("reading the edge's configuration: %w", err)
	}
	p.Config, err = config.Parse(file, p.text)
	return p, err
}

// lastGood reads the last good configuration.
func (s *Supervisor) lastGood() (plan, error) {
	p, err := readPlan(s.goodFile())
	if errors.Is(err, fs.ErrNotExist) {
		return p, errors.New("there is no last good configuration to go on by")
	}
	return p, err
}

func (s *Supervisor) note(state string, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.cause = state, ""
	if cause != nil {
		s.cause = cause.Error()
	}
}

// runBy runs the agent by a configuration until ctx ends, the file says something
// else that can be run by, or the agent fails. It returns what to run by next.
func (s *Supervisor) runBy(ctx context.Context, now plan, state string) (plan, string, error) {
	if state == Applying {
		s.note(Applying, nil)
	}
	agent, err := s.start(now)
	if err != nil {
		return s.fallBack(ctx, now, err)
	}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- agent.Run(inner) })
	defer running.Wait()
	defer stop()

	look := time.NewTicker(s.opt.LookEvery)
	defer look.Stop()
	probation := time.NewTimer(s.opt.Probation)
	defer probation.Stop()
	for {
		select {
		case <-ctx.Done():
			stop()
			return now, state, <-ended
		case err := <-ended:
			if ctx.Err() != nil {
				return now, state, err
			}
			if errors.Is(err, outbox.ErrWiped) {
				// What it had is gone either way; what comes need not be.
				s.opt.Log.Error("the edge's outbox was removed under it; it begins anew", "cause", err)
				return now, state, nil
			}
			if state == Applying {
				return s.fallBack(ctx, now, err)
			}
			return now, "", errors.Join(err, errors.New("the edge ended under a configuration that was good; mend what it says and start it again"))
		case <-probation.C:
			if state != Applying {
				continue
			}
			if why := unhealthy(agent); why != nil {
				stop()
				return s.fallBack(ctx, now, errors.Join(why, <-ended))
			}
			state = Applied
			if now.pushed && s.pushed.State == command.Applying {
				s.become(command.Applied, nil)
			}
			if !s.refused {
				s.note(Applied, nil)
			}
			if err := wholefile.Replace(s.goodFile(), now.text, 0o600); err != nil {
				s.opt.Log.Error("the good configuration cannot be kept", "cause", err)
			}
		case d := <-s.desired:
			next, is := s.take(d, now)
			if !is {
				continue
			}
			return s.handOver(next, stop, ended)
		case <-look.C:
			if next, is := s.changed(now, state); is {
				return s.handOver(next, stop, ended)
			}
		}
	}
}

// handOver ends the agent before it runs by another configuration.
func (s *Supervisor) handOver(next plan, stop func(), ended <-chan error) (plan, string, error) {
	stop()
	if err := <-ended; err != nil {
		s.opt.Log.Error("the edge ended with an error before its new configuration", "cause", err)
	}
	return next, Applying, nil
}

// unhealthy tells why an edge does not work, nil if it does. That nobody takes its
// messages is no fault of its configuration.
func unhealthy(a *edge.Agent) error {
	if err := a.Status().Stalled; err != nil {
		return fmt.Errorf("the outbox has no room: %w", err)
	}
	return nil
}

func (s *Supervisor) start(p plan) (*edge.Agent, error) {
	cfg := p.Config
	o, err := cfg.Options(s.opt.Dir, s.opt.Clock, s.opt.Getenv, s.opt.Log)
	if err != nil {
		return nil, err
	}
	o.Reached = s.opt.Reached
	o.Remote = s
	s.mu.Lock()
	s.config, s.byPush = cfg, p.pushed
	s.mu.Unlock()
	agent, err := edge.New(o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.agent, s.hash, s.edgeID = agent, cfg.Hash(), o.Group+"/"+o.Node
	s.mu.Unlock()
	return agent, nil
}

// fallBack returns the last good configuration after one that does not work.
func (s *Supervisor) fallBack(ctx context.Context, failed plan, cause error) (plan, string, error) {
	good, err := s.lastGood()
	if err != nil || good.Hash() == failed.Hash() {
		return failed, "", errors.Join(cause, err)
	}
	if failed.pushed {
		s.become(command.RolledBack, cause)
	}
	s.opt.Log.Error("the edge does not work by its configuration and goes back to the last good one", "config", failed.Hash(), "good", good.Hash(), "cause", cause)
	s.note(Failed, cause)
	return good, Failed, ctx.Err()
}

// changed returns what the file says now, if that is new and can be run by; state
// is that of the configuration the edge runs by.
func (s *Supervisor) changed(now plan, state string) (next plan, is bool) {
	next, err := s.read()
	if bytes.Equal(next.text, s.tried) {
		return next, false
	}
	s.tried, s.refused = next.text, err != nil
	switch {
	case err != nil:
		if s.byPush {
			// The file says nothing that could win over what was pushed.
			p := s.pushed
			p.File = textHash(next.text)
			_ = s.setPushed(p) // it has been logged
		}
		s.opt.Log.Error("the changed configuration is refused; the edge goes on as before", "cause", err)
		s.note(Failed, err)
		return next, false
	case next.Hash() == now.Hash():
		if state == Failed { // the file is the last good one again
			state = Applied
		}
		s.note(state, nil)
		return next, false
	}
	if s.byPush {
		s.become(superseded, nil)
	}
	s.opt.Log.Info("the configuration has changed", "config", next.Hash())
	return next, true
}

// Status is how things stand now.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Edge: s.edgeID, Config: s.hash, State: s.state, Cause: s.cause, Figures: map[string]int64{}}
	if s.agent == nil {
		return st
	}
	a := s.agent.Status()
	st.Link, st.Host = a.Connected, a.Online
	if a.Stalled != nil {
		st.Stalled = a.Stalled.Error()
	}
	st.Alarms = s.agent.Alarms()
	for _, c := range s.agent.Counters() {
		st.Figures[c.Name] = c.Value
	}
	return st
}
