package pipeline

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

func TestWholeWay(t *testing.T) {
	l := newLake(t, 2)
	l.spine.now = day + 3600e6
	l.registry = newRegistry(sensor("s/l/pump/temp", "Cel", -10, 120), sensor("s/l/pump/pressure", "bar", 0, 10))
	e := newEdge("s/edge", "boot1")
	first := e.message("s/l/pump",
		signal.Reading{Sensor: "temp", EventTime: day, AliveAt: day, Value: signal.NumberValue(212), Unit: "[degF]", Quality: 192},
		signal.Reading{Sensor: "pressure", EventTime: day, AliveAt: day, Value: signal.NumberValue(2.5), Unit: "bar", Quality: 192})
	l.spine.send(first)
	l.spine.send(first) // sent again
	l.spine.send(e.message("s/l/pump",
		signal.Reading{Sensor: "temp", EventTime: day + 30e6, AliveAt: day + 30e6, Value: signal.NumberValue(500), Unit: "Cel", Quality: 192},
		signal.Reading{Sensor: "pressure", EventTime: day + 30e6, AliveAt: day + 30e6, Value: signal.NumberValue(3), Unit: "furlong", Quality: 0},
		signal.Reading{Sensor: "running", EventTime: day + 30e6, AliveAt: day + 30e6, Value: signal.BoolValue(true), Quality: 192},
		signal.Reading{Sensor: "mode", EventTime: day + 30e6, AliveAt: day + 30e6, Value: signal.TextValue("auto"), Quality: 500},
		signal.Reading{Sensor: "temp", EventTime: day + 3*3600e6, AliveAt: day + 3*3600e6, Value: signal.NumberValue(20), Unit: "Cel", Quality: 192}))
	// The same reading by another way is a repeat.
	l.spine.send(newEdge("s/other", "boot2").message("s/l/pump",
		signal.Reading{Sensor: "pressure", EventTime: day, AliveAt: day, Value: signal.NumberValue(2500), Unit: "mbar", Quality: 192}))
	l.spine.put(kafkac.Record{Topic: record.TopicReadings, Key: []byte("s/l/pump"), Value: []byte("\xffnonsense")})
	l.spine.put(kafkac.Record{Topic: record.TopicEvents, Key: []byte("s/l/pump"), Value: []byte("\xffneither event nor reading")})
	l.spine.put(kafkac.Record{Topic: record.TopicEvents, Key: []byte("s/l/pump"), Value: []byte("x"), Headers: []kafkac.Header{{Key: record.HeaderKind, Value: []byte(record.KindNBirth)}}})

	r := l.start(nil)
	l.drain(r)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff([]string{
		"|<nil>|null|true||0", "|<nil>|null|true||0",
		"s/l/pump/mode|<nil>|text|false|s/edge|1", "s/l/pump/pressure|2.5|number|false|s/edge|0", "s/l/pump/pressure|3|number|false|s/edge|1",
		"s/l/pump/pressure|2500|number|false|s/other|0", "s/l/pump/running|1|bool|false|s/edge|1",
		"s/l/pump/temp|20|number|false|s/edge|1", "s/l/pump/temp|212|number|false|s/edge|0", "s/l/pump/temp|500|number|false|s/edge|1",
	}, l.table(tableBronze, "path, value, kind, rescued IS NOT NULL AS odd, edge, n")); diff != "" {
		t.Error("bronze", diff)
	}
	if diff := cmp.Diff([]string{
		"s/l/pump/mode|<nil>|auto||false|<nil>|",
		"s/l/pump/pressure|2.5|<nil>|bar|true|2.5|bar",
		"s/l/pump/pressure|3|<nil>|furlong|false|3|furlong",
		"s/l/pump/running|1|<nil>||true|1|",
		"s/l/pump/temp|100|<nil>|Cel|true|212|[degF]",
	}, l.table(tableSilver, "path, value, text, unit, good, value_raw, unit_raw")); diff != "" {
		t.Error("silver", diff)
	}
	if diff := cmp.Diff([]string{
		"|<nil>|[schema registered sane_clock sane_alive good_quality]",
		"|<nil>|[schema registered sane_clock sane_alive good_quality]",
		"s/l/pump/temp|20|[sane_clock sane_alive]",
		"s/l/pump/temp|500|[possible_value]",
	}, l.table(tableQuarantine, "path, value, violations")); diff != "" {
		t.Error("quarantine", diff)
	}
	if diff := cmp.Diff([]string{
		"s/l/pump/pressure|2026-01-02T00:00:00|2.5|2.5|2.5|2.5|2|1|0.5|furlong|1",
		"s/l/pump/pressure|2026-01-02T00:01:00|<nil>|<nil>|<nil>|<nil>|0|1|0|furlong|1",
		"s/l/pump/temp|2026-01-02T00:00:00|100|100|100|100|1|1|1|Cel|1",
		"s/l/pump/temp|2026-01-02T00:01:00|100|100|100|100|0|0.5|1|Cel|1",
	}, l.table(tableWindows, "path, window_start, mean, min, max, last, count, coverage, good_fraction, unit, revision")); diff != "" {
		t.Error("windows", diff)
	}
	if diff := cmp.Diff([]string{"s/l/pump/mode|<nil>", "s/l/pump/pressure|3", "s/l/pump/running|1", "s/l/pump/temp|100"}, l.table(tableState, "path, value")); diff != "" {
		t.Error("state", diff)
	}
	if diff := cmp.Diff([]string{"s/l/pump/mode", "s/l/pump/pressure", "s/l/pump/running", "s/l/pump/temp"}, l.table(tableSensors, "path")); diff != "" {
		t.Error("registry", diff)
	}
	tally, err := Tally(t.Context(), l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]EdgeTally{"s/other": {Duplicates: 1}}, tally); diff != "" {
		t.Error("tally", diff)
	}
}
