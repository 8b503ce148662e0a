package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/cmd/internal/edgefile"
	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/server/roles"
	"github.com/headrace/headrace/signal"
)

type edgeCmd struct {
	List   edgeListCmd   `cmd:"" help:"List every edge that the broker has heard of."`
	Status edgeStatusCmd `cmd:"" help:"Say how one edge fares."`
	Replay edgeReplayCmd `cmd:"" help:"Have an edge send what its ring has of an asset."`
	Plan   edgePlanCmd   `cmd:"" help:"Say what a configuration would change at an edge."`
	Apply  edgeApplyCmd  `cmd:"" help:"Have an edge run by a configuration."`
	Check  edgeCheckCmd  `cmd:"" help:"Check an edge's configuration file."`
	Try    edgeTryCmd    `cmd:"" help:"Try a configuration's filters on what an edge of this machine has measured."`
}

// edgeFlags say by way of which broker edges are asked.
type edgeFlags struct {
	Dir string `help:"Data directory of the running Headrace whose broker is asked, unless --mqtt names one." default:"./headrace-data" type:"path"`
	mqttFlags
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

func (f edgeFlags) dial(ctx context.Context) (*command.Client, error) {
	var s roles.Secure
	if err := f.secure(&s); err != nil {
		return nil, err
	}
	cfg := mqttc.Config{Addresses: f.MQTT, TLS: s.MQTTTLS, Username: s.MQTTLogin.User, Password: s.MQTTLogin.Password.Reveal()}
	if len(f.MQTT) == 0 {
		run, running := datadir.ReadRun(f.Dir)
		if !running || run.MQTT == "" {
			return nil, fmt.Errorf("no Headrace with a broker runs in %s; start one, or name a broker with --mqtt tcp://HOST:PORT", f.Dir)
		}
		cfg.Addresses = []string{"tcp://" + run.MQTT}
	}
	return command.Dial(ctx, cfg)
}

// gone is how old a report may be of an edge that is there.
const gone = 3 * command.ReportEvery

// edgeLine is a report as it is shown.
type edgeLine struct {
	command.Report
	Seen bool `json:"seen"` // within the last reports that were due
}

func lines(reports []command.Report) []edgeLine {
	out := []edgeLine{}
	for _, r := range reports {
		out = append(out, edgeLine{r, time.Since(r.Time) < gone})
	}
	return out
}

// well tells whether nothing is wrong with an edge.
func (l edgeLine) well() bool {
	return l.Seen && l.Stalled == "" && (l.State == command.Applied || l.State == command.Applying)
}

type edgeListCmd struct{ edgeFlags }

// Help shows an example.
func (edgeListCmd) Help() string {
	return "An edge that has said nothing for 90 s is shown as gone. Exit code 1 if one is gone, without room, or its configuration was refused.\n\nExamples:\n  headrace edge list\n  headrace edge list --mqtt tcp://plant:1883 --output json"
}

// Run lists the edges.
func (c edgeListCmd) Run(ctx context.Context, e *verb.Env) error {
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	reports, err := client.Reports(ctx)
	if err != nil {
		return err
	}
	all := lines(reports)
	if c.Output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(map[string]any{"edges": all})
	} else {
		err = printEdges(e.Stdout, all)
	}
	if err == nil && slices.ContainsFunc(all, func(l edgeLine) bool { return !l.well() }) {
		err = verb.ErrFound
	}
	return err
}

func printEdges(w io.Writer, all []edgeLine) error {
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, "edge\tconfiguration\tstate\tlink\tbridge\twaiting\toutbox bytes\tlast seen")
	for _, l := range all {
		link := "gone"
		if l.Seen {
			link = "there"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%t\t%d\t%d\t%s\n", l.Edge, l.Config, l.State, link, l.Host,
			l.Figures["in_flight_now"], l.Figures["outbox_bytes_now"], l.Time.Format(time.RFC3339))
	}
	return out.Flush()
}

type edgeStatusCmd struct {
	Edge string `arg:"" help:"The edge: group/node." placeholder:"GROUP/NODE"`
	edgeFlags
}

// Help shows an example.
func (edgeStatusCmd) Help() string {
	return "Exit code 1 if the edge is gone, without room, or its configuration was refused.\n\nExample:\n  headrace edge status lyon/hall-1 --output json"
}

