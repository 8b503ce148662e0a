package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// File is one pipeline file.
type File struct{ Name, Text string }

// Pipeline is a parsed set of declarations.
type Pipeline struct {
	Tables []*Table // in the order of the files
	Flows  []*Flow
	files  []File
	hash   string
}

// Hash is the content hash of the files: names and texts, in order of name.
func (p *Pipeline) Hash() string { return p.hash }

// Table returns the declaration of a table, nil if there is none.
func (p *Pipeline) Table(name string) *Table {
	i := slices.IndexFunc(p.Tables, func(t *Table) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return p.Tables[i]
}

func hashFiles(files []File) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%d:%s%d:", len(f.Name), f.Name, len(f.Text))
		_, _ = io.WriteString(h, f.Text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Table is one CREATE OR REFRESH.
type Table struct {
	Name         string // schema.table
	Materialized bool   // MATERIALIZED VIEW; else STREAMING TABLE
	Columns      []Column
	Constraints  []Constraint
	Comment      string
	Partitioned  []string
	Properties   map[string]string
	Refresh      string // REFRESH POLICY: "", "FULL", "INCREMENTAL", "INCREMENTAL STRICT", "AUTO"
	Body         string // the query, its STREAM words taken away; "" for a table that something else feeds
	Streams      []StreamRef
	File         string
	Line         int

	selectEnd int // offset in Body just after its first SELECT
}

// Column is a declared column.
type Column struct {
	Name, Type, Comment string // Type in Delta's words: string, long, array<string>
}

// StreamRef is a source that a body reads as a stream.
type StreamRef struct{ Table, Alias string }

// Violation is what becomes of a row that fails a constraint.
type Violation string

// The ways, in the order in which they win when a row fails several.
const (
	FailUpdate Violation = "FAIL UPDATE" // the batch is not committed
	Quarantine Violation = "QUARANTINE"  // the row goes to the table's quarantine
	DropRow    Violation = "DROP ROW"    // the row is counted and left out
	Warn       Violation = ""            // the row is kept and counted
)

// Constraint is one expectation. A predicate that gives NULL is violated.
type Constraint struct {
	Name, Predicate string
	OnViolation     Violation
	Line            int
}

// Flow is CREATE FLOW … AS AUTO CDC INTO …, stored as SCD type 1.
type Flow struct {
	Name, Target, Source string
	Keys                 []string
	Sequence             []string // expressions, compared in this order
	File                 string
	Line                 int
}
