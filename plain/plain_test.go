package plain

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

const arrived = signal.Micros(1_767_600_000_000_000)

func set(t testing.TB, c Config) *Set {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reading(sensor string, at signal.Micros, v signal.Value) signal.Reading {
	return signal.Reading{Sensor: sensor, EventTime: at, AliveAt: at, Value: v, Quality: signal.QualityGood}
}

func TestDocumentedForm(t *testing.T) {
	s := set(t, Config{Prefix: "plant"})
	num, at := signal.NumberValue, arrived
	with := func(r signal.Reading, change func(*signal.Reading)) signal.Reading { change(&r); return r }
	for payload, want := range map[string]signal.Reading{
		"21.5":           reading("t", at, num(21.5)),
		" -3e2\n":        reading("t", at, num(-300)),
		`{"value": 7}`:   reading("t", at, num(7)),
		`{"value":true}`: reading("t", at, signal.BoolValue(true)),
		`{"value":"on"}`: reading("t", at, signal.TextValue("on")),
		`{"value":null}`: reading("t", at, signal.Value{}),
		`{"ts":"2026-01-05T06:00:00.25Z","value":1}`:      reading("t", 1_767_592_800_250_000, num(1)),
		`{"ts":"2026-01-05T07:00:00.25+01:00","value":1}`: reading("t", 1_767_592_800_250_000, num(1)),
		`{"ts":1767592800250,"value":1}`:                  reading("t", 1_767_592_800_250_000, num(1)),
		`{"ts":1767592800250.5,"value":1}`:                reading("t", 1_767_592_800_250_500, num(1)),
		`{"value":1,"unit":"Cel","quality":64}`:           with(reading("t", at, num(1)), func(r *signal.Reading) { r.Unit, r.Quality = "Cel", 64 }),
		`{"value":1,"colour":{"b":2,"a":[1]}}`:            with(reading("t", at, num(1)), func(r *signal.Reading) { r.Rescued = `{"colour":{"b":2,"a":[1]}}` }),
		`{"value":[1,2]}`:                                 with(reading("t", at, signal.Value{}), func(r *signal.Reading) { r.Rescued = `{"value":[1,2]}` }),
		`{"value":1,"ts":"yesterday"}`:                    with(reading("t", at, signal.Value{}), func(r *signal.Reading) { r.Rescued = `{"ts":"yesterday","value":1}` }),
		`{"value":1,"ts":1e300}`:                          with(reading("t", at, signal.Value{}), func(r *signal.Reading) { r.Rescued = `{"ts":1e300,"value":1}` }),
		`{"value":1,"quality":"good"}`:                    with(reading("t", at, num(1)), func(r *signal.Reading) { r.Quality, r.Rescued = signal.QualityBad, `{"quality":"good"}` }),
	} {
		m, err := s.Read("plant/lyon/mill/p-1/t", []byte(payload), arrived)
		if err != nil || m.Asset != "lyon/mill/p-1" || m.Class != signal.Telemetry {
			t.Errorf("%s: %+v, %v", payload, m, err)
		}
		if d := cmp.Diff(want, m.Reading); d != "" {
			t.Errorf("%s: %s", payload, d)
		}
	}
	for topic, payload := range map[string]string{
		"plant/lyon/mill/p-1/t":      "hot",
		"plant/lyon/mill/p-1/u":      `{"ts":1}`,
		"plant/lyon/mill/p-1/v":      `{"value":1}{`,
		"plant/lyon/mill/p-1/w":      "",
		"plant/lyon/mill/p-1/x":      "0x10",
		"plant/lyon/mill/p-1":        "1",
		"plant/lyon/mill/p-1/t/more": "1",
		"plant/lyon//p-1/t":          "1",
		"other/lyon/mill/p-1/t":      "1",
		"plant":                      "1",
	} {
		if m, err := s.Read(topic, []byte(payload), arrived); err == nil {
			t.Errorf("%s %q was taken: %+v", topic, payload, m)
		}
	}
}

func TestRules(t *testing.T) {
	s := set(t, Config{Prefix: "plant", Rules: []Rule{
		{
			Topic: "factory/{hall}/+/machines/{machine}/{tag...}", Path: "lyon/{hall}/m-{machine}/{tag}",
			Value: "/data/0/v~1x", Time: "/when", TimeFormat: "unix", Unit: "/data/0/u", UnitIs: "bar",
		},
		{Topic: "alarms/{id}", Path: "lyon/alarms/{id}/state", Class: "event"},
		{Topic: "raw/#", Path: "lyon/raw/raw/raw", Value: "/v"},
	}})
	if d := cmp.Diff([]string{"alarms/+", "factory/+/+/machines/+/#", "plant/+/+/+/+", "raw/#"}, s.Filters()); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		topic, payload string
		path           signal.Path
		class          signal.Class
		want           signal.Reading
	}{
		{
			"factory/h1/x/machines/7/outlet/pressure", `{"when": 1767592800.5, "data": [{"v/x": 4.5}]}`, "lyon/h1/m-7/outlet.pressure", signal.Telemetry,
			signal.Reading{Sensor: "outlet.pressure", EventTime: 1_767_592_800_500_000, AliveAt: 1_767_592_800_500_000, Value: signal.NumberValue(4.5), Unit: "bar", Quality: signal.QualityGood},
		},
		{
			"factory/h:1/x/machines/7/t", `{"data": [{"v/x": "n/a", "u": "Cel"}]}`, "lyon/h%3A1/m-7/t", signal.Telemetry,
			signal.Reading{Sensor: "t", EventTime: arrived, AliveAt: arrived, Value: signal.TextValue("n/a"), Unit: "Cel", Quality: signal.QualityGood},
		},
		{"alarms/9", `{"value": "raised"}`, "lyon/alarms/9/state", signal.Event, reading("state", arrived, signal.TextValue("raised"))},
		{"raw/a/b/c", `{"v": false}`, "lyon/raw/raw/raw", signal.Telemetry, reading("raw", arrived, signal.BoolValue(false))},
		{"plant/a/b/c/d", "1", "a/b/c/d", signal.Telemetry, reading("d", arrived, signal.NumberValue(1))},
	} {
		m, err := s.Read(c.topic, []byte(c.payload), arrived)
		if err != nil || m.Asset.Sensor(m.Reading.Sensor) != c.path || m.Class != c.class {
			t.Errorf("%s: %+v, %v", c.topic, m, err)
		}
		if d := cmp.Diff(c.want, m.Reading); d != "" {
			t.Errorf("%s: %s", c.topic, d)
		}
	}
	if _, err := s.Read("factory/h1/x/machines/7/t", []byte(`{"data": []}`), arrived); err == nil || !strings.Contains(err.Error(), "/data/0/v~1x") {
		t.Errorf("a payload without the value: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for want, c := range map[string]Config{
		"no topic's beginning": {Prefix: "/plant"},
		"Sparkplug's own":      {Prefix: "spBv1.0"},
		"neither a text":       {Rules: []Rule{{Topic: "a/b+", Path: "a/b/c/d"}}},
		"stands twice":         {Rules: []Rule{{Topic: "{a}/{a}", Path: "a/b/c/d"}}},
		"is no topic":          {Rules: []Rule{{Topic: "a//b", Path: "a/b/c/d"}}},
		"has 3 names":          {Rules: []Rule{{Topic: "a", Path: "a/b/c"}}},
		"is not a name of":     {Rules: []Rule{{Topic: "a/{b}", Path: "a/b/c/{d}"}}},
		"a name is empty":      {Rules: []Rule{{Topic: "a", Path: "a/b//d"}}},
		"no JSON pointer":      {Rules: []Rule{{Topic: "a", Path: "a/b/c/d", Value: "v"}}},
		"need a value":         {Rules: []Rule{{Topic: "a", Path: "a/b/c/d", Time: "/t"}}},
		"time_format":          {Rules: []Rule{{Topic: "a", Path: "a/b/c/d", TimeFormat: "days"}}},
		"neither telemetry":    {Rules: []Rule{{Topic: "a", Path: "a/b/c/d", Class: "raw"}}},
		"own":                  {Rules: []Rule{{Topic: "headrace/#", Path: "a/b/c/d"}}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestHash(t *testing.T) {
	if set(t, Config{Prefix: "a"}).Hash() == set(t, Config{Prefix: "b"}).Hash() || len(set(t, Config{}).Hash()) != 16 {
		t.Error("hashes do not tell configurations apart")
	}
}

// Whatever comes, reading it does not panic, and what is taken is a path and has a
// time that tables hold.
func FuzzRead(f *testing.F) {
	s := set(f, Config{Prefix: "p", Rules: []Rule{
		{Topic: "f/{a}/{b...}", Path: "s/{a}/x{a}/{b}", Value: "/v/0", Time: "/t", TimeFormat: "unix_ns", Quality: "/q"},
		{Topic: "g/+", Path: "s/l/a/t"},
	}})
	f.Add("p/a/b/c/d", []byte("1"))
	f.Add("f/a:/b/#", []byte(`{"v":[{"x":1}],"t":"17","q":192}`))
	f.Add("g/x", []byte(`{"value":1e999,"ts":-62135596800000}`))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		m, err := s.Read(topic, payload, arrived)
		if err != nil {
			return
		}
		if _, err := signal.ParsePath(string(m.Asset.Sensor(m.Reading.Sensor))); err != nil {
			t.Fatalf("%q: %v", topic, err)
		}
		if at := m.Reading.EventTime; at < signal.MinTime || at >= signal.MaxTime || m.Reading.AliveAt != at {
			t.Fatalf("%q %q: %v", topic, payload, at)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	s := set(b, Config{Prefix: "plant"})
	payload := []byte(`{"ts":1767592800250,"value":21.5,"unit":"Cel"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Read("plant/lyon/mill/p-1/t", payload, arrived); err != nil {
			b.Fatal(err)
		}
	}
}
