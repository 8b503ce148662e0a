package delta

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Type is a column type in Delta's own words.
type Type string

// The primitive types. A timestamp is an instant in microseconds, UTC.
const (
	String    Type = "string"
	Long      Type = "long"
	Integer   Type = "integer"
	Double    Type = "double"
	Boolean   Type = "boolean"
	Timestamp Type = "timestamp"
	Date      Type = "date"
	Binary    Type = "binary"
)

// ArrayOf is the array of a primitive type.
func ArrayOf(elem Type) Type { return "array<" + elem + ">" }

// Elem returns the element type of an array.
func (t Type) Elem() (Type, bool) {
	inner, ok := strings.CutPrefix(string(t), "array<")
	if !ok {
		return "", false
	}
	inner, ok = strings.CutSuffix(inner, ">")
	return Type(inner), ok
}

func (t Type) primitive() bool {
	switch t {
	case String, Long, Integer, Double, Boolean, Timestamp, Date, Binary:
		return true
	}
	return false
}

// Valid tells whether t is a type of this package.
func (t Type) Valid() bool {
	if e, ok := t.Elem(); ok {
		return e.primitive()
	}
	return t.primitive()
}

type wireArray struct {
	Type         string `json:"type"`
	ElementType  Type   `json:"elementType"`
	ContainsNull bool   `json:"containsNull"`
}

// MarshalJSON writes the type as schemaString has it.
func (t Type) MarshalJSON() ([]byte, error) {
	if e, ok := t.Elem(); ok {
		return json.Marshal(wireArray{Type: "array", ElementType: e, ContainsNull: true})
	}
	return json.Marshal(string(t))
}

// UnmarshalJSON reads the type of a schemaString.
func (t *Type) UnmarshalJSON(b []byte) error {
	var name string
	if err := json.Unmarshal(b, &name); err == nil {
		if *t = Type(name); !t.primitive() {
			return fmt.Errorf("type %.80q is not known: %w", name, ErrUnsupported)
		}
		return nil
	}
	var a struct {
		Type        string          `json:"type"`
		ElementType json.RawMessage `json:"elementType"`
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return err
	}
	var elem string
	if a.Type != "array" || json.Unmarshal(a.ElementType, &elem) != nil || !Type(elem).primitive() {
		return fmt.Errorf("type %.80s is nested deeper than an array of a primitive type: %w", b, ErrUnsupported)
	}
	*t = ArrayOf(Type(elem))
	return nil
}

// Field is a column.
type Field struct {
	Name string
	Type Type
	// Required is set by foreign writers only. A table that has such a column
	// is read, not written.
	Required bool
	// Metadata is kept as it was found.
	Metadata map[string]json.RawMessage
}

// Schema is the columns of a table, partition columns included.
type Schema struct{ Fields []Field }

// Field finds a column by its name.
func (s Schema) Field(name string) (Field, bool) {
	for _, f := range s.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// Equal compares names, types and order; metadata is left out.
func (s Schema) Equal(o Schema) bool {
	return slices.EqualFunc(s.Fields, o.Fields, func(a, b Field) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Required == b.Required
	})
}

type wireField struct {
	Name     string                     `json:"name"`
	Type     Type                       `json:"type"`
	Nullable bool                       `json:"nullable"`
	Metadata map[string]json.RawMessage `json:"metadata"`
}

type wireSchema struct {
	Type   string      `json:"type"`
	Fields []wireField `json:"fields"`
}

func (s Schema) encode() (string, error) {
	w := wireSchema{Type: "struct", Fields: make([]wireField, len(s.Fields))}
	for i, f := range s.Fields {
		meta := f.Metadata
		if meta == nil {
			meta = map[string]json.RawMessage{}
		}
		w.Fields[i] = wireField{Name: f.Name, Type: f.Type, Nullable: !f.Required, Metadata: meta}
	}
	b, err := json.Marshal(w)
	return string(b), err
}

func decodeSchema(text string) (Schema, error) {
	var w wireSchema
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return Schema{}, fmt.Errorf("schemaString: %w", err)
	}
	if w.Type != "struct" {
		return Schema{}, fmt.Errorf("schemaString is of type %.40q, not struct: %w", w.Type, ErrCorrupt)
	}
	s := Schema{Fields: make([]Field, len(w.Fields))}
	for i, f := range w.Fields {
		s.Fields[i] = Field{Name: f.Name, Type: f.Type, Required: !f.Nullable}
		if len(f.Metadata) > 0 {
			s.Fields[i].Metadata = f.Metadata
		}
	}
	return s, s.checkNames()
}

func (s Schema) checkNames() error {
	seen := make(map[string]bool, len(s.Fields))
	for _, f := range s.Fields {
		key := strings.ToLower(f.Name)
		if f.Name == "" || seen[key] {
			return fmt.Errorf("column name %q is empty or there twice (case does not tell columns apart): %w", f.Name, ErrCorrupt)
		}
		seen[key] = true
		if !f.Type.Valid() {
			return fmt.Errorf("column %q: type %q is not known: %w", f.Name, f.Type, ErrUnsupported)
		}
	}
	return nil
}

// Definition is what a table is created with.
type Definition struct {
	Name             string // optional
	Description      string // optional
	Schema           Schema
	PartitionColumns []string
	Properties       map[string]string // delta.appendOnly and the like
}

func (d Definition) check() error {
	if len(d.Schema.Fields) == 0 {
		return fmt.Errorf("schema has no columns")
	}
	if err := d.Schema.checkNames(); err != nil {
		return err
	}
	for _, f := range d.Schema.Fields {
		// What Parquet readers of unmapped tables refuse.
		if strings.ContainsAny(f.Name, " ,;{}()\n\t=") {
			return fmt.Errorf("column %q: a name may not hold a blank or any of ,;{}()=", f.Name)
		}
		if f.Required {
			return fmt.Errorf("column %q: required columns are not written: %w", f.Name, ErrUnsupported)
		}
		if _, ok := f.Metadata["delta.invariants"]; ok {
			return fmt.Errorf("column %q has delta.invariants: %w", f.Name, ErrUnsupported)
		}
	}
	for i, p := range d.PartitionColumns {
		f, ok := d.Schema.Field(p)
		if _, isArray := f.Type.Elem(); !ok || isArray || slices.Contains(d.PartitionColumns[:i], p) {
			return fmt.Errorf("partition column %q is no column of a primitive type, or is named twice", p)
		}
	}
	if len(d.PartitionColumns) == len(d.Schema.Fields) {
		return fmt.Errorf("every column is a partition column; data files need one of their own")
	}
	for k := range d.Properties {
		if strings.HasPrefix(k, "delta.") && !slices.Contains(knownProperties(), k) {
			return fmt.Errorf("property %s may ask for more than writer version 2: %w", k, ErrUnsupported)
		}
	}
	return nil
}

// knownProperties are the delta.* properties that protocol (1, 2) can honour.
func knownProperties() []string {
	return []string{
		"delta.appendOnly", "delta.checkpointInterval", "delta.dataSkippingNumIndexedCols",
		"delta.deletedFileRetentionDuration", "delta.logRetentionDuration",
	}
}
