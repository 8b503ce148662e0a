package sparkplug

import (
	"context"
	"math"
	"os"
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

// The oracle: Google's own codec, from descriptors compiled out of
// testdata/wire.proto and of the block in docs/formats/sparkplug.md.

func compile(t testing.TB, name, source string) protoreflect.FileDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{name: source}),
	}}
	files, err := c.Compile(context.Background(), name)
	if err != nil {
		t.Fatalf("compiling %s: %v", name, err)
	}
	return files[0]
}

func wireProto(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	src, err := os.ReadFile("testdata/wire.proto")
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, "wire.proto", string(src))
}

func bodyProto(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	page, err := os.ReadFile("../docs/formats/sparkplug.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```proto\n")
	src, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("docs/formats/sparkplug.md has no proto block")
	}
	return compile(t, "body.proto", src).Messages().ByName("Body")
}

// keepsZero lists the optional fields whose presence Payload tells apart from
// zero.
var keepsZero = map[protoreflect.FullName]bool{
	"headrace.sparkplug.test.Payload.timestamp": true,
	"headrace.sparkplug.test.Payload.seq":       true,
	"headrace.sparkplug.test.Metric.alias":      true,
	"headrace.sparkplug.test.Metric.timestamp":  true,
}

func drawMessage(t *rapid.T, md protoreflect.MessageDescriptor, depth int) *dynamicpb.Message {
	m := dynamicpb.NewMessage(md)
	fields := md.Fields()
	chosen := map[protoreflect.OneofDescriptor]int{}
	for i := range md.Oneofs().Len() {
		o := md.Oneofs().Get(i)
		chosen[o] = rapid.IntRange(-1, o.Fields().Len()-1).Draw(t, "oneof")
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() == protoreflect.MessageKind && depth == 0 {
			continue
		}
		o := f.ContainingOneof()
		switch {
		case f.IsList():
			list := m.Mutable(f).List()
			most := 3
			if depth < 6 { // keep the whole small
				most = 2
			}
			for range rapid.IntRange(0, most).Draw(t, "len") {
				list.Append(drawValue(t, f, depth, true))
			}
		case o != nil && !o.IsSynthetic():
			if k := chosen[o]; k >= 0 && o.Fields().Get(k).Number() == f.Number() {
				m.Set(f, drawValue(t, f, depth, true))
			}
		case rapid.Bool().Draw(t, "set"):
			v := drawValue(t, f, depth, keepsZero[f.FullName()])
			if f.Message() != nil && f.Message().Name() == "PropertySet" && v.Message().Get(f.Message().Fields().ByName("keys")).List().Len() == 0 {
				continue
			}
			m.Set(f, v)
		}
	}
	if md.Name() == "PropertySet" {
		keys, values := m.Mutable(fields.ByName("keys")).List(), m.Mutable(fields.ByName("values")).List()
		n := min(keys.Len(), values.Len())
		keys.Truncate(n)
		values.Truncate(n)
	}
	return m
}

func drawValue(t *rapid.T, f protoreflect.FieldDescriptor, depth int, zero bool) protoreflect.Value {
	least := uint64(1)
	if zero {
		least = 0
	}
	switch f.Kind() {
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32Min(uint32(least)).Draw(t, "u32"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64Min(least).Draw(t, "u64"))
	case protoreflect.Sint64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "s64"))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(math.Float32frombits(rapid.Uint32().Draw(t, "f32")))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Float64frombits(rapid.Uint64().Draw(t, "f64")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!zero || rapid.Bool().Draw(t, "bool"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), int(least), 40).Draw(t, "bytes"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.StringN(int(least), 40, 200).Draw(t, "string"))
	default:
		return protoreflect.ValueOfMessage(drawMessage(t, f.Message(), depth-1))
	}
}

// dyn reads a dynamic message by field name.
type dyn struct{ protoreflect.Message }

