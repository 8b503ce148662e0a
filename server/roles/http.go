package roles

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/server"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/twin/state"
	"github.com/headrace/headrace/ui"
)

const (
	twinPoll  = 250 * time.Millisecond // how often other processes' silver commits are looked for
	twinRetry = time.Second
)

// startHTTP starts the live twin, which follows silver, and the server.
func (p *process) startHTTP(ctx context.Context) error {
	if err := p.openRegistry(ctx); err != nil {
		return err
	}
	if err := p.openDuck(ctx); err != nil {
		return err
	}
	if err := p.openOrders(ctx); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.ListenHTTP)
	if err != nil {
		return fmt.Errorf("starting the page: %w; stop what uses the address, or choose another with --listen-http", err)
	}
	p.twin = state.New()
	p.stack.run("live twin", p.followSilver)

	s, err := server.New(server.Options{
		Twin:        p.twin,
		Registry:    p.registry,
		Series:      server.NewLakeSeries(p.lakeDir(), p.duck),
		Counters:    p.counters,
		Maintenance: office{p},
		Clock:       p.clock,
		Status:      p.status,
		UI:          ui.FS(),
		Log:         p.Log,
		Version:     p.Version,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	p.run.HTTP = listener.Addr().String()
	p.stack.run("HTTP", func(ctx context.Context) error { return s.Serve(ctx, listener) })
	return nil
}

// followSilver feeds the live twin from silver's commits, whoever makes them.
// What goes wrong is shown as a problem and tried again: the twin is a view.
func (p *process) followSilver(ctx context.Context) error {
	opts := pipeline.TailOptions{Dir: p.lakeDir(), DB: p.duck, Poll: twinPoll}
	if p.lake != nil {
		opts.Wake = p.lake.Wake()
	}
	var rows []state.Row
	for {
		err := pipeline.TailSilver(ctx, opts, func(version int64, silver []pipeline.SilverRow) error {
			rows = rows[:0]
			for _, r := range silver {
				rows = append(rows, state.Row(r))
			}
			p.twin.Apply(rows)
			// A version may come in pieces, so the next try begins with this one.
			opts.From = max(version-1, 0)
			p.setTwinError(nil)
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, delta.ErrNotTable) {
			err = errors.New("there are no tables yet; start a process with the role lake on the same lake")
		}
		p.setTwinError(err)
		select {
		case <-time.After(twinRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *process) setTwinError(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.twinErr = err
}

// openDuck opens the one SQL engine of the process.
func (p *process) openDuck(ctx context.Context) error {
	if p.duck != nil {
		return nil
	}
	db, err := duck.Open(ctx, duck.Options{MemoryLimit: duckMemory, Threads: 1, TempDir: p.Dir.Path("tmp")})
	if err != nil {
		return err
	}
	p.duck = db
	p.stack.onStop("SQL engine", db.Close)
	return nil
}

// duckMemory bounds the SQL engine, beyond which it spills to disk.
const duckMemory = "80MB"

func addresses(r datadir.Run) map[string]string {
	out := map[string]string{}
	for name, addr := range map[string]string{"mqtt": r.MQTT, "kafka": r.Kafka, "http": r.HTTP} {
		if addr != "" {
			out[name] = addr
		}
	}
	return out
}
