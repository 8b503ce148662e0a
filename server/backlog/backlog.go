// Package backlog tells what lies between the edges and the tables: what each
// partition of the spine holds, how far bronze is behind it, and the oldest
// message of each edge that nobody has acknowledged.
//
// It looks and decides nothing; the ledger is what proves that all of it is
// there.
package backlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/spine/routes"
)

// Options say where to look.
type Options struct {
	Kafka kafkac.Config
	Lake  string   // folder of the lake; without one nothing is committed
	Edges []string // folders edges/ of the data directories that hold outboxes
}

// Status is what was found.
type Status struct {
	Partitions []Partition `json:"partitions"`
	Topics     []Topic     `json:"topics"`
	Edges      []Edge      `json:"edges"`
}

// Topic is how a topic forgets.
type Topic struct {
	Topic       string `json:"topic"`
	Partitions  int    `json:"partitions"`
	RetentionMs string `json:"retention_ms,omitempty"` // "-1" is for ever
	// RetentionBytes bounds a partition, "-1" by nothing.
	RetentionBytes string `json:"retention_bytes,omitempty"`
}

// Partition is what a partition holds: offsets from Start up to End.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	// Bronze is the next offset that bronze reads; null where no table reads.
	Bronze *int64 `json:"bronze"`
	// Lag is how many offsets bronze is behind; null where no table reads.
	Lag   *int64 `json:"lag"`
	Bytes *int64 `json:"bytes"` // null where Kafka does not tell
}

// Edge is what an outbox holds.
type Edge struct {
	Edge     string `json:"edge"`
	Messages int    `json:"messages"` // unacknowledged
	Readings int    `json:"readings"` // in them, without waveforms
	Bytes    int64  `json:"bytes"`    // of the outbox on disk
	// Oldest is the oldest unacknowledged message; null if there is none.
	Oldest *Message `json:"oldest"`
}

// Message names a message of an outbox.
type Message struct {
	Boot   string `json:"boot"`
	Seq    uint64 `json:"seq"`
	Stream string `json:"stream"`
	// Since is the event time up to which the stream is complete without it.
	Since time.Time `json:"since"`
}

// tables are those that read a topic: the classes' own, and what rules have made.
func tables(ctx context.Context, kafka kafkac.Config) (map[string]string, error) {
	out := map[string]string{record.TopicReadings: "bronze.readings", record.TopicEvents: "bronze.readings", record.TopicRaw: "bronze.raw"}
	routed, err := routes.NewReader(kafka).Topics(ctx)
	for topic, raw := range routed {
		out[topic] = "bronze.readings"
		if raw {
			out[topic] = "bronze.raw"
		}
	}
	return out, err
}

// Look gathers the status.
func Look(ctx context.Context, o Options) (Status, error) {
	var s Status
	admin, err := kafkac.NewAdmin(o.Kafka)
	if err != nil {
		return s, err
	}
	defer admin.Close()
	tables, err := tables(ctx, o.Kafka)
	if err != nil {
		return s, err
	}
	names := append(slices.Collect(maps.Keys(tables)), record.TopicDeadletter)
	slices.Sort(names)
	topics, err := admin.Topics(ctx, names...)
	if err != nil {
		return s, err
	}
	settings, err := admin.Settings(ctx, names...)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		s.Topics = append(s.Topics, Topic{name, topics[name].Partitions, settings[name]["retention.ms"], settings[name]["retention.bytes"]})
	}
	if s.Partitions, err = partitions(ctx, admin, o.Lake, tables, names, topics); err != nil {
		return s, err
	}
	s.Edges, err = edges(o.Edges)
	return s, err
}

func partitions(ctx context.Context, admin *kafkac.Admin, lake string, tables map[string]string, names []string, topics map[string]kafkac.Topic) ([]Partition, error) {
	offsets, err := admin.ListOffsets(ctx, names...)
	if err != nil {
		return nil, err
	}
	// Not every cluster tells how large it is, nor everyone.
	bytes, sizeErr := admin.Bytes(ctx, names...)
	snapshots := map[string]*delta.Snapshot{}
	for _, table := range tables {
		schema, name, _ := strings.Cut(table, ".")
		t, err := delta.Open(ctx, filepath.Join(lake, schema, name), delta.Options{})
		switch {
		case errors.Is(err, delta.ErrNotTable):
		case err != nil:
			return nil, err
		default:
			snapshots[table] = t.Last()
		}
	}
	var out []Partition
	for tp, o := range offsets {
		p := Partition{Topic: tp.Topic, Partition: tp.Partition, Start: o.Start, End: o.End}
		if size, ok := bytes[tp]; ok && sizeErr == nil {
			p.Bytes = &size
		}
		if table := tables[tp.Topic]; snapshots[table] != nil {
			next := snapshots[table].Txn(pipeline.BronzeTxn(table, topics[tp.Topic].ID, tp.Partition))
			lag := o.End - max(next, o.Start)
			p.Bronze, p.Lag = &next, &lag
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out, nil
}

func edges(roots []string) ([]Edge, error) {
	out := []Edge{}
	for _, root := range roots {
		dirs, err := filepath.Glob(filepath.Join(root, "*", "*"))
		if err != nil {
			return nil, fmt.Errorf("looking for outboxes in %s: %w", root, err)
		}
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				continue
			}
			st, err := outbox.ReadState(edge.OutboxDir(dir))
			if err != nil {
				return nil, err
			}
			e := Edge{Edge: filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir), Messages: len(st.Unacked), Bytes: st.Bytes}
			for i, u := range st.Unacked {
				if u.Samples == 0 {
					e.Readings += u.Readings
				}
				if i == 0 { // oldest first
					e.Oldest = &Message{u.Boot, u.Seq, string(u.Stream), u.CompleteTo.Time()}
				}
			}
			out = append(out, e)
		}
	}
	return out, nil
}
