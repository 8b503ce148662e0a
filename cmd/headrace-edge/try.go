package main

import (
	"time"

	"github.com/headrace/headrace/cmd/internal/edgefile"
	"github.com/headrace/headrace/cmd/internal/verb"
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
func (c checkCmd) Run(e *verb.Env) error { return edgefile.Check(e, c.File, c.Output) }

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
func (c tryCmd) Run(e *verb.Env) error { return edgefile.Try(e, c.File, c.Dir, c.Last, c.Output) }

type planCmd struct {
	File   string `arg:"" help:"Configuration file (YAML)." type:"path"`
	Dir    string `help:"The edge's own directory." default:"./headrace-edge-data" type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (planCmd) Help() string {
	return "Compares the file with the last good configuration of the edge. To apply it, put it in the place of the file that the edge runs by.\n\nExample:\n  headrace-edge plan new.yaml --dir /var/lib/headrace-edge"
}

// Run prints what the file would change.
func (c planCmd) Run(e *verb.Env) error { return edgefile.Plan(e, c.File, c.Dir, c.Output) }
