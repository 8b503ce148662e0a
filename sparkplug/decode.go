package sparkplug

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// DecodePayload reads a payload, using the memory of into again. Fields that
// it does not know are skipped. After an error into holds nothing of use.
func DecodePayload(p []byte, into *Payload) error {
	if len(p) > MaxPayloadBytes {
		return fmt.Errorf("decoding payload: %d bytes are more than %d", len(p), MaxPayloadBytes)
	}
	d := decoder{budget: MaxElements}
	if err := d.payload(p, into); err != nil {
		return fmt.Errorf("decoding payload: %w", err)
	}
	return nil
}

// decoder carries what is left of the limits.
type decoder struct{ budget, depth int }

// take pays for one element.
func (d *decoder) take() error {
	if d.budget--; d.budget < 0 {
		return fmt.Errorf("more than %d elements", MaxElements)
	}
	return nil
}

func (d *decoder) enter() error {
	if d.depth++; d.depth > MaxDepth {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	return nil
}

func (d *decoder) payload(p []byte, into *Payload) error {
	n, err := count(p, 2<<3|lenWire)
	if err != nil {
		return err
	}
	if n > MaxElements {
		return fmt.Errorf("%d metrics are more than %d", n, MaxElements)
	}
	metrics := into.Metrics[:0]
	if n > cap(metrics) {
		metrics = make([]Metric, 0, n)
	}
	*into = Payload{Metrics: metrics, Body: into.Body[:0], WireBytes: len(p)}
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | varint:
			into.Timestamp, into.HasTimestamp = u, true
		case 2<<3 | lenWire:
			k := len(into.Metrics)
			into.Metrics = into.Metrics[:k+1]
			if err := d.metric(b, &into.Metrics[k]); err != nil {
				return fmt.Errorf("metric %d: %w", k, err)
			}
		case 3<<3 | varint:
			into.Seq, into.HasSeq = u, true
		case 4<<3 | lenWire:
			into.UUID = share(b, HeadraceUUID)
		case 5<<3 | lenWire:
			into.Body = append(into.Body[:0], b...)
		}
	}
	return nil
}

// count tells how many fields of a message have the tag.
func count(p []byte, tag uint64) (n int, err error) {
	r := reader{p}
	for len(r.p) > 0 {
		t, _, _, err := r.next()
		if err != nil {
			return 0, err
		}
		if t == tag {
			n++
		}
	}
	return n, nil
}

// metric reads one metric over an old one, whose names it shares where they
// are the same.
func (d *decoder) metric(p []byte, m *Metric) error {
	if err := d.take(); err != nil {
		return err
	}
	oldName := m.Name
	*m = Metric{Properties: m.Properties[:0]}
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | lenWire:
			m.Name = share(b, oldName)
		case 2<<3 | varint:
			m.Alias, m.HasAlias = u, true
		case 3<<3 | varint:
			m.Timestamp, m.HasTimestamp = u, true
		case 4<<3 | varint:
			m.Datatype = DataType(u)
		case 5<<3 | varint:
			m.Historical = u != 0
		case 6<<3 | varint:
			m.Transient = u != 0
		case 7<<3 | varint:
			m.Null = u != 0
		case 8<<3 | lenWire:
			if m.MetaData == nil {
				m.MetaData = new(MetaData)
			}
			err = decodeMetaData(b, m.MetaData)
		case 9<<3 | lenWire:
			m.Properties, err = d.properties(b, m.Properties)
		case 16<<3 | lenWire:
			m.Value = Value{Field: FieldBytes, Text: string(b)}
		case 17<<3 | lenWire:
			if m.Value.Field != FieldDataSet {
				m.DataSet = new(DataSet)
			}
			m.Value = Value{Field: FieldDataSet}
			err = d.dataSet(b, m.DataSet)
		case 18<<3 | lenWire:
			if m.Value.Field != FieldTemplate {
				m.Template = new(Template)
			}
			m.Value = Value{Field: FieldTemplate}
			err = d.template(b, m.Template)
		default:
			decodeScalar(tag, 10, u, b, &m.Value)
		}
		if err != nil {
			return err
		}
	}
	// The last value field wins, as in Protobuf's oneof.
	if m.Value.Field != FieldDataSet {
		m.DataSet = nil
	}
	if m.Value.Field != FieldTemplate {
		m.Template = nil
	}
	return nil
}

// decodeScalar reads a field that is one of the six scalars, of which first is
// the int's number, and leaves v alone otherwise.
func decodeScalar(tag uint64, first protowire.Number, u uint64, b []byte, v *Value) {
	switch tag - uint64(first)<<3 {
	case 0<<3 | varint:
		*v = Value{Field: FieldInt, Bits: uint64(uint32(u))}
	case 1<<3 | varint:
		*v = Value{Field: FieldLong, Bits: u}
	case 2<<3 | fixed32:
		*v = Value{Field: FieldFloat, Bits: u}
	case 3<<3 | fixed64:
		*v = Value{Field: FieldDouble, Bits: u}
	case 4<<3 | varint:
		*v = Value{Field: FieldBool, Bits: protowire.EncodeBool(u != 0)}
	case 5<<3 | lenWire:
		*v = Value{Field: FieldString, Text: string(b)}
	}
}

func decodeMetaData(p []byte, m *MetaData) error {
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | varint:
			m.MultiPart = u != 0
		case 2<<3 | lenWire:
			m.ContentType = string(b)
		case 3<<3 | varint:
			m.Size = u
		case 4<<3 | varint:
			m.Seq = u
		case 5<<3 | lenWire:
			m.FileName = string(b)
		case 6<<3 | lenWire:
			m.FileType = string(b)
		case 7<<3 | lenWire:
			m.MD5 = string(b)
		case 8<<3 | lenWire:
			m.Description = string(b)
		}
	}
	return nil
}

