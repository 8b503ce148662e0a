package delta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const logDir = "_delta_log"

// Options are what a table needs from its surroundings.
type Options struct {
	// Now is the wall clock for commit times and for the age of temporary
	// files; nil is the machine's.
	Now func() time.Time
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Table is a Delta table. It keeps its last snapshot and reads only what came
// after it. It is safe for concurrent use.
type Table struct {
	dir     string
	options Options

	commits sync.Mutex // one commit of this Table at a time
	mu      sync.Mutex // guards last and the reading that moves it
	last    *Snapshot
	// old is what SnapshotAt answered last, from where it reads on.
	old atomic.Pointer[Snapshot]
}

// Create makes a table by writing its version 0. ErrTableExists says that the
// directory has a log already, or got one meanwhile.
func Create(ctx context.Context, dir string, def Definition, opts Options) (*Table, error) {
	if err := def.check(); err != nil {
		return nil, fmt.Errorf("creating table %s: %w", dir, err)
	}
	if found, err := listLog(dir); err != nil {
		return nil, err
	} else if found.any() {
		return nil, fmt.Errorf("creating table %s: %w", dir, ErrTableExists)
	}
	now := opts.now().UnixMilli()
	meta := Metadata{
		ID: uuid.NewString(), Name: def.Name, Description: def.Description, Schema: def.Schema,
		PartitionColumns: def.PartitionColumns, Properties: def.Properties, CreatedTime: now,
	}
	w, err := meta.encode()
	if err != nil {
		return nil, fmt.Errorf("creating table %s: %w", dir, err)
	}
	data, err := encodeLines([]wireLine{
		{CommitInfo: &wireInfo{
			Timestamp: now, Operation: "CREATE TABLE", Parameters: map[string]string{"isManaged": "false"},
			Isolation: isolation, Blind: true, Engine: engine, TxnID: uuid.NewString(),
		}},
		{Protocol: &Protocol{MinReaderVersion: 1, MinWriterVersion: 2}},
		{MetaData: w},
	})
	if err != nil {
		return nil, fmt.Errorf("creating table %s: %w", dir, err)
	}
	switch err := PutIfAbsent(entryPath(dir, 0), data); {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("creating table %s: %w", dir, ErrTableExists)
	case err != nil:
		return nil, fmt.Errorf("creating table %s: %w", dir, err)
	}
	return Open(ctx, dir, opts)
}

// Open opens a table at its newest version. ErrNotTable says that there is no
// log.
func Open(ctx context.Context, dir string, opts Options) (*Table, error) {
	t := &Table{dir: dir, options: opts}
	found, err := listLog(dir)
	if err != nil {
		return nil, err
	}
	if !found.any() {
		return nil, fmt.Errorf("opening %s: %w: it has no %s with entries", dir, ErrNotTable, logDir)
	}
	if err := errors.Join(found.checkWhole(dir), checkHint(dir)); err != nil {
		return nil, err
	}
	// A directory that we may only read has nothing of ours to sweep.
	if err := SweepTemps(filepath.Join(dir, logDir), opts.now()); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if _, err := t.Refresh(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// OpenOrCreate opens the table or makes it. The schema of a table that exists
// is not compared with def.
func OpenOrCreate(ctx context.Context, dir string, def Definition, opts Options) (*Table, error) {
	t, err := Open(ctx, dir, opts)
	if !errors.Is(err, ErrNotTable) {
		return t, err
	}
	t, err = Create(ctx, dir, def, opts)
	if errors.Is(err, ErrTableExists) {
		return Open(ctx, dir, opts)
	}
	return t, err
}

// Dir is the table's directory.
func (t *Table) Dir() string { return t.dir }

// Last is the newest snapshot that this Table has read; it does no I/O.
func (t *Table) Last() *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// Refresh reads the entries after the last snapshot. It returns the same
// pointer when there are none.
func (t *Table) Refresh(ctx context.Context) (*Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.read(ctx, t.last, -1)
	if err != nil {
		return nil, err
	}
	t.last = s
	return s, nil
}

// SnapshotAt is the table at a version. A version older than the last snapshot
// is read from the beginning.
func (t *Table) SnapshotAt(ctx context.Context, version int64) (*Snapshot, error) {
	if version < 0 {
		return nil, fmt.Errorf("reading %s at version %d: %w", t.dir, version, ErrNoVersion)
	}
	base := t.Last()
	if base != nil && version < base.version {
		// Who reads an old version reads the next one after it.
		if base = t.old.Load(); base != nil && version < base.version {
			base = nil
		}
	}
	s, err := t.read(ctx, base, version)
	if err != nil {
		return nil, err
	}
	t.old.Store(s)
	if s.version != version {
		return nil, fmt.Errorf("reading %s at version %d: %w; the newest is %d", t.dir, version, ErrNoVersion, s.version)
	}
	return s, nil
}

// read lays the entries after base over it, up to a version or, if that is
// negative, up to the newest.
func (t *Table) read(ctx context.Context, base *Snapshot, upTo int64) (*Snapshot, error) {
	start := base
	if start == nil {
		var err error
		if start, err = t.beginning(upTo); err != nil {
			return nil, err
		}
	}
	r := newReplay(start)
	for upTo < 0 || r.next.version < upTo {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading the log of %s: %w", t.dir, err)
		}
		e, err := readEntry(entryPath(t.dir, r.next.version+1))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		r.apply(e)
	}
	if r.next.version == start.version && start.version >= 0 {
		return start, nil
	}
	if r.next.version < 0 {
		return nil, fmt.Errorf("reading the log of %s: %w: %s is missing", t.dir, ErrCorrupt, entryPath(t.dir, 0))
	}
	return r.finish()
}

// beginning is from where a table is read that nothing is known of: the newest
// checkpoint up to a version (negative: the newest), or nothing.
func (t *Table) beginning(upTo int64) (*Snapshot, error) {
	found, err := listLog(t.dir)
	if err != nil {
		return nil, err
	}
	if upTo < 0 {
		upTo = math.MaxInt64
	}
	if v, ok := found.checkpointUpTo(upTo); ok {
		s, _, err := readCheckpoint(t.dir, v)
		return s, err
	}
	if oldest, ok := found.oldest(); ok && oldest > 0 && upTo < math.MaxInt64 {
		return nil, fmt.Errorf("reading %s at version %d: %w; the log before it was cleaned away", t.dir, upTo, ErrNoVersion)
	}
	return &Snapshot{dir: t.dir, version: -1, changed: -1}, nil
}

// Version is what one log entry did.
type Version struct {
	Version         int64
	Info            CommitInfo
	Adds, Removes   []*File // in the order of the entry; DataChange tells per file
	Txns            map[string]int64
	MetadataChanged bool // it wrote metadata or protocol
}

// Changes returns the versions in (from, to], in order.
func (t *Table) Changes(ctx context.Context, from, to int64) ([]Version, error) {
	if from < -1 {
		return nil, fmt.Errorf("reading changes of %s after version %d: %w", t.dir, from, ErrNoVersion)
	}
	var out []Version
	for v := from + 1; v <= to; v++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading changes of %s: %w", t.dir, err)
		}
		e, err := readEntry(entryPath(t.dir, v))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading changes of %s: version %d: %w", t.dir, v, ErrNoVersion)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Version{
			Version: v, Info: e.info, Adds: e.adds, Removes: e.removes, Txns: e.txns,
			MetadataChanged: e.metadata != nil || e.protocol != nil,
		})
	}
	return out, nil
}

