package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// maxEntryBytes bounds one log entry: about half a million file actions.
const maxEntryBytes = 512 << 20

// AddFile describes a data file.
type AddFile struct {
	Path             string            // relative to the table, slashes, not URL-encoded
	PartitionValues  map[string]string // one for each partition column; "" is null
	Size             int64
	ModificationTime int64 // milliseconds
	DataChange       bool  // false: rearranged, the rows are not new. Set by Commit
	StatsJSON        string
}

// CommitInfo is what the writer said of a version.
type CommitInfo struct {
	Timestamp  int64 // milliseconds
	Operation  string
	Parameters map[string]string
	Metrics    map[string]string
	Engine     string
}

// Protocol is what a reader and a writer must know.
type Protocol struct {
	MinReaderVersion int      `json:"minReaderVersion"`
	MinWriterVersion int      `json:"minWriterVersion"`
	ReaderFeatures   []string `json:"readerFeatures,omitempty"`
	WriterFeatures   []string `json:"writerFeatures,omitempty"`
}

// Metadata is the table's description.
type Metadata struct {
	ID               string
	Name             string
	Description      string
	Schema           Schema
	PartitionColumns []string
	Properties       map[string]string
	CreatedTime      int64 // milliseconds
}

// entry is one log file, decoded.
type entry struct {
	info     CommitInfo
	protocol *Protocol
	metadata *Metadata
	adds     []*File
	removes  []*File
	txns     map[string]int64
}

type wireLine struct {
	CommitInfo *wireInfo     `json:"commitInfo,omitempty"`
	Protocol   *Protocol     `json:"protocol,omitempty"`
	MetaData   *wireMetadata `json:"metaData,omitempty"`
	Txn        *wireTxn      `json:"txn,omitempty"`
	Remove     *wireRemove   `json:"remove,omitempty"`
	Add        *wireAdd      `json:"add,omitempty"`
}

type wireInfo struct {
	Timestamp   int64             `json:"timestamp"`
	Operation   string            `json:"operation"`
	Parameters  map[string]string `json:"operationParameters"`
	ReadVersion *int64            `json:"readVersion,omitempty"`
	Isolation   string            `json:"isolationLevel"`
	Blind       bool              `json:"isBlindAppend"`
	Metrics     map[string]string `json:"operationMetrics,omitempty"`
	Engine      string            `json:"engineInfo"`
	TxnID       string            `json:"txnId"`
}

// UnmarshalJSON takes what it understands: commitInfo is free-form, and no
// reader may fail on it.
func (w *wireInfo) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil {
		return nil
	}
	_ = json.Unmarshal(raw["timestamp"], &w.Timestamp)
	_ = json.Unmarshal(raw["operation"], &w.Operation)
	_ = json.Unmarshal(raw["engineInfo"], &w.Engine)
	w.Parameters, w.Metrics = looseStrings(raw["operationParameters"]), looseStrings(raw["operationMetrics"])
	return nil
}

// looseStrings reads an object whose values should be strings; what is not is
// kept as its JSON text.
func looseStrings(b json.RawMessage) map[string]string {
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil || len(raw) == 0 {
		return nil
	}
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(v)
		}
		out[k] = s
	}
	return out
}

type wireFormat struct {
	Provider string            `json:"provider"`
	Options  map[string]string `json:"options"`
}

