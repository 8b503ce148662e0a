package record

import (
	"context"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// The oracle: Google's own codec, from the published record.proto.
func message(t testing.TB, name protoreflect.Name) protoreflect.MessageDescriptor {
	t.Helper()
	src, err := os.ReadFile("../docs/formats/record.proto")
	if err != nil {
		t.Fatal(err)
	}
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"record.proto": string(src)}),
	}}
	files, err := c.Compile(context.Background(), "record.proto")
	if err != nil {
		t.Fatalf("compiling record.proto: %v", err)
	}
	return files[0].Messages().ByName(name)
}

func text(label string) func(*rapid.T) string {
	return func(t *rapid.T) string { return rapid.StringN(0, 20, -1).Draw(t, label) }
}

func drawReading(t *rapid.T) signal.Reading {
	r := signal.Reading{
		Sensor:    text("sensor")(t),
		EventTime: signal.Micros(rapid.Int64().Draw(t, "time")),
		Unit:      text("unit")(t),
		Quality:   rapid.SampledFrom([]signal.Quality{192, 0, 500, 65535}).Draw(t, "quality"),
		Rescued:   text("rescued")(t), Historical: rapid.Bool().Draw(t, "historical"),
	}
	r.AliveAt = r.EventTime
	if rapid.Bool().Draw(t, "held") {
		r.AliveAt = signal.Micros(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64()).Draw(t, "alive"))
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 1:
		r.Value = signal.NumberValue(math.Float64frombits(rapid.Uint64().Draw(t, "number")))
	case 2:
		r.Value = signal.BoolValue(rapid.Bool().Draw(t, "bool"))
	case 3:
		r.Value = signal.TextValue(text("text")(t))
	}
	return r
}

func drawBatch(t *rapid.T) signal.Batch {
	return signal.Batch{
		Origin: signal.Origin{
			Edge: text("edge")(t), Boot: text("boot")(t), Seq: rapid.Uint64().Draw(t, "seq"), Stream: signal.Stream(text("stream")(t)),
			N: rapid.Uint64().Draw(t, "n"), Config: text("config")(t), CompleteTo: signal.Micros(rapid.Int64().Draw(t, "complete")),
		},
		Readings: rapid.SliceOfN(rapid.Custom(drawReading), 0, 8).Draw(t, "readings"),
	}
}

// oracleReadings fills a repeated field by the names of record.proto.
func oracleReadings(list protoreflect.List, readings []signal.Reading) {
	for _, r := range readings {
		m := list.NewElement().Message()
		set := setter(m)
		set("sensor", r.Sensor)
		set("event_time", int64(r.EventTime))
		if r.AliveAt != r.EventTime {
			set("alive_at", int64(r.AliveAt))
		}
		switch r.Value.Kind {
		case signal.Number:
			set("number", r.Value.Number)
		case signal.Bool:
			set("flag", r.Value.Number == 1)
		case signal.Text:
			set("text", r.Value.Text)
		}
		set("unit", r.Unit)
		if r.Quality != 192 {
			set("quality", uint32(r.Quality))
		}
		set("historical", r.Historical)
		set("rescued", r.Rescued)
		list.Append(protoreflect.ValueOfMessage(m))
	}
}

func setter(m protoreflect.Message) func(string, any) {
	return func(name string, v any) {
		m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOf(v))
	}
}

var same = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b signal.Value) bool {
		return a.Kind == b.Kind && a.Text == b.Text && math.Float64bits(a.Number) == math.Float64bits(b.Number)
	}),
}

func TestRecordAgainstOracle(t *testing.T) {
	md := message(t, "Record")
	var reused signal.Batch
	rapid.Check(t, func(t *rapid.T) {
		want := drawBatch(t)
		theirs := dynamicpb.NewMessage(md)
		set := setter(theirs)
		set("edge", want.Edge)
		set("boot", want.Boot)
		set("stream", string(want.Stream))
		set("n", want.N)
		set("config", want.Config)
		set("complete_to", int64(want.CompleteTo))
		set("seq", want.Seq)
		oracleReadings(theirs.Mutable(md.Fields().ByName("readings")).List(), want.Readings)

		wire, err := proto.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		wire = protowire.AppendVarint(protowire.AppendTag(wire, 99, protowire.VarintType), 7) // a later version's
		if err := Decode(wire, &reused); err != nil {
			t.Fatalf("ours does not read theirs: %v", err)
		}
		if d := cmp.Diff(want, reused, same); d != "" {
			t.Fatalf("decoded (-want +got):\n%s", d)
		}
		back := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(Append([]byte("before"), &want)[6:], back); err != nil {
			t.Fatalf("theirs does not read ours: %v", err)
		}
		if !proto.Equal(theirs, back) {
			t.Fatalf("encoded:\n%v\n%v", theirs, back)
		}
	})
}

