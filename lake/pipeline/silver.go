package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// lateness is how far behind the newest proof of life of its asset a row may
// be before it counts as late.
const lateness = 60 * time.Second

// The columns that a row of the source is found by again, added to the body's
// own under names that no table uses.
const (
	rowKey     = `"__topic", "__partition", "__offset", "__i", "__boot", "__n"`
	sourceKeys = ` %[1]s.kafka_topic AS "__topic", %[1]s.kafka_partition AS "__partition", %[1]s.kafka_offset AS "__offset", %[1]s.i AS "__i", %[1]s.boot AS "__boot", %[1]s.n AS "__n",`
)

// silver refines bronze.readings into silver.readings and its quarantine.
type silver struct {
	*follower
	registry registryRows
	known    map[string]bool // paths that the registry has been told of
	fresh    bool            // the session has no watermarks yet
}

func newSilver(w *Worker) *follower {
	s := &silver{known: make(map[string]bool), fresh: true}
	s.follower = &follower{
		w: w, name: tableSilver, source: w.tables[tableBronze],
		tables:  []*delta.Table{w.tables[tableQuarantine], w.tables[tableSilver]},
		names:   []string{tableQuarantine, tableSilver},
		prepare: s.prepare, run: s.run,
	}
	return s.follower
}

// prepare registers unknown paths and pins the registry's version.
func (s *silver) prepare(ctx context.Context, b *batch) error {
	from, err := relation(s.source, b.adds)
	if err != nil {
		return err
	}
	rows, err := s.session.Query(ctx, "SELECT DISTINCT path FROM "+from+" WHERE shard IN ("+shardList(b.shards)+") AND path <> '' ORDER BY path")
	if err != nil {
		return fmt.Errorf("reading the paths of a batch: %w", err)
	}
	var unknown []signal.Path
	for rows.Next() {
		var p string
		if err := rows.Scan(&p); err != nil {
			return errors.Join(err, rows.Close())
		}
		if !s.known[p] {
			unknown = append(unknown, signal.Path(p))
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("reading the paths of a batch: %w", err)
	}
	if len(unknown) > 0 {
		if err := s.w.Registry.Ensure(ctx, unknown); err != nil {
			return fmt.Errorf("registering %d unknown paths: %w", len(unknown), err)
		}
		for _, p := range unknown {
			s.known[string(p)] = true
		}
	}
	version, err := s.w.Registry.Version(ctx)
	if err != nil {
		return fmt.Errorf("reading the registry's version: %w", err)
	}
	b.plan.Registry = version
	if err := s.registry.load(ctx, s.session, s.w.Registry, version); err != nil {
		return err
	}
	return s.w.publish(ctx, s.session, version)
}

// result counts what became of a batch's rows.
type result struct {
	in, kept, quarantined, dropped, duplicates, late, failed int64
	rules                                                    map[string]int64
	edges                                                    map[string]EdgeTally
}

func (s *silver) run(ctx context.Context, b *batch) error {
	if err := s.registry.load(ctx, s.session, s.w.Registry, b.plan.Registry); err != nil {
		return err
	}
	if s.fresh {
		if err := s.watermarks(ctx); err != nil {
			return err
		}
		s.fresh = false
	}
	table := b.pipeline.Table(tableSilver)
	if err := s.judge(ctx, b, table); err != nil {
		return err
	}
	defer func() { _ = s.session.Exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS verdict") }()
	if err := s.findDuplicates(ctx, b); err != nil {
		return err
	}
	res, err := s.count(ctx, table)
	if err != nil {
		return err
	}
	if res.failed > 0 {
		return s.failUpdate(ctx, table, res.failed)
	}
	if !b.begun {
		if err := s.commit(ctx, b, 0, s.quarantineQuery(b, table), res.quarantined, res); err != nil {
			return err
		}
		if err := s.w.at(ctx, "lake.quarantine_committed"); err != nil {
			return err
		}
	}
	if err := s.commit(ctx, b, 1, silverQuery(table), res.kept, res); err != nil {
		return err
	}
	s.w.totals.silver(res)
	if err := s.moveWatermarks(ctx); err != nil {
		return err
	}
	return s.w.at(ctx, "lake.silver_committed")
}

// bodyWithKeys is the table's query with the source row's key in front.
func bodyWithKeys(t *Table) string {
	return t.Body[:t.selectEnd] + fmt.Sprintf(sourceKeys, duck.Quote(t.Streams[0].Alias)) + t.Body[t.selectEnd:]
}

// judge evaluates every expectation once for each row into the table verdict.
func (s *silver) judge(ctx context.Context, b *batch, t *Table) error {
	if err := s.show(ctx, b, 0, 1); err != nil {
		return err
	}
	var in, out int64
	if err := s.session.QueryRow(ctx, "SELECT count(*) FROM "+tableBronze).Scan(&in); err != nil {
		return fmt.Errorf("judging rows of %s: %w", s.name, err)
	}
	n := s.pieces(in)
	for piece := range n {
		if err := s.show(ctx, b, piece, n); err != nil {
			return err
		}
		into := "INSERT INTO verdict "
		if piece == 0 {
			into = "CREATE OR REPLACE TABLE verdict AS "
		}
		if err := s.session.Exec(ctx, into+verdictQuery(t)); err != nil {
			return fmt.Errorf("judging rows of %s (%s:%d): %w", s.name, t.File, t.Line, err)
		}
	}
	if err := s.session.QueryRow(ctx, "SELECT count(*) FROM verdict").Scan(&out); err != nil {
		return fmt.Errorf("judging rows of %s: %w", s.name, err)
	}
	if in != out {
		return fmt.Errorf("judging rows of %s: the query makes %d rows of %d; each source row must give one: look for a join that matches twice, such as overlapping validity in registry version %d", s.name, out, in, b.plan.Registry)
	}
	return nil
}

// show lets bronze.readings be the batch's rows, or one of n pieces of them.
// The rows of one path are in one piece, so repeats are found within it.
func (s *silver) show(ctx context.Context, b *batch, piece, n int64) error {
	from, err := relation(s.source, b.adds)
	if err != nil {
		return err
	}
	sql := "CREATE OR REPLACE VIEW " + tableBronze + " AS SELECT * FROM " + from + " WHERE shard IN (" + shardList(b.shards) + ")"
	if n > 1 {
		sql += fmt.Sprintf(" AND hash(path) %% %d = %d", n, piece)
	}
	if err := s.session.Exec(ctx, sql); err != nil {
		return fmt.Errorf("reading the source of %s: %w", s.name, err)
	}
	return nil
}

// verdictQuery gives for each source row the set of failed rules as bits, its
// fate, and which copy of a repeated row it is.
func verdictQuery(t *Table) string {
	var rules, mask []string
	fates := map[Violation][]string{}
	for i, c := range t.Constraints {
		// NULL is a violation.
		rules = append(rules, fmt.Sprintf(`coalesce((%s), false) AS "__r%d"`, c.Predicate, i))
		mask = append(mask, fmt.Sprintf(`CASE WHEN "__r%d" THEN 0 ELSE %d END`, i, int64(1)<<i))
		fates[c.OnViolation] = append(fates[c.OnViolation], fmt.Sprintf(`NOT "__r%d"`, i))
	}
	var fate strings.Builder
	fate.WriteString("CASE")
	for _, v := range []struct {
		on   Violation
		fate string
	}{{FailUpdate, "fail"}, {Quarantine, "quarantine"}, {DropRow, "drop"}} {
		if any := fates[v.on]; len(any) > 0 {
			fate.WriteString(" WHEN " + strings.Join(any, " OR ") + " THEN '" + v.fate + "'")
		}
	}
	fate.WriteString(" WHEN true THEN 'keep' END")
	if len(mask) == 0 {
		mask, rules = []string{"0"}, []string{`true AS "__r0"`}
	}
	const same = "path, event_time, alive_at, value, text, quality"
	return `WITH judged AS (SELECT ` + rowKey + `, asset, edge, boot, stream, n, i, ` + same + `, ` + strings.Join(rules, ", ") + ` FROM (` + bodyWithKeys(t) + `)),
	fated AS (SELECT *, (` + strings.Join(mask, " + ") + `)::BIGINT AS failed, ` + fate.String() + ` AS fate FROM judged)
	SELECT ` + rowKey + `, asset, edge, ` + same + `, failed, fate,
		row_number() OVER (PARTITION BY fate, ` + same + ` ORDER BY edge, boot, stream, n, i, "__topic", "__partition", "__offset") AS copy
	FROM fated`
}

// findDuplicates marks the rows that silver.readings already has.
func (s *silver) findDuplicates(ctx context.Context, b *batch) error {
	var rows, e0, e1, a0, a1 int64
	err := s.session.QueryRow(ctx, `SELECT count(*), coalesce(epoch_us(min(event_time)), 0), coalesce(epoch_us(max(event_time)), 0),
		coalesce(epoch_us(min(alive_at)), 0), coalesce(epoch_us(max(alive_at)), 0) FROM verdict WHERE fate = 'keep'`).Scan(&rows, &e0, &e1, &a0, &a1)
	if err != nil {
		return fmt.Errorf("looking for repeats in %s: %w", s.name, err)
	}
	if rows == 0 {
		return nil
	}
	t := s.w.tables[tableSilver]
	snap, err := t.Refresh(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.name, err)
	}
	files, err := overlapping(snap, snap.Files(), "event_time", e0, e1)
	if err != nil {
		return err
	}
	if files, err = overlapping(snap, files, "alive_at", a0, a1); err != nil || len(files) == 0 {
		return err
	}
	from, err := relation(t, files)
	if err != nil {
		return err
	}
	err = s.session.Exec(ctx, `UPDATE verdict SET copy = 2 FROM (
			SELECT DISTINCT path, event_time, alive_at, value, text, quality FROM `+from+`
			WHERE shard IN (`+shardList(b.shards)+`) AND epoch_us(event_time) BETWEEN `+strconv.FormatInt(e0, 10)+` AND `+strconv.FormatInt(e1, 10)+`) s
		WHERE verdict.fate = 'keep' AND verdict.path = s.path AND verdict.event_time = s.event_time AND verdict.alive_at = s.alive_at
			AND verdict.value IS NOT DISTINCT FROM s.value AND verdict.text IS NOT DISTINCT FROM s.text AND verdict.quality IS NOT DISTINCT FROM s.quality`)
	if err != nil {
		return fmt.Errorf("looking for repeats in %s: %w", s.name, err)
	}
	return nil
}

// lateRow is true for rows behind their asset's watermark.
var lateRow = `fate = 'keep' AND copy = 1 AND alive_at < w.newest - to_microseconds(` + strconv.FormatInt(lateness.Microseconds(), 10) + `)`

func (s *silver) count(ctx context.Context, t *Table) (*result, error) {
	res := &result{rules: make(map[string]int64), edges: make(map[string]EdgeTally)}
	sums := make([]string, 0, len(t.Constraints))
	for i := range t.Constraints {
		sums = append(sums, fmt.Sprintf("coalesce(sum((failed >> %d) & 1), 0)::BIGINT", i))
	}
	if len(sums) == 0 {
		sums = []string{"0::BIGINT"}
	}
	counts := make([]int64, len(sums))
	dest := []any{&res.in, &res.kept, &res.quarantined, &res.dropped, &res.duplicates, &res.failed}
	for i := range counts {
		dest = append(dest, &counts[i])
	}
	// A sum over no rows is NULL: a plan may be followed for shards that have none.
	err := s.session.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE fate = 'keep' AND copy = 1), count(*) FILTER (WHERE fate = 'quarantine'),
		count(*) FILTER (WHERE fate = 'drop'), count(*) FILTER (WHERE fate = 'keep' AND copy > 1), count(*) FILTER (WHERE fate = 'fail'), `+strings.Join(sums, ", ")+` FROM verdict`).Scan(dest...)
	if err != nil {
		return nil, fmt.Errorf("counting rows of %s: %w", s.name, err)
	}
	for i, c := range t.Constraints {
		res.rules[c.Name] = counts[i]
	}
	rows, err := s.session.Query(ctx, `SELECT edge, count_if(fate = 'drop')::BIGINT AS dropped, count_if(fate = 'keep' AND copy > 1)::BIGINT AS duplicates, count_if(`+lateRow+`)::BIGINT AS late
		FROM verdict LEFT JOIN watermark w USING (asset) GROUP BY edge HAVING dropped + duplicates + late > 0`)
	if err != nil {
		return nil, fmt.Errorf("counting rows of %s: %w", s.name, err)
	}
	for rows.Next() {
		var edge string
		var e EdgeTally
		if err := rows.Scan(&edge, &e.Dropped, &e.Duplicates, &e.Late); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		res.edges[edge] = e
		res.late += e.Late
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("counting rows of %s: %w", s.name, err)
	}
	return res, nil
}

func (s *silver) failUpdate(ctx context.Context, t *Table, n int64) error {
	var path, at string
	var failed int64
	if err := s.session.QueryRow(ctx, `SELECT path, coalesce(event_time::VARCHAR, 'no time'), failed FROM verdict WHERE fate = 'fail' ORDER BY path, event_time LIMIT 1`).Scan(&path, &at, &failed); err != nil {
		return fmt.Errorf("reading the row that fails: %w", err)
	}
	for i, c := range t.Constraints {
		if c.OnViolation == FailUpdate && failed>>i&1 == 1 {
			return fmt.Errorf("constraint %s of %s (%s:%d) says FAIL UPDATE and %d rows violate it, first %s at %s; nothing of the batch was written: mend the source or the rule", c.Name, s.name, t.File, c.Line, n, path, at)
		}
	}
	return fmt.Errorf("%d rows of %s violate a FAIL UPDATE constraint", n, s.name)
}

func (s *silver) quarantineQuery(b *batch, t *Table) string {
	names := make([]string, len(t.Constraints))
	for i, c := range t.Constraints {
		names[i] = fmt.Sprintf("CASE WHEN (failed >> %d) & 1 = 1 THEN %s END", i, duck.Literal(c.Name))
	}
	if len(names) == 0 {
		names = []string{"NULL::VARCHAR"}
	}
	return `SELECT b.*, list_filter([` + strings.Join(names, ", ") + `], lambda x: x IS NOT NULL) AS violations, ` +
		duck.Literal(b.plan.Pipeline) + ` AS pipeline_hash, ` + duck.Literal(b.plan.ID) + ` AS batch_id, make_timestamptz(` + strconv.FormatInt(int64(b.plan.BatchTime), 10) + `) AS quarantined_at
		FROM ` + tableBronze + ` b JOIN (SELECT ` + rowKey + `, failed FROM verdict WHERE fate = 'quarantine') v
		ON b.kafka_topic = v."__topic" AND b.kafka_partition = v."__partition" AND b.kafka_offset = v."__offset" AND b.i = v."__i" AND b.boot = v."__boot" AND b.n = v."__n"
		ORDER BY b.path, b.event_time, b.alive_at, b.edge, b.boot, b.stream, b.n, b.i, b.kafka_offset`
}

func silverQuery(t *Table) string {
	return `SELECT * EXCLUDE (` + rowKey + `) FROM (` + bodyWithKeys(t) + `) body
		SEMI JOIN (SELECT ` + rowKey + ` FROM verdict WHERE fate = 'keep' AND copy = 1) v USING (` + rowKey + `)
		ORDER BY path, event_time, alive_at, edge, boot, stream, n, i`
}

// commit writes one of the batch's tables and steps it.
func (s *silver) commit(ctx context.Context, b *batch, table int, query string, want int64, res *result) error {
	t, name := s.tables[table], s.names[table]
	c := delta.Commit{ReadVersion: t.Last().Version(), Operation: "STREAMING UPDATE", Txns: s.steps(b, table), Parameters: map[string]string{}}
	if err := planParameter(c.Parameters, b.plan); err != nil {
		return err
	}
	if err := res.describe(&c); err != nil {
		return err
	}
	files, err := s.write(ctx, b, t, query, want)
	if err != nil {
		removeFiles(files)
		return err
	}
	for _, f := range files {
		c.Adds = append(c.Adds, f.file)
	}
	if _, err := t.Commit(ctx, c); err != nil {
		if errors.Is(err, delta.ErrTxnMoved) {
			removeFiles(files) // nobody's: the commit was refused
		}
		return fmt.Errorf("committing to %s: %w", name, err)
	}
	return nil
}

// write makes the files of a query's rows, which must be as many as were
// counted.
func (s *silver) write(ctx context.Context, b *batch, t *delta.Table, query string, want int64) ([]copied, error) {
	if want == 0 {
		return nil, nil
	}
	var out []copied
	var rows int64
	n := s.pieces(want)
	for piece := range n {
		if err := s.show(ctx, b, piece, n); err != nil {
			return out, err
		}
		file, ok, err := copyInto(ctx, s.session, t, query, nil)
		if err != nil {
			return out, err
		}
		if ok {
			out = append(out, file)
			rows += file.rows
		}
	}
	if rows != want {
		return out, fmt.Errorf("writing %s: %d rows came of %d that were counted; the query must give the same rows each time it runs (%s)", t.Dir(), rows, want, b.pipeline.Table(tableSilver).File)
	}
	return out, nil
}

// describe writes the counts into the commit, where [Tally] sums them.
func (r *result) describe(c *delta.Commit) error {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	c.Metrics = map[string]string{
		"in": n(r.in), "silver": n(r.kept), "quarantined": n(r.quarantined), "dropped": n(r.dropped), "duplicates": n(r.duplicates), "late": n(r.late),
	}
	for rule, v := range r.rules {
		if v > 0 {
			c.Metrics["failed_"+rule] = n(v)
		}
	}
	if len(r.edges) > 0 {
		data, err := json.Marshal(r.edges)
		if err != nil {
			return fmt.Errorf("writing the counts of a batch: %w", err)
		}
		c.Parameters["edges"] = string(data)
	}
	return nil
}

// watermarkFiles bounds what a start reads to find the assets' watermarks; one
// that has been silent for longer starts without.
const watermarkFiles = 256

// watermarks fills the session's table of each asset's newest proof of life.
func (s *silver) watermarks(ctx context.Context) error {
	if err := s.session.Exec(ctx, "CREATE OR REPLACE TABLE watermark (asset VARCHAR PRIMARY KEY, newest TIMESTAMPTZ)"); err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	t := s.w.tables[tableSilver]
	snap := t.Last()
	files, err := newest(snap, "alive_at", watermarkFiles)
	if err != nil || len(files) == 0 {
		return err
	}
	from, err := relation(t, files)
	if err != nil {
		return err
	}
	if err := s.session.Exec(ctx, "INSERT INTO watermark SELECT asset, max(alive_at) FROM "+from+" GROUP BY asset"); err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	return nil
}

func (s *silver) moveWatermarks(ctx context.Context) error {
	err := s.session.Exec(ctx, `INSERT INTO watermark SELECT asset, max(alive_at) FROM verdict WHERE fate = 'keep' GROUP BY asset
		ON CONFLICT (asset) DO UPDATE SET newest = greatest(newest, excluded.newest)`)
	if err != nil {
		return fmt.Errorf("keeping watermarks of %s: %w", s.name, err)
	}
	return nil
}