type wireMetadata struct {
	ID               string            `json:"id"`
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Format           wireFormat        `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	CreatedTime      int64             `json:"createdTime,omitempty"`
}

type wireTxn struct {
	AppID       string `json:"appId"`
	Version     int64  `json:"version"`
	LastUpdated int64  `json:"lastUpdated,omitempty"`
}

type wireAdd struct {
	Path             string             `json:"path"`
	PartitionValues  map[string]*string `json:"partitionValues"`
	Size             int64              `json:"size"`
	ModificationTime int64              `json:"modificationTime"`
	DataChange       bool               `json:"dataChange"`
	Stats            string             `json:"stats,omitempty"`
	DeletionVector   json.RawMessage    `json:"deletionVector,omitempty"`
}

type wireRemove struct {
	Path                 string             `json:"path"`
	DeletionTimestamp    int64              `json:"deletionTimestamp,omitempty"`
	DataChange           bool               `json:"dataChange"`
	ExtendedFileMetadata bool               `json:"extendedFileMetadata,omitempty"`
	PartitionValues      map[string]*string `json:"partitionValues,omitempty"`
	Size                 int64              `json:"size,omitempty"`
}

// readEntry reads and decodes a log file. A missing file is fs.ErrNotExist.
func readEntry(path string) (*entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading log entry: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEntryBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading log entry %s: %w", path, err)
	}
	if len(data) > maxEntryBytes {
		return nil, fmt.Errorf("reading log entry %s: larger than %d bytes: %w", path, maxEntryBytes, ErrUnsupported)
	}
	e, err := decodeEntry(data)
	if err != nil {
		return nil, fmt.Errorf("reading log entry %s: %w", path, err)
	}
	return e, nil
}

// decodeEntry decodes newline-separated actions. Actions that it does not know
// are left out: what changes the meaning of a table is announced by protocol.
func decodeEntry(data []byte) (*entry, error) {
	e := &entry{}
	named := make(map[string]string)
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var w wireLine
		if err := json.Unmarshal(line, &w); err != nil {
			if errors.Is(err, ErrUnsupported) {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			return nil, fmt.Errorf("line %d: %w: %w", n, ErrCorrupt, err)
		}
		if err := e.take(&w, named); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return e, nil
}

func (e *entry) take(w *wireLine, named map[string]string) error {
	count := 0
	if w.CommitInfo != nil {
		count++
		i := w.CommitInfo
		e.info = CommitInfo{Timestamp: i.Timestamp, Operation: i.Operation, Parameters: i.Parameters, Metrics: i.Metrics, Engine: i.Engine}
	}
	if w.Protocol != nil {
		count++
		if e.protocol != nil {
			return fmt.Errorf("second protocol action: %w", ErrCorrupt)
		}
		e.protocol = w.Protocol
	}
	if w.MetaData != nil {
		count++
		if e.metadata != nil {
			return fmt.Errorf("second metaData action: %w", ErrCorrupt)
		}
		m, err := w.MetaData.decode()
		if err != nil {
			return err
		}
		e.metadata = m
	}
	if w.Txn != nil {
		count++
		if _, ok := e.txns[w.Txn.AppID]; ok {
			return fmt.Errorf("second txn action of %q: %w", w.Txn.AppID, ErrCorrupt)
		}
		if e.txns == nil {
			e.txns = make(map[string]int64)
		}
		e.txns[w.Txn.AppID] = w.Txn.Version
	}
	if w.Add != nil {
		count++
		f, err := w.Add.decode()
		if err == nil {
			err = nameOnce(named, f.Path, "add")
		}
		if err != nil {
			return err
		}
		e.adds = append(e.adds, f)
	}
	if w.Remove != nil {
		count++
		path, err := decodePath(w.Remove.Path)
		if err == nil {
			err = nameOnce(named, path, "remove")
		}
		if err != nil {
			return err
		}
		e.removes = append(e.removes, &File{rows: -1, AddFile: AddFile{
			Path: path, Size: w.Remove.Size, ModificationTime: w.Remove.DeletionTimestamp,
			DataChange: w.Remove.DataChange, PartitionValues: decodePartition(w.Remove.PartitionValues),
		}})
	}
	if count > 1 {
		return fmt.Errorf("%d actions on one line: %w", count, ErrCorrupt)
	}
	return nil
}

func nameOnce(named map[string]string, path, action string) error {
	if before, ok := named[path]; ok {
		return fmt.Errorf("%s of %q beside its %s: %w", action, path, before, ErrCorrupt)
	}
	named[path] = action
	return nil
}

func (w *wireMetadata) decode() (*Metadata, error) {
	if w.Format.Provider != "" && w.Format.Provider != "parquet" {
		return nil, fmt.Errorf("data files of format %.40q: %w", w.Format.Provider, ErrUnsupported)
	}
	schema, err := decodeSchema(w.SchemaString)
	if err != nil {
		return nil, err
	}
	for _, p := range w.PartitionColumns {
		if _, ok := schema.Field(p); !ok {
			return nil, fmt.Errorf("partition column %q is no column: %w", p, ErrCorrupt)
		}
	}
	return &Metadata{
		ID: w.ID, Name: w.Name, Description: w.Description, Schema: schema, PartitionColumns: w.PartitionColumns,
		Properties: w.Configuration, CreatedTime: w.CreatedTime,
	}, nil
}

func (m *Metadata) encode() (*wireMetadata, error) {
	text, err := m.Schema.encode()
	if err != nil {
		return nil, fmt.Errorf("encoding schema: %w", err)
	}
	w := &wireMetadata{
		ID: m.ID, Name: m.Name, Description: m.Description, SchemaString: text, PartitionColumns: m.PartitionColumns,
		Configuration: m.Properties, CreatedTime: m.CreatedTime, Format: wireFormat{Provider: "parquet", Options: map[string]string{}},
	}
	// Readers want [] and {}, never null.
	if w.PartitionColumns == nil {
		w.PartitionColumns = []string{}
	}
	if w.Configuration == nil {
		w.Configuration = map[string]string{}
	}
	return w, nil
}

func (w *wireAdd) decode() (*File, error) {
	path, err := decodePath(w.Path)
	if err != nil {
		return nil, err
	}
	if len(w.DeletionVector) > 0 && string(w.DeletionVector) != "null" {
		return nil, fmt.Errorf("file %q has a deletion vector: %w", path, ErrUnsupported)
	}
	if w.Size < 0 {
		return nil, fmt.Errorf("file %q has size %d: %w", path, w.Size, ErrCorrupt)
	}
	return &File{rows: countRows(w.Stats), AddFile: AddFile{
		Path: path, PartitionValues: decodePartition(w.PartitionValues), Size: w.Size,
		ModificationTime: w.ModificationTime, DataChange: w.DataChange, StatsJSON: w.Stats,
	}}, nil
}

func decodePartition(in map[string]*string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		if v != nil {
			out[k] = *v
		} else {
			out[k] = ""
		}
	}
	return out
}

func encodePartition(in map[string]string) map[string]*string {
	out := make(map[string]*string, len(in))
	for k, v := range in {
		if v == "" {
			out[k] = nil
		} else {
			out[k] = &v
		}
	}
	return out
}

// decodePath decodes a URL-encoded path and refuses what leaves the table.
func decodePath(encoded string) (string, error) {
	p, err := url.PathUnescape(encoded)
	if err != nil {
		return "", fmt.Errorf("path %.200q: %w: %w", encoded, ErrCorrupt, err)
	}
	if !validPath(p) {
		return "", fmt.Errorf("path %.200q is not within the table: %w", p, ErrUnsupported)
	}
	return p, nil
}

// validPath: relative, in its shortest form, without a scheme, and never out
// of the table or into its log.
func validPath(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return p != "." && fs.ValidPath(p) && first != logDir && !strings.Contains(first, ":") && !strings.ContainsAny(p, "\x00\\")
}

func encodePath(p string) string {
	parts := strings.Split(p, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}
