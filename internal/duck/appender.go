package duck

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory/mallocator"
	duckdb "github.com/duckdb/duckdb-go/v2"
)

const (
	// chunkRows and chunkBytes end an Arrow batch: large enough to be cheap,
	// small enough that builders do not grow far and 32-bit offsets hold.
	chunkRows  = 32 << 10
	chunkBytes = 64 << 20
)

// Type is the type of an appender's column.
type Type uint8

// The types. Dict is a string with few distinct values.
const (
	String Type = iota
	Dict
	Float64
	Int64
	Int32
	Bool
	Timestamp // microseconds, UTC
	StringList
	Binary
)

func (t Type) arrow() arrow.DataType {
	switch t {
	case String:
		return arrow.BinaryTypes.String
	case Binary:
		return arrow.BinaryTypes.Binary
	case Dict:
		return &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	case Float64:
		return arrow.PrimitiveTypes.Float64
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Int32:
		return arrow.PrimitiveTypes.Int32
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case StringList:
		return arrow.ListOf(arrow.BinaryTypes.String)
	}
	panic(fmt.Sprintf("column type %d does not exist", t))
}

// Column is a column of an appender.
type Column struct {
	Name string
	Type Type
}

// Appender builds rows column by column. For every row each column takes
// exactly one value or Null, then EndRow. A value of another type than the
// column's panics. Its memory is not the garbage collector's: Release it.
type Appender struct {
	columns []Column
	schema  *arrow.Schema
	memory  *mallocator.Mallocator
	builder *array.RecordBuilder

	// By column; nil where the type is another.
	str  []*array.StringBuilder
	bin  []*array.BinaryBuilder
	dict []*array.BinaryDictionaryBuilder
	f64  []*array.Float64Builder
	i64  []*array.Int64Builder
	i32  []*array.Int32Builder
	bit  []*array.BooleanBuilder
	ts   []*array.TimestampBuilder
	list []*array.ListBuilder

	scratch  []byte
	pending  int // values of the row that is being written
	bytes    int // of strings in this chunk
	rows     int // in this chunk
	total    int
	finished []arrow.RecordBatch
}

// NewAppender returns an empty appender.
func NewAppender(columns []Column) *Appender {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: c.Type.arrow(), Nullable: true}
	}
	n := len(columns)
	a := &Appender{
		columns: columns, schema: arrow.NewSchema(fields, nil), memory: mallocator.NewMallocator(),
		scratch: []byte{}, // nil would be a null
		str:     make([]*array.StringBuilder, n), bin: make([]*array.BinaryBuilder, n), dict: make([]*array.BinaryDictionaryBuilder, n), f64: make([]*array.Float64Builder, n),
		i64: make([]*array.Int64Builder, n), i32: make([]*array.Int32Builder, n), bit: make([]*array.BooleanBuilder, n),
		ts: make([]*array.TimestampBuilder, n), list: make([]*array.ListBuilder, n),
	}
	a.builder = array.NewRecordBuilder(a.memory, a.schema)
	for i := range columns {
		switch b := a.builder.Field(i).(type) {
		case *array.StringBuilder:
			a.str[i] = b
		case *array.BinaryBuilder:
			a.bin[i] = b
		case *array.BinaryDictionaryBuilder:
			a.dict[i] = b
		case *array.Float64Builder:
			a.f64[i] = b
		case *array.Int64Builder:
			a.i64[i] = b
		case *array.Int32Builder:
			a.i32[i] = b
		case *array.BooleanBuilder:
			a.bit[i] = b
		case *array.TimestampBuilder:
			a.ts[i] = b
		case *array.ListBuilder:
			a.list[i] = b
		}
	}
	return a
}

// String appends to a String or Dict column.
func (a *Appender) String(col int, v string) {
	a.pending++
	a.bytes += len(v)
	if b := a.str[col]; b != nil {
		b.Append(v)
		return
	}
	a.scratch = append(a.scratch[:0], v...) // the builder's own conversion allocates
	if err := a.dict[col].Append(a.scratch); err != nil {
		// The table of values is ours, of strings, and grows as it must.
		panic(fmt.Sprintf("appending to column %s: %v", a.columns[col].Name, err))
	}
}

// Binary appends to a Binary column; nil is no null.
func (a *Appender) Binary(col int, v []byte) {
	a.pending++
	a.bytes += len(v)
	if v == nil {
		v = a.scratch[:0]
	}
	a.bin[col].Append(v)
}

// Float64 appends to a Float64 column.
func (a *Appender) Float64(col int, v float64) { a.pending++; a.f64[col].Append(v) }

