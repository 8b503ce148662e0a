package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
)

// A commit a second makes a file a second. Small files become large ones when
// there are enough of them; rows and their order stay as they are.
const (
	smallFile    = 16 << 20 // bytes, below which a file is small
	compactFiles = 64       // so many small files of one partition are worth the work
	compactMost  = 512      // at most so many at once
	compactBytes = 64 << 20 // and so many bytes
)

// checkpointEvery is how many versions a table may have gone on since its last
// checkpoint.
const checkpointEvery = 100

// Compacted is what became of small files.
type Compacted struct {
	Table  string `json:"table"`
	Files  int    `json:"files"` // that went
	Into   int    `json:"into"`  // that came instead
	Bytes  int64  `json:"bytes"` // of those that went
	Wrote  int64  `json:"wrote"` // of those that came
	Failed string `json:"failed,omitempty"`
}

// group are small files of one partition, oldest first.
type group struct {
	partition map[string]string
	files     []*delta.File
	bytes     int64
}

// smallGroups are the partitions of a table that have at least so many small files,
// each with as many of them as one piece of work takes.
func smallGroups(snap *delta.Snapshot, least int, ours func(map[string]string) bool) []*group {
	groups := map[string]*group{}
	var files []*delta.File
	for _, f := range snap.Files() {
		if f.Size < smallFile && ours(f.PartitionValues) {
			files = append(files, f)
		}
	}
	// Names are UUIDs of version 7: in order of their making.
	slices.SortStableFunc(files, func(a, b *delta.File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range files {
		var key strings.Builder
		for _, c := range snap.Metadata().PartitionColumns {
			key.WriteString(strconv.Quote(f.PartitionValues[c]))
		}
		g := groups[key.String()]
		if g == nil {
			g = &group{partition: f.PartitionValues}
			groups[key.String()] = g
		}
		if len(g.files) < compactMost && g.bytes+f.Size <= compactBytes {
			g.files, g.bytes = append(g.files, f), g.bytes+f.Size
		}
	}
	var out []*group
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		if g := groups[key]; len(g.files) >= least && len(g.files) > 1 {
			out = append(out, g)
		}
	}
	return out
}

// Compact makes large files of a table's small ones, partition by partition, where
// there are at least so many; ours tells which partitions are to be touched, nil is
// all. What others commit meanwhile stands; if they took the files themselves, the
// partition is left as it is.
func Compact(ctx context.Context, s *duck.Session, t *delta.Table, name string, least int, ours func(map[string]string) bool) (Compacted, error) {
	out := Compacted{Table: name}
	if ours == nil {
		ours = func(map[string]string) bool { return true }
	}
	snap, err := t.Refresh(ctx)
	if err != nil {
		return out, err
	}
	for _, g := range smallGroups(snap, least, ours) {
		wrote, err := compactGroup(ctx, s, t, snap, g)
		if errors.Is(err, delta.ErrConflict) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("compacting %s: %w", name, err)
		}
		out.Files, out.Into, out.Bytes, out.Wrote = out.Files+len(g.files), out.Into+1, out.Bytes+g.bytes, out.Wrote+wrote
	}
	return out, nil
}

func compactGroup(ctx context.Context, s *duck.Session, t *delta.Table, snap *delta.Snapshot, g *group) (int64, error) {
	from, err := relation(t, g.files)
	if err != nil {
		return 0, err
	}
	partitioned := snap.Metadata().PartitionColumns
	var columns []string
	for _, f := range snap.Schema().Fields {
		if !slices.Contains(partitioned, f.Name) {
			columns = append(columns, duck.Quote(f.Name))
		}
	}
	c, ok, err := copyInto(ctx, s, t, "SELECT "+strings.Join(columns, ", ")+" FROM "+from, g.partition)
	if err != nil {
		return 0, err
	}
	commit := delta.Commit{ReadVersion: snap.Version(), Rearranges: true, Operation: "OPTIMIZE"}
	want, known := int64(0), true
	for _, f := range g.files {
		commit.Removes = append(commit.Removes, f.Path)
		n, told := f.Rows()
		want, known = want+n, known && told
	}
	if ok {
		commit.Adds = []delta.AddFile{c.file}
	}
	// Rows are counted before the old files go: what a reader lost would be lost for good.
	if known && c.rows != want {
		removeFiles([]copied{c})
		return 0, fmt.Errorf("%d files hold %d rows by their statistics and %d were read; the table is left as it is", len(g.files), want, c.rows)
	}
	if _, err := t.Commit(ctx, commit); err != nil {
		if ok && !errors.Is(err, delta.ErrUnknownOutcome) {
			removeFiles([]copied{c})
		}
		return 0, err
	}
	return c.file.Size, nil
}

// tend compacts the worker's tables and writes checkpoints, again and again until
// ctx ends. It takes turns with the flows, so that none of theirs is under way.
func (w *Worker) tend(ctx context.Context) error {
	s, err := w.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	checkpoints := map[string]int64{}
	for {
		wait(ctx, w.TendInterval, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, name := range slices.Sorted(maps.Keys(w.tables)) {
			if err := w.tendTable(ctx, s, name, checkpoints); err != nil && ctx.Err() == nil {
				w.Log.Warn("small files or the log of a table were not tended; trying again", "table", name, "err", err)
			}
		}
	}
}

func (w *Worker) tendTable(ctx context.Context, s *duck.Session, name string, checkpoints map[string]int64) error {
	t := w.tables[name]
	shards := w.heldShards()
	giveBack, err := w.takeTurn(ctx)
	if err != nil {
		return err
	}
	// A table without shards has one worker that tends it: who holds the first.
	done, err := Compact(ctx, s, t, name, compactFiles, func(partition map[string]string) bool {
		shard, sharded := partition["shard"]
		n, _ := strconv.Atoi(shard)
		return sharded && slices.Contains(shards, n) || !sharded && slices.Contains(shards, 0)
	})
	giveBack()
	if err != nil {
		return err
	}
	if done.Files > 0 {
		w.committed()
		w.totals.compacted(done)
	}
	if !slices.Contains(shards, 0) {
		return nil
	}
	if version := t.Last().Version(); version-checkpoints[name] >= checkpointEvery {
		at, err := t.Checkpoint(ctx, 0)
		if err != nil {
			return err
		}
		checkpoints[name] = at
	}
	return nil
}
