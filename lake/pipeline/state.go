package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// state keeps the target of an AUTO CDC flow: of each key the row that comes
// last in sequence.
type state struct {
	*follower
	decl *Flow
}

func newState(w *Worker, decl *Flow) *follower {
	s := &state{decl: decl}
	s.follower = &follower{
		w: w, name: decl.Target, source: w.tables[decl.Source],
		tables: []*delta.Table{w.tables[decl.Target]}, names: []string{decl.Target}, run: s.run,
	}
	return s.follower
}

// lastOfKey keeps the last row of each key.
func (s *state) lastOfKey() string {
	return "QUALIFY row_number() OVER (PARTITION BY " + quoted(s.decl.Keys, "") + " ORDER BY " + quoted(s.decl.Sequence, " DESC NULLS LAST") + ") = 1"
}

func quoted(names []string, suffix string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = duck.Quote(n) + suffix
	}
	return strings.Join(out, ", ")
}

// news is the last new row of each key. Which rows they are is found in the few
// columns that tell it, before whole rows are read.
func (s *state) news(added string, shards []int) string {
	columns := append(slices.Clone(s.decl.Keys), s.decl.Sequence...)
	same := make([]string, len(columns))
	for i, c := range columns {
		same[i] = "a." + duck.Quote(c) + " IS NOT DISTINCT FROM k." + duck.Quote(c)
	}
	return "SELECT * FROM " + added + " a SEMI JOIN (SELECT " + quoted(columns, "") + " FROM " + added + " WHERE shard IN (" + shardList(shards) + ") " + s.lastOfKey() +
		") k ON " + strings.Join(same, " AND ") + " WHERE shard IN (" + shardList(shards) + ") " + s.lastOfKey()
}

func (s *state) run(ctx context.Context, b *batch) error {
	t := s.tables[0]
	c := delta.Commit{ReadVersion: t.Last().Version(), Operation: "MERGE", Txns: s.steps(b, 0), Parameters: map[string]string{}}
	if err := planParameter(c.Parameters, b.plan); err != nil {
		return err
	}
	made, err := s.merge(ctx, b, &c)
	if err != nil {
		removeFiles(made)
		return err
	}
	if _, err := t.Commit(ctx, c); err != nil {
		if errors.Is(err, delta.ErrTxnMoved) {
			removeFiles(made) // nobody's: the commit was refused
		}
		return fmt.Errorf("committing to %s: %w", s.name, err)
	}
	s.w.totals.gold(0)
	return s.w.at(ctx, "lake.gold_committed")
}

func (s *state) merge(ctx context.Context, b *batch, c *delta.Commit) ([]copied, error) {
	t := s.tables[0]
	added, err := relation(s.source, b.adds)
	if err != nil {
		return nil, err
	}
	if err := s.session.Exec(ctx, "CREATE OR REPLACE TABLE news AS "+s.news(added, b.shards)); err != nil {
		return nil, fmt.Errorf("merging into %s: %w", s.name, err)
	}
	defer func() { _ = s.session.Exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS news") }()
	snap, err := t.Refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.name, err)
	}
	var made []copied
	for _, shard := range b.shards {
		number := strconv.Itoa(shard)
		var any bool
		if err := s.session.QueryRow(ctx, "SELECT count(*) > 0 FROM news WHERE shard = "+number).Scan(&any); err != nil {
			return made, fmt.Errorf("merging into %s: %w", s.name, err)
		}
		if !any {
			continue
		}
		var old []*delta.File
		for _, f := range snap.Files() {
			if f.PartitionValues["shard"] == number {
				old = append(old, f)
				c.Removes = append(c.Removes, f.Path)
			}
		}
		from, err := relation(t, old)
		if err != nil {
			return made, err
		}
		query := "SELECT * EXCLUDE (shard) FROM (SELECT * FROM " + from + " UNION ALL BY NAME SELECT * FROM news WHERE shard = " + number + ") " + s.lastOfKey() + " ORDER BY ALL"
		file, ok, err := copyInto(ctx, s.session, t, query, map[string]string{"shard": number})
		if err != nil {
			return made, err
		}
		if ok {
			made = append(made, file)
			c.Adds = append(c.Adds, file.file)
		}
	}
	return made, nil
}
