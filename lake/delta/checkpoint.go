package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/headrace/headrace/internal/wholefile"
)

// A checkpoint is the table at one version in one Parquet file, an action in each
// row: who opens the table reads it and the entries after it. Classic, in one part;
// columns as the protocol names them.
type checkpointRow struct {
	Txn      *checkpointTxn      `parquet:"txn,optional"`
	Add      *checkpointAdd      `parquet:"add,optional"`
	Remove   *checkpointRemove   `parquet:"remove,optional"`
	MetaData *checkpointMetadata `parquet:"metaData,optional"`
	Protocol *checkpointProtocol `parquet:"protocol,optional"`
}

type checkpointTxn struct {
	AppID       string `parquet:"appId"`
	Version     int64  `parquet:"version"`
	LastUpdated *int64 `parquet:"lastUpdated,optional"`
}

type checkpointAdd struct {
	Path             string             `parquet:"path"`
	PartitionValues  map[string]*string `parquet:"partitionValues"`
	Size             int64              `parquet:"size"`
	ModificationTime int64              `parquet:"modificationTime"`
	DataChange       bool               `parquet:"dataChange"`
	Stats            *string            `parquet:"stats,optional"`
}

type checkpointRemove struct {
	Path                 string             `parquet:"path"`
	DeletionTimestamp    *int64             `parquet:"deletionTimestamp,optional"`
	DataChange           bool               `parquet:"dataChange"`
	ExtendedFileMetadata *bool              `parquet:"extendedFileMetadata,optional"`
	PartitionValues      map[string]*string `parquet:"partitionValues,optional"`
	Size                 *int64             `parquet:"size,optional"`
}

type checkpointFormat struct {
	Provider string             `parquet:"provider"`
	Options  map[string]*string `parquet:"options"`
}

type checkpointMetadata struct {
	ID               string             `parquet:"id"`
	Name             *string            `parquet:"name,optional"`
	Description      *string            `parquet:"description,optional"`
	Format           checkpointFormat   `parquet:"format"`
	SchemaString     string             `parquet:"schemaString"`
	PartitionColumns []string           `parquet:"partitionColumns,list"`
	Configuration    map[string]*string `parquet:"configuration"`
	CreatedTime      *int64             `parquet:"createdTime,optional"`
}

type checkpointProtocol struct {
	MinReaderVersion int32 `parquet:"minReaderVersion"`
	MinWriterVersion int32 `parquet:"minWriterVersion"`
}

// lastCheckpoint is the content of _last_checkpoint.
type lastCheckpoint struct {
	Version     int64  `json:"version"`
	Size        int64  `json:"size"`
	Parts       *int64 `json:"parts,omitempty"`
	SizeInBytes int64  `json:"sizeInBytes,omitempty"`
	Adds        int64  `json:"numOfAddFiles,omitempty"`
}

const lastCheckpointName = "_last_checkpoint"

func checkpointPath(dir string, version int64) string {
	return filepath.Join(dir, logDir, fmt.Sprintf("%020d.checkpoint.parquet", version))
}

// DefaultKeepRemoved is how long a removed file is remembered, so that whoever
// still reads an older version finds it.
const DefaultKeepRemoved = 7 * 24 * time.Hour