func TestEventAgainstOracle(t *testing.T) {
	md := message(t, "Event")
	var reused Event
	rapid.Check(t, func(t *rapid.T) {
		want := Event{
			Edge: text("edge")(t), Device: text("device")(t), Kind: rapid.SampledFrom([]string{KindNBirth, KindDDeath}).Draw(t, "kind"),
			Time: signal.Micros(rapid.Int64().Draw(t, "time")), BdSeq: rapid.Uint64().Draw(t, "bdSeq"), Seq: rapid.Uint64().Draw(t, "seq"),
			Held: rapid.SliceOfN(rapid.Custom(drawReading), 0, 4).Draw(t, "held"),
		}
		theirs := dynamicpb.NewMessage(md)
		set := setter(theirs)
		set("edge", want.Edge)
		set("device", want.Device)
		set("kind", want.Kind)
		set("time", int64(want.Time))
		set("bd_seq", want.BdSeq)
		set("seq", want.Seq)
		oracleReadings(theirs.Mutable(md.Fields().ByName("held")).List(), want.Held)
		wire, err := proto.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeEvent(wire, &reused); err != nil {
			t.Fatalf("ours does not read theirs: %v", err)
		}
		if d := cmp.Diff(want, reused, same); d != "" {
			t.Fatalf("decoded (-want +got):\n%s", d)
		}
		back := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(AppendEvent(nil, &want), back); err != nil {
			t.Fatalf("theirs does not read ours: %v", err)
		}
		if !proto.Equal(theirs, back) {
			t.Fatalf("encoded:\n%v\n%v", theirs, back)
		}
	})
}

func frame(num protowire.Number, p []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), p)
}

func TestDecodeRefuses(t *testing.T) {
	for want, in := range map[string][]byte{
		"larger than 8388608":             make([]byte, MaxValueBytes+1),
		"readings are more than 1048576":  []byte(strings.Repeat("\x3A\x00", MaxReadings+1)),
		"text is not UTF-8":               frame(3, []byte{0xFF}),
		"reading 0: field 1: text is not": frame(7, frame(1, []byte{0xFF})),
		"quality 65536":                   frame(7, []byte{0x40, 0x80, 0x80, 0x04}),
		"unexpected EOF":                  {0x0A, 0x05},
		"field 7: reading 0: unexpected":  frame(7, []byte{0x0A, 0x05}),
	} {
		var b signal.Batch
		var e Event
		if err := Decode(in, &b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("record: want error %q, got %v", want, err)
		}
		if err := DecodeEvent(in, &e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("event: want error %q, got %v", want, err)
		}
	}
}

// What is not UTF-8 is mended when it is written: no reader has to refuse it.
func TestAppendMendsText(t *testing.T) {
	in := signal.Batch{Readings: []signal.Reading{{Sensor: "a\xff", Value: signal.TextValue("\xc3"), Quality: 192}}}
	var out signal.Batch
	if err := Decode(Append(nil, &in), &out); err != nil {
		t.Fatal(err)
	}
	if r := out.Readings[0]; r.Sensor != "a\uFFFD" || r.Value.Text != "\uFFFD" {
		t.Errorf("got %+v", r)
	}
}

