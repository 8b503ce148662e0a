package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// The tables that the engine fills.
const (
	tableBronze     = "bronze.readings"
	tableRaw        = "bronze.raw"
	tableSilver     = "silver.readings"
	tableQuarantine = "silver.readings_quarantine"
	tableWindows    = "gold.windows_1m"
	tableState      = "gold.twin_state"
	tableAssets     = "registry.assets"
	tableSensors    = "registry.sensors"
)

// tableDir is where a table schema.name of the lake lives.
func tableDir(lake, name string) string {
	schema, table, _ := strings.Cut(name, ".")
	return filepath.Join(lake, schema, table)
}

func fieldsOf(columns []Column) []delta.Field {
	out := make([]delta.Field, len(columns))
	for i, c := range columns {
		out[i] = delta.Field{Name: c.Name, Type: delta.Type(c.Type)}
	}
	return out
}

// described returns a query's columns in Delta's types.
func described(ctx context.Context, s *duck.Session, table, query string) ([]delta.Field, error) {
	fields, err := s.Describe(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("checking the query of %s: %w", table, err)
	}
	out := make([]delta.Field, len(fields))
	for i, f := range fields {
		if f.DeltaType == "" {
			return nil, fmt.Errorf("checking the query of %s: column %s has type %s, which Delta cannot keep; cast it", table, f.Name, f.SQLType)
		}
		out[i] = delta.Field{Name: f.Name, Type: delta.Type(f.DeltaType)}
	}
	return out, nil
}

// openTable opens a table, creating it when it is not there, and checks that
// its columns are the declared ones.
func openTable(ctx context.Context, lake, name, comment string, fields []delta.Field, partitioned []string, properties map[string]string) (*delta.Table, error) {
	def := delta.Definition{Name: name, Description: comment, Schema: delta.Schema{Fields: fields}, PartitionColumns: partitioned, Properties: properties}
	dir := tableDir(lake, name)
	t, err := delta.OpenOrCreate(ctx, dir, def, delta.Options{})
	if err != nil {
		return nil, fmt.Errorf("opening table %s: %w", name, err)
	}
	if have := t.Last().Schema(); !have.Equal(def.Schema) {
		return nil, fmt.Errorf("opening table %s: its columns are %s, the pipeline declares %s; put the pipeline back, or move %s away to have it made anew",
			name, columnList(have.Fields), columnList(fields), dir)
	}
	return t, nil
}

func columnList(fields []delta.Field) string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.Name + " " + string(f.Type)
	}
	return strings.Join(out, ", ")
}

// relation is the SQL relation of some files of a table.
func relation(t *delta.Table, files []*delta.File) (string, error) {
	snap := t.Last()
	schema, partitioned := snap.Schema(), snap.Metadata().PartitionColumns
	p := duck.Parquet{PartitionColumns: partitioned}
	for _, f := range schema.Fields {
		p.Columns = append(p.Columns, duck.Field{Name: f.Name, SQLType: duck.SQLType(string(f.Type)), DeltaType: string(f.Type)})
	}
	for _, f := range files {
		part := make([]string, len(partitioned))
		for i, c := range partitioned {
			part[i] = f.PartitionValues[c]
		}
		p.Files = append(p.Files, duck.ParquetFile{Path: filepath.Join(t.Dir(), filepath.FromSlash(f.Path)), Partition: part})
	}
	return p.SQL()
}

// overlapping keeps the files whose statistics admit a value of the column in
// [lo, hi] (microseconds).
func overlapping(snap *delta.Snapshot, files []*delta.File, column string, lo, hi int64) ([]*delta.File, error) {
	var out []*delta.File
	for _, f := range files {
		st, err := snap.Stats(f)
		if err != nil {
			return nil, err
		}
		if st != nil {
			least, ok1 := st.Min[column].(int64)
			greatest, ok2 := st.Max[column].(int64)
			if ok1 && ok2 && (greatest < lo || least > hi) {
				continue
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// copied is a data file that was written and is not yet part of a table.
type copied struct {
	file delta.AddFile
	path string
	rows int64
}

// copyInto writes a query's rows to a new data file of the table; ok is false
// when there were none.
func copyInto(ctx context.Context, s *duck.Session, t *delta.Table, query string, partition map[string]string) (c copied, ok bool, err error) {
	name := delta.NewDataPath()
	path := filepath.Join(t.Dir(), name)
	info, err := s.CopyParquet(ctx, query, path)
	if err != nil {
		return copied{}, false, fmt.Errorf("writing %s: %w", path, err)
	}
	if info.Rows == 0 {
		return copied{}, false, nil
	}
	return copied{
		file: delta.AddFile{Path: name, PartitionValues: partition, Size: info.Bytes, StatsJSON: info.StatsJSON},
		path: path, rows: info.Rows,
	}, true, nil
}

// removeFiles removes data files that no commit has entered.
func removeFiles(files []copied) {
	for _, f := range files {
		_ = os.Remove(f.path)
	}
}
