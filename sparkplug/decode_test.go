package sparkplug

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// frame wraps p in a field.
func frame(num protowire.Number, p []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), p)
}

func nested(levels int, nums ...protowire.Number) (p []byte) {
	for range levels {
		for _, num := range slices.Backward(nums) {
			p = frame(num, p)
		}
	}
	return p
}

func TestDecodePayloadRefuses(t *testing.T) {
	for want, in := range map[string][]byte{
		"are more than 8388608":        make([]byte, MaxPayloadBytes+1),
		"metrics are more than":        []byte(strings.Repeat("\x12\x00", MaxElements+1)),
		"more than 262144 elements":    frame(2, frame(17, []byte(strings.Repeat("\x12\x00", MaxElements)))),
		"nested deeper":                nested(MaxDepth+1, 2, 18),
		"metric 0: nested deeper":      frame(2, frame(9, nested(MaxDepth+1, 2, 9))),
		"unexpected EOF":               {0x12, 0x05, 0x0A},
		"invalid field number":         {0x00},
		"variable length integer over": {0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01},
		"mismatching end group":        {0x0C},
	} {
		var p Payload
		if err := DecodePayload(in, &p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want error %q, got %v", want, err)
		}
	}
	for what, in := range map[string][]byte{
		"as deep as may be": nested(MaxDepth, 2, 18),
		"packed types":      frame(2, frame(17, frame(3, []byte{10, 12}))),
		"odd property set":  frame(2, frame(9, append(frame(1, []byte("key")), frame(1, []byte("alone"))...))),
		"wrong wire types":  append(protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 1), frame(1, nil)...),
	} {
		var p Payload
		if err := DecodePayload(in, &p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if what == "packed types" {
			if d := cmp.Diff([]DataType{10, 12}, p.Metrics[0].DataSet.Types); d != "" {
				t.Error(d)
			}
		}
	}
}

// The last value field counts, as in any oneof.
func TestDecodeLastValueWins(t *testing.T) {
	set := frame(17, frame(2, []byte("column")))
	template := frame(18, frame(1, []byte("1")))
	number := []byte{10 << 3, 5}
	for what, c := range map[string]struct {
		wire [][]byte
		want Metric
	}{
		"number last":   {[][]byte{set, template, number}, Metric{Value: Int(5)}},
		"data set last": {[][]byte{template, number, set}, Metric{Value: Value{Field: FieldDataSet}, DataSet: &DataSet{Columns: []string{"column"}}}},
		"begun again":   {[][]byte{set, number, set}, Metric{Value: Value{Field: FieldDataSet}, DataSet: &DataSet{Columns: []string{"column"}}}},
		"merged":        {[][]byte{set, set}, Metric{Value: Value{Field: FieldDataSet}, DataSet: &DataSet{Columns: []string{"column", "column"}}}},
		"template last": {[][]byte{set, template}, Metric{Value: Value{Field: FieldTemplate}, Template: &Template{Version: "1"}}},
	} {
		var in []byte
		for _, part := range c.wire {
			in = append(in, part...)
		}
		var p Payload
		if err := DecodePayload(frame(2, in), &p); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]Metric{c.want}, p.Metrics, asDecoded); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
}

func TestDecodeBodyRefuses(t *testing.T) {
	for want, in := range map[string][]byte{
		"are more than 8388608":     make([]byte, MaxPayloadBytes+1),
		"not UTF-8":                 frame(1, []byte{0xFF}),
		"more than 262144 elements": frame(10, make([]byte, MaxElements+1)),
		"unexpected EOF":            frame(9, []byte{0x80}),
	} {
		var b Body
		if err := DecodeBody(in, &b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want error %q, got %v", want, err)
		}
	}
	var b Body
	unpacked := []byte(strings.Repeat("\x48\x05", 3)) // field 9 as varints
	if err := DecodeBody(unpacked, &b); err != nil || len(b.SubMilli) != 3 {
		t.Errorf("unpacked: %v, %v", b, err)
	}
}

// What a message makes us allocate is a small multiple of its size.
func TestDecodePayloadAllocation(t *testing.T) {
	for what, unit := range map[string]string{
		"empty metrics":  "\x12\x00",
		"names":          "\x12\x03\x0A\x01x",
		"property keys":  "\x12\x06\x4A\x04\x0A\x00\x12\x00",
		"data set cells": string(frame(2, frame(17, []byte("\x22\x06\x0A\x00\x0A\x00\x0A\x00")))),
	} {
		in := []byte(strings.Repeat(unit, 10_000))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var p Payload
		if err := DecodePayload(in, &p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 80*uint64(len(in)) {
			t.Errorf("%s: %d bytes for %d, %d times", what, got, len(in), got/uint64(len(in)))
		}
	}
}

// The way of telemetry takes no memory once it is warm, but for the message.
func TestDataPathAllocations(t *testing.T) {
	n, h := born(t)
	b := oneBatch(2)
	for i := range 100 {
		b.Readings = append(b.Readings, number("p", signal.Micros(i)*1001, float64(i), "bar"))
	}
	out := mustData(t, n, b)
	if got := testing.AllocsPerRun(100, func() { out, _ = n.Data(out[:0], testNow, &b) }); got > 1 {
		t.Errorf("sending: %v allocations", got)
	}
	topic, _ := ParseTopic(out[0].Topic)
	var p Payload
	if got := testing.AllocsPerRun(100, func() {
		if err := DecodePayload(out[0].Payload, &p); err != nil {
			t.Fatal(err)
		}
		if r := h.Receive(testNow, testWall, topic, &p); len(r.Batches) != 1 {
			t.Fatal(r)
		}
	}); got > 0 {
		t.Errorf("receiving: %v allocations", got)
	}
}

func BenchmarkSend100(b *testing.B) {
	n, _ := born(b)
	batch := oneBatch(2)
	for i := range 100 {
		batch.Readings = append(batch.Readings, number("p", signal.Micros(i)*1001, float64(i), "bar"))
	}
	out := mustData(b, n, batch)
	b.ReportAllocs()
	for b.Loop() {
		out, _ = n.Data(out[:0], testNow, &batch)
	}
	b.SetBytes(int64(len(out[0].Payload)))
}

func BenchmarkReceive100(b *testing.B) {
	n, h := born(b)
	batch := oneBatch(2)
	for i := range 100 {
		batch.Readings = append(batch.Readings, number("p", signal.Micros(i)*1001, float64(i), "bar"))
	}
	m := mustData(b, n, batch)[0]
	topic, _ := ParseTopic(m.Topic)
	var p Payload
	b.ReportAllocs()
	b.SetBytes(int64(len(m.Payload)))
	for b.Loop() {
		if err := DecodePayload(m.Payload, &p); err != nil {
			b.Fatal(err)
		}
		if r := h.Receive(testNow, testWall, topic, &p); r.Outcome != Accepted {
			b.Fatal(r)
		}
	}
}