func entryPath(dir string, version int64) string {
	return filepath.Join(dir, logDir, fmt.Sprintf("%020d.json", version))
}

// logFiles is what a listing of the log found.
type logFiles struct {
	entries    map[int64]bool
	newest     int64
	classic    []int64 // versions of checkpoints in one Parquet file, ascending
	checkpoint string  // the newest one's file name that is not of these
}

func (l logFiles) any() bool {
	return len(l.entries) > 0 || len(l.classic) > 0 || l.checkpoint != ""
}

// checkpointUpTo is the newest checkpoint of at most a version.
func (l logFiles) checkpointUpTo(version int64) (int64, bool) {
	for _, v := range slices.Backward(l.classic) {
		if v <= version {
			return v, true
		}
	}
	return 0, false
}

// oldest is the first entry that is there.
func (l logFiles) oldest() (int64, bool) {
	first, ok := int64(0), false
	for v := range l.entries {
		if !ok || v < first {
			first, ok = v, true
		}
	}
	return first, ok
}

// listLog lists entries and checkpoints; other names are none of ours.
func listLog(dir string) (logFiles, error) {
	found := logFiles{entries: make(map[int64]bool), newest: -1}
	names, err := os.ReadDir(filepath.Join(dir, logDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found, fmt.Errorf("listing the log of %s: %w", dir, err)
	}
	pattern := regexp.MustCompile(`^([0-9]{20})\.(json|checkpoint\..*(?:parquet|json))$`)
	for _, n := range names {
		m := pattern.FindStringSubmatch(n.Name())
		if m == nil {
			continue
		}
		version, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			continue
		}
		if m[2] == "checkpoint.parquet" {
			found.classic = append(found.classic, version) // names come sorted
			found.newest = max(found.newest, version)
			continue
		}
		if m[2] != "json" {
			found.checkpoint = n.Name() // names come sorted
			continue
		}
		found.entries[version], found.newest = true, max(found.newest, version)
	}
	return found, nil
}

// checkWhole finds the first entry that is missing.
func (l logFiles) checkWhole(dir string) error {
	first := int64(0)
	if v, ok := l.checkpointUpTo(l.newest); ok {
		first = v + 1
	}
	for v := first; v <= l.newest; v++ {
		if l.entries[v] {
			continue
		}
		// The listing may have missed one that was written beside it.
		if _, err := os.Stat(entryPath(dir, v)); err == nil {
			continue
		}
		if l.checkpoint != "" {
			return fmt.Errorf("opening %s: entry %s was cleaned away, and reading checkpoint %s is %w", dir, filepath.Base(entryPath(dir, v)), l.checkpoint, ErrUnsupported)
		}
		return fmt.Errorf("opening %s: entry %s is missing while version %d exists: %w", dir, filepath.Base(entryPath(dir, v)), l.newest, ErrCorrupt)
	}
	if l.newest < 0 {
		return fmt.Errorf("opening %s: the log was cleaned away, and reading checkpoint %s is %w", dir, l.checkpoint, ErrUnsupported)
	}
	return nil
}
