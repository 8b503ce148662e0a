package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/headrace/headrace/cmd/internal/crashpoint"
	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/edge/supervisor"
	"github.com/headrace/headrace/signal"
)

// statusName is the file in which a running edge says how it fares.
const (
	statusName  = "status.json"
	statusEvery = 2 * time.Second
)

// What of its memory the edge gives to garbage, and above which it looks for some
// all the time.
const (
	gcPercent   = 50
	memoryLimit = 44 << 20
)

type runCmd struct {
	Config  string `help:"Configuration file (YAML). A change takes effect at once." required:"" placeholder:"FILE" type:"path"`
	Dir     string `help:"The edge's own directory: everything that must outlive the process." default:"./headrace-edge-data" type:"path"`
	Verbose bool   `short:"v" help:"Say more on standard error."`
}

// Help shows an example.
func (runCmd) Help() string {
	return `Runs until Ctrl-C and goes on where it was at the next start. A broken file stops neither a running edge nor a start: it goes on by
the last one that was good. Passwords come from files, or from HEADRACE_MQTT_PASSWORD and HEADRACE_SOURCE_PASSWORD.

Example:
  headrace-edge run --config edge.yaml --dir /var/lib/headrace-edge`
}

// Run runs the edge.
func (c runCmd) Run(ctx context.Context, e *verb.Env) error {
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelInfo
	}
	if os.Getenv("GOMEMLIMIT") == "" && os.Getenv("GOGC") == "" {
		// A gateway has little memory: garbage is looked for rather than kept.
		debug.SetGCPercent(gcPercent)
		debug.SetMemoryLimit(memoryLimit)
	}
	s := supervisor.New(supervisor.Options{
		File: c.Config, Dir: c.Dir, Clock: signal.WallClock{}, Getenv: os.Getenv, Reached: crashpoint.Reached(),
		Log: slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: level})),
	})
	fmt.Fprintf(e.Stdout, "headrace-edge %s: by %s, state in %s; Ctrl-C stops it\n", version, c.Config, c.Dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var telling sync.WaitGroup
	telling.Go(func() { c.tell(ctx, s) })
	err := s.Run(ctx)
	stop()
	telling.Wait()
	_ = os.Remove(filepath.Join(c.Dir, statusName))
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// tell writes how the edge fares, again and again until ctx ends.
func (c runCmd) tell(ctx context.Context, s *supervisor.Supervisor) {
	every := time.NewTicker(statusEvery)
	defer every.Stop()
	name := filepath.Join(c.Dir, statusName)
	for {
		if b, err := json.Marshal(s.Status()); err == nil && os.WriteFile(name+".new", b, 0o600) == nil {
			_ = os.Rename(name+".new", name) // the next one may go better
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

type statusCmd struct {
	Dir    string `help:"The edge's own directory." default:"./headrace-edge-data" type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (statusCmd) Help() string {
	return "Exit code 1 if the edge is not well: its configuration was refused, it has no broker, or no room.\n\nExample:\n  headrace-edge status --dir /var/lib/headrace-edge --output json"
}

// Run prints what the edge said last.
func (c statusCmd) Run(e *verb.Env) error {
	b, err := os.ReadFile(filepath.Join(c.Dir, statusName))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no edge runs in %s; start it with headrace-edge run", c.Dir)
	}
	if err != nil {
		return fmt.Errorf("reading the edge's status: %w", err)
	}
	var st supervisor.Status
	if err := json.Unmarshal(b, &st); err != nil {
		return fmt.Errorf("reading the edge's status %s: %w", filepath.Join(c.Dir, statusName), err)
	}
	if c.Output == "json" {
		if err := json.NewEncoder(e.Stdout).Encode(st); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.Stdout, "%s: configuration %s %s\n", st.Edge, st.Config, st.State)
		for _, line := range []string{st.Cause, st.Stalled} {
			if line != "" {
				fmt.Fprintln(e.Stdout, " ", line)
			}
		}
		fmt.Fprintf(e.Stdout, "  broker %t, bridge %t\n", st.Link, st.Host)
		for _, a := range st.Alarms {
			fmt.Fprintf(e.Stdout, "  alarm %s: %s on %s/%s since %s, %s %g %s (level %g)\n", a.Severity, a.Rule, a.Asset, a.Sensor,
				a.Raised.Time().Format(time.RFC3339), a.Of, a.Value, a.Unit, a.Level)
		}
		var names []string
		for name, v := range st.Figures {
			if v != 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(e.Stdout, "  %-24s %d\n", name, st.Figures[name])
		}
	}
	if st.State == supervisor.Failed || !st.Link || st.Stalled != "" {
		return verb.ErrFound
	}
	return nil
}
