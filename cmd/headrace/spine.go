package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/server/backlog"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/routes"
)

type spineCmd struct {
	Status spineStatusCmd `cmd:"" help:"What lies between the edges and the tables: lag, retention, bytes, the oldest unacknowledged message of each edge."`
	Tail   spineTailCmd   `cmd:"" help:"The readings of an asset as they lie in Kafka."`
}

type spineStatusCmd struct {
	Dir   string   `help:"Data directory with the lake, the spine and outboxes." default:"./headrace-data" type:"path"`
	Lake  string   `help:"Folder of the lake, if it is not in --dir." placeholder:"DIR" type:"path"`
	Edges []string `help:"Further data directories that hold outboxes." placeholder:"DIR,…"`
	kafkaFlags
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// Help shows examples.
func (spineStatusCmd) Help() string {
	return `A running Headrace is not disturbed.

Examples:
  headrace spine status
  headrace spine status --kafka kafka-1:9092 --lake centre/lake --edges edge --output json`
}

// Run prints the status.
func (c spineStatusCmd) Run(ctx context.Context, e *verb.Env) (err error) {
	s, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	o := backlog.Options{Kafka: s.config, Lake: c.Lake, Edges: []string{filepath.Join(c.Dir, "edges")}}
	if o.Lake == "" {
		o.Lake = filepath.Join(c.Dir, "lake")
	}
	for _, dir := range c.Edges {
		if err := datadir.Check(dir); err != nil {
			return err
		}
		o.Edges = append(o.Edges, filepath.Join(dir, "edges"))
	}
	status, err := backlog.Look(ctx, o)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		enc := json.NewEncoder(e.Stdout)
		enc.SetIndent("", " ")
		return enc.Encode(status)
	}
	return printStatus(e.Stdout, status)
}

func printStatus(w io.Writer, s backlog.Status) error {
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatInt(*n, 10)
	}
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "topic\tpartition\tstart\tend\tbronze\tlag\tbytes\t")
	for _, p := range s.Partitions {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t\n", p.Topic, p.Partition, p.Start, p.End, number(p.Bronze), number(p.Lag), number(p.Bytes))
	}
	fmt.Fprintln(out, "topic\tretention ms\tretention bytes\t")
	for _, t := range s.Topics {
		fmt.Fprintf(out, "%s\t%s\t%s\t\n", t.Topic, t.RetentionMs, t.RetentionBytes)
	}
	fmt.Fprintln(out, "edge\tunacknowledged\treadings\toutbox bytes\toldest: seq\tstream\tsince\t")
	for _, e := range s.Edges {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t", e.Edge, e.Messages, e.Readings, e.Bytes)
		if m := e.Oldest; m != nil {
			fmt.Fprintf(out, "%d\t%s\t%s\t\n", m.Seq, m.Stream, m.Since.UTC().Format(time.RFC3339))
			continue
		}
		fmt.Fprint(out, "-\t-\t-\t\n")
	}
	return out.Flush()
}

type spineTailCmd struct {
	Asset  string        `help:"The asset, site/line/asset." required:"" placeholder:"PATH"`
	From   string        `help:"Where to begin: a time (RFC 3339), or how long ago (15m) by the records' time, which is the plant's clock." default:"15m" placeholder:"T"`
	Follow bool          `short:"f" help:"Go on with what comes, until Ctrl-C."`
	Every  time.Duration `help:"How often --follow looks." default:"500ms" hidden:""`
	Dir    string        `help:"Data directory with the spine." default:"./headrace-data" type:"path"`
	kafkaFlags
	Output string `help:"Form of the answer: text, or json with an object a line." enum:"text,json" default:"text"`
}

// Help shows examples.
func (spineTailCmd) Help() string {
	return `What bronze has committed is gone from the embedded spine: look for it with "headrace sql".

Examples:
  headrace spine tail --asset skab/valve1/0 --from 2020-03-09T10:00:00Z
  headrace spine tail --asset demo/press-shop/press-1 --from 10m --follow --output json`
}

