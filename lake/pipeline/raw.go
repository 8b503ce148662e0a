package pipeline

import (
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// spineTable is a bronze table that the spine feeds.
type spineTable struct {
	name      string
	topics    []string
	columns   func() []duck.Column
	append    func(*duck.Appender, *message, *kafkac.Record) (rows int, err error)
	committed string // the crash point after its commit
}

func spineTables() []spineTable {
	return []spineTable{
		{tableBronze, []string{record.TopicReadings, record.TopicEvents}, bronzeColumns, appendMessage, "lake.bronze_committed"},
		{tableRaw, []string{record.TopicRaw}, rawColumns, appendWaves, "lake.raw_committed"},
	}
}

// The columns of bronze.raw as they are appended.
const (
	rawEventTime = iota
	rawIngestTime
	rawPath
	rawSite
	rawLine
	rawAsset
	rawSensor
	rawUnit
	rawQuality
	rawRate
	rawFirst
	rawCount
	rawFormat
	rawScale
	rawSamples
	rawHistorical
	rawRescued
	rawEdge
	rawBoot
	rawStream
	rawN
	rawI
	rawConfig
	rawTopic
	rawPartition
	rawOffset
	rawShard
)

func rawColumns() []duck.Column {
	return []duck.Column{
		{Name: "event_time", Type: duck.Timestamp},
		{Name: "ingest_time", Type: duck.Timestamp},
		{Name: "path", Type: duck.Dict},
		{Name: "site", Type: duck.Dict},
		{Name: "line", Type: duck.Dict},
		{Name: "asset", Type: duck.Dict},
		{Name: "sensor", Type: duck.Dict},
		{Name: "unit", Type: duck.Dict},
		{Name: "quality", Type: duck.Int32},
		{Name: "rate", Type: duck.Float64},
		{Name: "first_sample", Type: duck.Int64},
		{Name: "count", Type: duck.Int32},
		{Name: "format", Type: duck.Dict},
		{Name: "scale", Type: duck.Float64},
		{Name: "samples", Type: duck.Binary},
		{Name: "historical", Type: duck.Bool},
		{Name: "rescued", Type: duck.String},
		{Name: "edge", Type: duck.Dict},
		{Name: "boot", Type: duck.Dict},
		{Name: "stream", Type: duck.Dict},
		{Name: "n", Type: duck.Int64},
		{Name: "i", Type: duck.Int32},
		{Name: "config", Type: duck.Dict},
		{Name: "kafka_topic", Type: duck.Dict},
		{Name: "kafka_partition", Type: duck.Int32},
		{Name: "kafka_offset", Type: duck.Int64},
		{Name: "shard", Type: duck.Int32},
	}
}

// appendWaves appends the message's blocks to bronze.raw and returns how many
// rows they are. What cannot be read is a row without samples.
func appendWaves(a *duck.Appender, m *message, r *kafkac.Record) (int, error) {
	if m.unreadable != nil {
		what := unreadableRow{Reason: m.unreadable.Error(), Bytes: r.Value}
		return 1, appendWave(a, m, r, 0, signal.Reading{Quality: signal.QualityBad}, &record.Waveform{}, &what)
	}
	var w record.Waveform
	for i, v := range m.batch.Readings {
		var what *unreadableRow
		err := checkReading(v)
		if err == nil && v.Value.Kind != signal.Wave {
			err = fmt.Errorf("a reading of class raw that is no waveform")
		}
		if err == nil {
			err = record.DecodeWaveform([]byte(v.Value.Text), &w)
		}
		if err != nil {
			what = &unreadableRow{Reason: err.Error(), Sensor: v.Sensor, Bytes: []byte(v.Value.Text), Extra: v.Rescued}
			w = record.Waveform{}
		}
		if err := appendWave(a, m, r, i, v, &w, what); err != nil {
			return 0, err
		}
	}
	return len(m.batch.Readings), nil
}

func appendWave(a *duck.Appender, m *message, r *kafkac.Record, i int, v signal.Reading, w *record.Waveform, bad *unreadableRow) error {
	asset, _ := m.batch.Stream.Split()
	site, line, _ := asset.Split()
	shard := Shard(asset)
	if m.batch.Stream == "" {
		shard = int(r.Partition) % Shards
	}
	if inTime(v.EventTime) && v.EventTime != 0 {
		a.Timestamp(rawEventTime, int64(v.EventTime))
	} else {
		a.Null(rawEventTime)
	}
	a.Timestamp(rawIngestTime, r.Timestamp.UnixMicro())
	path, sensor := string(asset.Sensor(v.Sensor)), v.Sensor
	if bad != nil {
		path, sensor = "", ""
	}
	a.String(rawPath, path)
	a.String(rawSite, site)
	a.String(rawLine, line)
	a.String(rawAsset, string(asset))
	a.String(rawSensor, sensor)
	a.String(rawUnit, v.Unit)
	a.Int32(rawQuality, int32(v.Quality))
	a.Float64(rawRate, w.Rate)
	a.Int64(rawFirst, int64(w.First))
	a.Int32(rawCount, int32(w.Len()))
	a.String(rawFormat, w.Format)
	a.Float64(rawScale, w.Scale)
	a.Binary(rawSamples, w.Samples)
	a.Bool(rawHistorical, v.Historical)
	switch {
	case bad != nil:
		text, err := json.Marshal(bad)
		if err != nil {
			return fmt.Errorf("rescuing %s offset %d: %w", r.Topic, r.Offset, err)
		}
		a.String(rawRescued, string(text))
	case v.Rescued != "":
		a.String(rawRescued, v.Rescued)
	default:
		a.Null(rawRescued)
	}
	a.String(rawEdge, m.batch.Edge)
	a.String(rawBoot, m.batch.Boot)
	a.String(rawStream, string(m.batch.Stream))
	a.Int64(rawN, int64(m.batch.N))
	a.Int32(rawI, int32(i))
	a.String(rawConfig, m.batch.Config)
	a.String(rawTopic, r.Topic)
	a.Int32(rawPartition, r.Partition)
	a.Int64(rawOffset, r.Offset)
	a.Int32(rawShard, int32(shard))
	return a.EndRow()
}
