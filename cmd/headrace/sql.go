package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/server/datadir"
)

// sqlCmd runs one query over the Delta tables of a data directory.
type sqlCmd struct {
	Query  string           `arg:"" optional:"" help:"A query in DuckDB's SQL; without one the tables are listed."`
	At     map[string]int64 `help:"Read a table at a version: silver.readings=41; see headrace lake history." placeholder:"TABLE=VERSION"`
	Dir    string           `help:"Data directory." default:"./headrace-data" type:"path"`
	Output string           `help:"Form of the answer: table, csv or json." enum:"table,csv,json" default:"table"`
}

const listTables = `SELECT table_schema AS "schema", table_name AS "table", count(*) AS "columns"
FROM information_schema.columns WHERE table_schema <> 'main' GROUP BY ALL ORDER BY ALL`

// Help shows examples.
func (sqlCmd) Help() string {
	return `Reads the newest version of every table that --at does not name; a running Headrace is not disturbed.

Examples:
  headrace sql
  headrace sql "SELECT path, count(*) AS n, max(event_time) FROM silver.readings GROUP BY ALL"
  headrace sql "FROM gold.windows_1m WHERE coverage < 0.5" --output csv
  headrace sql --at silver.readings=41 "SELECT count(*) FROM silver.readings"`
}

// Run runs the query and prints its rows.
func (c sqlCmd) Run(ctx context.Context, e *verb.Env) error {
	if err := datadir.Check(c.Dir); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "headrace-sql-")
	if err != nil {
		return fmt.Errorf("making a scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	lake := filepath.Join(c.Dir, "lake")
	db, err := duck.Open(ctx, duck.Options{TempDir: scratch, MemoryLimit: "512MB", AllowedDirs: []string{lake}})
	if err != nil {
		return err
	}
	session, err := db.Session(ctx)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	err = c.query(ctx, e, lake, session)
	return errors.Join(err, session.Close(), db.Close())
}

func (c sqlCmd) query(ctx context.Context, e *verb.Env, lake string, session *duck.Session) error {
	if err := mountLake(ctx, lake, session, c.At); err != nil {
		return err
	}
	query := c.Query
	if strings.TrimSpace(query) == "" {
		query = listTables
	}
	rows, err := session.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	switch c.Output {
	case "json":
		err = writeJSON(e.Stdout, rows)
	case "csv":
		err = writeCSV(e.Stdout, rows)
	default:
		err = writeTable(e.Stdout, rows)
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// each scans every row into values that [text] and JSON can print.
func each(rows *sql.Rows, f func([]any) error) error {
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	values, pointers := make([]any, len(cols)), make([]any, len(cols))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		for i, v := range values {
			values[i] = plain(v)
		}
		if err := f(values); err != nil {
			return err
		}
	}
	return rows.Err()
}

// notFinite is NaN or an infinity: null in JSON, a word elsewhere.
type notFinite float64

// MarshalJSON writes null, for which JSON has a word.
func (notFinite) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// plain turns a driver's value into what JSON can carry: times in RFC 3339.
func plain(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.999999Z07:00")
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return notFinite(v)
		}
	case []byte:
		return string(v)
	case fmt.Stringer:
		return v.String()
	}
	return v
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = text(x)
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(v)
}

func writeJSON(w io.Writer, rows *sql.Rows) error {
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	sep := "["
	err = each(rows, func(values []any) error {
		var line strings.Builder
		line.WriteString(sep + "\n {")
		sep = ","
		// Written by hand to keep the columns in the query's order.
		for i, v := range values {
			name, err := json.Marshal(cols[i])
			if err != nil {
				return err
			}
			value, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("column %s: %w", cols[i], err)
			}
			if i > 0 {
				line.WriteString(", ")
			}
			fmt.Fprintf(&line, "%s: %s", name, value)
		}
		line.WriteString("}")
		_, err := io.WriteString(w, line.String())
		return err
	})
	if err != nil {
		return err
	}
	if sep == "[" {
		_, err = io.WriteString(w, "[]\n")
	} else {
		_, err = io.WriteString(w, "\n]\n")
	}
	return err
}

func writeCSV(w io.Writer, rows *sql.Rows) error {
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	out := csv.NewWriter(w)
	if err := out.Write(cols); err != nil {
		return err
	}
	line := make([]string, len(cols))
	err = each(rows, func(values []any) error {
		for i, v := range values {
			line[i] = text(v)
		}
		return out.Write(line)
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

func writeTable(w io.Writer, rows *sql.Rows) error {
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(out, strings.Join(cols, "\t"))
	n := 0
	err = each(rows, func(values []any) error {
		n++
		line := make([]string, len(values))
		for i, v := range values {
			line[i] = strings.NewReplacer("\t", " ", "\n", " ").Replace(text(v))
		}
		_, err := fmt.Fprintln(out, strings.Join(line, "\t"))
		return err
	})
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "(%d rows)\n", n)
	return err
}

// mountLake makes every table of the lake a view of the session.
func mountLake(ctx context.Context, lake string, session *duck.Session, at map[string]int64) error {
	cat, err := catalog.Open(ctx, lake)
	if err != nil {
		return err
	}
	_, err = cat.Mount(ctx, session, at)
	return err
}
