package sparkplug

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// seedMessages are what our own edge says, and what another may.
func seedMessages(t testing.TB) (out []Message) {
	n := newNode(t, testBoot)
	n.Connect(0)
	out = append(out, n.Will(testNow))
	out = append(out, n.Birth(testNow)...)
	out = append(out, mustData(t, n, oneBatch(1, number("p", 1_500, 1, "bar"), number("q", 2_500, 2, "")))...)
	idle, _ := n.Idle(testNow, oneBatch(1).Origin)
	p := Payload{HasSeq: true, Metrics: []Metric{
		declared("a/b", 1, TypeInt8, Int(0xFF), textProperty("k", "v"), Property{Key: "s", Value: Value{Field: FieldPropertySet}, Set: []Property{{Key: "x"}}}),
		{Name: "set", Datatype: TypeDataSet, Value: Value{Field: FieldDataSet}, DataSet: &DataSet{NumColumns: 1, Columns: []string{"c"}, Types: []DataType{3}, Rows: [][]Value{{Int(1)}}}},
		{Name: "t", Value: Value{Field: FieldTemplate}, Template: &Template{Ref: "r", Metrics: []Metric{{Name: "m", Value: Double(1)}}}},
	}}
	return append(out, idle, Message{Topic: "spBv1.0/works%201/NDATA/cell%257", Payload: AppendPayload(nil, &p)})
}

// What decodes, encodes and decodes to the same, and an old payload under it
// makes no difference.
func FuzzDecodePayload(f *testing.F) {
	for _, m := range seedMessages(f) {
		f.Add(m.Payload)
	}
	var used Payload
	if err := DecodePayload(seedMessages(f)[len(seedMessages(f))-1].Payload, &used); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var p, back Payload
		if err := DecodePayload(in, &p); err != nil {
			return
		}
		if err := DecodePayload(in, &used); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, used, asDecoded); d != "" {
			t.Fatalf("an old payload shines through:\n%s", d)
		}
		once := AppendPayload(nil, &p)
		if len(once) > MaxPayloadBytes {
			return
		}
		if err := DecodePayload(once, &back); err != nil {
			t.Fatalf("our own encoding: %v", err)
		}
		if twice := AppendPayload(nil, &back); string(once) != string(twice) {
			t.Fatalf("encoding moves:\n%x\n%x", once, twice)
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	f.Add(AppendBody(nil, &Body{SessionBoot: "s", Birth: 1, Boot: "b", Seq: 2, Stream: "x", N: 3, Config: "c", CompleteTo: -4, SubMilli: []uint32{5}, AliveAfter: []uint64{6}, Idle: true}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var b, back Body
		if err := DecodeBody(in, &b); err != nil {
			return
		}
		if err := DecodeBody(AppendBody(nil, &b), &back); err != nil {
			t.Fatalf("our own encoding: %v", err)
		}
		if d := cmp.Diff(b, back, asDecoded); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"boot":"b","ranges":[[1,2]]}`))
	f.Add([]byte(`{"online":true,"timestamp":1}`))
	f.Add([]byte("spBv1.0/g/DDATA/e/l:a%20b"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if a, err := ParseAck(in); err == nil {
			b, err := ParseAck(AppendAck(nil, a))
			if err != nil || len(b.Ranges) != len(a.Ranges) {
				t.Fatalf("%v, %v: %v", a, b, err)
			}
		}
		if a, err := ParseState(in); err == nil {
			if b, err := ParseState(AppendState(nil, a)); err != nil || a != b {
				t.Fatalf("%v, %v: %v", a, b, err)
			}
		}
		if a, err := ParseTopic(string(in)); err == nil {
			if b, err := ParseTopic(a.String()); err == nil && a != b {
				t.Fatalf("%v, %v", a, b)
			}
		}
	})
}

// Any messages in any order: no panic, and the bounds hold. Each message is
// a byte for its type, one for its device, two for its length, and the
// payload; the first byte says whether it is one of ours, cut or whole.
func FuzzHostSession(f *testing.F) {
	seeds := seedMessages(f)
	var all []byte
	for i, m := range seeds {
		one := append([]byte{byte(i), 0, byte(len(m.Payload) >> 8), byte(len(m.Payload))}, m.Payload...)
		f.Add(one)
		all = append(all, one...)
	}
	f.Add(all)
	types := []MessageType{NDeath, NBirth, DBirth, DData, DData, NData, DDeath, NCmd}
	devices := []string{"a:x", "a:y", "press", "\xff:"}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, wall := newHost(), testWall
		var p Payload
		for step := 0; len(in) >= 4; step++ {
			typ, device, size := types[int(in[0])%len(types)], devices[int(in[1])%len(devices)], int(in[2])<<8|int(in[3])
			body := in[4:]
			body = body[:min(size, len(body))]
			in = in[4+len(body):]
			if typ[0] == 'N' {
				device = ""
			}
			if err := DecodePayload(body, &p); err != nil {
				continue
			}
			wall = wall.Add(time.Duration(step) * time.Second)
			r := h.Receive(testNow, wall, Topic{Type: typ, Group: "works 1", Edge: "cell%7", Device: device}, &p)
			if len(r.Batches) > 0 && r.Outcome != Accepted && r.Outcome != Idle {
				t.Fatalf("%v with batches", r.Outcome)
			}
			for _, b := range r.Batches {
				if asset, _ := b.Stream.Split(); asset == "" || b.Edge != h.id {
					t.Fatalf("batch of nothing: %+v", b)
				}
				for _, reading := range b.Readings {
					if reading.Sensor == "" {
						t.Fatalf("reading of nothing: %+v", b)
					}
				}
			}
			if h.waitingBytes < 0 || h.waitingBytes > h.cfg.WaitBytes || h.defs < 0 {
				t.Fatalf("%d bytes wait, %d metrics", h.waitingBytes, h.defs)
			}
		}
	})
}
