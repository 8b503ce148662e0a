package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/server/ledger"
)

type ledgerCmd struct {
	Verify ledgerVerifyCmd `cmd:"" help:"Prove the sums of every edge from its own counters and the tables."`
}

// ledgerVerifyCmd makes the ledger of a data directory that is at rest.
type ledgerVerifyCmd struct {
	Dir   string   `help:"Data directory with the lake and the spine." default:"./headrace-data" type:"path"`
	Edges []string `help:"Further data directories that hold outboxes." placeholder:"DIR,…"`
	kafkaFlags
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows examples.
func (ledgerVerifyCmd) Help() string {
	return `For each edge, in readings:
  emitted + derived + held + replayed = filtered + shipped + evicted
  shipped = bronze + open deadletter + in flight
  bronze  = silver + open quarantine + dropped + duplicates
Exit code 1 names the station where a sum does not hold. Nothing may move while it counts: a running
Headrace must have drained, or be stopped first.

Examples:
  headrace ledger verify
  headrace ledger verify --dir headrace-data --output json
  headrace ledger verify --dir worker --edges edge --kafka kafka-1:9093 --kafka-ca ca.pem`
}

// settle is how long a running process must stand still to be counted, and
// settleTries how often that is tried.
const (
	settle      = 300 * time.Millisecond
	settleTries = 10
)

// Run prints the ledger.
func (c ledgerVerifyCmd) Run(ctx context.Context, e *verb.Env) error {
	if err := datadir.Check(c.Dir); err != nil {
		return err
	}
	report, err := c.verify(ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(e.Stdout)
		enc.SetIndent("", " ")
		err = enc.Encode(report)
	} else {
		err = printLedger(e.Stdout, report)
	}
	if err == nil && !report.OK {
		return verb.ErrFound
	}
	return err
}

func (c ledgerVerifyCmd) verify(ctx context.Context) (ledger.Report, error) {
	scratch, err := os.MkdirTemp("", "headrace-ledger-")
	if err != nil {
		return ledger.Report{}, fmt.Errorf("making a scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	o := ledger.Options{
		Lake: filepath.Join(c.Dir, "lake"), Scratch: scratch,
		Edges: []string{filepath.Join(c.Dir, "edges")},
	}
	for _, dir := range c.Edges {
		if err := datadir.Check(dir); err != nil {
			return ledger.Report{}, err
		}
		o.Edges = append(o.Edges, filepath.Join(dir, "edges"))
	}
	spine, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return ledger.Report{}, err
	}
	o.Kafka = spine.config
	count := ledger.Verify
	if spine.running {
		count = whileRunning
	}
	report, err := count(ctx, o)
	return report, errors.Join(err, spine.close())
}

// whileRunning counts twice, until both agree.
func whileRunning(ctx context.Context, o ledger.Options) (ledger.Report, error) {
	last := ""
	for range settleTries {
		report, err := ledger.Verify(ctx, o)
		if err != nil {
			return report, err
		}
		b, err := json.Marshal(report.Edges)
		if err != nil {
			return report, err
		}
		if string(b) == last {
			return report, nil
		}
		last = string(b)
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return report, ctx.Err()
		}
	}
	return ledger.Report{}, errors.New("the readings are still moving; stop the running Headrace, or wait until it has drained")
}

func printLedger(w io.Writer, r ledger.Report) error {
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "edge\temitted\tderived\theld\treplayed\tfiltered\tshipped\tin flight\tdead\tbronze\tsilver\tquarantine\tdropped\tduplicates\tlate\t")
	for _, e := range r.Edges {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", e.Edge,
			e.Emitted, e.Derived, e.Held, e.Replayed, e.Filtered, e.Shipped, e.InFlight, e.Deadletter, e.Bronze, e.Silver, e.Quarantined, e.Dropped, e.Duplicates, e.Late)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Edges, func(e ledger.Edge) bool { return e.Samples > 0 || e.Raw > 0 }) {
		fmt.Fprintln(out, "edge\tsamples\tshipped\tin flight\tbronze.raw\t")
		for _, e := range r.Edges {
			fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t\n", e.Edge, e.Samples, e.SamplesShipped, e.SamplesInFlight, e.Raw)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	for _, b := range r.Broken {
		fmt.Fprintln(w, "BROKEN", b)
	}
	state := "drained"
	if !r.Drained {
		state = "not drained: some readings are still on their way"
	}
	verdict := "every sum holds"
	if !r.OK {
		verdict = fmt.Sprintf("%d sums do not hold", len(r.Broken))
	}
	_, err := fmt.Fprintf(w, "%d edges, %s; %s\n", len(r.Edges), verdict, state)
	return err
}
