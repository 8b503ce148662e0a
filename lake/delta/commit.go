package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/google/uuid"
)

const (
	// Latest is the ReadVersion of work that did not depend on what the table
	// held.
	Latest int64 = -1

	engine    = "Headrace"
	isolation = "Serializable"
)

// TxnStep moves an application's number in the table. The commit is valid only
// while the stored number equals From; a number that was never stored counts
// as 0. To must be greater than From.
type TxnStep struct {
	AppID    string
	From, To int64
}

// Commit is the content of one new version.
type Commit struct {
	// ReadVersion is the version that the work was derived from: a change of
	// metadata or protocol after it is a conflict. Latest: none.
	ReadVersion int64
	// Adds are files that exist, durable, in the table's directory.
	Adds []AddFile
	// Removes are paths of files that must be live when the commit is placed.
	Removes []string
	Txns    []TxnStep
	// Metadata, if given, replaces name, description, schema and properties.
	// Columns may be added; those that exist must stay as they are.
	Metadata *Definition
	// Rearranges says that the commit moves rows between files and changes none
	// of them, so readers of changes skip it.
	Rearranges bool
	Operation  string            // as in Spark's history: "WRITE", "STREAMING UPDATE", "MERGE", …
	Parameters map[string]string // free
	Metrics    map[string]string // added to numFiles, numOutputRows, numOutputBytes, numRemovedFiles
}

// Commit places a new version and returns its number. After each lost race the
// winners are read and everything is checked again. The error matches
// ErrTxnMoved, ErrConflict, ErrUnsupported or ErrUnknownOutcome, or says that
// the commit itself is wrong.
func (t *Table) Commit(ctx context.Context, c Commit) (int64, error) {
	if err := t.checkCommit(&c); err != nil {
		return 0, fmt.Errorf("committing to %s: %w", t.dir, err)
	}
	t.commits.Lock()
	defer t.commits.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("committing to %s: %w", t.dir, err)
		}
		snap, err := t.Refresh(ctx)
		if err != nil {
			return 0, err
		}
		if err := t.checkAgainst(&c, snap); err != nil {
			return 0, err
		}
		data, err := t.encode(&c, snap)
		if err != nil {
			return 0, fmt.Errorf("committing to %s: %w", t.dir, err)
		}
		version := snap.version + 1
		switch err := PutIfAbsent(entryPath(t.dir, version), data); {
		case err == nil:
			// An error here does not unmake the commit; the next reading tells.
			_, _ = t.Refresh(context.WithoutCancel(ctx))
			return version, nil
		case !errors.Is(err, fs.ErrExist):
			return 0, fmt.Errorf("committing version %d: %w", version, err)
		}
	}
}

// checkCommit checks what does not depend on the table's state.
func (t *Table) checkCommit(c *Commit) error {
	if c.Operation == "" {
		return fmt.Errorf("commit names no operation")
	}
	if len(c.Adds) == 0 && len(c.Removes) == 0 && len(c.Txns) == 0 && c.Metadata == nil {
		return fmt.Errorf("commit is empty")
	}
	named := make(map[string]string, len(c.Adds)+len(c.Removes))
	for _, a := range c.Adds {
		if !validPath(a.Path) {
			return fmt.Errorf("file %q is not within the table", a.Path)
		}
		if err := nameOnce(named, a.Path, "add"); err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(t.dir, filepath.FromSlash(a.Path)))
		if err != nil {
			return fmt.Errorf("adding a file: %w", err)
		}
		if info.Size() != a.Size {
			return fmt.Errorf("file %s has %d bytes, its action says %d", a.Path, info.Size(), a.Size)
		}
		if a.StatsJSON != "" && !json.Valid([]byte(a.StatsJSON)) {
			return fmt.Errorf("file %s: statistics are not JSON", a.Path)
		}
	}
	for _, p := range c.Removes {
		if err := nameOnce(named, p, "remove"); err != nil {
			return err
		}
	}
	for i, s := range c.Txns {
		if s.AppID == "" || s.To <= s.From || s.From < 0 {
			return fmt.Errorf("transaction %q goes from %d to %d; want a name and 0 <= from < to", s.AppID, s.From, s.To)
		}
		if slices.ContainsFunc(c.Txns[:i], func(o TxnStep) bool { return o.AppID == s.AppID }) {
			return fmt.Errorf("transaction %q is in the commit twice", s.AppID)
		}
	}
	if c.Metadata != nil {
		return c.Metadata.check()
	}
	return nil
}