func (d dyn) field(name string) protoreflect.FieldDescriptor {
	return d.Descriptor().Fields().ByName(protoreflect.Name(name))
}
func (d dyn) get(name string) protoreflect.Value { return d.Get(d.field(name)) }
func (d dyn) has(name string) bool               { return d.Has(d.field(name)) }
func (d dyn) str(name string) string             { return d.get(name).String() }
func (d dyn) u64(name string) uint64             { return d.get(name).Uint() }
func (d dyn) bool(name string) bool              { return d.get(name).Bool() }
func (d dyn) each(name string, do func(dyn)) {
	list := d.get(name).List()
	for i := range list.Len() {
		do(dyn{list.Get(i).Message()})
	}
}

func (d dyn) value() Value {
	f := d.WhichOneof(d.Descriptor().Oneofs().ByName("value"))
	if f == nil {
		return Value{}
	}
	v := d.Get(f)
	switch f.Name() {
	case "int_value":
		return Int(uint32(v.Uint()))
	case "long_value":
		return Long(v.Uint())
	case "float_value":
		return Float(float32(v.Float()))
	case "double_value":
		return Double(v.Float())
	case "boolean_value":
		return Bool(v.Bool())
	case "string_value":
		return String(v.String())
	case "bytes_value":
		return Value{Field: FieldBytes, Text: string(v.Bytes())}
	case "dataset_value":
		return Value{Field: FieldDataSet}
	case "template_value":
		return Value{Field: FieldTemplate}
	case "propertyset_value":
		return Value{Field: FieldPropertySet}
	case "propertysets_value":
		return Value{Field: FieldPropertySetList}
	}
	panic(f.Name())
}

func (d dyn) payload() Payload {
	p := Payload{
		Timestamp: d.u64("timestamp"), HasTimestamp: d.has("timestamp"),
		Seq: d.u64("seq"), HasSeq: d.has("seq"),
		UUID: d.str("uuid"), Body: d.get("body").Bytes(),
	}
	d.each("metrics", func(m dyn) { p.Metrics = append(p.Metrics, m.metric()) })
	return p
}

func (d dyn) metric() Metric {
	m := Metric{
		Name: d.str("name"), Alias: d.u64("alias"), HasAlias: d.has("alias"),
		Timestamp: d.u64("timestamp"), HasTimestamp: d.has("timestamp"), Datatype: DataType(d.u64("datatype")),
		Historical: d.bool("is_historical"), Transient: d.bool("is_transient"), Null: d.bool("is_null"),
		Value: d.value(),
	}
	if d.has("metadata") {
		x := dyn{d.get("metadata").Message()}
		m.MetaData = &MetaData{
			MultiPart: x.bool("is_multi_part"), ContentType: x.str("content_type"), Size: x.u64("size"), Seq: x.u64("seq"),
			FileName: x.str("file_name"), FileType: x.str("file_type"), MD5: x.str("md5"), Description: x.str("description"),
		}
	}
	if d.has("properties") {
		m.Properties = dyn{d.get("properties").Message()}.properties()
	}
	switch m.Value.Field {
	case FieldDataSet:
		x := dyn{d.get("dataset_value").Message()}
		m.DataSet = &DataSet{NumColumns: x.u64("num_of_columns")}
		columns, types := x.get("columns").List(), x.get("types").List()
		for i := range columns.Len() {
			m.DataSet.Columns = append(m.DataSet.Columns, columns.Get(i).String())
		}
		for i := range types.Len() {
			m.DataSet.Types = append(m.DataSet.Types, DataType(types.Get(i).Uint()))
		}
		x.each("rows", func(row dyn) {
			var cells []Value
			row.each("elements", func(c dyn) { cells = append(cells, c.value()) })
			m.DataSet.Rows = append(m.DataSet.Rows, cells)
		})
	case FieldTemplate:
		x := dyn{d.get("template_value").Message()}
		m.Template = &Template{Version: x.str("version"), Ref: x.str("template_ref"), IsDefinition: x.bool("is_definition")}
		x.each("metrics", func(in dyn) { m.Template.Metrics = append(m.Template.Metrics, in.metric()) })
		x.each("parameters", func(p dyn) {
			m.Template.Parameters = append(m.Template.Parameters, Parameter{p.str("name"), DataType(p.u64("type")), p.value()})
		})
	}
	return m
}

