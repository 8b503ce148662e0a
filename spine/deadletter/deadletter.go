// Package deadletter reads the dead-letter topic and tries letters again: a
// record that Kafka found too large goes to its topic as it was, an MQTT
// message to its broker, where a bridge looks at it by the rules of today.
//
// A letter is never removed. One that was retried is closed by a record that
// names it, so that the ledger counts it no more; what the bridge refuses anew
// becomes a letter of its own.
package deadletter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/sparkplug"
	"github.com/headrace/headrace/spine/bridge"
)

// HeaderCloses is the offset of the letter that a closing record closes,
// decimal; both lie in one partition. Such a record has no other header and no
// value.
const HeaderCloses = "closes"

// Letter is one dead letter.
type Letter struct {
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"` // when the bridge wrote it, by the plant's clock
	Reason    string    `json:"reason"`
	Topic     string    `json:"topic"` // MQTT's, or Kafka's of a record that was too large
	Edge      string    `json:"edge,omitempty"`
	Boot      string    `json:"boot,omitempty"`
	Stream    string    `json:"stream,omitempty"`
	N         string    `json:"n,omitempty"`
	Readings  int64     `json:"readings,omitempty"`
	Cut       int64     `json:"cut,omitempty"` // size before it was cut
	// Source is the kind of an edge's source that refused it, "" of what the bridge
	// did; Uncarried is how many the edge had refused before it and only counted.
	Source    string `json:"source,omitempty"`
	Uncarried int64  `json:"uncarried,omitempty"`
	Bytes     int    `json:"bytes"`
	Closed    bool   `json:"closed"`

	record kafkac.Record
}

// ID names a letter on the command line.
func (l Letter) ID() string { return fmt.Sprintf("%d/%d", l.Partition, l.Offset) }

// Value is what was sent.
func (l Letter) Value() []byte { return l.record.Value }

// ParseID reads what [Letter.ID] writes.
func ParseID(s string) (partition int32, offset int64, err error) {
	p, o, ok := strings.Cut(s, "/")
	n, err1 := strconv.ParseInt(p, 10, 32)
	offset, err2 := strconv.ParseInt(o, 10, 64)
	if !ok || err1 != nil || err2 != nil || n < 0 || offset < 0 {
		return 0, 0, fmt.Errorf("dead letter %q: write PARTITION/OFFSET, as deadletter list shows it", s)
	}
	return int32(n), offset, nil
}

// List returns every letter that Kafka holds, the oldest first. Values are
// kept up to the size that keep names; 0 keeps none.
func List(ctx context.Context, cfg kafkac.Config, keep int) ([]Letter, error) {
	admin, err := kafkac.NewAdmin(cfg)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	offsets, err := admin.ListOffsets(ctx, record.TopicDeadletter)
	if err != nil {
		return nil, err
	}
	var ranges []kafkac.Range
	for tp, o := range offsets {
		ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: o.Start, End: o.End})
	}
	return read(ctx, cfg, ranges, keep)
}

func read(ctx context.Context, cfg kafkac.Config, ranges []kafkac.Range, keep int) ([]Letter, error) {
	var letters []Letter
	type place struct {
		partition int32
		offset    int64
	}
	closed := map[place]bool{}
	err := kafkac.Read(ctx, cfg, ranges, func(r kafkac.Record) error {
		if b, ok := r.Header(HeaderCloses); ok {
			if at, err := strconv.ParseInt(string(b), 10, 64); err == nil {
				closed[place{r.Partition, at}] = true
			}
			return nil
		}
		letters = append(letters, parse(r, keep))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading dead letters: %w", err)
	}
	for i := range letters {
		letters[i].Closed = closed[place{letters[i].Partition, letters[i].Offset}]
	}
	slices.SortStableFunc(letters, func(a, b Letter) int {
		if a.Partition == b.Partition {
			return int(a.Offset - b.Offset)
		}
		return a.Time.Compare(b.Time)
	})
	return letters, nil
}

func parse(r kafkac.Record, keep int) Letter {
	text := func(key string) string {
		b, _ := r.Header(key)
		return string(b)
	}
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(text(key), 10, 64) // nothing is 0
		return n
	}
	l := Letter{
		Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UTC(), Reason: text(record.HeaderReason), Topic: text(record.HeaderTopic),
		Edge: text(record.HeaderEdge), Boot: text(record.HeaderBoot), Stream: text(record.HeaderStream), N: text(record.HeaderN),
		Readings: number(bridge.HeaderReadings), Cut: number(bridge.HeaderCut),
		Source: text(record.HeaderSource), Uncarried: number(record.HeaderUncarried), Bytes: len(r.Value), record: r,
	}
	if len(r.Value) > keep {
		l.record.Value = nil
	}
	return l
}

// Refusal is why a letter cannot be tried again, "" if it can.
func (l Letter) Refusal() string {
	switch {
	case l.Closed:
		return "it was retried already"
	case l.Source != "":
		return "a source of edge " + l.Edge + " refused it: mend its sender or the edge's configuration, and have it sent there again"
	case l.Cut > 0:
		return "only its beginning was kept"
	case l.ofKafka():
		return ""
	case l.Topic == "":
		return "it does not say where it came from"
	}
	t, err := sparkplug.ParseTopic(l.Topic)
	if err == nil && (t.Type == sparkplug.NData || t.Type == sparkplug.DData) {
		return "its names belong to a session that is over: sent now, they could mean other sensors"
	}
	return ""
}

// ofKafka tells whether the letter is a record that was too large.
func (l Letter) ofKafka() bool {
	of, _ := l.record.Header(bridge.HeaderOf)
	return string(of) == "kafka"
}

// Ways are those by which letters go out again.
type Ways struct {
	// Kafka writes a record and returns when Kafka has it.
	Kafka func(context.Context, kafkac.Record) error
	// MQTT publishes a message with QoS 1 to a broker at which a bridge is, and
	// returns when the broker has it.
	MQTT func(ctx context.Context, topic string, payload []byte) error
}

// Retry sends a letter again, and closes it once it is taken.
func Retry(ctx context.Context, l Letter, w Ways) error {
	if why := l.Refusal(); why != "" {
		return fmt.Errorf("dead letter %s: %s", l.ID(), why)
	}
	var err error
	if l.ofKafka() {
		again := kafkac.Record{Topic: l.Topic, Key: l.record.Key, Value: l.record.Value, Timestamp: l.record.Timestamp}
		for _, h := range l.record.Headers {
			if h.Key != record.HeaderReason && h.Key != record.HeaderTopic && h.Key != bridge.HeaderReadings && h.Key != bridge.HeaderOf {
				again.Headers = append(again.Headers, h)
			}
		}
		err = w.Kafka(ctx, again)
	} else {
		err = w.MQTT(ctx, l.Topic, l.record.Value)
	}
	if err != nil {
		return fmt.Errorf("dead letter %s: sending it to %s again: %w", l.ID(), l.Topic, err)
	}
	// The letter's key leads to its partition.
	err = w.Kafka(ctx, kafkac.Record{
		Topic: record.TopicDeadletter, Key: l.record.Key, Timestamp: l.record.Timestamp,
		Headers: []kafkac.Header{{Key: HeaderCloses, Value: strconv.AppendInt(nil, l.Offset, 10)}},
	})
	if err != nil {
		return fmt.Errorf("dead letter %s: it was sent again, closing it: %w", l.ID(), err)
	}
	return nil
}
