// Package verb is what the command lines of all binaries have in common: exit
// codes, one line of error, help when nothing is asked for.
//
// It knows no verb.
package verb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// The exit codes of every verb.
const (
	Done  = 0
	Found = 1 // the verb did its work and found something wrong
	Usage = 2 // wrong use, or it cannot start
)

// ErrFound ends a verb that did its work and has printed what it found wrong.
var ErrFound = errors.New("something was found wrong")

// Env is what a verb gets from the process.
type Env struct{ Stdout, Stderr io.Writer }

// Run parses args by the grammar that parser makes, runs the verb, and returns the
// exit code. A verb's Run may ask for a [context.Context] and an [*Env]. An error is
// one line on stderr.
func Run(ctx context.Context, name string, parser func(...kong.Option) (*kong.Kong, error), args []string, stdout, stderr io.Writer) int {
	exit := -1
	p, err := parser(
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&Env{Stdout: stdout, Stderr: stderr}),
	)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return Usage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := p.Parse(args)
	if exit >= 0 { // --help has printed and asked to end
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v; see `%s --help`\n", name, err, name)
		return Usage
	}
	switch err := k.Run(); {
	case err == nil:
		return Done
	case errors.Is(err, ErrFound):
		return Found
	default:
		// One line, whatever an engine's message looks like.
		fmt.Fprintf(stderr, "%s: %s\n", name, strings.Join(strings.Fields(err.Error()), " "))
		return Usage
	}
}
