package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Shards is the number of shards of a lake, fixed for its life.
const Shards = 64

// Shard is the shard of an asset.
func Shard(asset signal.Asset) int { return int(kafkac.Murmur2Positive([]byte(asset)) % Shards) }

// origin is what a message is compared by: n counts within it.
type origin struct{ edge, boot, stream string }

// message is a record of the spine on its way to bronze.
type message struct {
	batch signal.Batch
	// unreadable says why the value could not be decoded; the batch then holds
	// what the record's headers tell.
	unreadable error
}

// wanted tells whether a record of the spine carries readings. Births and
// deaths share a topic with events; what is neither must not vanish.
func wanted(r *kafkac.Record) bool {
	kind, _ := r.Header(record.HeaderKind)
	return r.Topic != record.TopicEvents || !record.IsEvent(string(kind))
}

// read decodes a record of the spine, using m's memory again.
func (m *message) read(r *kafkac.Record) {
	m.unreadable = record.Decode(r.Value, &m.batch)
	if m.unreadable == nil {
		if _, err := signal.ParseStream(string(m.batch.Stream)); err != nil {
			m.unreadable = err
		} else if m.batch.N > math.MaxInt64 {
			m.unreadable = fmt.Errorf("message number %d is beyond what a table holds", m.batch.N)
		}
	}
	if m.unreadable == nil {
		return
	}
	header := func(key string) string {
		v, _ := r.Header(key)
		return string([]rune(string(v))) // not every sender's headers are UTF-8
	}
	m.batch = signal.Batch{Origin: signal.Origin{
		Edge: header(record.HeaderEdge), Boot: header(record.HeaderBoot), Config: header(record.HeaderConfig),
	}}
	n, err := strconv.ParseUint(header(record.HeaderN), 10, 63)
	if stream, bad := signal.ParseStream(header(record.HeaderStream)); err == nil && bad == nil {
		m.batch.Stream, m.batch.N = stream, n
	}
}

// origin returns what the message is deduplicated by, and false if it does not
// say who it is.
func (m *message) origin() (origin, bool) {
	o := origin{m.batch.Edge, m.batch.Boot, string(m.batch.Stream)}
	return o, o.edge != "" && o.boot != "" && o.stream != ""
}

// The columns of bronze.readings as they are appended.
const (
	colEventTime = iota
	colIngestTime
	colPath
	colSite
	colLine
	colAsset
	colSensor
	colValue
	colText
	colUnit
	colQuality
	colAliveAt
	colHistorical
	colRescued
	colEdge
	colBoot
	colStream
	colN
	colI
	colConfig
	colCompleteTo
	colTopic
	colPartition
	colOffset
	colKind
	colShard
)

func bronzeColumns() []duck.Column {
	return []duck.Column{
		{Name: "event_time", Type: duck.Timestamp},
		{Name: "ingest_time", Type: duck.Timestamp},
		{Name: "path", Type: duck.Dict},
		{Name: "site", Type: duck.Dict},
		{Name: "line", Type: duck.Dict},
		{Name: "asset", Type: duck.Dict},
		{Name: "sensor", Type: duck.Dict},
		{Name: "value", Type: duck.Float64},
		{Name: "text", Type: duck.String},
		{Name: "unit", Type: duck.Dict},
		{Name: "quality", Type: duck.Int32},
		{Name: "alive_at", Type: duck.Timestamp},
		{Name: "historical", Type: duck.Bool},
		{Name: "rescued", Type: duck.String},
		{Name: "edge", Type: duck.Dict},
		{Name: "boot", Type: duck.Dict},
		{Name: "stream", Type: duck.Dict},
		{Name: "n", Type: duck.Int64},
		{Name: "i", Type: duck.Int32},
		{Name: "config", Type: duck.Dict},
		{Name: "complete_to", Type: duck.Timestamp},
		{Name: "kafka_topic", Type: duck.Dict},
		{Name: "kafka_partition", Type: duck.Int32},
		{Name: "kafka_offset", Type: duck.Int64},
		{Name: "kind", Type: duck.Dict},
		{Name: "shard", Type: duck.Int32},
	}
}

// unreadableRow is what bronze rescues of a message or reading that no column
// takes.
type unreadableRow struct {
	Reason string `json:"reason"`
	Sensor string `json:"sensor,omitempty"`
	Bytes  []byte `json:"bytes,omitempty"` // base64 in JSON
	Extra  string `json:"rescued,omitempty"`
}

