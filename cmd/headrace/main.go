// Command headrace is the whole product in one binary: every role of the way
// from a sensor to the tables and the page, and the verbs to look at it.
//
// This package parses the command line and hands over; what a role does lives
// in the package of its station.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit codes of every verb.
const (
	exitDone  = 0
	exitFound = 1 // the verb did its work and found something wrong
	exitUsage = 2 // wrong use, or it cannot start
)

// errFound ends a verb that did its work and has printed what it found wrong.
var errFound = errors.New("something was found wrong")

// cli is the grammar of the command line.
type cli struct {
	Up         upCmd         `cmd:"" help:"Run every role on this machine."`
	Run        runCmd        `cmd:"" help:"Run chosen roles, against outside brokers if wanted."`
	Ledger     ledgerCmd     `cmd:"" help:"Prove that nothing was lost or doubled."`
	Spine      spineCmd      `cmd:"" help:"Look at Kafka: what lies there, and how far the tables are."`
	Deadletter deadletterCmd `cmd:"" help:"Look at messages that fit nothing, and try them again."`
	SQL        sqlCmd        `cmd:"" name:"sql" help:"Query the tables of a data directory."`
	Doctor     doctorCmd     `cmd:"" help:"Check this machine: ports, disk, clock, file limits."`
	Version    versionCmd    `cmd:"" help:"Print the version of this binary."`
}

// env is what a verb gets from the process.
type env struct {
	stdout io.Writer
	stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
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

// run parses args, runs the verb and returns the exit code. An error is one
// line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	exit := -1
	parser, err := newParser(
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&env{stdout: stdout, stderr: stderr}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "headrace:", err)
		return exitUsage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if exit >= 0 { // --help has printed and asked to end
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "headrace: %v; see `headrace --help`\n", err)
		return exitUsage
	}
	switch err := k.Run(); {
	case err == nil:
		return exitDone
	case errors.Is(err, errFound):
		return exitFound
	default:
		// One line, whatever an engine's message looks like.
		fmt.Fprintln(stderr, "headrace:", strings.Join(strings.Fields(err.Error()), " "))
		return exitUsage
	}
}
