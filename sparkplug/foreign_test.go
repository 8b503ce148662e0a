package sparkplug

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

// foreign plays an edge node that knows nothing of Headrace.
type foreign struct {
	t    testing.TB
	h    *HostSession
	seq  uint64
	wall time.Time
	used Payload // decoded over, as a bridge does
}

func newForeign(t testing.TB) *foreign {
	return &foreign{t: t, h: NewHostSession(HostConfig{Group: "g", Edge: "e", WaitBytes: 2048}), wall: testWall}
}

func (f *foreign) send(typ MessageType, device string, metrics ...Metric) Result {
	f.t.Helper()
	if typ == NBirth {
		f.seq = 0
	}
	p := Payload{Timestamp: 1000, HasTimestamp: true, Metrics: metrics}
	if typ != NDeath {
		p.Seq, p.HasSeq = f.seq, true
		f.seq = (f.seq + 1) % 256
	}
	if err := DecodePayload(AppendPayload(nil, &p), &f.used); err != nil {
		f.t.Fatal(err)
	}
	return f.h.Receive(testNow, f.wall, Topic{Type: typ, Group: "g", Edge: "e", Device: device}, &f.used)
}

func bdSeqOfTest(v uint64) Metric {
	return Metric{Name: metricBdSeq, Datatype: TypeInt64, Value: Long(v)}
}

func declared(name string, alias uint64, t DataType, v Value, props ...Property) Metric {
	return Metric{Name: name, Alias: alias, HasAlias: true, Datatype: t, Value: v, Properties: props}
}

func aliased(alias uint64, v Value, props ...Property) Metric {
	return Metric{Alias: alias, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Value: v, Properties: props}
}

func (f *foreign) born() {
	f.t.Helper()
	if r := f.send(NBirth, "", bdSeqOfTest(5), declared("Load", 1, TypeFloat, Float(0.5))); r.Outcome != Accepted || len(r.Batches) != 0 {
		f.t.Fatalf("nbirth: %+v", r)
	}
	r := f.send(DBirth, "press", declared("Inputs/p", 2, TypeInt16, Int(7), textProperty(PropertyUnit, "bar")), declared("on", 3, TypeBoolean, Bool(true)))
	if r.Outcome != Accepted || r.Rebirth || len(r.Event.Held) != 2 {
		f.t.Fatalf("dbirth: %+v", r)
	}
}

