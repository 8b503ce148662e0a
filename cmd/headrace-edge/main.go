// Command headrace-edge is the edge agent alone, without CGO: it reads a plant's
// MQTT broker, filters, keeps what was measured, and carries what leaves over
// Sparkplug B to a broker, until Kafka has it.
//
// This package parses the command line and hands over.
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

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

type cli struct {
	Run     runCmd     `cmd:"" help:"Run the edge by its configuration file."`
	Check   checkCmd   `cmd:"" help:"Check a configuration file."`
	Try     tryCmd     `cmd:"" help:"Try a configuration's filters on what the edge has measured."`
	Status  statusCmd  `cmd:"" help:"Say how a running edge fares."`
	Version versionCmd `cmd:"" help:"Print the version of this binary."`
}

// env is what a verb gets from the process.
type env struct{ stdout, stderr io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run parses args, runs the verb and returns the exit code. An error is one
// line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	exit := -1
	parser, err := kong.New(new(cli),
		kong.Name("headrace-edge"),
		kong.Description("Reads a plant's MQTT broker, filters, and carries what leaves until Kafka has it."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&env{stdout: stdout, stderr: stderr}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "headrace-edge:", err)
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
		fmt.Fprintf(stderr, "headrace-edge: %v; see `headrace-edge --help`\n", err)
		return exitUsage
	}
	switch err := k.Run(); {
	case err == nil:
		return exitDone
	case errors.Is(err, errFound):
		return exitFound
	default:
		fmt.Fprintln(stderr, "headrace-edge:", strings.Join(strings.Fields(err.Error()), " "))
		return exitUsage
	}
}

type versionCmd struct{}

// Help shows an example.
func (versionCmd) Help() string { return "Example:\n  headrace-edge version" }

// Run prints the version.
func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, "headrace-edge", version)
	return err
}