func (d dyn) properties() (set []Property) {
	keys, i := d.get("keys").List(), 0
	d.each("values", func(v dyn) {
		p := Property{Key: keys.Get(i).String(), Type: DataType(v.u64("type")), Null: v.bool("is_null"), Value: v.value()}
		switch p.Value.Field {
		case FieldPropertySet:
			p.Set = dyn{v.get("propertyset_value").Message()}.properties()
		case FieldPropertySetList:
			dyn{v.get("propertysets_value").Message()}.each("propertyset", func(in dyn) { p.List = append(p.List, in.properties()) })
		}
		set = append(set, p)
		i++
	})
	return set
}

// drawUnknown draws fields that no message here knows.
func drawUnknown(t *rapid.T) []byte {
	var b []byte
	for range rapid.IntRange(0, 3).Draw(t, "unknown") {
		num := protowire.Number(rapid.IntRange(100, int(protowire.MaxValidNumber)).Draw(t, "num"))
		switch rapid.IntRange(0, 4).Draw(t, "type") {
		case 0:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), rapid.Uint64().Draw(t, "v"))
		case 1:
			b = protowire.AppendFixed32(protowire.AppendTag(b, num, protowire.Fixed32Type), 7)
		case 2:
			b = protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), 7)
		case 3:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), []byte("extension"))
		case 4:
			b = protowire.AppendTag(b, num, protowire.StartGroupType)
			b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 1)
			b = protowire.AppendTag(b, num, protowire.EndGroupType)
		}
	}
	return b
}

var asDecoded = cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Payload{}, "WireBytes")}

func TestPayloadAgainstOracle(t *testing.T) {
	md := wireProto(t).Messages().ByName("Payload")
	var reused Payload
	rapid.Check(t, func(t *rapid.T) {
		theirs := drawMessage(t, md, 7)
		wire, err := proto.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		want := dyn{theirs}.payload()
		if err := DecodePayload(append(drawUnknown(t), append(wire, drawUnknown(t)...)...), &reused); err != nil {
			t.Fatalf("ours does not read theirs: %v", err)
		}
		if d := cmp.Diff(want, reused, asDecoded); d != "" {
			t.Fatalf("decoded (-want +got):\n%s", d)
		}
		prefix := []byte("prefix")
		ours := AppendPayload(prefix, &want)
		back := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(ours[len(prefix):], back); err != nil {
			t.Fatalf("theirs does not read ours: %v", err)
		}
		if d := cmp.Diff(want, dyn{back}.payload(), asDecoded); d != "" || !proto.Equal(theirs, back) {
			t.Fatalf("encoded (-want +got):\n%s\n%v\n%v", d, theirs, back)
		}
	})
}

func TestBodyAgainstOracle(t *testing.T) {
	md := bodyProto(t)
	var reused Body
	rapid.Check(t, func(t *rapid.T) {
		theirs := drawMessage(t, md, 1)
		wire, err := proto.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		d := dyn{theirs}
		want := Body{
			SessionBoot: d.str("session_boot"), Birth: d.u64("birth"), Boot: d.str("boot"), Seq: d.u64("seq"),
			Stream: d.str("stream"), N: d.u64("n"), Config: d.str("config"), CompleteTo: signal.Micros(d.get("complete_to").Int()),
			Idle: d.bool("idle"),
		}
		for i, list := 0, d.get("sub_milli").List(); i < list.Len(); i++ {
			want.SubMilli = append(want.SubMilli, uint32(list.Get(i).Uint()))
		}
		for i, list := 0, d.get("alive_after").List(); i < list.Len(); i++ {
			want.AliveAfter = append(want.AliveAfter, list.Get(i).Uint())
		}
		if err := DecodeBody(append(wire, drawUnknown(t)...), &reused); err != nil {
			t.Fatalf("ours does not read theirs: %v", err)
		}
		if d := cmp.Diff(want, reused, asDecoded); d != "" {
			t.Fatalf("decoded (-want +got):\n%s", d)
		}
		back := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(AppendBody(nil, &want), back); err != nil {
			t.Fatalf("theirs does not read ours: %v", err)
		}
		if !proto.Equal(theirs, back) {
			t.Fatalf("encoded:\n%v\n%v", theirs, back)
		}
	})
}