func TestForeignData(t *testing.T) {
	f := newForeign(t)
	f.born()
	at := func(sensor string, v signal.Value, unit string) signal.Reading {
		return signal.Reading{Sensor: sensor, EventTime: 2_000_000, AliveAt: 2_000_000, Value: v, Unit: unit, Quality: signal.QualityGood}
	}
	p := func(v signal.Value) signal.Reading { return at("Inputs.p", v, "bar") }
	with := func(r signal.Reading, change func(*signal.Reading)) signal.Reading { change(&r); return r }
	for _, c := range []struct {
		what    string
		metric  Metric
		want    signal.Reading
		nothing bool
	}{
		{"alias, sign-extended", aliased(2, Int(0xFFFFFFFE)), p(signal.NumberValue(-2)), false},
		{"alias, cut to 16 bits", aliased(2, Int(0xFFFE)), p(signal.NumberValue(-2)), false},
		{"integer in the long field", aliased(2, Long(math.MaxUint64-1)), p(signal.NumberValue(-2)), false},
		{"beyond its type", aliased(2, Int(0x12345)), with(p(signal.Value{}), func(r *signal.Reading) { r.Rescued = `{"datatype":2,"value":74565}` }), false},
		{"bool as int", aliased(3, Int(1)), at("on", signal.BoolValue(true), ""), false},
		{"by name", Metric{Name: "on", Timestamp: 2000, HasTimestamp: true, Value: Bool(false)}, at("on", signal.BoolValue(false), ""), false},
		{"undeclared name with its type", Metric{Name: "new", Timestamp: 2000, HasTimestamp: true, Datatype: TypeUInt8, Value: Int(200)}, at("new", signal.NumberValue(200), ""), false},
		{"null", Metric{Alias: 2, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Null: true}, p(signal.Value{}), false},
		{
			"historical",
			Metric{Alias: 2, HasAlias: true, Timestamp: 2000, HasTimestamp: true, Historical: true, Value: Int(1)},
			with(p(signal.NumberValue(1)), func(r *signal.Reading) { r.Historical = true }), false,
		},
		{"quality", aliased(2, Int(1), qualityProperty(500)), with(p(signal.NumberValue(1)), func(r *signal.Reading) { r.Quality = 500 }), false},
		{
			"quality that is none", aliased(2, Int(1), Property{Key: PropertyQuality, Type: TypeInt32, Value: Int(math.MaxUint32)}),
			with(p(signal.NumberValue(1)), func(r *signal.Reading) {
				r.Quality, r.Rescued = signal.QualityBad, `{"properties":{"Quality":4294967295}}`
			}), false,
		},
		{"unit of its own", aliased(2, Int(1), textProperty(PropertyUnit, "Pa")), with(p(signal.NumberValue(1)), func(r *signal.Reading) { r.Unit = "Pa" }), false},
		{"other properties", aliased(2, Int(1), textProperty("engHigh", "9")), with(p(signal.NumberValue(1)), func(r *signal.Reading) { r.Rescued = `{"properties":{"engHigh":"9"}}` }), false},
		{"time of the payload", Metric{Alias: 2, HasAlias: true, Value: Int(1)}, with(p(signal.NumberValue(1)), func(r *signal.Reading) { r.EventTime, r.AliveAt = 1_000_000, 1_000_000 }), false},
		{
			"time beyond the calendar",
			Metric{Alias: 2, HasAlias: true, Timestamp: math.MaxUint64, HasTimestamp: true, Value: Int(1)},
			with(p(signal.NumberValue(1)), func(r *signal.Reading) {
				r.EventTime, r.AliveAt, r.Rescued = 1_000_000, 1_000_000, `{"timestamp":18446744073709551615}`
			}), false,
		},
		{"transient", Metric{Alias: 2, HasAlias: true, Transient: true, Value: Int(1)}, signal.Reading{}, true},
		{"control", Metric{Name: "Device Control/Reset", Value: Bool(true)}, signal.Reading{}, true},
	} {
		r := f.send(DData, "press", c.metric)
		if c.nothing {
			if r.Outcome != Ignored || r.Skipped != 1 || len(r.Batches) != 0 {
				t.Errorf("%s: %+v", c.what, r)
			}
			continue
		}
		want := []signal.Batch{{Origin: signal.Origin{Edge: "g/e", Stream: "g/e/press:telemetry"}, Readings: []signal.Reading{c.want}}}
		if d := cmp.Diff(want, r.Batches); d != "" || r.Outcome != Accepted || r.Rebirth || r.Gap != 0 {
			t.Errorf("%s: %v, gap %d (-want +got):\n%s", c.what, r.Outcome, r.Gap, d)
		}
	}
	if r := f.send(NData, "", aliased(1, Float(0.25))); len(r.Batches) != 1 || r.Batches[0].Stream != "g/e/e:telemetry" || r.Batches[0].Readings[0].Sensor != "Load" {
		t.Errorf("data of the node: %+v", r)
	}
	// An alias belongs to the device that declares it.
	if r := f.send(DData, "press", aliased(1, Float(0.25))); r.Outcome != Waiting || !r.Rebirth {
		t.Errorf("alias of another device: %+v", r)
	}
}

