// Package roles starts and stops what a Headrace process is: edge agents,
// broker, spine, bridge, lake and the HTTP server, in the order in which they
// need each other, and wires the stations together.
//
// It holds no logic of a station. What crosses two stations' borders without
// being a message (trimming the spine to what the lake has, the twin that
// follows silver) is joined here.
package roles

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/predict/alert"
	"github.com/headrace/headrace/predict/workorder"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/spine/broker"
	spinelog "github.com/headrace/headrace/spine/log"
	"github.com/headrace/headrace/twin/registry"
	"github.com/headrace/headrace/twin/state"
)

// Summary is how a process ended.
type Summary struct {
	Drained  bool
	Counters []signal.Counter
}

// process is what Run has started so far.
type process struct {
	Options
	stack *stack
	clock signal.Clock
	run   datadir.Run

	mqtt  []string // addresses to dial
	kafka []string
	// topicsMade: an outside Kafka has been asked.
	topicsMade bool

	broker   *broker.Broker
	log      *spinelog.Log
	bridge   *bridge.Bridge
	registry *registry.Registry
	lake     *pipeline.Worker
	duck     *duck.DB
	twin     *state.Twin
	feeds    *feeds
	predict  *maintenance
	alerts   *alert.Store
	orders   *workorder.Book

	rest resting

	mu     sync.Mutex
	agents []*edge.Agent
	ready  bool
	// twinErr is why the live twin is not following silver, or nil.
	twinErr error
}

// drainPoll is how often --until-drained asks whether all is where it ends.
const drainPoll = 100 * time.Millisecond

// Run runs the roles until ctx ends, a role fails, or all is drained where that
// was asked for. It returns once everything has stopped.
func Run(ctx context.Context, o Options) (Summary, error) {
	p := &process{Options: o, stack: newStack(), clock: signal.WallClock{}}
	for _, r := range All() {
		if p.has(r) {
			p.run.Roles = append(p.run.Roles, string(r))
		}
	}
	p.mqtt, p.kafka = o.MQTT, o.Kafka
	drained, err := p.live(ctx)
	counters := p.counters() // a closed station counts no more
	p.stack.stop()
	return Summary{Drained: drained, Counters: counters}, err
}

// live starts the roles and waits for an end.
func (p *process) live(ctx context.Context) (drained bool, err error) {
	for _, step := range []struct {
		role  Role
		start func(context.Context) error
	}{
		{Edge, p.openFeeds}, // first: they set the plant's clock
		{Spine, p.startSpine},
		{Broker, p.startBroker},
		{Lake, p.startLake},
		{Predict, p.startPredict},
		{Bridge, p.startBridge},
		{HTTP, p.startHTTP},
		{Edge, p.startEdges},
	} {
		if !p.has(step.role) {
			continue
		}
		if err := step.start(ctx); err != nil {
			if ctx.Err() != nil {
				return false, nil // stopped while starting
			}
			return false, err
		}
	}
	p.mu.Lock() // the page is served already
	p.run.PID, p.run.Started = os.Getpid(), time.Now().UTC()
	p.mu.Unlock()
	if err := p.Dir.WriteRun(p.run); err != nil {
		return false, fmt.Errorf("writing %s: %w", p.Dir.Path("run.json"), err)
	}
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	if p.Ready != nil {
		p.Ready(p.run)
	}
	return p.wait(ctx)
}

func (p *process) wait(ctx context.Context) (drained bool, err error) {
	var tick <-chan time.Time
	if p.UntilDrained {
		t := time.NewTicker(drainPoll)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case err := <-p.stack.failed:
			return false, err
		case <-tick:
			done, err := p.drained(ctx)
			if done || err != nil && ctx.Err() == nil {
				return done, err
			}
		}
	}
}

// drained tells whether every reading of the feeds is where it ends.
func (p *process) drained(ctx context.Context) (bool, error) {
	p.mu.Lock()
	agents := p.agents
	p.mu.Unlock()
	for _, a := range agents {
		if !a.Drained() {
			return false, nil
		}
	}
	if done, err := p.lake.Drained(ctx); err != nil || !done {
		return false, err
	}
	return p.predict.drained(ctx)
}

// counters gathers what every station has counted.
func (p *process) counters() []signal.Counter {
	var out []signal.Counter
	p.mu.Lock()
	agents := p.agents
	p.mu.Unlock()
	sums := map[string]int{}
	for _, a := range agents {
		for _, c := range a.Counters() { // one station, however many edges
			if i, ok := sums[c.Name]; ok {
				out[i].Value += c.Value
				continue
			}
			sums[c.Name] = len(out)
			out = append(out, c)
		}
	}
	if p.broker != nil {
		out = append(out, p.broker.Counters()...)
	}
	if p.bridge != nil {
		out = append(out, p.bridge.Counters()...)
	}
	if p.log != nil {
		out = append(out, p.log.Counters()...)
	}
	if p.lake != nil {
		out = append(out, p.lake.Counters()...)
	}
	if p.predict != nil {
		out = append(out, p.predict.worker.Counters()...)
	}
	return out
}

// lakeDir is the folder of the Delta tables; the registry lies beside it, so
// that the processes that share a lake share its registry.
func (p *process) lakeDir() string {
	if p.Lake != "" {
		return p.Lake
	}
	return p.Dir.Path("lake")
}

func (p *process) registryFile() string { return p.besideLake("registry.db") }

// loopback refuses an address that others could reach, for what does not ask
// who is there.
func loopback(what, flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s address %q: %w; write HOST:PORT with %s", what, addr, err, flag)
	}
	if host == "localhost" {
		return nil
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsLoopback() {
		more := ""
		if what == "MQTT" {
			more = ", or give --listen-mqtt-cert, --listen-mqtt-key and --listen-mqtt-users"
		}
		return fmt.Errorf("%s address %s is beyond loopback, where TLS and credentials would be needed; use 127.0.0.1 with %s%s", what, addr, flag, more)
	}
	return nil
}

// closing ends a part within a bound of its own when the process stops.
func closing(limit time.Duration, f func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := f(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}
}