func TestDecodeAllocation(t *testing.T) {
	in := []byte(strings.Repeat("\x3A\x03\x0A\x01x", 50_000))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var b signal.Batch
	if err := Decode(in, &b); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 40*uint64(len(in)) {
		t.Errorf("%d bytes for %d", got, len(in))
	}
	wire := Append(nil, &b)
	if got := testing.AllocsPerRun(10, func() {
		wire = Append(wire[:0], &b)
		if err := Decode(wire, &b); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations over the same batch", got)
	}
}

func TestHeadersAndTopics(t *testing.T) {
	b := signal.Batch{Origin: signal.Origin{Edge: "g/e", Boot: "b", Seq: 9, Stream: "s/l/a:event", N: 12, Config: "c"}}
	want := []Header{
		{"edge", []byte("g/e")}, {"boot", []byte("b")}, {"stream", []byte("s/l/a:event")}, {"n", []byte("12")}, {"config", []byte("c")}, {"kind", []byte("record")},
	}
	if d := cmp.Diff(want, Headers(&b)); d != "" {
		t.Error(d)
	}
	b.Stream = "s/l/a:telemetry"
	if d := cmp.Diff(5, len(Headers(&b))); d != "" {
		t.Error(d)
	}
	if k := string(Key(&b)); k != "s/l/a" {
		t.Errorf("key %q", k)
	}
	for class, want := range map[signal.Class]string{signal.Telemetry: TopicReadings, signal.Event: TopicEvents, signal.Raw: TopicRaw} {
		if got := Topic(class); got != want {
			t.Errorf("class %s: topic %s", class, got)
		}
	}
	e := Event{Edge: "g/e", Kind: KindNBirth}
	if d := cmp.Diff([]Header{{"edge", []byte("g/e")}, {"kind", []byte("nbirth")}}, e.Headers()); d != "" {
		t.Error(d)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, &signal.Batch{
		Origin: signal.Origin{Edge: "g/e", Boot: "b", Seq: 9, Stream: "s/l/a:event", N: 12, Config: "c", CompleteTo: -1},
		Readings: []signal.Reading{
			{Sensor: "p", EventTime: 1, AliveAt: 2, Value: signal.NumberValue(1), Unit: "bar", Quality: 192, Historical: true, Rescued: "{}"},
			{Sensor: "q", Value: signal.TextValue("x")},
			{Sensor: "r", Value: signal.BoolValue(true)},
			{},
		},
	}))
	var used signal.Batch
	f.Fuzz(func(t *testing.T, in []byte) {
		var e Event
		if err := DecodeEvent(in, &e); err == nil {
			var back Event
			if err := DecodeEvent(AppendEvent(nil, &e), &back); err != nil {
				t.Fatalf("our own encoding of an event: %v", err)
			}
			if d := cmp.Diff(e, back, same); d != "" {
				t.Fatal(d)
			}
		}
		var b, back signal.Batch
		if err := Decode(in, &b); err != nil {
			return
		}
		if err := Decode(in, &used); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, used, same); d != "" {
			t.Fatalf("an old batch shines through:\n%s", d)
		}
		if err := Decode(Append(nil, &b), &back); err != nil {
			t.Fatalf("our own encoding: %v", err)
		}
		if d := cmp.Diff(b, back, same); d != "" {
			t.Fatal(d)
		}
	})
}

func benchBatch() *signal.Batch {
	b := signal.Batch{Origin: signal.Origin{Edge: "skab/valve1-0", Boot: "0199aa00-0000-7000-8000-000000000001", Seq: 9, Stream: "skab/valve1/0:telemetry", N: 8}}
	for i := range 100 {
		b.Readings = append(b.Readings, signal.Reading{
			Sensor: []string{"accelerometer1_rms", "current", "pressure", "temperature"}[i%4], EventTime: 1_583_750_000_000_000 + signal.Micros(i), AliveAt: 1_583_750_000_000_000 + signal.Micros(i),
			Value: signal.NumberValue(float64(i) / 3), Unit: "Cel", Quality: 192,
		})
	}
	return &b
}

func BenchmarkAppend100(b *testing.B) {
	batch := benchBatch()
	var wire []byte
	b.ReportAllocs()
	for b.Loop() {
		wire = Append(wire[:0], batch)
	}
	b.SetBytes(int64(len(wire)))
}

func BenchmarkDecode100(b *testing.B) {
	wire := Append(nil, benchBatch())
	var batch signal.Batch
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		if err := Decode(wire, &batch); err != nil {
			b.Fatal(err)
		}
	}
}
