// Package protofield walks over the fields of a Protobuf message, which is the form
// of the files and frozen states that an edge keeps for itself.
//
// It knows no message; what a field means is its caller's.
package protofield

import "google.golang.org/protobuf/encoding/protowire"

// Each calls visit for each field of one message: u is a varint's or a fixed64's
// value, b a bytes field's content, which stands at place at of p. Other types of
// fields are passed over.
func Each(p []byte, visit func(num protowire.Number, u uint64, b []byte, at int) error) error {
	all := len(p)
	for len(p) > 0 {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		var u uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(p)
		case protowire.Fixed64Type:
			u, n = protowire.ConsumeFixed64(p)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(p)
		default:
			n = protowire.ConsumeFieldValue(num, typ, p)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		p = p[n:]
		if err := visit(num, u, b, all-len(p)-len(b)); err != nil {
			return err
		}
	}
	return nil
}
