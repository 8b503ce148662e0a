package duck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	duckdb "github.com/duckdb/duckdb-go/v2"
)

// FileInfo describes a Parquet file that was written.
type FileInfo struct {
	Path      string // "" if there were no rows, and so no file
	Rows      int64
	Bytes     int64
	StatsJSON string // as Delta Lake's add action has it
	Columns   []ColumnStats
}

// ColumnStats are the bounds of a column, in the form that the JSON has.
type ColumnStats struct {
	Name      string
	DeltaType string
	Min, Max  any   // nil: no bound
	NullCount int64 // -1: not known
}

// CopyParquet runs a query into a new Parquet file (zstd), durable when it
// returns. A query without rows leaves no file. A column whose type no table
// can have is an error, and leaves no file. A file that exists is not touched.
func (s *Session) CopyParquet(ctx context.Context, query, path string) (info FileInfo, err error) {
	if _, err := os.Lstat(path); err == nil {
		return FileInfo{}, fmt.Errorf("writing %s: %w", path, fs.ErrExist)
	}
	defer func() {
		if err != nil || info.Rows == 0 {
			if rm := os.Remove(path); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
		if err != nil {
			info, err = FileInfo{}, fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	var stats duckdb.OrderedMap
	q := "COPY (" + trim(query) + "\n) TO " + Literal(path) + " (FORMAT parquet, COMPRESSION zstd, RETURN_STATS)"
	var file string
	var footer, keys any
	row := s.conn.QueryRowContext(ctx, q)
	if err := row.Scan(&file, &info.Rows, &info.Bytes, &footer, &stats, &keys); err != nil {
		return info, wrap(query, err)
	}
	if info.Rows == 0 {
		return FileInfo{}, nil
	}
	columns, err := s.parquetColumns(ctx, path)
	if err != nil {
		return info, err
	}
	if err := syncFile(path); err != nil {
		return info, err
	}
	info.Path = path
	info.Columns = columnStats(columns, &stats)
	info.StatsJSON, err = statsJSON(info.Rows, info.Columns)
	return info, err
}

// syncFile makes a file and its name durable.
func syncFile(path string) error {
	for _, p := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("syncing %s: %w", p, err)
		}
	}
	return nil
}

// parquetColumns reads a file's own schema and maps each column to its table
// type, by what other readers will see.
func (s *Session) parquetColumns(ctx context.Context, path string) ([]Field, error) {
	const q = "SELECT name, coalesce(type, ''), coalesce(converted_type, ''), coalesce(CAST(logical_type AS VARCHAR), ''), coalesce(num_children, 0) FROM parquet_schema(?)"
	rows, err := s.conn.QueryContext(ctx, q, path)
	if err != nil {
		return nil, wrap(q, err)
	}
	defer rows.Close()
	var nodes []parquetNode
	for rows.Next() {
		var n parquetNode
		if err := rows.Scan(&n.name, &n.physical, &n.converted, &n.logical, &n.children); err != nil {
			return nil, wrap(q, err)
		}
		nodes = append(nodes, n)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(q, err)
	}
	var out []Field
	for i := 1; i < len(nodes); { // the first is the root
		n := nodes[i]
		t := n.deltaType()
		if n.converted == "LIST" && i+2 < len(nodes) && nodes[i+1].children == 1 {
			if elem := nodes[i+2].deltaType(); elem != "" {
				t = "array<" + elem + ">"
			}
		}
		if t == "" {
			return nil, fmt.Errorf("column %s is written as %s %s, which no table column is; cast it to VARCHAR, BIGINT, INTEGER, DOUBLE, BOOLEAN, TIMESTAMPTZ, DATE, BLOB or an array of one",
				n.name, n.physical, n.converted)
		}
		out = append(out, Field{Name: n.name, DeltaType: t, SQLType: SQLType(t)})
		i = skip(nodes, i)
	}
	return out, nil
}

// skip returns the index after a node and all below it.
func skip(nodes []parquetNode, i int) int {
	below := nodes[i].children
	for i++; below > 0 && i < len(nodes); below-- {
		i = skip(nodes, i)
	}
	return i
}

type parquetNode struct {
	name, physical, converted, logical string
	children                           int64
}

func (n parquetNode) deltaType() string {
	switch {
	case n.physical == "INT64" && n.converted == "TIMESTAMP_MICROS" && strings.Contains(n.logical, "isAdjustedToUTC=1"):
		return "timestamp"
	case n.physical == "INT64" && (n.converted == "" || n.converted == "INT_64") && n.logical == "":
		return "long"
	case n.physical == "INT32" && (n.converted == "" || n.converted == "INT_32") && n.logical == "":
		return "integer"
	case n.physical == "INT32" && n.converted == "DATE":
		return "date"
	case n.physical == "DOUBLE":
		return "double"
	case n.physical == "BOOLEAN":
		return "boolean"
	case n.physical == "BYTE_ARRAY" && n.converted == "UTF8":
		return "string"
	case n.physical == "BYTE_ARRAY" && n.converted == "" && n.logical == "":
		return "binary"
	}
	return ""
}

// ParquetFile is a file of a relation.
type ParquetFile struct {
	Path      string   // absolute
	Partition []string // the values of the partition columns as text; "" is null
}

// Parquet is a relation over Parquet files of one table.
type Parquet struct {
	Files []ParquetFile
	// Columns are those of the relation, in order. Those that a file lacks are
	// null. Only Name and SQLType are read.
	Columns []Field
	// PartitionColumns are those of Columns that the files do not hold.
	PartitionColumns []string
}

// SQL writes the relation for a FROM clause. Without files it is an empty
// relation with the same columns.
func (p Parquet) SQL() (string, error) {
	if len(p.Columns) == 0 {
		return "", errors.New("a relation over Parquet files has no columns")
	}
	partition := make(map[string]int, len(p.PartitionColumns))
	for i, c := range p.PartitionColumns {
		partition[c] = i
	}
	if len(p.Files) == 0 {
		return p.empty(), nil
	}
	// The files' columns by name: no file's schema is taken for the others'.
	var schema []string
	for _, c := range p.Columns {
		if _, ok := partition[c.Name]; !ok {
			schema = append(schema, Literal(c.Name)+": {name: "+Literal(c.Name)+", type: "+Literal(c.SQLType)+", default_value: NULL}")
		}
	}
	groups := make(map[string][]string)
	tuples := make(map[string][]string)
	var order []string
	for _, f := range p.Files {
		if len(f.Partition) != len(p.PartitionColumns) {
			return "", fmt.Errorf("file %s has %d partition values for %d partition columns", f.Path, len(f.Partition), len(p.PartitionColumns))
		}
		key := strings.Join(f.Partition, "\x00")
		if _, ok := groups[key]; !ok {
			order = append(order, key)
			tuples[key] = f.Partition
		}
		groups[key] = append(groups[key], Literal(f.Path))
	}
	branches := make([]string, 0, len(order))
	for _, key := range order {
		list := make([]string, len(p.Columns))
		for i, c := range p.Columns {
			list[i] = Quote(c.Name)
			if k, ok := partition[c.Name]; ok {
				value := "NULL"
				if v := tuples[key][k]; v != "" {
					value = Literal(v)
				}
				list[i] = "CAST(" + value + " AS " + c.SQLType + ") AS " + Quote(c.Name)
			}
		}
		branches = append(branches, "SELECT "+strings.Join(list, ", ")+" FROM read_parquet(["+strings.Join(groups[key], ", ")+
			"], hive_partitioning = false, schema = MAP {"+strings.Join(schema, ", ")+"})")
	}
	return "(" + strings.Join(branches, " UNION ALL ") + ")", nil
}

func (p Parquet) empty() string {
	list := make([]string, len(p.Columns))
	for i, c := range p.Columns {
		list[i] = "CAST(NULL AS " + c.SQLType + ") AS " + Quote(c.Name)
	}
	return "(SELECT " + strings.Join(list, ", ") + " WHERE false)"
}