// appendMessage appends the message's rows and returns how many they are.
func appendMessage(a *duck.Appender, m *message, r *kafkac.Record) (int, error) {
	if m.unreadable != nil {
		what := unreadableRow{Reason: m.unreadable.Error(), Bytes: r.Value}
		return 1, appendReading(a, m, r, 0, signal.Reading{Quality: signal.QualityBad}, &what)
	}
	for i, reading := range m.batch.Readings {
		var what *unreadableRow
		if err := checkReading(reading); err != nil {
			what = &unreadableRow{Reason: err.Error(), Sensor: reading.Sensor, Extra: reading.Rescued}
		}
		if err := appendReading(a, m, r, i, reading, what); err != nil {
			return 0, err
		}
	}
	return len(m.batch.Readings), nil
}

func checkReading(r signal.Reading) error {
	if err := signal.CheckName(r.Sensor); err != nil {
		return fmt.Errorf("sensor: %w", err)
	}
	if !inTime(r.EventTime) || !inTime(r.AliveAt) {
		return errors.New("time is outside the years 1 to 9999")
	}
	return nil
}

func inTime(t signal.Micros) bool { return t >= signal.MinTime && t < signal.MaxTime }

func appendReading(a *duck.Appender, m *message, r *kafkac.Record, i int, v signal.Reading, bad *unreadableRow) error {
	asset, _ := m.batch.Stream.Split()
	site, line, _ := asset.Split()
	shard := Shard(asset)
	if m.batch.Stream == "" {
		// No asset to go by: whoever holds the partition holds the shard.
		shard = int(r.Partition) % Shards
	}
	a.Timestamp(colIngestTime, r.Timestamp.UnixMicro())
	if bad == nil || inTime(v.EventTime) && v.EventTime != 0 {
		a.Timestamp(colEventTime, int64(v.EventTime))
		a.Timestamp(colAliveAt, int64(max(v.EventTime, clampTime(v.AliveAt))))
	} else {
		a.Null(colEventTime)
		a.Null(colAliveAt)
	}
	if bad == nil {
		a.String(colPath, string(asset.Sensor(v.Sensor)))
		a.String(colSensor, v.Sensor)
	} else {
		a.String(colPath, "")
		a.String(colSensor, "")
	}
	a.String(colSite, site)
	a.String(colLine, line)
	a.String(colAsset, string(asset))
	appendValue(a, v)
	a.Int32(colQuality, int32(v.Quality))
	a.Bool(colHistorical, v.Historical)
	switch {
	case bad != nil:
		text, err := json.Marshal(bad)
		if err != nil {
			return fmt.Errorf("rescuing %s offset %d: %w", r.Topic, r.Offset, err)
		}
		a.String(colRescued, string(text))
	case v.Rescued != "":
		a.String(colRescued, v.Rescued)
	default:
		a.Null(colRescued)
	}
	a.String(colEdge, m.batch.Edge)
	a.String(colBoot, m.batch.Boot)
	a.String(colStream, string(m.batch.Stream))
	a.Int64(colN, int64(m.batch.N))
	a.Int32(colI, int32(i))
	a.String(colConfig, m.batch.Config)
	if c := m.batch.CompleteTo; c != 0 && inTime(c) {
		a.Timestamp(colCompleteTo, int64(c))
	} else {
		a.Null(colCompleteTo)
	}
	a.String(colTopic, r.Topic)
	a.Int32(colPartition, r.Partition)
	a.Int64(colOffset, r.Offset)
	a.Int32(colShard, int32(shard))
	return a.EndRow()
}

func clampTime(t signal.Micros) signal.Micros {
	return min(max(t, signal.MinTime), signal.MaxTime-1)
}

func appendValue(a *duck.Appender, v signal.Reading) {
	kind := "null"
	switch v.Value.Kind {
	case signal.Number:
		kind = "number"
	case signal.Bool:
		kind = "bool"
	case signal.Text:
		kind = "text"
	case signal.Null:
	}
	a.String(colKind, kind)
	if v.Value.Kind == signal.Number || v.Value.Kind == signal.Bool {
		a.Float64(colValue, v.Value.Number)
	} else {
		a.Null(colValue)
	}
	if v.Value.Kind == signal.Text {
		a.String(colText, v.Value.Text)
	} else {
		a.Null(colText)
	}
	a.String(colUnit, v.Unit)
}
