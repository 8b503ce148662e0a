package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// coldRows is the size up to which a file of a keyed table is written again
// together with what changes; larger ones are split into what changed and what
// did not.
const coldRows = 2000

// windows keeps gold.windows_1m: it runs the view's own query on the part of
// silver that can have changed, and writes what came out differently.
type windows struct {
	*follower
	columns []string // of the query
}

// The engine's own columns of a keyed view.
func windowFields(body []delta.Field) []delta.Field {
	return append(slices.Clone(body),
		delta.Field{Name: "revision", Type: delta.Long}, delta.Field{Name: "available_at", Type: delta.Timestamp})
}

func newWindows(w *Worker) *follower {
	v := &windows{}
	t := w.tables[tableWindows]
	for _, f := range t.Last().Schema().Fields {
		if f.Name != "revision" && f.Name != "available_at" {
			v.columns = append(v.columns, f.Name)
		}
	}
	v.follower = &follower{
		w: w, name: tableWindows, source: w.tables[tableSilver],
		tables: []*delta.Table{t}, names: []string{tableWindows}, run: v.run,
	}
	return v.follower
}

func (v *windows) run(ctx context.Context, b *batch) error {
	snap, err := v.source.SnapshotAt(ctx, b.plan.To)
	if err != nil {
		return fmt.Errorf("reading %s at version %d: %w", tableSilver, b.plan.To, err)
	}
	defer v.drop(context.WithoutCancel(ctx))
	if err := v.touch(ctx, b, snap); err != nil {
		return err
	}
	if err := v.calculate(ctx, b.pipeline.Table(tableWindows), snap); err != nil {
		return err
	}
	c := delta.Commit{ReadVersion: v.tables[0].Last().Version(), Operation: "MERGE", Txns: v.steps(b, 0), Parameters: map[string]string{}}
	if err := planParameter(c.Parameters, b.plan); err != nil {
		return err
	}
	written, files, err := v.upsert(ctx, b, &c)
	if err != nil {
		removeFiles(files)
		return err
	}
	if _, err := v.tables[0].Commit(ctx, c); err != nil {
		if errors.Is(err, delta.ErrTxnMoved) {
			removeFiles(files) // nobody's: the commit was refused
		}
		return fmt.Errorf("committing to %s: %w", v.name, err)
	}
	v.w.totals.gold(written)
	return v.w.at(ctx, "lake.gold_committed")
}

func (v *windows) drop(ctx context.Context) {
	for _, t := range []string{"result", "existing", "changed", "gone", "bounds", "touched"} {
		_ = v.session.Exec(ctx, "DROP TABLE IF EXISTS "+t)
	}
}

// touch finds, for each path with new rows, what its windows can have changed
// in and what they are calculated from (table bounds):
//
//   - w_from, w_to: the first and the last window. A new row changes nothing
//     before its own time, and nothing from the next row on.
//   - lo: the earliest row that may still hold in w_from. A row holds no longer
//     than its max_hold after its proof of life; every row from that one on is
//     read, for each may end the one before it.
//
// A path of which no number can hold from w_from on has no windows there.
func (v *windows) touch(ctx context.Context, b *batch, snap *delta.Snapshot) error {
	added, err := relation(v.source, b.adds)
	if err != nil {
		return err
	}
	err = v.session.Exec(ctx, `CREATE OR REPLACE TABLE touched AS
		SELECT path, epoch_us(min(event_time)) - pmod(epoch_us(min(event_time)), `+window+`) AS w_from, max(event_time) AS newest
		FROM `+added+` WHERE shard IN (`+shardList(b.shards)+`) GROUP BY path`)
	if err != nil {
		return fmt.Errorf("finding the windows that change: %w", err)
	}
	var first int64
	if err := v.session.QueryRow(ctx, "SELECT coalesce(min(w_from), 0) FROM touched").Scan(&first); err != nil {
		return fmt.Errorf("finding the windows that change: %w", err)
	}
	hold, err := greatestHold(snap)
	if err != nil {
		return err
	}
	files, err := overlapping(snap, snap.Files(), "alive_at", first-hold, math.MaxInt64)
	if err != nil {
		return err
	}
	near, err := relation(v.source, files)
	if err != nil {
		return err
	}
	err = v.session.Exec(ctx, `CREATE OR REPLACE TABLE bounds AS SELECT path, w_from,
			coalesce(next_from - pmod(next_from, `+window+`), `+strconv.FormatInt(math.MaxInt64/2, 10)+`) AS w_to, lo,
			sum(rows) OVER (ORDER BY path ROWS UNBOUNDED PRECEDING)::BIGINT AS rows_so_far
		FROM (SELECT t.path, any_value(t.w_from) AS w_from, count(*) AS rows,
				epoch_us(min(s.event_time) FILTER (s.event_time > t.newest)) AS next_from,
				epoch_us(min(s.event_time)) AS lo
			FROM touched t JOIN `+near+` s ON s.path = t.path AND epoch_us(s.alive_at) >= t.w_from - s.max_hold_us
			GROUP BY t.path HAVING bool_or(s.kind = 'number'))`)
	if err != nil {
		return fmt.Errorf("finding the windows that change: %w", err)
	}
	return nil
}

