package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/headrace/headrace/bench"
	"github.com/headrace/headrace/cmd/internal/verb"
)

type benchCmd struct {
	Edge  benchEdgeCmd  `cmd:"" help:"Samples per core of an edge with everything on, bytes on disk, allocations."`
	Spine benchSpineCmd `cmd:"" help:"From a publisher through broker and bridge to Kafka, beside Mosquitto and a bare loop."`
	Fleet benchFleetCmd `cmd:"" help:"100,000 sensors at one broker and one bridge, and back after the broker was killed."`
	Loop  benchLoopCmd  `cmd:"" hidden:"" help:"The rival's bridge."`
}

type benchSpineCmd struct {
	Seconds    float64  `help:"How long each figure is measured." default:"10"`
	Publishers int      `help:"Connections that publish." default:"8"`
	MQTT       []string `name:"mqtt" help:"An outside broker instead of the embedded one." placeholder:"tcp://HOST:PORT,…"`
	Kafka      []string `name:"kafka" help:"An outside Kafka instead of the embedded one." placeholder:"HOST:PORT,…"`
	Output     string   `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (benchSpineCmd) Help() string {
	return `Exit code 1 if a goal is missed; a CPU profile of what was measured is then left in the working directory.

Examples:
  headrace bench spine
  headrace bench spine --seconds 30 --kafka 127.0.0.1:9092 --output json`
}

// Run measures.
func (c benchSpineCmd) Run(ctx context.Context, e *verb.Env) error {
	if !(c.Seconds >= 1 && c.Seconds <= 600) || c.Publishers < 1 || c.Publishers > 1000 {
		return fmt.Errorf("--seconds %g and --publishers %d: want 1 to 600, and 1 to 1000", c.Seconds, c.Publishers)
	}
	r, err := bench.Spine(ctx, bench.SpineOptions{
		Seconds: c.Seconds, Publishers: c.Publishers, MQTT: c.MQTT, Kafka: c.Kafka, Profile: ".", Say: say(e),
	})
	return printReport(e, r, err, c.Output)
}

// say prints progress.
func say(e *verb.Env) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(e.Stderr, "bench: "+format+"\n", args...) }
}

func printReport(e *verb.Env, r *bench.Report, err error, output string) error {
	if err != nil {
		return err
	}
	if output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(r)
	} else {
		err = r.Print(e.Stdout)
	}
	if err == nil && !r.Met() {
		err = verb.ErrFound
	}
	return err
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
	r, err := bench.Edge(ctx, bench.EdgeOptions{
		Dir: c.Dir, Slow: c.Slow, Waves: c.Waves, ProfilePath: filepath.Join(os.TempDir(), fmt.Sprintf("headrace-bench-edge-%d.pprof", os.Getpid())),
	})
	return printReport(e, &r, err, c.Output)
}

type benchFleetCmd struct {
	Nodes   int     `help:"Sparkplug edge nodes." default:"1000"`
	Sensors int     `help:"Sensors of each." default:"100"`
	Every   float64 `help:"Seconds between two messages of a node." default:"5"`
	Seconds float64 `help:"How long the traffic is measured." default:"15"`
	Output  string  `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (benchFleetCmd) Help() string {
	return "Each node is a connection of its own.\n\nExample:\n  headrace bench fleet --nodes 200 --output json"
}

// Run measures.
func (c benchFleetCmd) Run(ctx context.Context, e *verb.Env) error {
	if c.Nodes < 1 || c.Nodes > 9000 || c.Sensors < 1 || c.Sensors > 10_000 || !(c.Every >= 0.1 && c.Every <= 3600) || !(c.Seconds >= 1 && c.Seconds <= 3600) {
		return fmt.Errorf("want 1 to 9000 nodes, 1 to 10000 sensors, 0.1 to 3600 s between messages and 1 to 3600 s of traffic")
	}
	r, err := bench.Fleet(ctx, bench.FleetOptions{Nodes: c.Nodes, Sensors: c.Sensors, Every: c.Every, Seconds: c.Seconds, Say: say(e)})
	return printReport(e, r, err, c.Output)
}

type benchLoopCmd struct {
	MQTT  string `name:"mqtt" required:""`
	Kafka string `name:"kafka" required:""`
}

// Run is the loop.
func (c benchLoopCmd) Run(ctx context.Context) error { return bench.Loop(ctx, c.MQTT, c.Kafka) }

// profile writes a CPU profile of this process if whoever measures it asks for one.
func profile() (stop func(), err error) {
	name := os.Getenv(bench.ProfileVariable)
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name) //nolint:gosec // named by whoever started the process
	if err != nil {
		return nil, fmt.Errorf("writing a profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}