// properties reads a property set: keys and values stand in two lists, and
// what has no partner in the other is left out.
func (d *decoder) properties(p []byte, set []Property) ([]Property, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer func() { d.depth-- }()
	keys, values := len(set), len(set)
	grow := func(n int) error {
		if n < len(set) {
			return nil
		}
		if err := d.take(); err != nil {
			return err
		}
		set = append(set, Property{})
		return nil
	}
	r := reader{p}
	for len(r.p) > 0 {
		tag, _, b, err := r.next()
		if err != nil {
			return nil, err
		}
		switch tag {
		case 1<<3 | lenWire:
			if err := grow(keys); err != nil {
				return nil, err
			}
			set[keys].Key = propertyKey(b)
			keys++
		case 2<<3 | lenWire:
			if err := grow(values); err != nil {
				return nil, err
			}
			if err := d.property(b, &set[values]); err != nil {
				return nil, err
			}
			values++
		}
	}
	return set[:min(keys, values)], nil
}

// propertyKey spares the common keys a copy.
func propertyKey(b []byte) string {
	switch string(b) {
	case PropertyQuality:
		return PropertyQuality
	case PropertyUnit:
		return PropertyUnit
	case PropertyRescued:
		return PropertyRescued
	}
	return string(b)
}

func (d *decoder) property(p []byte, v *Property) error {
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | varint:
			v.Type = DataType(u)
		case 2<<3 | varint:
			v.Null = u != 0
		case 9<<3 | lenWire:
			if v.Value.Field != FieldPropertySet {
				v.Set = nil
			}
			v.Value = Value{Field: FieldPropertySet}
			v.Set, err = d.properties(b, v.Set)
		case 10<<3 | lenWire:
			if v.Value.Field != FieldPropertySetList {
				v.List = nil
			}
			v.Value = Value{Field: FieldPropertySetList}
			v.List, err = d.propertyList(b, v.List)
		default:
			decodeScalar(tag, 3, u, b, &v.Value)
		}
		if err != nil {
			return err
		}
	}
	if v.Value.Field != FieldPropertySet {
		v.Set = nil
	}
	if v.Value.Field != FieldPropertySetList {
		v.List = nil
	}
	return nil
}

func (d *decoder) propertyList(p []byte, list [][]Property) ([][]Property, error) {
	r := reader{p}
	for len(r.p) > 0 {
		tag, _, b, err := r.next()
		if err != nil {
			return nil, err
		}
		if tag != 1<<3|lenWire {
			continue
		}
		if err := d.take(); err != nil {
			return nil, err
		}
		set, err := d.properties(b, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, set)
	}
	return list, nil
}

func (d *decoder) dataSet(p []byte, s *DataSet) error {
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | varint:
			s.NumColumns = u
			continue
		case 2<<3 | lenWire:
			s.Columns = append(s.Columns, string(b))
		case 3<<3 | varint:
			s.Types = append(s.Types, DataType(u))
		case 3<<3 | lenWire: // packed
			for len(b) > 0 {
				v, n := protowire.ConsumeVarint(b)
				if n < 0 {
					return protowire.ParseError(n)
				}
				if err := d.take(); err != nil {
					return err
				}
				s.Types, b = append(s.Types, DataType(v)), b[n:]
			}
			continue
		case 4<<3 | lenWire:
			row, err := d.row(b)
			if err != nil {
				return err
			}
			s.Rows = append(s.Rows, row)
		default:
			continue
		}
		if err := d.take(); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) row(p []byte) ([]Value, error) {
	n, err := count(p, 1<<3|lenWire)
	if err != nil || n == 0 {
		return nil, err
	}
	if d.budget -= n; d.budget < 0 {
		return nil, fmt.Errorf("more than %d elements", MaxElements)
	}
	row := make([]Value, 0, n)
	r := reader{p}
	for len(r.p) > 0 {
		tag, _, b, err := r.next()
		if err != nil {
			return nil, err
		}
		if tag != 1<<3|lenWire {
			continue
		}
		var v Value
		in := reader{b}
		for len(in.p) > 0 {
			tag, u, b, err := in.next()
			if err != nil {
				return nil, err
			}
			decodeScalar(tag, 1, u, b, &v)
		}
		row = append(row, v)
	}
	return row, nil
}

func (d *decoder) template(p []byte, t *Template) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer func() { d.depth-- }()
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return err
		}
		switch tag {
		case 1<<3 | lenWire:
			t.Version = string(b)
		case 2<<3 | lenWire:
			t.Metrics = append(t.Metrics, Metric{})
			err = d.metric(b, &t.Metrics[len(t.Metrics)-1])
		case 3<<3 | lenWire:
			if err := d.take(); err != nil {
				return err
			}
			var v Parameter
			v, err = decodeParameter(b)
			t.Parameters = append(t.Parameters, v)
		case 4<<3 | lenWire:
			t.Ref = string(b)
		case 5<<3 | varint:
			t.IsDefinition = u != 0
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeParameter(p []byte) (v Parameter, err error) {
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return v, err
		}
		switch tag {
		case 1<<3 | lenWire:
			v.Name = string(b)
		case 2<<3 | varint:
			v.Type = DataType(u)
		default:
			decodeScalar(tag, 3, u, b, &v.Value)
		}
	}
	return v, nil
}