// checkAgainst checks that the commit is valid as the version after snap.
func (t *Table) checkAgainst(c *Commit, snap *Snapshot) error {
	version := snap.version + 1
	conflict := func(format string, args ...any) error {
		return &ConflictError{Table: t.dir, Version: version, Reason: fmt.Sprintf(format, args...)}
	}
	if err := snap.protocol.checkWrite(snap.metadata); err != nil {
		return fmt.Errorf("committing version %d of %s: %w", version, t.dir, err)
	}
	if c.ReadVersion > snap.version {
		return fmt.Errorf("committing to %s: work was derived from version %d: %w; the newest is %d", t.dir, c.ReadVersion, ErrNoVersion, snap.version)
	}
	for _, s := range c.Txns {
		if stored := snap.txns[s.AppID]; stored != s.From {
			return &TxnMovedError{Table: t.dir, AppID: s.AppID, From: s.From, Stored: stored}
		}
	}
	if c.ReadVersion >= 0 && snap.changed > c.ReadVersion {
		return conflict("version %d changed the table's metadata or protocol after version %d, which this work read", snap.changed, c.ReadVersion)
	}
	if len(c.Removes) > 0 && !c.Rearranges && snap.metadata.Properties["delta.appendOnly"] == "true" {
		return fmt.Errorf("committing version %d of %s: table is append-only, a commit may not remove %s: %w", version, t.dir, c.Removes[0], ErrUnsupported)
	}
	for _, p := range c.Removes {
		if _, live := snap.File(p); !live {
			return conflict("file %s, which this work removes, is not live", p)
		}
	}
	for _, a := range c.Adds {
		if _, live := snap.File(a.Path); live {
			return conflict("file %s is live already", a.Path)
		}
		if len(a.PartitionValues) != len(snap.metadata.PartitionColumns) {
			return fmt.Errorf("committing to %s: file %s has %d partition values, the table has %d partition columns", t.dir, a.Path, len(a.PartitionValues), len(snap.metadata.PartitionColumns))
		}
		for _, col := range snap.metadata.PartitionColumns {
			if _, ok := a.PartitionValues[col]; !ok {
				return fmt.Errorf("committing to %s: file %s has no value for partition column %q", t.dir, a.Path, col)
			}
		}
	}
	if c.Metadata == nil {
		return nil
	}
	if !slices.Equal(c.Metadata.PartitionColumns, snap.metadata.PartitionColumns) {
		return conflict("partition columns cannot change")
	}
	for _, f := range snap.metadata.Schema.Fields {
		if g, ok := c.Metadata.Schema.Field(f.Name); !ok || g.Type != f.Type {
			return conflict("column %q of type %s would be dropped or retyped", f.Name, f.Type)
		}
	}
	return nil
}

// encode writes the entry of the version after snap.
func (t *Table) encode(c *Commit, snap *Snapshot) ([]byte, error) {
	now := t.options.now().UnixMilli()
	metrics := map[string]string{"numFiles": strconv.Itoa(len(c.Adds)), "numRemovedFiles": strconv.Itoa(len(c.Removes))}
	var size, rows int64
	lines := make([]wireLine, 1, 2+len(c.Txns)+len(c.Adds)+len(c.Removes))
	if c.Metadata != nil {
		m := snap.metadata
		m.Name, m.Description, m.Schema, m.Properties = c.Metadata.Name, c.Metadata.Description, c.Metadata.Schema, c.Metadata.Properties
		w, err := m.encode()
		if err != nil {
			return nil, err
		}
		lines = append(lines, wireLine{MetaData: w})
	}
	for _, s := range c.Txns {
		lines = append(lines, wireLine{Txn: &wireTxn{AppID: s.AppID, Version: s.To, LastUpdated: now}})
	}
	for _, p := range c.Removes {
		f, _ := snap.File(p)
		lines = append(lines, wireLine{Remove: &wireRemove{
			Path: encodePath(p), DeletionTimestamp: now, DataChange: !c.Rearranges,
			ExtendedFileMetadata: true, PartitionValues: encodePartition(f.PartitionValues), Size: f.Size,
		}})
	}
	for _, a := range c.Adds {
		if a.ModificationTime == 0 {
			a.ModificationTime = now
		}
		var st struct {
			NumRecords int64 `json:"numRecords"`
		}
		if a.StatsJSON != "" && json.Unmarshal([]byte(a.StatsJSON), &st) == nil {
			rows += st.NumRecords
		}
		size += a.Size
		lines = append(lines, wireLine{Add: &wireAdd{
			Path: encodePath(a.Path), PartitionValues: encodePartition(a.PartitionValues), Size: a.Size,
			ModificationTime: a.ModificationTime, DataChange: !c.Rearranges, Stats: a.StatsJSON,
		}})
	}
	metrics["numOutputBytes"], metrics["numOutputRows"] = strconv.FormatInt(size, 10), strconv.FormatInt(rows, 10)
	maps.Copy(metrics, c.Metrics)
	params := c.Parameters
	if params == nil {
		params = map[string]string{}
	}
	read := snap.version
	lines[0].CommitInfo = &wireInfo{
		Timestamp: now, Operation: c.Operation, Parameters: params, ReadVersion: &read, Isolation: isolation,
		Blind: c.ReadVersion < 0 && len(c.Removes) == 0 && c.Metadata == nil, Metrics: metrics, Engine: engine, TxnID: uuid.NewString(),
	}
	return encodeLines(lines)
}

func encodeLines(lines []wireLine) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf) // ends each value with a newline
	enc.SetEscapeHTML(false)
	for i := range lines {
		if err := enc.Encode(&lines[i]); err != nil {
			return nil, fmt.Errorf("encoding a log entry: %w", err)
		}
	}
	return buf.Bytes(), nil
}
