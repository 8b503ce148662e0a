package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
)

type lakeCmd struct {
	History    lakeHistoryCmd    `cmd:"" help:"What the versions of a table did."`
	Optimize   lakeOptimizeCmd   `cmd:"" help:"Make large files of small ones."`
	Checkpoint lakeCheckpointCmd `cmd:"" help:"Write tables' checkpoints, so that others open them fast."`
	Vacuum     lakeVacuumCmd     `cmd:"" help:"Remove data files that no longer belong to a table."`
}

// lakeFlags say which tables.
type lakeFlags struct {
	Dir    string `help:"Data directory with the lake." default:"./headrace-data" type:"path"`
	Lake   string `help:"Folder of the lake, if it is not in --dir." placeholder:"DIR" type:"path"`
	Output string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

func (f lakeFlags) folder() string {
	if f.Lake != "" {
		return f.Lake
	}
	return filepath.Join(f.Dir, "lake")
}

// tables opens those that are named, all of them if none is.
func (f lakeFlags) tables(ctx context.Context, names []string) (map[string]*delta.Table, []string, error) {
	folder := f.folder()
	if _, err := os.Stat(folder); err != nil {
		return nil, nil, fmt.Errorf("there is no lake in %s; name its folder with --lake", folder)
	}
	if len(names) == 0 {
		c, err := catalog.Open(ctx, folder)
		if err != nil {
			return nil, nil, err
		}
		for _, t := range c.ListTables() {
			names = append(names, t.Name)
		}
	}
	out := map[string]*delta.Table{}
	for _, name := range names {
		schema, table, ok := strings.Cut(name, ".")
		if !ok || strings.ContainsAny(name, `/\`) {
			return nil, nil, fmt.Errorf("%s is no table's name; write schema.table, like silver.readings", name)
		}
		t, err := delta.Open(ctx, filepath.Join(folder, schema, table), delta.Options{})
		if err != nil {
			return nil, nil, err
		}
		out[name] = t
	}
	slices.Sort(names)
	return out, slices.Compact(names), nil
}

// answer prints rows as a table, or values as JSON.
func (f lakeFlags) answer(to io.Writer, values any, head string, rows [][]any) error {
	if f.Output == "json" {
		return json.NewEncoder(to).Encode(values)
	}
	w := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		for i, v := range r {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, v)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

type lakeHistoryCmd struct {
	Table string `arg:"" help:"The table, schema.table."`
	Limit int    `help:"How many versions, newest first; 0 is all that the log has." default:"20"`
	lakeFlags
}

// Help shows an example.
func (lakeHistoryCmd) Help() string {
	return "The rows of an older version: headrace sql --at TABLE=VERSION.\n\nExample:\n  headrace lake history silver.readings --limit 5"
}

type versionLine struct {
	Version   int64     `json:"version"`
	Time      time.Time `json:"time"`
	Operation string    `json:"operation"`
	Rows      int64     `json:"rows"`
	Added     int       `json:"files_added"`
	Removed   int       `json:"files_removed"`
}

// Run prints the versions.
func (c lakeHistoryCmd) Run(ctx context.Context, e *verb.Env) error {
	tables, _, err := c.tables(ctx, []string{c.Table})
	if err != nil {
		return err
	}
	t := tables[c.Table]
	newest := t.Last().Version()
	from := int64(-1)
	if c.Limit > 0 {
		from = max(-1, newest-int64(c.Limit))
	}
	var changes []delta.Version
	for {
		changes, err = t.Changes(ctx, from, newest)
		if !errors.Is(err, delta.ErrNoVersion) || from >= newest {
			break
		}
		from++ // the log before was cleaned away
	}
	if err != nil {
		return err
	}
	lines := make([]versionLine, 0, len(changes))
	var rows [][]any
	for _, v := range slices.Backward(changes) {
		l := versionLine{Version: v.Version, Time: time.UnixMilli(v.Info.Timestamp).UTC(), Operation: v.Info.Operation, Added: len(v.Adds), Removed: len(v.Removes)}
		for _, f := range v.Adds {
			n, _ := f.Rows()
			l.Rows += n
		}
		lines = append(lines, l)
		rows = append(rows, []any{l.Version, l.Time.Format(time.RFC3339), l.Operation, l.Rows, l.Added, l.Removed})
	}
	return c.answer(e.Stdout, lines, "version\ttime\toperation\trows\tfiles added\tremoved", rows)
}

type lakeOptimizeCmd struct {
	Tables []string `arg:"" optional:"" help:"The tables, schema.table; all without."`
	lakeFlags
}

// Help shows an example.
func (lakeOptimizeCmd) Help() string {
	return `A running lake does it by itself where a partition has 64 small files; this does it wherever there are two. Readers are not disturbed, and
older versions stay readable until vacuum.

Example:
  headrace lake optimize bronze.readings silver.readings`
}

// Run compacts.
func (c lakeOptimizeCmd) Run(ctx context.Context, e *verb.Env) error {
	tables, names, err := c.tables(ctx, c.Tables)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "headrace-lake-")
	if err != nil {
		return fmt.Errorf("making a scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	db, err := duck.Open(ctx, duck.Options{TempDir: scratch, MemoryLimit: "512MB", AllowedDirs: []string{c.folder()}})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	session, err := db.Session(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	done := []pipeline.Compacted{}
	var rows [][]any
	for _, name := range names {
		sum := pipeline.Compacted{Table: name}
		for {
			one, err := pipeline.Compact(ctx, session, tables[name], name, 2, nil)
			if err != nil {
				return err
			}
			sum.Files, sum.Into, sum.Bytes, sum.Wrote = sum.Files+one.Files, sum.Into+one.Into, sum.Bytes+one.Bytes, sum.Wrote+one.Wrote
			if one.Files <= one.Into || ctx.Err() != nil {
				break
			}
			fmt.Fprintf(e.Stderr, "%s: %d files became %d\n", name, sum.Files, sum.Into)
		}
		done = append(done, sum)
		rows = append(rows, []any{name, sum.Files, sum.Into, sum.Bytes, sum.Wrote})
	}
	return c.answer(e.Stdout, done, "table\tfiles\tinto\tbytes\twrote", rows)
}

type lakeCheckpointCmd struct {
	Tables []string `arg:"" optional:"" help:"The tables, schema.table; all without."`
	lakeFlags
}

// Help shows an example.
func (lakeCheckpointCmd) Help() string {
	return "A running lake does it by itself every 100 versions.\n\nExample:\n  headrace lake checkpoint"
}

// Run writes checkpoints.
func (c lakeCheckpointCmd) Run(ctx context.Context, e *verb.Env) error {
	tables, names, err := c.tables(ctx, c.Tables)
	if err != nil {
		return err
	}
	type line struct {
		Table   string `json:"table"`
		Version int64  `json:"version"`
	}
	lines := []line{}
	var rows [][]any
	for _, name := range names {
		v, err := tables[name].Checkpoint(ctx, 0)
		if err != nil {
			return err
		}
		lines, rows = append(lines, line{name, v}), append(rows, []any{name, v})
	}
	return c.answer(e.Stdout, lines, "table\tversion", rows)
}

type lakeVacuumCmd struct {
	Tables []string      `arg:"" optional:"" help:"The tables, schema.table; all without."`
	Retain time.Duration `help:"How long a removed file is kept for readers of older versions." default:"168h"`
	DryRun bool          `help:"Tell what would go, and remove nothing."`
	Force  bool          `help:"Allow less than 168h: nobody reads older versions, is behind in reading, or writes."`
	lakeFlags
}

// Help shows an example.
func (lakeVacuumCmd) Help() string {
	return `Files that no version names, left by a writer that died, go as well. Exit code 2, and nothing removed, if --retain is too short.

Example:
  headrace lake vacuum --dry-run`
}

// Run removes files.
func (c lakeVacuumCmd) Run(ctx context.Context, e *verb.Env) error {
	if c.Retain < 0 || c.Retain > math.MaxInt64/2 {
		return fmt.Errorf("--retain %s: want 0 or more", c.Retain)
	}
	tables, names, err := c.tables(ctx, c.Tables)
	if err != nil {
		return err
	}
	type line struct {
		Table  string   `json:"table"`
		Files  []string `json:"files"`
		DryRun bool     `json:"dry_run"`
	}
	lines := []line{}
	var rows [][]any
	for _, name := range names {
		gone, err := tables[name].Vacuum(ctx, c.Retain, c.Force, c.DryRun)
		if err != nil {
			return err
		}
		if gone == nil {
			gone = []string{}
		}
		lines, rows = append(lines, line{name, gone, c.DryRun}), append(rows, []any{name, len(gone)})
	}
	return c.answer(e.Stdout, lines, "table\tfiles", rows)
}
