package sparkplug

import "google.golang.org/protobuf/encoding/protowire"

// AppendPayload appends p, encoded, to dst.
func AppendPayload(dst []byte, p *Payload) []byte {
	if p.HasTimestamp {
		dst = appendVarint(dst, 1, p.Timestamp)
	}
	for i := range p.Metrics {
		dst = appendMetric(dst, 2, &p.Metrics[i])
	}
	if p.HasSeq {
		dst = appendVarint(dst, 3, p.Seq)
	}
	dst = appendString(dst, 4, p.UUID)
	if len(p.Body) > 0 {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 5, protowire.BytesType), p.Body)
	}
	return dst
}

func appendMetric(dst []byte, num protowire.Number, m *Metric) []byte {
	dst, at := open(dst, num)
	dst = appendString(dst, 1, m.Name)
	if m.HasAlias {
		dst = appendVarint(dst, 2, m.Alias)
	}
	if m.HasTimestamp {
		dst = appendVarint(dst, 3, m.Timestamp)
	}
	dst = appendUint(dst, 4, uint64(m.Datatype))
	dst = appendFlag(dst, 5, m.Historical)
	dst = appendFlag(dst, 6, m.Transient)
	dst = appendFlag(dst, 7, m.Null)
	if m.MetaData != nil {
		dst = appendMetaData(dst, m.MetaData)
	}
	if len(m.Properties) > 0 {
		dst = appendProperties(dst, 9, m.Properties)
	}
	switch m.Value.Field {
	case FieldBytes:
		dst = protowire.AppendString(protowire.AppendTag(dst, 16, protowire.BytesType), m.Value.Text)
	case FieldDataSet:
		if m.DataSet != nil {
			dst = appendDataSet(dst, m.DataSet)
		}
	case FieldTemplate:
		if m.Template != nil {
			dst = appendTemplate(dst, m.Template)
		}
	default:
		dst = appendScalar(dst, 10, m.Value)
	}
	return end(dst, at)
}

// appendScalar appends int, long, float, double, bool or string, whose fields
// stand in this order wherever Sparkplug has a value; first is the int's.
func appendScalar(dst []byte, first protowire.Number, v Value) []byte {
	switch v.Field {
	case FieldInt:
		return appendVarint(dst, first, uint64(uint32(v.Bits)))
	case FieldLong:
		return appendVarint(dst, first+1, v.Bits)
	case FieldFloat:
		return protowire.AppendFixed32(protowire.AppendTag(dst, first+2, protowire.Fixed32Type), uint32(v.Bits))
	case FieldDouble:
		return protowire.AppendFixed64(protowire.AppendTag(dst, first+3, protowire.Fixed64Type), v.Bits)
	case FieldBool:
		return appendVarint(dst, first+4, v.Bits)
	case FieldString:
		return appendText(dst, first+5, v.Text)
	}
	return dst
}

func appendMetaData(dst []byte, m *MetaData) []byte {
	dst, at := open(dst, 8)
	dst = appendFlag(dst, 1, m.MultiPart)
	dst = appendString(dst, 2, m.ContentType)
	dst = appendUint(dst, 3, m.Size)
	dst = appendUint(dst, 4, m.Seq)
	dst = appendString(dst, 5, m.FileName)
	dst = appendString(dst, 6, m.FileType)
	dst = appendString(dst, 7, m.MD5)
	dst = appendString(dst, 8, m.Description)
	return end(dst, at)
}

func appendProperties(dst []byte, num protowire.Number, set []Property) []byte {
	dst, at := open(dst, num)
	for i := range set {
		dst = appendText(dst, 1, set[i].Key)
	}
	for i := range set {
		v := &set[i]
		var in int
		dst, in = open(dst, 2)
		dst = appendUint(dst, 1, uint64(v.Type))
		dst = appendFlag(dst, 2, v.Null)
		switch v.Value.Field {
		case FieldPropertySet:
			dst = appendProperties(dst, 9, v.Set)
		case FieldPropertySetList:
			var list int
			dst, list = open(dst, 10)
			for _, set := range v.List {
				dst = appendProperties(dst, 1, set)
			}
			dst = end(dst, list)
		default:
			dst = appendScalar(dst, 3, v.Value)
		}
		dst = end(dst, in)
	}
	return end(dst, at)
}

func appendDataSet(dst []byte, d *DataSet) []byte {
	dst, at := open(dst, 17)
	dst = appendUint(dst, 1, d.NumColumns)
	for _, c := range d.Columns {
		dst = appendText(dst, 2, c)
	}
	for _, t := range d.Types {
		dst = appendVarint(dst, 3, uint64(t))
	}
	for _, row := range d.Rows {
		var in int
		dst, in = open(dst, 4)
		for _, v := range row {
			var cell int
			dst, cell = open(dst, 1)
			dst = appendScalar(dst, 1, v)
			dst = end(dst, cell)
		}
		dst = end(dst, in)
	}
	return end(dst, at)
}

func appendTemplate(dst []byte, t *Template) []byte {
	dst, at := open(dst, 18)
	dst = appendString(dst, 1, t.Version)
	for i := range t.Metrics {
		dst = appendMetric(dst, 2, &t.Metrics[i])
	}
	for _, p := range t.Parameters {
		var in int
		dst, in = open(dst, 3)
		dst = appendString(dst, 1, p.Name)
		dst = appendUint(dst, 2, uint64(p.Type))
		dst = appendScalar(dst, 3, p.Value)
		dst = end(dst, in)
	}
	dst = appendString(dst, 4, t.Ref)
	dst = appendFlag(dst, 5, t.IsDefinition)
	return end(dst, at)
}
