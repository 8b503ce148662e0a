package sparkplug

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Wire types as they stand in the low bits of a tag.
const (
	varint  = uint64(protowire.VarintType)
	fixed32 = uint64(protowire.Fixed32Type)
	fixed64 = uint64(protowire.Fixed64Type)
	lenWire = uint64(protowire.BytesType)
)

// reader walks the fields of one message. What a tag and wire type do not
// match, extensions among it, is the caller's default case: skipped.
type reader struct{ p []byte }

// next returns the tag (number<<3 | wire type) and the value of the next field:
// u for numbers, b for bytes, which are p's own.
func (r *reader) next() (tag, u uint64, b []byte, err error) {
	num, typ, n := protowire.ConsumeTag(r.p)
	if n < 0 {
		return 0, 0, nil, protowire.ParseError(n)
	}
	r.p = r.p[n:]
	switch typ {
	case protowire.VarintType:
		u, n = protowire.ConsumeVarint(r.p)
	case protowire.Fixed64Type:
		u, n = protowire.ConsumeFixed64(r.p)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(r.p)
		u = uint64(v)
	case protowire.BytesType:
		b, n = protowire.ConsumeBytes(r.p)
	default:
		n = protowire.ConsumeFieldValue(num, typ, r.p)
	}
	if n < 0 {
		return 0, 0, nil, protowire.ParseError(n)
	}
	r.p = r.p[n:]
	return uint64(num)<<3 | uint64(typ), u, b, nil
}

func appendVarint(dst []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return appendVarint(dst, num, v)
}

func appendFlag(dst []byte, num protowire.Number, v bool) []byte {
	return appendUint(dst, num, protowire.EncodeBool(v))
}

// appendString leaves out the empty string.
func appendString(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return appendText(dst, num, s)
}

// appendText mends what is not UTF-8.
func appendText(dst []byte, num protowire.Number, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

// open starts a nested message; end closes the one that open started at at.
func open(dst []byte, num protowire.Number) (out []byte, at int) {
	dst = append(protowire.AppendTag(dst, num, protowire.BytesType), 0)
	return dst, len(dst)
}

func end(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 0x80 {
		dst[at-1] = byte(n)
		return dst
	}
	// The length needs more than the one byte that open left: make room.
	more := protowire.SizeVarint(uint64(n)) - 1
	for range more {
		dst = append(dst, 0)
	}
	copy(dst[at+more:], dst[at:at+n])
	protowire.AppendVarint(dst[:at-1], uint64(n))
	return dst
}

// share returns b as a string, old's memory if they are equal.
func share(b []byte, old string) string {
	if string(b) == old {
		return old
	}
	return string(b)
}