// Run prints what the edge said last.
func (c edgeStatusCmd) Run(ctx context.Context, e *verb.Env) error {
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	reports, err := client.Reports(ctx)
	if err != nil {
		return err
	}
	all := lines(reports)
	i := slices.IndexFunc(all, func(l edgeLine) bool { return l.Edge == c.Edge })
	if i < 0 {
		return fmt.Errorf("the broker has never heard of edge %s; it knows %s", c.Edge, edgeNames(reports))
	}
	l := all[i]
	if c.Output == "json" {
		if err := json.NewEncoder(e.Stdout).Encode(l); err != nil {
			return err
		}
	} else {
		if err := printEdges(e.Stdout, all[i:i+1]); err != nil {
			return err
		}
		for _, line := range []string{l.Cause, l.Stalled} {
			if line != "" {
				fmt.Fprintln(e.Stdout, " ", line)
			}
		}
		names := make([]string, 0, len(l.Figures))
		for name, v := range l.Figures {
			if v != 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(e.Stdout, "  %-24s %d\n", name, l.Figures[name])
		}
	}
	if !l.well() {
		return verb.ErrFound
	}
	return nil
}

func edgeNames(reports []command.Report) string {
	var names []string
	for _, r := range reports {
		names = append(names, r.Edge)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// askFlags are those of what is asked of an edge.
type askFlags struct {
	Who  string        `help:"Who asks; without it the user of this process." placeholder:"NAME"`
	Wait time.Duration `help:"How long an edge may leave the first answer." default:"30s"`
}

func (f askFlags) who() string {
	if f.Who != "" {
		return f.Who
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + fmt.Sprint(os.Getuid())
}

type edgeReplayCmd struct {
	Asset string    `help:"The asset: site/line/asset." required:"" placeholder:"ASSET"`
	From  time.Time `help:"Begin, by the time of measurement (RFC 3339)." required:"" placeholder:"TIME"`
	To    time.Time `help:"End, left out." required:"" placeholder:"TIME"`
	Why   string    `help:"Why; it is kept with the request." required:"" placeholder:"TEXT"`
	Edge  string    `help:"The edge; without it the one that says it measures the asset." placeholder:"GROUP/NODE"`
	ID    string    `name:"id" help:"Id of the request. The same id again is the same replay: it is looked at, not done twice." placeholder:"ID"`
	Rate  int64     `help:"Bytes a second at most; the edge has bounds of its own." placeholder:"BYTES"`
	askFlags
	edgeFlags
}

// Help shows examples.
func (edgeReplayCmd) Help() string {
	return `The edge sends the waveforms and slow samples that its ring has of the range, as history, within its share of the link. Once it has
taken the request it goes on by itself, also after a restart; Ctrl-C ends the looking on only. Look again with the same --id.

Examples:
  headrace edge replay --asset lyon/hall/pump-3 --from 2026-01-05T06:00:00Z --to 2026-01-05T07:00:00Z --why "alert 17"
  headrace edge replay --asset lyon/hall/pump-3 --from 2026-01-05T06:00:00Z --to 2026-01-05T07:00:00Z --why "alert 17" --output json`
}

// Run asks for the replay and shows its progress.
func (c edgeReplayCmd) Run(ctx context.Context, e *verb.Env) error {
	q := command.Request{
		Version: command.Version, ID: c.ID, Verb: command.Replay, Who: c.who(), Why: c.Why, Asset: c.Asset, From: c.From, To: c.To, BytesPerSecond: c.Rate,
	}
	if q.ID == "" {
		q.ID = uuid.NewString()
	}
	if err := q.Check(); err != nil {
		return fmt.Errorf("replaying: %w", err)
	}
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if c.Edge == "" {
		if c.Edge, err = edgeOf(ctx, client, signal.Asset(c.Asset)); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.Stderr, "replay %s at edge %s\n", q.ID, c.Edge)
	told := func(a command.Answer) {
		if j := a.Replay; j != nil {
			fmt.Fprintf(e.Stderr, "%3.0f %%  %d readings, %d samples of waveforms, %d bytes, %d bytes/s\n", 100*j.Progress(), j.Readings, j.Samples, j.Bytes, j.Rate)
		}
	}
	a, err := client.Ask(ctx, c.Edge, q, c.Wait, told)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		if err := json.NewEncoder(e.Stdout).Encode(a); err != nil {
			return err
		}
	}
	if a.State != command.Done {
		if c.Output == "json" {
			return verb.ErrFound
		}
		return fmt.Errorf("edge %s: replay %s: %s", c.Edge, a.State, a.Reason)
	}
	if c.Output == "text" {
		fmt.Fprintf(e.Stdout, "%s: %d readings and %d samples of waveforms of %s sent\n", c.Edge, a.Replay.Readings, a.Replay.Samples, c.Asset)
		if a.Replay.Left != "" {
			fmt.Fprintln(e.Stdout, "not all of the range was there:", a.Replay.Left)
		}
	}
	return nil
}

// edgeOf finds the edge that measures an asset.
func edgeOf(ctx context.Context, client *command.Client, asset signal.Asset) (string, error) {
	reports, err := client.Reports(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range reports {
		if slices.Contains(r.Assets, asset) {
			return r.Edge, nil
		}
	}
	return "", fmt.Errorf("no edge that the broker has heard of says that it measures %s; it knows %s; name one with --edge GROUP/NODE", asset, edgeNames(reports))
}

type edgePlanCmd struct {
	File string `arg:"" help:"Configuration file (YAML)." type:"path"`
	askFlags
	edgeFlags
}

// Help shows an example.
func (edgePlanCmd) Help() string {
	return "The edge compares the file with what it runs by. Exit code 1 if it would refuse it.\n\nExample:\n  headrace edge plan edge.yaml"
}

// Run asks the edge.
func (c edgePlanCmd) Run(ctx context.Context, e *verb.Env) error {
	cfg, text, err := readConfig(c.File)
	if err != nil {
		return err
	}
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	name := cfg.Edge.Group + "/" + cfg.Edge.Node
	a, err := client.Ask(ctx, name, command.Request{ID: uuid.NewString(), Verb: command.Plan, Who: c.who(), Config: text}, c.Wait, nil)
	if err != nil {
		return err
	}
	if a.Plan == nil {
		return fmt.Errorf("edge %s: %s", name, a.Reason)
	}
	return edgefile.PrintChange(e, name, *a.Plan, c.Output)
}

func readConfig(file string) (*config.Config, string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("reading the edge's configuration: %w", err)
	}
	cfg, err := config.Parse(file, text)
	return cfg, string(text), err
}

type edgeApplyCmd struct {
	File string `arg:"" help:"Configuration file (YAML)." type:"path"`
	Why  string `help:"Why; it is kept with the configuration." required:"" placeholder:"TEXT"`
	askFlags
	edgeFlags
}

// Help shows an example.
func (edgeApplyCmd) Help() string {
	return `The file is laid on the edge's topic, retained: an edge that is away takes it when it is back. Exit code 1 if the edge refused it or gave it
up for the last good one. --wait is how long the edge may take to decide: a minute of probation, and its way.

Example:
  headrace edge apply edge.yaml --why "wider deadband for the flow meters" --wait 2m`
}

// Run lays the file on the edge's topic and waits for what becomes of it.
func (c edgeApplyCmd) Run(ctx context.Context, e *verb.Env) error {
	cfg, text, err := readConfig(c.File)
	if err != nil {
		return err
	}
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	name := cfg.Edge.Group + "/" + cfg.Edge.Node
	r, decided, err := client.Apply(ctx, name, command.Desired{
		ID: uuid.NewString(), Hash: cfg.Hash(), Text: text, Who: c.who(), Why: c.Why, Time: time.Now().UTC(),
	}, c.Wait, func(r command.Report) { fmt.Fprintf(e.Stderr, "%s: %s\n", name, r.State) })
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = json.NewEncoder(e.Stdout).Encode(map[string]any{"edge": name, "config": cfg.Hash(), "decided": decided, "state": r.State, "runs_by": r.Config, "cause": r.Cause})
	} else if !decided {
		_, err = fmt.Fprintf(e.Stdout, "%s has not decided within %s; the configuration waits for it at the broker\n", name, c.Wait)
	} else {
		_, err = fmt.Fprintf(e.Stdout, "%s: %s; it runs by %s\n", name, r.State, r.Config)
		if r.Cause != "" {
			_, err = fmt.Fprintln(e.Stdout, " ", r.Cause)
		}
	}
	if err == nil && decided && r.State != command.Applied {
		err = verb.ErrFound
	}
	return err
}

type edgeCheckCmd struct {
	File   string `arg:"" help:"Configuration file (YAML)." type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (edgeCheckCmd) Help() string {
	return "The same as headrace-edge check. Exit code 1 if the file says what it hardly means.\n\nExample:\n  headrace edge check edge.yaml"
}

// Run checks the file.
func (c edgeCheckCmd) Run(e *verb.Env) error { return edgefile.Check(e, c.File, c.Output) }

type edgeTryCmd struct {
	File   string        `arg:"" help:"Configuration file to try (YAML)." type:"path"`
	Dir    string        `help:"Data directory of this machine with the edge that the file names." default:"./headrace-data" type:"path"`
	Last   time.Duration `help:"How far back." default:"6h"`
	Output string        `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows an example.
func (edgeTryCmd) Help() string {
	return "The same as headrace-edge try, for an edge whose own directory is DIR/edges/GROUP/NODE.\n\nExample:\n  headrace edge try new.yaml --last 6h"
}

// Run tries the file's filters.
func (c edgeTryCmd) Run(e *verb.Env) error {
	cfg, err := config.Read(c.File)
	if err != nil {
		return err
	}
	return edgefile.Try(e, c.File, filepath.Join(c.Dir, "edges", cfg.Edge.Group, cfg.Edge.Node), c.Last, c.Output)
}
