// Command headrace-edge is the edge agent alone, without CGO: it reads a plant's
// MQTT broker, filters, keeps what was measured, and carries what leaves over
// Sparkplug B to a broker, until Kafka has it.
//
// This package parses the command line and hands over.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/headrace/headrace/cmd/internal/verb"
)

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

type cli struct {
	Run     runCmd     `cmd:"" help:"Run the edge by its configuration file."`
	Check   checkCmd   `cmd:"" help:"Check a configuration file."`
	Plan    planCmd    `cmd:"" help:"Say what a configuration file would change."`
	Try     tryCmd     `cmd:"" help:"Try a configuration's filters on what the edge has measured."`
	Status  statusCmd  `cmd:"" help:"Say how a running edge fares."`
	Version versionCmd `cmd:"" help:"Print the version of this binary."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := verb.Run(ctx, "headrace-edge", newParser, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// newParser makes the grammar; the options say what a run of it needs.
func newParser(options ...kong.Option) (*kong.Kong, error) {
	return kong.New(new(cli), append([]kong.Option{
		kong.Name("headrace-edge"),
		kong.Description("Reads a plant's MQTT broker, filters, and carries what leaves until Kafka has it."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	}, options...)...)
}

type versionCmd struct{}

// Help shows an example.
func (versionCmd) Help() string { return "Example:\n  headrace-edge version" }

// Run prints the version.
func (versionCmd) Run(e *verb.Env) error {
	_, err := fmt.Fprintln(e.Stdout, "headrace-edge", version)
	return err
}