// line is a reading as tail prints it.
type line struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"` // of the record
	Path      string    `json:"path"`
	EventTime time.Time `json:"event_time"`
	Value     any       `json:"value"` // null: not a number, or no value
	Unit      string    `json:"unit,omitempty"`
	Quality   int       `json:"quality"`
	Edge      string    `json:"edge"`
	Boot      string    `json:"boot"`
	Stream    string    `json:"stream"`
	N         uint64    `json:"n"`
}

// Run prints the readings.
func (c spineTailCmd) Run(ctx context.Context, e *verb.Env) (err error) {
	from, err := c.from(time.Now())
	if err != nil {
		return err
	}
	s, err := openSpine(c.Dir, c.kafkaFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	admin, err := kafkac.NewAdmin(s.config)
	if err != nil {
		return err
	}
	defer admin.Close()
	names := []string{record.TopicReadings, record.TopicEvents}
	routed, err := routes.NewReader(s.config).Topics(ctx)
	if err != nil {
		return err
	}
	for topic, raw := range routed {
		if !raw {
			names = append(names, topic)
		}
	}
	topics, err := admin.Topics(ctx, names...)
	if err != nil {
		return err
	}
	next, err := admin.OffsetsAt(ctx, from, names...)
	if err != nil {
		return err
	}
	for {
		bounds, err := admin.ListOffsets(ctx, names...)
		if err != nil {
			return err
		}
		var ranges []kafkac.Range
		for _, name := range names {
			tp := kafkac.TopicPartition{Topic: name, Partition: int32(kafkac.Murmur2Positive([]byte(c.Asset)) % uint32(topics[name].Partitions))}
			end := bounds[tp].End
			ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: max(next[tp], bounds[tp].Start), End: end})
			next[tp] = max(next[tp], end)
		}
		if err := kafkac.Read(ctx, s.config, ranges, func(r kafkac.Record) error { return c.print(e.Stdout, r, from) }); err != nil {
			return stopped(ctx, err)
		}
		if !c.Follow {
			return nil
		}
		select {
		case <-time.After(c.Every):
		case <-ctx.Done():
			return nil
		}
	}
}

// stopped forgives what Ctrl-C has broken off.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c spineTailCmd) from(now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(c.From); err == nil {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, c.From)
	if err != nil {
		return at, fmt.Errorf("--from %s is neither a time like 2026-01-31T06:00:00Z nor a span like 15m", c.From)
	}
	return at, nil
}

// jsonValue is a value as JSON and people take it.
func jsonValue(v signal.Value) any {
	switch {
	case v.Kind == signal.Text:
		return v.Text
	case v.Kind == signal.Bool:
		return v.Number != 0
	case v.Kind == signal.Number && !math.IsNaN(v.Number) && !math.IsInf(v.Number, 0):
		return v.Number
	}
	return nil
}

// print writes the readings of one record, if it is one of the asset's.
func (c spineTailCmd) print(w io.Writer, r kafkac.Record, from time.Time) error {
	kind, _ := r.Header(record.HeaderKind)
	if string(r.Key) != c.Asset || r.Timestamp.Before(from) || r.Topic == record.TopicEvents && record.IsEvent(string(kind)) {
		return nil
	}
	var b signal.Batch
	if err := record.Decode(r.Value, &b); err != nil {
		return fmt.Errorf("reading %s/%d at offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	text := func(key string) string { v, _ := r.Header(key); return string(v) }
	n, _ := strconv.ParseUint(text(record.HeaderN), 10, 64)
	for _, reading := range b.Readings {
		l := line{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UTC(),
			Path: c.Asset + "/" + reading.Sensor, EventTime: reading.EventTime.Time().UTC(), Value: jsonValue(reading.Value),
			Unit: reading.Unit, Quality: int(reading.Quality), Edge: text(record.HeaderEdge), Boot: text(record.HeaderBoot),
			Stream: text(record.HeaderStream), N: n,
		}
		if c.Output == "json" {
			if err := json.NewEncoder(w).Encode(l); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(w, "%s  %-40s %v %s\n", l.EventTime.Format(time.RFC3339Nano), l.Path, l.Value, l.Unit); err != nil {
			return err
		}
	}
	return nil
}
