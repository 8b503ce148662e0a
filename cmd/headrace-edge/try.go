package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/supervisor"
	"github.com/headrace/headrace/edge/trial"
	"github.com/headrace/headrace/signal"
)

type checkCmd struct {
	File   string `arg:"" help:"Configuration file (YAML)." type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (checkCmd) Help() string {
	return "Exit code 1 if the file can be run by and says what it hardly means: a deadband wider than the span, a rule that never fits.\n\nExample:\n  headrace-edge check edge.yaml"
}

// Run checks the file.
func (c checkCmd) Run(e *verb.Env) error {
	cfg, err := config.Read(c.File)
	if err != nil {
		return err
	}
	findings := cfg.Lint()
	if c.Output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(map[string]any{"config": cfg.Hash(), "findings": append([]string{}, findings...)})
	} else {
		_, err = fmt.Fprintf(e.Stdout, "%s: configuration %s of %s/%s\n", c.File, cfg.Hash(), cfg.Edge.Group, cfg.Edge.Node)
		for _, f := range findings {
			fmt.Fprintln(e.Stdout, " ", f)
		}
	}
	if err == nil && len(findings) > 0 {
		err = verb.ErrFound
	}
	return err
}

type tryCmd struct {
	File   string        `arg:"" help:"Configuration file to try (YAML)." type:"path"`
	Dir    string        `help:"The edge's own directory, with its ring." default:"./headrace-edge-data" type:"path"`
	Last   time.Duration `help:"How far back." default:"6h"`
	Output string        `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (tryCmd) Help() string {
	return `Runs the file's filters, and beside them those of the last good configuration, over what the ring has kept. Missed exceptions are
samples that today's filters send as beyond their band, and that would be further off than that band. A running edge is not disturbed.

Example:
  headrace-edge try new.yaml --dir /var/lib/headrace-edge --last 6h`
}

// Run tries the file's filters.
func (c tryCmd) Run(e *verb.Env) error {
	next, err := config.Read(c.File)
	if err != nil {
		return err
	}
	today, err := config.Read(filepath.Join(c.Dir, supervisor.GoodName))
	if err != nil {
		return fmt.Errorf("%w; an edge that has worked by a configuration for a minute has one", err)
	}
	if c.Last <= 0 {
		return fmt.Errorf("--last %s is not a span of time; give one like 6h", c.Last)
	}
	now := time.Now()
	results, samples, err := trial.Compare(edge.RingDir(c.Dir), signal.MicrosOf(now.Add(-c.Last)), signal.MicrosOf(now)+1, today.Filter, next.Filter)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{"samples": samples, "last": c.Last.String(), "today": results[0], "tried": results[1]})
	}
	fmt.Fprintf(e.Stdout, "%d samples of the last %s\n%-10s %-8s %10s %10s %12s %8s\n", samples, c.Last, "", "class", "kept", "added", "bytes", "missed")
	for i, name := range []string{"today", "tried"} {
		for _, class := range egress.Classes() {
			if f, ok := results[i].Classes[class]; ok {
				fmt.Fprintf(e.Stdout, "%-10s %-8s %10d %10d %12d %8d\n", name, class, f.Kept, f.Added, f.Bytes, f.Missed)
			}
		}
		fmt.Fprintf(e.Stdout, "%-10s largest error %s\n", name, worst(results[i].Worst))
	}
	return nil
}

func worst(w filter.Error) string {
	if w.Path == "" {
		return "none"
	}
	return fmt.Sprintf("%.6g %s (%.2f of the band), %s", w.Value, w.Unit, w.Bands, w.Path)
}