// window is the length of a window of gold.windows_1m, in microseconds.
const window = "60000000"

// greatestHold is the longest max_hold of the snapshot's rows.
func greatestHold(snap *delta.Snapshot) (int64, error) {
	var hold int64
	for _, f := range snap.Files() {
		st, err := snap.Stats(f)
		if err != nil {
			return 0, err
		}
		if st == nil {
			return maxHold, nil
		}
		if n, ok := st.Max["max_hold_us"].(int64); ok {
			hold = max(hold, n)
		}
	}
	return hold, nil
}

// calculate runs the view's query over the part of silver that bounds name,
// some paths at a time, into the table result.
func (v *windows) calculate(ctx context.Context, t *Table, snap *delta.Snapshot) error {
	var lo, rows int64
	if err := v.session.QueryRow(ctx, "SELECT coalesce(min(lo), 0), coalesce(max(rows_so_far), 0) FROM bounds").Scan(&lo, &rows); err != nil {
		return fmt.Errorf("reading %s: %w", tableSilver, err)
	}
	files, err := overlapping(snap, snap.Files(), "event_time", lo, math.MaxInt64)
	if err != nil {
		return err
	}
	from, err := relation(v.source, files)
	if err != nil {
		return err
	}
	n := v.pieces(rows)
	size := rows/n + 1
	for piece := range n {
		// The paths whose rows end in this piece's share of all.
		paths := fmt.Sprintf("(SELECT * FROM bounds WHERE rows_so_far > %d AND rows_so_far <= %d)", piece*size, (piece+1)*size)
		err = v.session.Exec(ctx, `CREATE OR REPLACE VIEW `+tableSilver+` AS SELECT s.* FROM `+from+` s JOIN `+paths+` p ON p.path = s.path
			WHERE epoch_us(s.event_time) >= p.lo AND epoch_us(s.event_time) < p.w_to + `+window)
		if err != nil {
			return fmt.Errorf("reading %s: %w", tableSilver, err)
		}
		into := "INSERT INTO result "
		if piece == 0 {
			into = "CREATE OR REPLACE TABLE result AS "
		}
		if err := v.session.Exec(ctx, into+`SELECT r.* FROM (`+t.Body+`) r JOIN `+paths+` p ON p.path = r.path
			WHERE epoch_us(r.window_start) >= p.w_from AND epoch_us(r.window_start) <= p.w_to`); err != nil {
			return fmt.Errorf("calculating %s (%s:%d): %w", v.name, t.File, t.Line, err)
		}
	}
	return nil
}

// upsert writes the files that differ from the table and enters them and the
// ones they replace into the commit.
func (v *windows) upsert(ctx context.Context, b *batch, c *delta.Commit) (written int64, made []copied, err error) {
	files, err := v.compare(ctx, b)
	if err != nil {
		return 0, nil, err
	}
	replaced, err := v.replaced(ctx, files)
	if err != nil {
		return 0, nil, err
	}
	shards, err := v.int64s(ctx, "SELECT DISTINCT shard::BIGINT FROM (SELECT shard FROM changed UNION ALL SELECT shard FROM gone) ORDER BY 1")
	if err != nil {
		return 0, nil, err
	}
	for _, shard := range shards {
		n, more, err := v.upsertShard(ctx, c, int(shard), files, replaced)
		made = append(made, more...)
		if err != nil {
			return 0, made, err
		}
		written += n
	}
	return written, made, nil
}

// compare makes the tables changed (rows to write) and gone (keys that no
// longer exist), with the number of the file that an old row is in.
func (v *windows) compare(ctx context.Context, b *batch) ([]*delta.File, error) {
	var lo, hi int64
	if err := v.session.QueryRow(ctx, "SELECT coalesce(min(w_from), 0), coalesce(max(w_to), 0) FROM bounds").Scan(&lo, &hi); err != nil {
		return nil, fmt.Errorf("comparing %s: %w", v.name, err)
	}
	t := v.tables[0]
	snap, err := t.Refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", v.name, err)
	}
	var held []*delta.File
	for _, f := range snap.Files() {
		if shard, err := strconv.Atoi(f.PartitionValues["shard"]); err == nil && slices.Contains(b.shards, shard) {
			held = append(held, f)
		}
	}
	files, err := overlapping(snap, held, "window_start", lo, hi)
	if err != nil {
		return nil, err
	}
	numbered, err := numberedRelation(t, files)
	if err != nil {
		return nil, err
	}
	err = v.session.Exec(ctx, `CREATE OR REPLACE TABLE existing AS SELECT e.* FROM `+numbered+` e JOIN bounds USING (path)
		WHERE epoch_us(e.window_start) >= bounds.w_from AND epoch_us(e.window_start) <= bounds.w_to`)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", v.name, err)
	}
	var differs []string
	for _, col := range v.columns {
		differs = append(differs, "r."+duck.Quote(col)+" IS DISTINCT FROM e."+duck.Quote(col))
	}
	err = v.session.Exec(ctx, `CREATE OR REPLACE TABLE changed AS SELECT r.*, coalesce(e.revision, 0) + 1 AS revision,
			make_timestamptz(`+strconv.FormatInt(int64(b.plan.BatchTime), 10)+`) AS available_at, e."__file"
		FROM result r LEFT JOIN existing e ON e.path = r.path AND e.window_start = r.window_start
		WHERE e.path IS NULL OR `+strings.Join(differs, " OR "))
	if err != nil {
		return nil, fmt.Errorf("comparing %s: %w", v.name, err)
	}
	err = v.session.Exec(ctx, `CREATE OR REPLACE TABLE gone AS SELECT e.path, e.window_start, e.shard, e."__file" FROM existing e
		ANTI JOIN result r ON e.path = r.path AND e.window_start = r.window_start`)
	if err != nil {
		return nil, fmt.Errorf("comparing %s: %w", v.name, err)
	}
	return files, nil
}

