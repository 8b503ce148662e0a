package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// session opens a DuckDB session with the macros and schemas that pipelines
// use.
func (w *Worker) session(ctx context.Context) (*duck.Session, error) {
	s, err := w.DB.Session(ctx)
	if err != nil {
		return nil, err
	}
	for _, schema := range []string{"bronze", "silver", "gold", "registry"} {
		err = errors.Join(err, s.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema))
	}
	for _, m := range macros() {
		err = errors.Join(err, s.Exec(ctx, m))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing a session: %w", err), s.Close())
	}
	return s, nil
}

// runnable tells what of a pipeline this engine cannot run.
func runnable(p *Pipeline) error {
	var errs []error
	refuse := func(file string, line int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s", file, line, fmt.Sprintf(format, args...)))
	}
	for _, name := range []string{tableBronze, tableRaw, tableSilver, tableWindows, tableState} {
		if p.Table(name) == nil {
			errs = append(errs, fmt.Errorf("the pipeline does not declare %s", name))
		}
	}
	for _, t := range p.Tables {
		switch t.Name {
		case tableBronze, tableRaw:
			if t.Body != "" {
				refuse(t.File, t.Line, "%s is fed by the spine; declare its columns without AS", t.Name)
			}
		case tableSilver:
			if len(t.Streams) != 1 || t.Streams[0].Table != tableBronze {
				refuse(t.File, t.Line, "%s must read STREAM(%s)", t.Name, tableBronze)
			}
			if len(t.Constraints) > 60 {
				refuse(t.File, t.Line, "%s has %d constraints, at most 60 are counted", t.Name, len(t.Constraints))
			}
		case tableWindows:
			if !t.Materialized {
				refuse(t.File, t.Line, "%s must be a MATERIALIZED VIEW", t.Name)
			}
			if t.Refresh == "FULL" {
				refuse(t.File, t.Line, "%s is kept up from what changes; leave REFRESH POLICY FULL away", t.Name)
			}
		default:
			if t.Body != "" || !slices.ContainsFunc(p.Flows, func(f *Flow) bool { return f.Target == t.Name }) {
				refuse(t.File, t.Line, "table %s cannot be run; the engine runs %s, %s, %s and AUTO CDC flows of %s", t.Name, tableBronze, tableSilver, tableWindows, tableSilver)
			}
		}
		if t.Name != tableBronze && t.Name != tableRaw && t.Name != tableSilver && !slices.Equal(t.Partitioned, []string{"shard"}) {
			refuse(t.File, t.Line, "gold table %s must be PARTITIONED BY (shard)", t.Name)
		}
	}
	for _, f := range p.Flows {
		if f.Source != tableSilver {
			refuse(f.File, f.Line, "flow %s reads %s; AUTO CDC flows read %s", f.Name, f.Source, tableSilver)
		}
	}
	return errors.Join(errs...)
}

// openTables opens every table and checks the pipeline's queries against each
// other.
func (w *Worker) openTables(ctx context.Context) error {
	p := w.Pipeline
	if err := runnable(p); err != nil {
		return fmt.Errorf("checking the pipeline: %w", err)
	}
	s, err := w.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	open := func(name, comment string, fields []delta.Field, partitioned []string, properties map[string]string) error {
		t, err := openTable(ctx, w.Dir, name, comment, fields, partitioned, properties)
		if err != nil {
			return err
		}
		w.tables[name] = t
		return emptyTable(ctx, s, name, fields)
	}
	appendOnly := map[string]string{"delta.appendOnly": "true"}

	for _, kind := range spineTables() {
		if err := checkBronze(p.Table(kind.name), kind.columns()); err != nil {
			return err
		}
	}
	bronze, raw := p.Table(tableBronze), p.Table(tableRaw)
	err = errors.Join(
		open(tableAssets, "Published versions of the registry: assets", assetFields(), nil, nil),
		open(tableSensors, "Published versions of the registry: sensors", sensorFields(), nil, nil),
		open(tableBronze, bronze.Comment, fieldsOf(bronze.Columns), nil, appendOnly),
		open(tableRaw, raw.Comment, fieldsOf(raw.Columns), nil, appendOnly),
	)
	if err != nil {
		return err
	}
	silver := p.Table(tableSilver)
	fields, err := w.silverFields(ctx, s, silver)
	if err != nil {
		return err
	}
	quarantine := append(fieldsOf(bronze.Columns),
		delta.Field{Name: "violations", Type: delta.ArrayOf(delta.String)}, delta.Field{Name: "pipeline_hash", Type: delta.String},
		delta.Field{Name: "batch_id", Type: delta.String}, delta.Field{Name: "quarantined_at", Type: delta.Timestamp})
	err = errors.Join(
		open(tableQuarantine, "Rows of bronze.readings that silver refused, with the rules", quarantine, nil, appendOnly),
		open(tableSilver, silver.Comment, fields, nil, appendOnly),
	)
	if err != nil {
		return err
	}
	view := p.Table(tableWindows)
	windows, err := described(ctx, s, tableWindows, view.Body)
	if err != nil {
		return fmt.Errorf("%s:%d: %w", view.File, view.Line, err)
	}
	if err := need(tableWindows, windows, "path", "window_start", "shard"); err != nil {
		return err
	}
	if err := open(tableWindows, view.Comment, windowFields(windows), view.Partitioned, nil); err != nil {
		return err
	}
	for _, f := range p.Flows {
		target := p.Table(f.Target)
		if err := need(f.Source, fields, append(slices.Clone(f.Keys), f.Sequence...)...); err != nil {
			return fmt.Errorf("%s:%d: %w", f.File, f.Line, err)
		}
		if err := open(f.Target, target.Comment, fields, target.Partitioned, nil); err != nil {
			return err
		}
	}
	return nil
}

