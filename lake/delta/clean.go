package delta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CleanLog removes entries and checkpoints that are older than keep and that
// nobody needs to open the table: those before the newest checkpoint that is old
// enough itself. Entries from version upTo on stay whatever their age; readers of
// changes name what they have yet to read. It returns how many files went.
func (t *Table) CleanLog(ctx context.Context, keep time.Duration, upTo int64) (int, error) {
	found, err := listLog(t.dir)
	if err != nil {
		return 0, err
	}
	if len(found.classic) == 0 {
		return 0, nil
	}
	base := found.classic[len(found.classic)-1]
	cutoff := t.options.now().Add(-keep)
	type file struct {
		name    string
		version int64
	}
	var files []file
	for v := range found.entries {
		if v < min(base, upTo) {
			files = append(files, file{entryPath(t.dir, v), v})
		}
	}
	// Oldest first: what is left is without a hole, whenever this is broken off.
	slices.SortFunc(files, func(a, b file) int { return int(a.version - b.version) })
	var checkpoints []file
	for _, v := range found.classic {
		if v < min(base, upTo) {
			checkpoints = append(checkpoints, file{checkpointPath(t.dir, v), v})
		}
	}
	gone := 0
	limit := int64(-1) // no checkpoint may go whose entries stay: who reads an old version begins there
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return gone, err
		}
		info, err := os.Stat(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return gone, fmt.Errorf("cleaning the log of %s: %w", t.dir, err)
		}
		if info.ModTime().After(cutoff) {
			break
		}
		if err := os.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, fmt.Errorf("cleaning the log of %s: %w", t.dir, err)
		}
		gone, limit = gone+1, f.version
	}
	for _, f := range checkpoints {
		if f.version > limit {
			continue
		}
		if err := os.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, fmt.Errorf("cleaning the log of %s: %w", t.dir, err)
		}
		gone++
	}
	return gone, nil
}

// MinVacuum is the least time that vacuum keeps files without being told twice: a
// reader of an older version, and a writer whose commit is under way, need theirs.
const MinVacuum = 7 * 24 * time.Hour

// Vacuum removes data files that no longer belong to the table and have not for
// keep, and those that a writer left without ever committing them. Below
// [MinVacuum] it refuses unless force says that nobody reads or writes. With dry it
// only tells. It returns the paths, relative to the table.
func (t *Table) Vacuum(ctx context.Context, keep time.Duration, force, dry bool) ([]string, error) {
	if keep < MinVacuum && !force {
		return nil, fmt.Errorf("vacuuming %s: files would be kept for %s; less than %s takes them from readers of older versions and from writers under way: say so explicitly", t.dir, keep, MinVacuum)
	}
	snap, err := t.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	cutoff := t.options.now().Add(-keep)
	recent, err := t.removed(ctx, snap, cutoff.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("vacuuming %s: %w", t.dir, err)
	}
	var out []string
	err = filepath.WalkDir(t.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if name != t.dir && (strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".")) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(t.dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if _, live := snap.File(rel); live || recent[rel] != nil || !strings.HasSuffix(rel, ".parquet") {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().After(cutoff) {
			return nil
		}
		if err != nil {
			return err
		}
		out = append(out, rel)
		if dry {
			return nil
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("vacuuming %s: %w", t.dir, err)
	}
	return out, nil
}
