package sparkplug

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/headrace/headrace/signal"
)

// scalar reads a value of a data type leniently: an integer may stand in
// either integer field, sign-extended or cut to its width. exact is the number
// in full if a float64 cannot hold it. It is not ok for what is no scalar or
// does not fit its type.
func scalar(t DataType, v Value) (value signal.Value, exact string, ok bool) {
	switch v.Field {
	case FieldFloat:
		return signal.NumberValue(float64(math.Float32frombits(uint32(v.Bits)))), "", true
	case FieldDouble:
		return signal.NumberValue(math.Float64frombits(v.Bits)), "", true
	case FieldBool:
		return signal.BoolValue(v.Bits != 0), "", true
	case FieldString:
		return signal.TextValue(clean(v.Text)), "", true
	case FieldInt, FieldLong:
		if t == TypeBoolean {
			return signal.BoolValue(v.Bits != 0), "", v.Bits <= 1
		}
		return integer(t, v)
	}
	return signal.Value{}, "", false
}

func integer(t DataType, v Value) (value signal.Value, exact string, ok bool) {
	width, signed := 0, false
	switch t {
	case TypeInt8, TypeInt16, TypeInt32, TypeInt64:
		width, signed = 8<<(t-TypeInt8), true
	case TypeUInt8, TypeUInt16, TypeUInt32, TypeUInt64:
		width = 8 << (t - TypeUInt8)
	case TypeDateTime:
		width = 64
	case TypeUnknown:
		width, signed = 64, true
	default:
		return signal.Value{}, "", false
	}
	bits := v.Bits
	if width == 64 {
		if v.Field == FieldInt && signed {
			bits = uint64(int64(int32(bits)))
		}
	} else {
		shift := 64 - width
		extended := uint64(int64(bits<<shift) >> shift)
		cut := bits << shift >> shift
		if bits != cut && bits != extended && bits != uint64(uint32(extended)) {
			return signal.Value{}, "", false
		}
		if bits = cut; signed {
			bits = extended
		}
	}
	if signed {
		n := int64(bits)
		if n > 1<<53 || n < -1<<53 {
			exact = strconv.FormatInt(n, 10)
		}
		return signal.NumberValue(float64(n)), exact, true
	}
	if bits > 1<<53 {
		exact = strconv.FormatUint(bits, 10)
	}
	return signal.NumberValue(float64(bits)), exact, true
}

// rescue gathers what no column takes.
type rescue struct{ fields map[string]any }

func (r *rescue) put(key string, v any) {
	if r.fields == nil {
		r.fields = map[string]any{}
	}
	r.fields[key] = v
}

func (r *rescue) property(p *Property) {
	set, _ := r.fields["properties"].(map[string]any)
	if set == nil {
		set = map[string]any{}
		r.put("properties", set)
	}
	set[clean(p.Key)] = plainProperty(p)
}

func (r *rescue) json() string {
	if r.fields == nil {
		return ""
	}
	// Only numbers, texts, bytes and lists of them are put: they cannot fail.
	b, _ := json.Marshal(r.fields)
	return string(b)
}

// plain is a metric's value in the terms of JSON.
func plain(m *Metric) any {
	switch {
	case m.DataSet != nil:
		return plainDataSet(m.DataSet)
	case m.Template != nil:
		return plainTemplate(m.Template)
	}
	return plainValue(m.Value)
}

func plainValue(v Value) any {
	switch v.Field {
	case FieldInt, FieldLong:
		return v.Bits
	case FieldFloat:
		return plainFloat(float64(math.Float32frombits(uint32(v.Bits))))
	case FieldDouble:
		return plainFloat(math.Float64frombits(v.Bits))
	case FieldBool:
		return v.Bits != 0
	case FieldString:
		return v.Text
	case FieldBytes:
		return []byte(v.Text)
	}
	return nil
}

// plainFloat writes as text what JSON has no number for.
func plainFloat(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return f
}

func plainProperty(p *Property) any {
	switch {
	case p.Null:
		return nil
	case p.Value.Field == FieldPropertySet:
		return plainProperties(p.Set)
	case p.Value.Field == FieldPropertySetList:
		list := make([]any, len(p.List))
		for i, set := range p.List {
			list[i] = plainProperties(set)
		}
		return list
	}
	return plainValue(p.Value)
}

func plainProperties(set []Property) map[string]any {
	out := make(map[string]any, len(set))
	for i := range set {
		out[clean(set[i].Key)] = plainProperty(&set[i])
	}
	return out
}

func plainDataSet(d *DataSet) any {
	rows := make([]any, len(d.Rows))
	for i, row := range d.Rows {
		cells := make([]any, len(row))
		for j, v := range row {
			cells[j] = plainValue(v)
		}
		rows[i] = cells
	}
	return map[string]any{"columns": d.Columns, "types": d.Types, "rows": rows}
}

func plainTemplate(t *Template) any {
	metrics := make([]any, len(t.Metrics))
	for i := range t.Metrics {
		m := &t.Metrics[i]
		one := map[string]any{"name": m.Name, "type": m.Datatype}
		if !m.Null {
			one["value"] = plain(m)
		}
		metrics[i] = one
	}
	out := map[string]any{"ref": t.Ref, "version": t.Version, "metrics": metrics}
	if len(t.Parameters) > 0 {
		params := make(map[string]any, len(t.Parameters))
		for _, p := range t.Parameters {
			params[clean(p.Name)] = plainValue(p.Value)
		}
		out["parameters"] = params
	}
	return out
}
