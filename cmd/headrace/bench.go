package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/headrace/headrace/bench"
	"github.com/headrace/headrace/cmd/internal/verb"
)

type benchCmd struct {
	Edge benchEdgeCmd `cmd:"" help:"Samples per core of an edge with everything on, bytes on disk, allocations."`
}

type benchEdgeCmd struct {
	Slow   int    `help:"Slow samples to take." default:"4000000"`
	Waves  int    `help:"Vibration samples to take." default:"40000000"`
	Dir    string `help:"Folder for the edge's files; a new temporary one without." type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (benchEdgeCmd) Help() string {
	return "A missed goal is reported with the path of a CPU profile, and ends the verb with code 1.\n\nExample:\n  headrace bench edge --output json"
}

// Run measures the edge.
func (c benchEdgeCmd) Run(ctx context.Context, e *verb.Env) error {
	report, err := bench.Edge(ctx, bench.EdgeOptions{
		Dir: c.Dir, Slow: c.Slow, Waves: c.Waves, ProfilePath: filepath.Join(os.TempDir(), fmt.Sprintf("headrace-bench-edge-%d.pprof", os.Getpid())),
	})
	if err != nil {
		return err
	}
	return printBench(e, &report, c.Output)
}

func printBench(e *verb.Env, r *bench.Report, form string) error {
	if form == "json" {
		enc := json.NewEncoder(e.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "%s: %s, %d cores, load %.1f\n%s\n\n", r.Bench, r.Machine.CPU, r.Machine.Cores, r.Machine.Load1, r.Input)
		for _, v := range r.Results {
			word := ""
			switch {
			case v.Better == "":
			case v.Met:
				word = fmt.Sprintf("goal %.4g: met", v.Goal)
			default:
				word = fmt.Sprintf("goal %.4g: MISSED", v.Goal)
			}
			fmt.Fprintf(w, "%s\t%.4g %s\t%s\n", v.Name, v.Value, v.Unit, word)
		}
		if r.Profile != "" {
			fmt.Fprintf(w, "\nprofile: %s\n", r.Profile)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(r.Missed()) > 0 {
		return verb.ErrFound
	}
	return nil
}
