package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/bench"
	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/plant"
)

type plantCmd struct {
	Egress plantEgressCmd `cmd:"" help:"Wire bytes of each class of sensors against raw data, and what the saving costs."`
}

type plantEgressCmd struct {
	Spec           string        `help:"The plant, with a duration." default:"demo:duration=1h,faults=off,outage=off"`
	Filters        string        `help:"Filter set: none or default." enum:"none,default" default:"default"`
	TelemetryDelay time.Duration `help:"How long a telemetry reading waits for company."`
	Output         string        `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (plantEgressCmd) Help() string {
	return "Runs the plant through filters, features and the Sparkplug encoder by its own time, without a broker.\n" +
		"Without --telemetry-delay readings wait as long as an edge has them wait.\n\n" +
		"Example:\n  headrace plant egress --spec demo:seed=7,duration=1h --output json"
}

// Run weighs the plant's egress.
func (c plantEgressCmd) Run(ctx context.Context, e *verb.Env) error {
	cfg, err := plant.Parse(c.Spec)
	if err != nil {
		return err
	}
	set, err := filter.ByName(c.Filters)
	if err != nil {
		return err
	}
	if c.TelemetryDelay < 0 {
		return fmt.Errorf("--telemetry-delay is %s; give 0 or more", c.TelemetryDelay)
	}
	if c.TelemetryDelay == 0 {
		c.TelemetryDelay = edge.DefaultPackDelay
	}
	r, err := bench.Egress(ctx, bench.EgressOptions{Plant: cfg, Filter: set, Delay: c.TelemetryDelay, IdleEvery: edge.DefaultIdleEvery})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(e.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "class\tsamples\tkept\theld\traw bytes\tsent bytes\tsaved\tmean error\tlargest error\tmissed\t")
	for _, v := range r.Classes {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%.1f %%\t%.2f %%\t%.2f %%\t%d\t\n", v.Class, v.Samples, v.Kept, v.Held, v.Raw, v.Sent, 100*v.Saved, v.MeanError, v.MaxError, v.Missed)
	}
	fmt.Fprintf(w, "births, idle, acks, keep-alives\t\t\t\t\t%d\t\t\t\t\t\n", r.Births+r.Idle+r.Acks+r.Pings)
	fmt.Fprintf(w, "site\t\t\t\t%d\t%d\t%.1f %%\t\t\t\t\n", r.Raw, r.Sent, 100*r.Saved)
	return w.Flush()
}