// numberedRelation is a table's files with the column __file: the index of the
// file that the row is in.
func numberedRelation(t *delta.Table, files []*delta.File) (string, error) {
	if len(files) == 0 {
		from, err := relation(t, nil)
		return `(SELECT -1 AS "__file", * FROM ` + from + `)`, err
	}
	// One scan: a scan for each file would each take memory of its own.
	paths, rows := make([]string, len(files)), make([]string, len(files))
	for i, f := range files {
		paths[i] = duck.Literal(filepath.Join(t.Dir(), filepath.FromSlash(f.Path)))
		rows[i] = fmt.Sprintf("(%d, %s, %s)", i, paths[i], f.PartitionValues["shard"])
	}
	return `(SELECT f.i AS "__file", r.* EXCLUDE ("__name"), f.shard FROM read_parquet([` + strings.Join(paths, ", ") +
		`], hive_partitioning = false, filename = '__name') r JOIN (VALUES ` + strings.Join(rows, ", ") + `) f(i, name, shard) ON f.name = r."__name")`, nil
}

// replaced are the indexes of the files that hold a changed or vanished row.
func (v *windows) replaced(ctx context.Context, files []*delta.File) (map[int]bool, error) {
	in, err := v.int64s(ctx, `SELECT DISTINCT "__file"::BIGINT FROM (SELECT "__file" FROM changed UNION ALL SELECT "__file" FROM gone) WHERE "__file" IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	out := make(map[int]bool, len(in))
	for _, i := range in {
		if i < 0 || int(i) >= len(files) {
			return nil, fmt.Errorf("comparing %s: file number %d of %d", v.name, i, len(files))
		}
		out[int(i)] = true
	}
	return out, nil
}

func (v *windows) int64s(ctx context.Context, query string) ([]int64, error) {
	rows, err := v.session.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("comparing %s: %w", v.name, err)
	}
	var out []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		out = append(out, n)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("comparing %s: %w", v.name, err)
	}
	return out, nil
}

// upsertShard writes one shard's changed rows, and what the files that they
// come from keep.
func (v *windows) upsertShard(ctx context.Context, c *delta.Commit, shard int, files []*delta.File, replaced map[int]bool) (int64, []copied, error) {
	t := v.tables[0]
	number := strconv.Itoa(shard)
	partition := map[string]string{"shard": number}
	var old []*delta.File
	var kept int64
	for i, f := range files {
		if f.PartitionValues["shard"] != number {
			continue
		}
		st, err := t.Last().Stats(f)
		if err != nil {
			return 0, nil, err
		}
		// Small files go along, so that a shard never has many.
		small := st != nil && st.NumRecords < coldRows/4
		if replaced[i] || small {
			old = append(old, f)
			c.Removes = append(c.Removes, f.Path)
			if st != nil {
				kept += st.NumRecords
			}
		}
	}
	from, err := relation(t, old)
	if err != nil {
		return 0, nil, err
	}
	retained := `SELECT * EXCLUDE (shard) FROM ` + from + ` o
		ANTI JOIN (SELECT path, window_start FROM changed UNION ALL SELECT path, window_start FROM gone) x USING (path, window_start)`
	changed := `SELECT * EXCLUDE (shard, "__file") FROM changed WHERE shard = ` + number
	queries := []string{retained + " UNION ALL BY NAME " + changed}
	if kept > coldRows {
		queries = []string{retained, changed}
	}
	var made []copied
	for _, q := range queries {
		file, ok, err := copyInto(ctx, v.session, t, "SELECT * FROM ("+q+") ORDER BY path, window_start", partition)
		if err != nil {
			return 0, made, err
		}
		if ok {
			made = append(made, file)
			c.Adds = append(c.Adds, file.file)
		}
	}
	var n int64
	err = v.session.QueryRow(ctx, "SELECT count(*) FROM changed WHERE shard = "+number).Scan(&n)
	return n, made, err
}
