// Package edgefile is what the command lines of all binaries do with an edge's
// configuration file at hand: check it, try it on what was measured, and say what it
// would change. What is asked of edges elsewhere is not here.
package edgefile

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/supervisor"
	"github.com/headrace/headrace/edge/trial"
	"github.com/headrace/headrace/signal"
)

// JSON is the form of an answer that programs read.
const JSON = "json"

// Check prints what a file says by mistake.
func Check(e *verb.Env, file, output string) error {
	cfg, err := config.Read(file)
	if err != nil {
		return err
	}
	findings := cfg.Lint()
	if output == JSON {
		err = json.NewEncoder(e.Stdout).Encode(map[string]any{"config": cfg.Hash(), "findings": append([]string{}, findings...)})
	} else {
		_, err = fmt.Fprintf(e.Stdout, "%s: configuration %s of %s/%s\n", file, cfg.Hash(), cfg.Edge.Group, cfg.Edge.Node)
		for _, f := range findings {
			fmt.Fprintln(e.Stdout, " ", f)
		}
	}
	if err == nil && len(findings) > 0 {
		err = verb.ErrFound
	}
	return err
}

// good is the last good configuration of the edge with the given directory.
func good(dir string) (*config.Config, error) {
	cfg, err := config.Read(filepath.Join(dir, supervisor.GoodName))
	if err != nil {
		return nil, fmt.Errorf("%w; an edge that has worked by a configuration for a minute has one", err)
	}
	return cfg, nil
}

// Try runs a file's filters, and beside them those of the last good configuration,
// over what the ring of the edge in dir has kept of the last so long.
func Try(e *verb.Env, file, dir string, last time.Duration, output string) error {
	next, err := config.Read(file)
	if err != nil {
		return err
	}
	today, err := good(dir)
	if err != nil {
		return err
	}
	if last <= 0 {
		return fmt.Errorf("--last %s is not a span of time; give one like 6h", last)
	}
	now := time.Now()
	results, samples, err := trial.Compare(edge.RingDir(dir), signal.MicrosOf(now.Add(-last)), signal.MicrosOf(now)+1, today.Filter, next.Filter)
	if err != nil {
		return err
	}
	if output == JSON {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{"samples": samples, "last": last.String(), "today": results[0], "tried": results[1]})
	}
	fmt.Fprintf(e.Stdout, "%d samples of the last %s\n%-10s %-8s %10s %10s %12s %8s\n", samples, last, "", "class", "kept", "added", "bytes", "missed")
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

// Plan says what a file would change of the last good configuration in dir.
func Plan(e *verb.Env, file, dir, output string) error {
	next, err := config.Read(file)
	if err != nil {
		return err
	}
	now, err := good(dir)
	if err != nil {
		return err
	}
	return PrintChange(e, next.Edge.Group+"/"+next.Edge.Node, command.Change{
		Before: now.Hash(), After: next.Hash(), Sections: append([]string{}, config.Differ(now, next)...),
		Sensors: []string{}, Refused: []string{}, Findings: append([]string{}, next.Lint()...), // at the edge itself everything may change
	}, output)
}

// PrintChange prints what a configuration would change at an edge.
func PrintChange(e *verb.Env, name string, c command.Change, output string) error {
	if output == JSON {
		if err := json.NewEncoder(e.Stdout).Encode(c); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.Stdout, "%s: configuration %s, then %s\n", name, c.Before, c.After)
		for _, part := range []struct {
			word  string
			lines []string
		}{{"changes", c.Sections}, {"another filter for", c.Sensors}, {"refused:", c.Refused}, {"look at", c.Findings}} {
			for _, line := range part.lines {
				fmt.Fprintln(e.Stdout, " ", part.word, line)
			}
		}
	}
	if len(c.Refused) > 0 {
		return verb.ErrFound
	}
	return nil
}