// silverFields checks silver's query and constraints, and returns its columns.
func (w *Worker) silverFields(ctx context.Context, s *duck.Session, t *Table) ([]delta.Field, error) {
	aggregates, err := s.Aggregates(ctx)
	if err != nil {
		return nil, err
	}
	if err := refuseAggregates(t, aggregates); err != nil {
		return nil, err
	}
	fields, err := described(ctx, s, t.Name, t.Body)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", t.File, t.Line, err)
	}
	err = need(t.Name, fields, "path", "asset", "event_time", "alive_at", "value", "text", "quality", "edge", "boot", "stream", "n", "i", "shard")
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", t.File, t.Line, err)
	}
	for _, c := range t.Constraints {
		if _, err := s.Describe(ctx, "SELECT ("+c.Predicate+")::BOOLEAN AS ok FROM ("+t.Body+")"); err != nil {
			return nil, fmt.Errorf("%s:%d: constraint %s: %w", t.File, c.Line, c.Name, err)
		}
	}
	return fields, nil
}

// refuseAggregates refuses functions of many rows in a table that is made row
// by row.
func refuseAggregates(t *Table, aggregates map[string]bool) error {
	src := source{t.File, t.Body}
	toks, err := src.tokens()
	if err != nil {
		return err
	}
	for i, tok := range toks[:len(toks)-1] {
		if tok.kind == tokenWord && aggregates[strings.ToLower(tok.text)] && toks[i+1].symbol("(") {
			return fmt.Errorf("%s:%d: streaming table %s works row by row and cannot use %s; declare a MATERIALIZED VIEW for it", t.File, t.Line, t.Name, tok.text)
		}
	}
	return nil
}

// emptyTable stands for a table while queries are checked.
func emptyTable(ctx context.Context, s *duck.Session, name string, fields []delta.Field) error {
	columns := make([]string, len(fields))
	for i, f := range fields {
		columns[i] = duck.Quote(f.Name) + " " + duck.SQLType(string(f.Type))
	}
	return s.Exec(ctx, "CREATE TABLE "+name+" ("+strings.Join(columns, ", ")+")")
}

func need(table string, fields []delta.Field, names ...string) error {
	for _, n := range names {
		if !slices.ContainsFunc(fields, func(f delta.Field) bool { return f.Name == n }) {
			return fmt.Errorf("%s has no column %s, which the engine needs", table, n)
		}
	}
	return nil
}

// checkBronze compares the declaration with the columns that are written.
func checkBronze(t *Table, want []duck.Column) error {
	if len(t.Columns) != len(want) {
		return fmt.Errorf("%s:%d: %s declares %d columns, the spine's records give %d", t.File, t.Line, t.Name, len(t.Columns), len(want))
	}
	for i, c := range t.Columns {
		if c.Name != want[i].Name || c.Type != appendedType(want[i].Type) {
			return fmt.Errorf("%s:%d: column %d of %s is %s %s, the spine's records give %s %s", t.File, t.Line, i+1, t.Name, c.Name, c.Type, want[i].Name, appendedType(want[i].Type))
		}
	}
	return nil
}

func appendedType(t duck.Type) string {
	switch t {
	case duck.Float64:
		return "double"
	case duck.Int64:
		return "long"
	case duck.Int32:
		return "integer"
	case duck.Bool:
		return "boolean"
	case duck.Timestamp:
		return "timestamp"
	case duck.Binary:
		return "binary"
	}
	return "string"
}

// newest are the n files whose statistics end last in a column of times.
func newest(snap *delta.Snapshot, column string, n int) ([]*delta.File, error) {
	files := slices.Clone(snap.Files())
	ends := make(map[*delta.File]int64, len(files))
	for _, f := range files {
		st, err := snap.Stats(f)
		if err != nil {
			return nil, err
		}
		if st != nil {
			ends[f], _ = st.Max[column].(int64)
		}
	}
	slices.SortStableFunc(files, func(a, b *delta.File) int {
		switch {
		case ends[a] > ends[b]:
			return -1
		case ends[a] < ends[b]:
			return 1
		}
		return 0
	})
	return files[:min(n, len(files))], nil
}
