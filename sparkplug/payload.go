package sparkplug

import "math"

// The limits of a payload. Decoding refuses what is beyond them before it
// allocates.
const (
	MaxPayloadBytes = 8 << 20
	// MaxElements bounds metrics, properties, rows, cells, parameters and names
	// together.
	MaxElements = 1 << 18
	// MaxDepth bounds templates and property sets within each other.
	MaxDepth = 16
)

// DataType is a Sparkplug data type.
type DataType uint32

// The data types.
const (
	TypeUnknown DataType = iota
	TypeInt8
	TypeInt16
	TypeInt32
	TypeInt64
	TypeUInt8
	TypeUInt16
	TypeUInt32
	TypeUInt64
	TypeFloat
	TypeDouble
	TypeBoolean
	TypeString
	TypeDateTime // Unix ms
	TypeText
	TypeUUID
	TypeDataSet
	TypeBytes
	TypeFile
	TypeTemplate
	TypePropertySet
	TypePropertySetList
	TypeInt8Array
	TypeInt16Array
	TypeInt32Array
	TypeInt64Array
	TypeUInt8Array
	TypeUInt16Array
	TypeUInt32Array
	TypeUInt64Array
	TypeFloatArray
	TypeDoubleArray
	TypeBooleanArray
	TypeStringArray
	TypeDateTimeArray
)

// Payload is one Sparkplug message. Empty texts and bytes count as absent.
type Payload struct {
	Timestamp    uint64 // Unix ms
	HasTimestamp bool
	Seq          uint64
	HasSeq       bool
	UUID         string
	Body         []byte
	Metrics      []Metric

	// WireBytes is the length of what [DecodePayload] read.
	WireBytes int
}

// Metric is one value of a payload or template.
type Metric struct {
	Name         string
	Alias        uint64
	HasAlias     bool
	Timestamp    uint64 // Unix ms
	HasTimestamp bool
	Datatype     DataType
	Historical   bool
	Transient    bool
	Null         bool
	Value        Value
	MetaData     *MetaData
	Properties   []Property
	DataSet      *DataSet  // Value.Field is FieldDataSet
	Template     *Template // Value.Field is FieldTemplate
}

// Field says which of the wire's value fields carried a value. Which data
// type's it is, the metric or its birth says.
type Field uint8

// The value fields.
const (
	FieldNone Field = iota
	FieldInt
	FieldLong
	FieldFloat
	FieldDouble
	FieldBool
	FieldString
	FieldBytes
	FieldDataSet
	FieldTemplate
	FieldPropertySet
	FieldPropertySetList
)

// Value is a value as the wire has it.
type Value struct {
	Field Field
	Bits  uint64 // FieldInt, FieldLong, FieldBool; the bits of FieldFloat (32) and FieldDouble
	Text  string // FieldString, FieldBytes
}

// Int is an int_value, the bits of an integer of up to 32.
func Int(v uint32) Value { return Value{Field: FieldInt, Bits: uint64(v)} }

// Long is a long_value, the bits of a 64-bit integer.
func Long(v uint64) Value { return Value{Field: FieldLong, Bits: v} }

// Float is a float_value.
func Float(v float32) Value { return Value{Field: FieldFloat, Bits: uint64(math.Float32bits(v))} }

// Double is a double_value.
func Double(v float64) Value { return Value{Field: FieldDouble, Bits: math.Float64bits(v)} }

// Bool is a boolean_value.
func Bool(v bool) Value {
	if v {
		return Value{Field: FieldBool, Bits: 1}
	}
	return Value{Field: FieldBool}
}

// String is a string_value.
func String(v string) Value { return Value{Field: FieldString, Text: v} }

// MetaData describes a metric that is a file or a part of one.
type MetaData struct {
	MultiPart   bool   `json:"is_multi_part,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Size        uint64 `json:"size,omitempty"`
	Seq         uint64 `json:"seq,omitempty"`
	FileName    string `json:"file_name,omitempty"`
	FileType    string `json:"file_type,omitempty"`
	MD5         string `json:"md5,omitempty"`
	Description string `json:"description,omitempty"`
}

// Property is one key of a metric's property set.
type Property struct {
	Key   string
	Type  DataType
	Null  bool
	Value Value
	Set   []Property   // Value.Field is FieldPropertySet
	List  [][]Property // Value.Field is FieldPropertySetList
}

// The properties that Headrace reads and writes.
const (
	PropertyQuality = "Quality" // Int32: 0 bad, 192 good, 500 stale; absent: good
	PropertyUnit    = "engUnit" // String
	PropertyRescued = "rescued" // String; ours only
)

// DataSet is a table.
type DataSet struct {
	NumColumns uint64
	Columns    []string
	Types      []DataType
	Rows       [][]Value
}

// Template is a structure's definition or an instance of it.
type Template struct {
	Version      string
	Ref          string
	IsDefinition bool
	Metrics      []Metric
	Parameters   []Parameter
}

// Parameter is one parameter of a template.
type Parameter struct {
	Name  string
	Type  DataType
	Value Value
}