func TestForeignComplexValues(t *testing.T) {
	f := newForeign(t)
	f.born()
	for want, m := range map[string]Metric{
		`{"datatype":16,"value":{"columns":["a"],"rows":[[1.5],["NaN"]],"types":[10]}}`: {
			Alias: 2, HasAlias: true, Datatype: TypeDataSet, Value: Value{Field: FieldDataSet},
			DataSet: &DataSet{NumColumns: 1, Columns: []string{"a"}, Types: []DataType{TypeDouble}, Rows: [][]Value{{Double(1.5)}, {Double(math.NaN())}}},
		},
		`{"datatype":17,"value":"AAE="}`: {Alias: 2, HasAlias: true, Datatype: TypeBytes, Value: Value{Field: FieldBytes, Text: "\x00\x01"}},
		`{"datatype":19,"value":{"metrics":[{"name":"m","type":9,"value":0.5}],"parameters":{"k":true},"ref":"T","version":"1"}}`: {
			Alias: 2, HasAlias: true, Datatype: TypeTemplate, Value: Value{Field: FieldTemplate},
			Template: &Template{Ref: "T", Version: "1", Metrics: []Metric{{Name: "m", Datatype: TypeFloat, Value: Float(0.5)}}, Parameters: []Parameter{{"k", TypeBoolean, Bool(true)}}},
		},
		`{"datatype":18,"metadata":{"size":2,"file_name":"f"},"value":"AAE="}`: {
			Alias: 2, HasAlias: true, Datatype: TypeFile, Value: Value{Field: FieldBytes, Text: "\x00\x01"}, MetaData: &MetaData{Size: 2, FileName: "f"},
		},
		`{"datatype":10,"properties":{"list":[{"x":1}],"none":null,"set":{"y":2}},"value":null}`: {
			Alias: 2, HasAlias: true, Datatype: TypeDouble, Properties: []Property{
				{Key: "set", Value: Value{Field: FieldPropertySet}, Set: []Property{{Key: "y", Value: Int(2)}}},
				{Key: "list", Value: Value{Field: FieldPropertySetList}, List: [][]Property{{{Key: "x", Value: Long(1)}}}},
				{Key: "none", Null: true},
			},
		},
	} {
		r := f.send(DData, "press", m)
		if len(r.Batches) != 1 || r.Batches[0].Readings[0].Value.Kind != signal.Null {
			t.Errorf("%s: %+v", want, r)
		} else if got := r.Batches[0].Readings[0].Rescued; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestForeignGapAndRepeat(t *testing.T) {
	f := newForeign(t)
	f.born()
	step := func(skip int, gap int, rebirth bool) {
		t.Helper()
		f.seq = uint64(uint8(int(f.seq) + skip))
		f.wall = f.wall.Add(time.Second)
		r := f.send(DData, "press", aliased(2, Int(1)))
		if r.Outcome != Accepted || r.Gap != gap || r.Rebirth != rebirth {
			t.Errorf("skip %d: %v, gap %d, rebirth %v; want gap %d, rebirth %v", skip, r.Outcome, r.Gap, r.Rebirth, gap, rebirth)
		}
	}
	for range 600 { // over the end of the numbers, more than once
		step(0, 0, false)
	}
	step(3, 3, true)
	step(1, 1, false) // asked a second ago
	step(254, 254, true)
	step(-1, 0, false) // the same number again
	step(0, 0, false)
}

func TestForeignWaitsForBirth(t *testing.T) {
	f := newForeign(t)
	r := f.send(DData, "press", aliased(2, Int(41), textProperty("k", "v")))
	if r.Outcome != Waiting || !r.Rebirth || len(r.Batches) != 0 {
		t.Fatalf("data before birth: %+v", r)
	}
	if r := f.send(DData, "press", aliased(2, Int(42), textProperty("other", "w"))); r.Outcome != Waiting || r.Rebirth {
		t.Fatalf("data before birth: %+v", r)
	}
	// A device's birth alone does not do: the node may have begun anew.
	f.send(DBirth, "d", declared("p", 2, TypeInt32, Int(0)))
	if r := f.send(DData, "d", aliased(2, Int(1))); r.Outcome != Waiting {
		t.Fatalf("data before the node's birth: %+v", r)
	}
	f.send(NBirth, "", bdSeqOfTest(0))
	r = f.send(DBirth, "press", declared("p", 2, TypeInt32, Int(0)))
	if len(r.Batches) != 2 || r.Event == nil || r.Batches[0].Readings[0].Value.Number != 41 || r.Batches[1].Readings[0].Value.Number != 42 ||
		r.Batches[0].Readings[0].Rescued != `{"properties":{"k":"v"}}` {
		t.Errorf("birth of what waited: %+v", r)
	}
	// The host was away: the table is a hint at best.
	f.h.Reconnected()
	f.wall = f.wall.Add(time.Minute)
	if r := f.send(DData, "press", aliased(2, Int(43))); r.Outcome != Waiting || !r.Rebirth {
		t.Errorf("after a reconnection: %+v", r)
	}
	f.wall = f.wall.Add(31 * time.Second)
	if r := f.send(NBirth, "", bdSeqOfTest(1)); r.Expired != 1 || f.h.waitingBytes != 0 || len(f.h.waiting) != 0 {
		t.Errorf("after the time to wait: %+v", r)
	}
	// The room is bounded.
	refused := 0
	for range 20 {
		if r := f.send(DData, "other", aliased(9, Int(1))); r.Outcome == Refused {
			refused++
		}
	}
	if refused == 0 || len(f.h.waiting) > 8 {
		t.Errorf("%d refused, %d wait", refused, len(f.h.waiting))
	}
	// A death of the session closes the table, one of another does not.
	f.send(DBirth, "press", declared("p", 2, TypeInt32, Int(0)))
	if r := f.send(NDeath, "", bdSeqOfTest(0)); r.Outcome != Ignored {
		t.Errorf("death of another session: %+v", r)
	}
	if r := f.send(DData, "press", aliased(2, Int(1))); r.Outcome != Accepted {
		t.Errorf("data after it: %+v", r)
	}
	if r := f.send(NDeath, "", bdSeqOfTest(1)); r.Outcome != Accepted || r.Event.Kind != "ndeath" || r.Event.Time != testNow {
		t.Errorf("death: %+v", r)
	}
	if r := f.send(DData, "press", aliased(2, Int(1))); r.Outcome != Refused {
		t.Errorf("data after the death, the room full: %+v", r)
	}
}

func TestForeignDeviceDeath(t *testing.T) {
	f := newForeign(t)
	f.born()
	r := f.send(DDeath, "press")
	if d := cmp.Diff(&Event{Edge: "g/e", Device: "press", Asset: "g/e/press", Kind: "ddeath", Time: 1_000_000, BdSeq: 5, Seq: 2}, r.Event); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if r := f.send(DData, "press", aliased(2, Int(1))); r.Outcome != Waiting {
		t.Errorf("data of the dead: %+v", r)
	}
}

func TestForeignNames(t *testing.T) {
	for _, c := range []struct {
		topic Topic
		want  signal.Asset
	}{
		{Topic{Group: "g", Edge: "e", Device: "line:asset"}, "g/line/asset"},
		{Topic{Group: "g", Edge: "e", Device: "d"}, "g/e/d"},
		{Topic{Group: "g", Edge: "e"}, "g/e/e"},
		{Topic{Group: "g:1", Edge: "e", Device: "a:b:c"}, "g%3A1/e/a%3Ab%3Ac"},
	} {
		if got, err := ForeignAsset(c.topic); err != nil || got != c.want {
			t.Errorf("%+v: got %q, %v; want %q", c.topic, got, err, c.want)
		}
	}
	for in, want := range map[string]string{"a": "a", "Inputs/A/b": "Inputs.A.b", "x#1+y": "x%231%2By", "a\x00": "a%00", "\xff": "\uFFFD"} {
		if got, err := ForeignSensor(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	if s, err := ForeignSensor(""); err == nil {
		t.Errorf("no name gave %q", s)
	}
	// Two names that come to one sensor are not mixed.
	f := newForeign(t)
	f.send(NBirth, "")
	f.send(DBirth, "d", declared("a/b", 1, TypeDouble, Double(1)), declared("a.b", 2, TypeDouble, Double(2)))
	r := f.send(DData, "d", aliased(1, Double(1)), aliased(2, Double(2)))
	if len(r.Batches) != 1 || len(r.Batches[0].Readings) != 1 || r.Batches[0].Readings[0].Value.Number != 1 || r.Skipped != 1 {
		t.Errorf("%+v", r)
	}
}

func TestScalar(t *testing.T) {
	num := func(f float64) signal.Value { return signal.NumberValue(f) }
	for _, c := range []struct {
		t     DataType
		v     Value
		want  signal.Value
		exact string
		no    bool
	}{
		{t: TypeInt8, v: Int(0x80), want: num(-128)},
		{t: TypeInt8, v: Int(0xFFFFFF80), want: num(-128)},
		{t: TypeInt8, v: Long(0xFFFFFFFFFFFFFF80), want: num(-128)},
		{t: TypeInt8, v: Long(0xFFFFFF80), want: num(-128)},
		{t: TypeInt8, v: Int(127), want: num(127)},
		{t: TypeInt8, v: Int(256), no: true},
		{t: TypeInt8, v: Int(0xFFFFFF00), no: true},
		{t: TypeInt16, v: Int(0x8000), want: num(-32768)},
		{t: TypeInt32, v: Int(0x80000000), want: num(math.MinInt32)},
		{t: TypeInt32, v: Long(0x80000000), want: num(math.MinInt32)},
		{t: TypeInt32, v: Long(0xFFFFFFFF80000000), want: num(math.MinInt32)},
		{t: TypeInt32, v: Long(1 << 32), no: true},
		{t: TypeInt64, v: Long(math.MaxUint64), want: num(-1)},
		{t: TypeInt64, v: Int(math.MaxUint32), want: num(-1)},
		{t: TypeInt64, v: Long(1<<53 + 1), want: num(1 << 53), exact: "9007199254740993"},
		{t: TypeInt64, v: Long(1 << 63), want: num(math.MinInt64), exact: "-9223372036854775808"},
		{t: TypeUInt8, v: Int(255), want: num(255)},
		{t: TypeUInt8, v: Int(0xFFFFFFFF), want: num(255)},
		{t: TypeUInt8, v: Int(256), no: true},
		{t: TypeUInt16, v: Long(65535), want: num(65535)},
		{t: TypeUInt32, v: Long(math.MaxUint32), want: num(math.MaxUint32)},
		{t: TypeUInt32, v: Int(math.MaxUint32), want: num(math.MaxUint32)},
		{t: TypeUInt32, v: Long(0xFFFFFFFF80000000), want: num(0x80000000)},
		{t: TypeUInt64, v: Long(math.MaxUint64), want: num(math.MaxUint64), exact: "18446744073709551615"},
		{t: TypeUInt64, v: Int(math.MaxUint32), want: num(math.MaxUint32)},
		{t: TypeDateTime, v: Long(1_700_000_000_000), want: num(1_700_000_000_000)},
		{t: TypeUnknown, v: Int(math.MaxUint32), want: num(-1)},
		{t: TypeFloat, v: Float(0.5), want: num(0.5)},
		{t: TypeDouble, v: Float(0.5), want: num(0.5)},
		{t: TypeInt8, v: Double(0.5), want: num(0.5)},
		{t: TypeDouble, v: Int(5), no: true},
		{t: TypeBoolean, v: Long(1), want: signal.BoolValue(true)},
		{t: TypeBoolean, v: Int(2), no: true},
		{t: TypeText, v: String("a\xff"), want: signal.TextValue("a\uFFFD")},
		{t: TypeBytes, v: Value{Field: FieldBytes, Text: "x"}, no: true},
		{t: TypeDouble, no: true},
	} {
		got, exact, ok := scalar(c.t, c.v)
		if ok == c.no || ok && (!got.Equal(c.want) || exact != c.exact) {
			t.Errorf("type %d, %+v: got %v, %q, %v; want %v, %q", c.t, c.v, got, exact, ok, c.want, c.exact)
		}
	}
}
