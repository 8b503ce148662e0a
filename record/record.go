package record

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// The limits of a value. Decoding refuses what is beyond them before it
// allocates.
const (
	MaxValueBytes = 8 << 20
	MaxReadings   = 1 << 20
)

// Append appends the value of b's Kafka record to dst.
func Append(dst []byte, b *signal.Batch) []byte {
	dst = appendString(dst, 1, b.Edge)
	dst = appendString(dst, 2, b.Boot)
	dst = appendString(dst, 3, string(b.Stream))
	dst = appendUint(dst, 4, b.N)
	dst = appendString(dst, 5, b.Config)
	dst = appendUint(dst, 6, protowire.EncodeZigZag(int64(b.CompleteTo)))
	dst = appendReadings(dst, b.Readings)
	return appendUint(dst, 8, b.Seq)
}

// Decode reads the value of a Kafka record into a batch, whose memory it uses
// again. After an error the batch holds nothing of use.
func Decode(p []byte, into *signal.Batch) error {
	if len(p) > MaxValueBytes {
		return fmt.Errorf("decoding record: value of %d bytes is larger than %d", len(p), MaxValueBytes)
	}
	readings, err := makeRoom(p, into.Readings)
	if err != nil {
		return fmt.Errorf("decoding record: %w", err)
	}
	old := into.Origin
	into.Origin, into.Readings = signal.Origin{}, readings
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return fmt.Errorf("decoding record: %w", err)
		}
		switch tag {
		case 1<<3 | bytes:
			err = setText(&into.Edge, b, old.Edge)
		case 2<<3 | bytes:
			err = setText(&into.Boot, b, old.Boot)
		case 3<<3 | bytes:
			err = setText(&into.Stream, b, old.Stream)
		case 4<<3 | varint:
			into.N = u
		case 5<<3 | bytes:
			err = setText(&into.Config, b, old.Config)
		case 6<<3 | varint:
			into.CompleteTo = signal.Micros(protowire.DecodeZigZag(u))
		case 7<<3 | bytes:
			into.Readings, err = appendDecoded(into.Readings, b)
		case 8<<3 | varint:
			into.Seq = u
		}
		if err != nil {
			return fmt.Errorf("decoding record: field %d: %w", tag>>3, err)
		}
	}
	return nil
}

func appendReadings(dst []byte, readings []signal.Reading) []byte {
	for i := range readings {
		r := &readings[i]
		var at int
		dst, at = open(dst, 7)
		dst = appendString(dst, 1, r.Sensor)
		dst = appendUint(dst, 2, uint64(r.EventTime))
		if r.AliveAt != r.EventTime {
			// Explicit presence: zero is written too.
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 3, protowire.VarintType), uint64(r.AliveAt))
		}
		switch r.Value.Kind {
		case signal.Number:
			dst = protowire.AppendFixed64(protowire.AppendTag(dst, 4, protowire.Fixed64Type), math.Float64bits(r.Value.Number))
		case signal.Bool:
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 5, protowire.VarintType), protowire.EncodeBool(r.Value.Number != 0))
		case signal.Text:
			dst = appendText(dst, 6, r.Value.Text)
		case signal.Wave:
			dst = protowire.AppendString(protowire.AppendTag(dst, 11, protowire.BytesType), r.Value.Text)
		}
		dst = appendString(dst, 7, r.Unit)
		if r.Quality != signal.QualityGood {
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 8, protowire.VarintType), uint64(r.Quality))
		}
		dst = appendUint(dst, 9, protowire.EncodeBool(r.Historical))
		dst = appendString(dst, 10, r.Rescued)
		dst = end(dst, at)
	}
	return dst
}

// makeRoom counts the readings of p (field 7 of a Record and of an Event) and
// returns readings[:0] with room for them: one allocation at most.
func makeRoom(p []byte, readings []signal.Reading) ([]signal.Reading, error) {
	n := 0
	r := reader{p}
	for len(r.p) > 0 {
		tag, _, _, err := r.next()
		if err != nil {
			return nil, err
		}
		if tag == 7<<3|bytes {
			n++
		}
	}
	if n > MaxReadings {
		return nil, fmt.Errorf("%d readings are more than %d", n, MaxReadings)
	}
	if n > cap(readings) {
		readings = make([]signal.Reading, 0, n)
	}
	return readings[:0], nil
}

// appendDecoded appends one reading. Room for it is there.
func appendDecoded(readings []signal.Reading, p []byte) ([]signal.Reading, error) {
	k := len(readings)
	readings = slices.Grow(readings, 1)[:k+1]
	// A stream's messages look alike: what lay in the same place last time
	// often has the same names, which then need no memory of their own.
	old := readings[k]
	out := &readings[k]
	*out = signal.Reading{Quality: signal.QualityGood}
	alive := false
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return readings, fmt.Errorf("reading %d: %w", k, err)
		}
		switch tag {
		case 1<<3 | bytes:
			err = setText(&out.Sensor, b, old.Sensor)
		case 2<<3 | varint:
			out.EventTime = signal.Micros(u)
		case 3<<3 | varint:
			out.AliveAt, alive = signal.Micros(u), true
		case 4<<3 | fixed64:
			out.Value = signal.NumberValue(math.Float64frombits(u))
		case 5<<3 | varint:
			out.Value = signal.BoolValue(u != 0)
		case 6<<3 | bytes:
			out.Value = signal.Value{Kind: signal.Text}
			err = setText(&out.Value.Text, b, old.Value.Text)
		case 7<<3 | bytes:
			err = setText(&out.Unit, b, old.Unit)
		case 8<<3 | varint:
			if u > math.MaxUint16 {
				err = fmt.Errorf("quality %d is larger than %d", u, math.MaxUint16)
			}
			out.Quality = signal.Quality(u)
		case 9<<3 | varint:
			out.Historical = u != 0
		case 10<<3 | bytes:
			err = setText(&out.Rescued, b, old.Rescued)
		case 11<<3 | bytes:
			out.Value = signal.WaveValue(string(b))
		}
		if err != nil {
			return readings, fmt.Errorf("reading %d: field %d: %w", k, tag>>3, err)
		}
	}
	if !alive {
		out.AliveAt = out.EventTime
	}
	return readings, nil
}

// setText sets dst to b, sharing old's memory when they are equal.
func setText[S ~string](dst *S, b []byte, old S) error {
	if string(b) == string(old) {
		*dst = old
		return nil
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("text is not UTF-8")
	}
	*dst = S(b)
	return nil
}
