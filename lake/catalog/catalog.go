// Package catalog reads a lake: a directory of Delta tables,
// <schema>/<table>. It finds the tables, keeps up with their versions, mounts
// them as views in an SQL session, and picks the few files of a table that can
// hold what a question asks for.
//
// It writes nothing. Tables are written by the pipeline.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// ErrNoTable says that the lake has no table of that name.
var ErrNoTable = errors.New("no such table")

// Catalog is the tables of a lake. It is safe for concurrent use.
type Catalog struct {
	dir string

	mu     sync.Mutex
	tables map[string]*table // by "schema.table"
}

type table struct {
	log   *delta.Table
	index index
}

// Open finds the tables of a lake's directory. A directory that does not exist
// yet is an empty lake. A table that cannot be read is an error.
func Open(ctx context.Context, dir string) (*Catalog, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening lake %s: %w", dir, err)
	}
	c := &Catalog{dir: abs, tables: make(map[string]*table)}
	if err := c.Refresh(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Refresh finds new tables and reads the new log entries of known ones.
func (c *Catalog) Refresh(ctx context.Context) error {
	found, err := c.find()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.tables {
		if _, ok := found[name]; !ok {
			delete(c.tables, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if t, ok := c.tables[name]; ok {
			if _, err := t.log.Refresh(ctx); err != nil {
				return fmt.Errorf("refreshing table %s: %w", name, err)
			}
			continue
		}
		t, err := delta.Open(ctx, found[name], delta.Options{})
		if errors.Is(err, delta.ErrNotTable) {
			continue // on its way
		}
		if err != nil {
			return fmt.Errorf("opening table %s: %w", name, err)
		}
		c.tables[name] = &table{log: t}
	}
	return nil
}

// find lists <schema>/<table> directories that have a log.
func (c *Catalog) find() (map[string]string, error) {
	found := make(map[string]string)
	schemas, err := subdirs(c.dir)
	if err != nil {
		return nil, err
	}
	for _, schema := range schemas {
		tables, err := subdirs(filepath.Join(c.dir, schema))
		if err != nil {
			return nil, err
		}
		for _, name := range tables {
			dir := filepath.Join(c.dir, schema, name)
			if _, err := os.Stat(filepath.Join(dir, "_delta_log")); err == nil {
				found[schema+"."+name] = dir
			}
		}
	}
	return found, nil
}

// subdirs lists directories; names that start with _ or . are not tables.
func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for tables: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), "_") && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Table describes a table at its newest known version.
type Table struct {
	Name    string // schema.table
	Version int64
	Files   int
	Bytes   int64
	Rows    int64 // -1 if a file has no statistics
	Columns []delta.Field
}

// ListTables describes all tables, by name.
func (c *Catalog) ListTables() []Table {
	snaps := c.snapshots()
	out := make([]Table, 0, len(snaps))
	for _, name := range slices.Sorted(maps.Keys(snaps)) {
		s := snaps[name]
		t := Table{Name: name, Version: s.Version(), Files: len(s.Files()), Columns: s.Schema().Fields}
		for _, f := range s.Files() {
			t.Bytes += f.Size
		}
		if n, ok := s.Rows(); ok {
			t.Rows = n
		} else {
			t.Rows = -1
		}
		out = append(out, t)
	}
	return out
}

func (c *Catalog) snapshots() map[string]*delta.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]*delta.Snapshot, len(c.tables))
	for name, t := range c.tables {
		out[name] = t.log.Last()
	}
	return out
}

// Snapshot is a table ("schema.table") at its newest known version. It does no
// I/O; see Refresh.
func (c *Catalog) Snapshot(name string) (*delta.Snapshot, error) {
	t, err := c.table(name)
	if err != nil {
		return nil, err
	}
	return t.log.Last(), nil
}

func (c *Catalog) table(name string) (*table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.tables[name]; ok {
		return t, nil
	}
	names := strings.Join(slices.Sorted(maps.Keys(c.tables)), ", ")
	if names == "" {
		names = "none"
	}
	return nil, fmt.Errorf("%s: %w in %s; it has %s", name, ErrNoTable, c.dir, names)
}

// relation writes files of a snapshot as a relation.
func (c *Catalog) relation(name string, s *delta.Snapshot, files []*delta.File) (string, error) {
	dir := c.path(name)
	meta := s.Metadata()
	p := duck.Parquet{PartitionColumns: meta.PartitionColumns, Files: make([]duck.ParquetFile, len(files))}
	for _, f := range meta.Schema.Fields {
		p.Columns = append(p.Columns, duck.Field{Name: f.Name, SQLType: duck.SQLType(string(f.Type))})
	}
	for i, f := range files {
		p.Files[i].Path = filepath.Join(dir, filepath.FromSlash(f.Path))
		for _, col := range meta.PartitionColumns {
			p.Files[i].Partition = append(p.Files[i].Partition, f.PartitionValues[col])
		}
	}
	text, err := p.SQL()
	if err != nil {
		return "", fmt.Errorf("reading table %s: %w", name, err)
	}
	return text, nil
}

func (c *Catalog) path(name string) string {
	schema, table, _ := strings.Cut(name, ".")
	return filepath.Join(c.dir, schema, table)
}
