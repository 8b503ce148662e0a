package sparkplug

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// HeadraceUUID in Payload.UUID says that Payload.Body is a [Body].
const HeadraceUUID = "headrace.1"

// Body is what Headrace adds to a Sparkplug payload. In births it holds
// SessionBoot, Birth, SubMilli and AliveAfter; in data all of it.
type Body struct {
	// SessionBoot and Birth name the alias table by which the metrics are to be
	// read: the boot of the process that has the connection, and the number of
	// the birth that declared it.
	SessionBoot string
	Birth       uint64

	// The message's frozen identity; see [signal.Origin].
	Boot       string
	Seq        uint64
	Stream     string
	N          uint64
	Config     string
	CompleteTo signal.Micros

	// SubMilli is what each metric's event time has beyond its milliseconds, in
	// µs; AliveAfter is how much later it was last proven alive. Both are empty
	// when they would hold only zeros.
	SubMilli   []uint32
	AliveAfter []uint64

	// Idle marks a message without readings of its own: it repeats CompleteTo,
	// or held values for other hosts. It is no record and gets no
	// acknowledgement.
	Idle bool
}

// AppendBody appends b, encoded, to dst.
func AppendBody(dst []byte, b *Body) []byte {
	dst = appendString(dst, 1, b.SessionBoot)
	dst = appendUint(dst, 2, b.Birth)
	dst = appendString(dst, 3, b.Boot)
	dst = appendUint(dst, 4, b.Seq)
	dst = appendString(dst, 5, b.Stream)
	dst = appendUint(dst, 6, b.N)
	dst = appendString(dst, 7, b.Config)
	dst = appendUint(dst, 8, protowire.EncodeZigZag(int64(b.CompleteTo)))
	if len(b.SubMilli) > 0 {
		var at int
		dst, at = open(dst, 9)
		for _, v := range b.SubMilli {
			dst = protowire.AppendVarint(dst, uint64(v))
		}
		dst = end(dst, at)
	}
	if len(b.AliveAfter) > 0 {
		var at int
		dst, at = open(dst, 10)
		for _, v := range b.AliveAfter {
			dst = protowire.AppendVarint(dst, v)
		}
		dst = end(dst, at)
	}
	return appendFlag(dst, 11, b.Idle)
}

// DecodeBody reads a body, using the memory of into again. After an error into
// holds nothing of use.
func DecodeBody(p []byte, into *Body) error {
	if len(p) > MaxPayloadBytes {
		return fmt.Errorf("decoding %s body: %d bytes are more than %d", HeadraceUUID, len(p), MaxPayloadBytes)
	}
	old := *into
	*into = Body{SubMilli: old.SubMilli[:0], AliveAfter: old.AliveAfter[:0]}
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return fmt.Errorf("decoding %s body: %w", HeadraceUUID, err)
		}
		switch tag {
		case 1<<3 | lenWire:
			err = shareText(&into.SessionBoot, b, old.SessionBoot)
		case 2<<3 | varint:
			into.Birth = u
		case 3<<3 | lenWire:
			err = shareText(&into.Boot, b, old.Boot)
		case 4<<3 | varint:
			into.Seq = u
		case 5<<3 | lenWire:
			err = shareText(&into.Stream, b, old.Stream)
		case 6<<3 | varint:
			into.N = u
		case 7<<3 | lenWire:
			err = shareText(&into.Config, b, old.Config)
		case 8<<3 | varint:
			into.CompleteTo = signal.Micros(protowire.DecodeZigZag(u))
		case 9<<3 | varint, 9<<3 | lenWire:
			err = each(tag, u, b, len(into.SubMilli), func(v uint64) {
				into.SubMilli = append(into.SubMilli, uint32(v))
			})
		case 10<<3 | varint, 10<<3 | lenWire:
			err = each(tag, u, b, len(into.AliveAfter), func(v uint64) {
				into.AliveAfter = append(into.AliveAfter, v)
			})
		case 11<<3 | varint:
			into.Idle = u != 0
		}
		if err != nil {
			return fmt.Errorf("decoding %s body: field %d: %w", HeadraceUUID, tag>>3, err)
		}
	}
	return nil
}

// each walks a repeated number, packed or not; have is how many are there.
func each(tag, u uint64, b []byte, have int, add func(uint64)) error {
	if tag&7 == varint {
		if have >= MaxElements {
			return fmt.Errorf("more than %d elements", MaxElements)
		}
		add(u)
		return nil
	}
	for ; len(b) > 0; have++ {
		if have >= MaxElements {
			return fmt.Errorf("more than %d elements", MaxElements)
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		add(v)
		b = b[n:]
	}
	return nil
}

func shareText(dst *string, b []byte, old string) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("text is not UTF-8")
	}
	*dst = share(b, old)
	return nil
}