// Int64 appends to an Int64 column.
func (a *Appender) Int64(col int, v int64) { a.pending++; a.i64[col].Append(v) }

// Int32 appends to an Int32 column.
func (a *Appender) Int32(col int, v int32) { a.pending++; a.i32[col].Append(v) }

// Bool appends to a Bool column.
func (a *Appender) Bool(col int, v bool) { a.pending++; a.bit[col].Append(v) }

// Timestamp appends microseconds since 1970, UTC, to a Timestamp column.
func (a *Appender) Timestamp(col int, micros int64) {
	a.pending++
	a.ts[col].Append(arrow.Timestamp(micros))
}

// StringList appends to a StringList column.
func (a *Appender) StringList(col int, v []string) {
	a.pending++
	b := a.list[col]
	b.Append(true)
	values := b.ValueBuilder().(*array.StringBuilder)
	for _, s := range v {
		a.bytes += len(s)
		values.Append(s)
	}
}

// Null appends a null to any column.
func (a *Appender) Null(col int) { a.pending++; a.builder.Field(col).AppendNull() }

// EndRow ends the row. The error says that a column has no value or two; the
// appender is of no use after it.
func (a *Appender) EndRow() error {
	if a.pending != len(a.columns) {
		return fmt.Errorf("ending row %d: %d values for %d columns", a.total, a.pending, len(a.columns))
	}
	a.pending = 0
	a.rows++
	a.total++
	if a.rows >= chunkRows || a.bytes >= chunkBytes {
		return a.cut()
	}
	return nil
}

// Rows is the number of rows that ended.
func (a *Appender) Rows() int { return a.total }

func (a *Appender) cut() error {
	for i, c := range a.columns {
		if n := a.builder.Field(i).Len(); n != a.rows {
			return fmt.Errorf("column %s has %d values for %d rows", c.Name, n, a.rows)
		}
	}
	a.finished = append(a.finished, a.builder.NewRecordBatch())
	a.rows, a.bytes = 0, 0
	return nil
}

// Finish hands over the rows. The appender is empty afterwards and may be used
// again.
func (a *Appender) Finish() (*Batch, error) {
	if a.pending != 0 {
		return nil, fmt.Errorf("finishing a batch: row %d has %d of %d values", a.total, a.pending, len(a.columns))
	}
	if a.rows > 0 {
		if err := a.cut(); err != nil {
			return nil, err
		}
	}
	b := &Batch{schema: a.schema, records: a.finished, rows: a.total}
	a.finished, a.total = nil, 0
	return b, nil
}

// Release frees the appender. Batches live on.
func (a *Appender) Release() {
	a.builder.Release()
	for _, r := range a.finished {
		r.Release()
	}
	a.finished = nil
}

// Batch is rows that an appender built.
type Batch struct {
	schema  *arrow.Schema
	records []arrow.RecordBatch
	rows    int
}

// Rows is the number of rows.
func (b *Batch) Rows() int { return b.rows }

// Release frees the rows.
func (b *Batch) Release() {
	for _, r := range b.records {
		r.Release()
	}
	b.records, b.rows = nil, 0
}

// Load makes or replaces a table of the session with the batch's rows, in
// their order. The batch stays the caller's.
func (s *Session) Load(ctx context.Context, table string, b *Batch) error {
	// One Arrow batch at a time: DuckDB's threads take those of a stream in
	// parallel and put them down in the order in which they are done.
	into := "CREATE OR REPLACE TABLE " + Quote(table) + " AS"
	records := b.records
	for first := true; first || len(records) > 0; first = false {
		n := min(1, len(records)) // none makes an empty table
		if err := s.load(ctx, into, b.schema, records[:n]); err != nil {
			return fmt.Errorf("loading table %s: %w", table, err)
		}
		into, records = "INSERT INTO "+Quote(table), records[n:]
	}
	return nil
}

func (s *Session) load(ctx context.Context, into string, schema *arrow.Schema, records []arrow.RecordBatch) error {
	reader, err := array.NewRecordReader(schema, records)
	if err != nil {
		return err
	}
	defer reader.Release()
	// DuckDB's view of an Arrow stream can be read once and only whole: it
	// drops filters and confuses columns that are picked from it. So it never
	// leaves this function.
	const view = "_arrow_in"
	var release func()
	err = s.raw(func(c driver.Conn) error {
		ar, err := duckdb.NewArrowFromConn(c)
		if err == nil {
			release, err = ar.RegisterView(reader, view)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer release()
	err = s.Exec(ctx, into+" SELECT * FROM "+view)
	return errors.Join(err, s.Exec(context.WithoutCancel(ctx), "DROP VIEW IF EXISTS "+view))
}