// Checkpoint writes the newest version as a checkpoint, unless it has one, and
// returns which version that is. Files removed longer ago than keepRemoved (0 is
// [DefaultKeepRemoved]) are left out.
func (t *Table) Checkpoint(ctx context.Context, keepRemoved time.Duration) (int64, error) {
	if keepRemoved <= 0 {
		keepRemoved = DefaultKeepRemoved
	}
	snap, err := t.Refresh(ctx)
	if err != nil {
		return 0, err
	}
	fail := func(err error) (int64, error) {
		return 0, fmt.Errorf("writing a checkpoint of %s at version %d: %w", t.dir, snap.version, err)
	}
	if err := snap.protocol.checkWrite(snap.metadata); err != nil {
		return fail(err)
	}
	name := checkpointPath(t.dir, snap.version)
	if _, err := os.Stat(name); err == nil {
		return snap.version, nil
	}
	removed, err := t.removed(ctx, snap, t.options.now().Add(-keepRemoved).UnixMilli())
	if err != nil {
		return fail(err)
	}
	rows, err := checkpointRows(snap, removed)
	if err != nil {
		return fail(err)
	}
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[checkpointRow](&buf, parquet.Compression(&zstd.Codec{}))
	if _, err := w.Write(rows); err != nil {
		return fail(err)
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	if err := PutIfAbsent(name, buf.Bytes()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fail(err)
	}
	hint, err := json.Marshal(lastCheckpoint{Version: snap.version, Size: int64(len(rows)), SizeInBytes: int64(buf.Len()), Adds: int64(len(snap.files))})
	if err == nil {
		err = wholefile.Replace(filepath.Join(t.dir, logDir, lastCheckpointName), hint, 0o644)
	}
	if err != nil {
		return fail(err)
	}
	return snap.version, nil
}

// checkpointRows are the actions of a snapshot.
func checkpointRows(s *Snapshot, removed map[string]*File) ([]checkpointRow, error) {
	rows := make([]checkpointRow, 0, 2+len(s.txns)+len(s.files)+len(removed))
	// A number that is 0 is not there for readers of optional columns.
	p := s.protocol
	if p.MinReaderVersion > 2 || p.MinWriterVersion > 6 {
		return nil, fmt.Errorf("protocol (%d,%d) has features, which this checkpoint does not carry: %w", p.MinReaderVersion, p.MinWriterVersion, ErrUnsupported)
	}
	rows = append(rows, checkpointRow{Protocol: &checkpointProtocol{int32(p.MinReaderVersion), int32(p.MinWriterVersion)}})
	w, err := s.metadata.encode()
	if err != nil {
		return nil, err
	}
	m := &checkpointMetadata{
		ID: w.ID, Format: checkpointFormat{Provider: w.Format.Provider, Options: map[string]*string{}}, SchemaString: w.SchemaString,
		PartitionColumns: w.PartitionColumns, Configuration: encodePartition(w.Configuration), CreatedTime: &w.CreatedTime,
	}
	if w.Name != "" {
		m.Name = &w.Name
	}
	if w.Description != "" {
		m.Description = &w.Description
	}
	rows = append(rows, checkpointRow{MetaData: m})
	for _, id := range sortedKeys(s.txns) {
		rows = append(rows, checkpointRow{Txn: &checkpointTxn{AppID: id, Version: s.txns[id]}})
	}
	for _, f := range s.files {
		a := &checkpointAdd{
			Path: encodePath(f.Path), PartitionValues: encodePartition(f.PartitionValues), Size: f.Size, ModificationTime: f.ModificationTime, DataChange: false,
		}
		if f.StatsJSON != "" {
			a.Stats = &f.StatsJSON
		}
		rows = append(rows, checkpointRow{Add: a})
	}
	extended := true
	for _, path := range sortedKeys(removed) {
		f := removed[path]
		rows = append(rows, checkpointRow{Remove: &checkpointRemove{
			Path: encodePath(path), DeletionTimestamp: &f.ModificationTime, DataChange: false, ExtendedFileMetadata: &extended,
			PartitionValues: encodePartition(f.PartitionValues), Size: &f.Size,
		}})
	}
	return rows, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// removed are the files that were removed after a moment, in ms, as far as log and
// checkpoint tell; their ModificationTime is when they were.
func (t *Table) removed(ctx context.Context, snap *Snapshot, after int64) (map[string]*File, error) {
	found, err := listLog(t.dir)
	if err != nil {
		return nil, err
	}
	out := map[string]*File{}
	from := int64(-1)
	if v, ok := found.checkpointUpTo(snap.version); ok {
		_, gone, err := readCheckpoint(t.dir, v)
		if err != nil {
			return nil, err
		}
		for _, f := range gone {
			out[f.Path] = f
		}
		from = v
	}
	for v := from + 1; v <= snap.version; v++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, err := readEntry(entryPath(t.dir, v))
		if err != nil {
			return nil, err
		}
		for _, f := range e.removes {
			out[f.Path] = f
		}
		for _, f := range e.adds {
			delete(out, f.Path)
		}
	}
	for path, f := range out {
		if f.ModificationTime <= after {
			delete(out, path)
		}
	}
	return out, nil
}

// readCheckpoint reads the checkpoint of a version: the table, and the files that
// it remembers as removed.
func readCheckpoint(dir string, version int64) (*Snapshot, []*File, error) {
	name := checkpointPath(dir, version)
	fail := func(err error) (*Snapshot, []*File, error) {
		return nil, nil, fmt.Errorf("reading checkpoint %s: %w", name, err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fail(err)
	}
	if info.Size() > maxEntryBytes {
		return fail(fmt.Errorf("larger than %d bytes: %w", int64(maxEntryBytes), ErrUnsupported))
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fail(err)
	}
	s, gone, err := decodeCheckpoint(dir, version, data)
	if err != nil {
		return fail(err)
	}
	return s, gone, nil
}

func decodeCheckpoint(dir string, version int64, data []byte) (s *Snapshot, gone []*File, err error) {
	// The Parquet library answers some broken files with a panic.
	defer func() {
		if p := recover(); p != nil {
			s, gone, err = nil, nil, fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	file, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if slices.ContainsFunc(file.Schema().Columns(), func(path []string) bool { return len(path) > 1 && path[0] == "add" && path[1] == "deletionVector" }) {
		if err := refuseVectors(file); err != nil {
			return nil, nil, err
		}
	}
	s = &Snapshot{dir: dir, version: version, changed: -1, txns: map[string]int64{}}
	r := parquet.NewGenericReader[checkpointRow](bytes.NewReader(data))
	defer func() { _ = r.Close() }()
	rows := make([]checkpointRow, 256)
	named := map[string]string{}
	for {
		clear(rows)
		n, readErr := r.Read(rows)
		for i := range rows[:n] {
			if gone, err = s.takeRow(&rows[i], named, gone); err != nil {
				return nil, nil, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, readErr)
		}
	}
	if s.changed < 0 || s.protocol.MinReaderVersion == 0 {
		return nil, nil, fmt.Errorf("it has no metaData or no protocol: %w", ErrCorrupt)
	}
	if err := s.protocol.checkRead(); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(s.files, func(a, b *File) int { return strings.Compare(a.Path, b.Path) })
	return s, gone, nil
}

// refuseVectors refuses a checkpoint in which a file has a deletion vector.
func refuseVectors(file *parquet.File) error {
	for i, path := range file.Schema().Columns() {
		if len(path) < 3 || path[0] != "add" || path[1] != "deletionVector" || path[2] != "storageType" {
			continue
		}
		for _, group := range file.RowGroups() {
			pages := group.ColumnChunks()[i].Pages()
			for {
				page, err := pages.ReadPage()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					_ = pages.Close()
					return fmt.Errorf("%w: %w", ErrCorrupt, err)
				}
				if page.NumNulls() < page.NumValues() {
					_ = pages.Close()
					return fmt.Errorf("files have deletion vectors: %w", ErrUnsupported)
				}
			}
			_ = pages.Close()
		}
	}
	return nil
}

func (s *Snapshot) takeRow(row *checkpointRow, named map[string]string, gone []*File) ([]*File, error) {
	if p := row.Protocol; p != nil {
		s.protocol = Protocol{MinReaderVersion: int(p.MinReaderVersion), MinWriterVersion: int(p.MinWriterVersion)}
	}
	if m := row.MetaData; m != nil {
		w := wireMetadata{
			ID: m.ID, Format: wireFormat{Provider: m.Format.Provider}, SchemaString: m.SchemaString,
			PartitionColumns: m.PartitionColumns, Configuration: decodePartition(m.Configuration),
		}
		for _, o := range []struct {
			from *string
			to   *string
		}{{m.Name, &w.Name}, {m.Description, &w.Description}} {
			if o.from != nil {
				*o.to = *o.from
			}
		}
		if m.CreatedTime != nil {
			w.CreatedTime = *m.CreatedTime
		}
		meta, err := w.decode()
		if err != nil {
			return nil, err
		}
		s.metadata, s.changed = *meta, s.version
	}
	if x := row.Txn; x != nil {
		s.txns[x.AppID] = x.Version
	}
	if a := row.Add; a != nil {
		path, err := decodePath(a.Path)
		if err == nil {
			err = nameOnce(named, path, "add")
		}
		if err != nil {
			return nil, err
		}
		f := &File{AddFile: AddFile{Path: path, PartitionValues: decodePartition(a.PartitionValues), Size: a.Size, ModificationTime: a.ModificationTime}}
		if a.Stats != nil {
			f.StatsJSON = *a.Stats
		}
		f.rows = countRows(f.StatsJSON)
		s.files = append(s.files, f)
	}
	if x := row.Remove; x != nil {
		path, err := decodePath(x.Path)
		if err != nil {
			return nil, err
		}
		f := &File{rows: -1, AddFile: AddFile{Path: path, PartitionValues: decodePartition(x.PartitionValues)}}
		if x.DeletionTimestamp != nil {
			f.ModificationTime = *x.DeletionTimestamp
		}
		if x.Size != nil {
			f.Size = *x.Size
		}
		gone = append(gone, f)
	}
	return gone, nil
}

// checkHint refuses a _last_checkpoint that is none. It is only a hint, and what
// it says is not used: the log's listing tells.
func checkHint(dir string) error {
	name := filepath.Join(dir, logDir, lastCheckpointName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var hint lastCheckpoint
	if err == nil {
		err = json.Unmarshal(b, &hint)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %s is no checkpoint's description: %w: %w; it is a hint for other readers, remove it and the next checkpoint writes it anew", dir, name, ErrCorrupt, err)
	}
	return nil
}
