// Command headrace is the whole product in one binary: every role of the way
// from a sensor to the tables and the page, and the verbs to look at it.
//
// This package parses the command line and hands over; what a role does lives
// in the package of its station.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/headrace/headrace/cmd/internal/verb"
)

// cli is the grammar of the command line.
type cli struct {
	Up         upCmd         `cmd:"" help:"Run every role on this machine."`
	Run        runCmd        `cmd:"" help:"Run chosen roles, against outside brokers if wanted."`
	Edge       edgeCmd       `cmd:"" help:"Look at edges, ask them for what their rings have, configure them."`
	Ledger     ledgerCmd     `cmd:"" help:"Prove that nothing was lost or doubled."`
	Spine      spineCmd      `cmd:"" help:"Look at Kafka: what lies there, and how far the tables are."`
	Deadletter deadletterCmd `cmd:"" help:"Look at messages that fit nothing, and try them again."`
	Lake       lakeCmd       `cmd:"" help:"Tend the tables: history, small files, checkpoints, files that are no longer needed."`
	SQL        sqlCmd        `cmd:"" name:"sql" help:"Query the tables of a data directory."`
	Doctor     doctorCmd     `cmd:"" help:"Check this machine: ports, disk, clock, file limits."`
	Bench      benchCmd      `cmd:"" help:"Measure a station on this machine against its goals."`
	Plant      plantCmd      `cmd:"" help:"Weigh what leaves the simulated plant."`
	Version    versionCmd    `cmd:"" help:"Print the version of this binary."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := verb.Usage
	if profiled, err := profile(); err != nil {
		fmt.Fprintln(os.Stderr, "headrace:", err)
	} else {
		code = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		profiled()
	}
	stop()
	os.Exit(code)
}

// newParser makes the grammar; the options say what a run of it needs.
func newParser(options ...kong.Option) (*kong.Kong, error) {
	return kong.New(new(cli), append([]kong.Option{
		kong.Name("headrace"),
		kong.Description("Carries a plant's sensor readings over MQTT and Kafka into Delta tables, a live twin and a page."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Configuration(loadConfig),
	}, options...)...)
}

// run runs the verb of args and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return verb.Run(ctx, "headrace", newParser, args, stdout, stderr)
}
