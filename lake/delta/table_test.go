package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func definition() Definition {
	return Definition{
		Name: "readings", Schema: Schema{Fields: []Field{
			{Name: "event_time", Type: Timestamp},
			{Name: "path", Type: String},
			{Name: "value", Type: Double},
			{Name: "n", Type: Long},
			{Name: "i", Type: Integer},
			{Name: "good", Type: Boolean},
			{Name: "day", Type: Date},
			{Name: "raw", Type: Binary},
			{Name: "rules", Type: ArrayOf(String)},
		}},
		Properties: map[string]string{"delta.logRetentionDuration": "interval 30 days"},
	}
}

func create(t *testing.T, def Definition) *Table {
	t.Helper()
	table, err := Create(t.Context(), filepath.Join(t.TempDir(), "bronze", "readings"), def, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// file puts a data file of one byte into the table.
func file(t testing.TB, dir, name string) AddFile {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte{1}, 0o644); err != nil {
		t.Fatal(err)
	}
	return AddFile{Path: name, Size: 1}
}

func paths(s *Snapshot) []string {
	out := []string{}
	for _, f := range s.Files() {
		out = append(out, f.Path)
	}
	return out
}

func mustCommit(t testing.TB, table *Table, c Commit) int64 {
	t.Helper()
	if c.Operation == "" {
		c.Operation = "WRITE"
	}
	v, err := table.Commit(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCreateOpen(t *testing.T) {
	table := create(t, definition())
	s := table.Last()
	if s.Version() != 0 || !s.Schema().Equal(definition().Schema) || len(s.Files()) != 0 {
		t.Fatalf("new table: version %d, schema %v, files %v", s.Version(), s.Schema(), paths(s))
	}
	if p := s.Protocol(); p.MinReaderVersion != 1 || p.MinWriterVersion != 2 {
		t.Errorf("protocol %+v", p)
	}
	if _, err := Create(t.Context(), table.Dir(), definition(), Options{}); !errors.Is(err, ErrTableExists) {
		t.Errorf("second create: %v", err)
	}
	again, err := OpenOrCreate(t.Context(), table.Dir(), definition(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Metadata(), again.Last().Metadata()); diff != "" {
		t.Error(diff)
	}
	if _, err := Open(t.Context(), t.TempDir(), Options{}); !errors.Is(err, ErrNotTable) {
		t.Errorf("open of nothing: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	one := []Field{{Name: "a", Type: Long}}
	for name, def := range map[string]Definition{
		"no columns":         {},
		"unknown type":       {Schema: Schema{Fields: []Field{{Name: "a", Type: "decimal(3,1)"}}}},
		"array of array":     {Schema: Schema{Fields: []Field{{Name: "a", Type: ArrayOf(ArrayOf(Long))}}}},
		"same name":          {Schema: Schema{Fields: []Field{{Name: "a", Type: Long}, {Name: "A", Type: Long}}}},
		"blank in name":      {Schema: Schema{Fields: []Field{{Name: "a b", Type: Long}}}},
		"required":           {Schema: Schema{Fields: []Field{{Name: "a", Type: Long, Required: true}}}},
		"invariant":          {Schema: Schema{Fields: []Field{{Name: "a", Type: Long, Metadata: map[string]json.RawMessage{"delta.invariants": []byte(`"x"`)}}}}},
		"partition unknown":  {Schema: Schema{Fields: one}, PartitionColumns: []string{"b"}},
		"all partition":      {Schema: Schema{Fields: one}, PartitionColumns: []string{"a"}},
		"property with more": {Schema: Schema{Fields: one}, Properties: map[string]string{"delta.enableChangeDataFeed": "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Create(t.Context(), dir, def, Options{}); err == nil {
				t.Fatal("created")
			}
			if names, _ := os.ReadDir(dir); len(names) != 0 {
				t.Errorf("left %v", names)
			}
		})
	}
}

func TestCommitAndRead(t *testing.T) {
	table := create(t, definition())
	a, b := file(t, table.Dir(), "b.parquet"), file(t, table.Dir(), "dir with blank/a%1.parquet")
	a.StatsJSON = `{"numRecords":3,"minValues":{"event_time":"2024-01-01T00:00:00.001Z","path":"a","value":-1.5,"n":9007199254740993,"good":false,"day":"2024-02-03"},"maxValues":{"event_time":"2024-01-01T00:00:00.002Z","path":"b","value":2e300},"nullCount":{"path":0,"rules":1}}`
	mustCommit(t, table, Commit{ReadVersion: 0, Adds: []AddFile{a, b}, Txns: []TxnStep{{"headrace/x", 0, 10}}, Parameters: map[string]string{"plan": "p/0"}})
	mustCommit(t, table, Commit{ReadVersion: 1, Adds: []AddFile{file(t, table.Dir(), "c.parquet")}, Removes: []string{"b.parquet"}, Txns: []TxnStep{{"headrace/x", 10, 12}, {"y", 0, 1}}})
	mustCommit(t, table, Commit{ReadVersion: 2, Rearranges: true, Adds: []AddFile{file(t, table.Dir(), "d.parquet")}, Removes: []string{"c.parquet"}, Operation: "OPTIMIZE"})

	fresh, err := Open(t.Context(), table.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Snapshot{table.Last(), fresh.Last()} {
		if diff := cmp.Diff([]string{"d.parquet", "dir with blank/a%1.parquet"}, paths(s)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]int64{"headrace/x": 12, "y": 1}, s.Txns()); diff != "" {
			t.Error(diff)
		}
	}
	old, err := fresh.SnapshotAt(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := old.File("b.parquet")
	if !ok {
		t.Fatal("b.parquet is not live at version 1")
	}
	st, err := old.Stats(f)
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	want := &Stats{
		NumRecords: 3,
		Min:        map[string]any{"event_time": day + 1000, "path": "a", "value": -1.5, "n": int64(9007199254740993), "good": false, "day": int64(19756)},
		Max:        map[string]any{"event_time": day + 2999, "path": "b", "value": 2e300},
		NullCount:  map[string]int64{"path": 0, "rules": 1},
	}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Error(diff)
	}
	if _, ok := old.Rows(); ok {
		t.Error("Rows knows the rows of a file without statistics")
	}
	if _, err := fresh.SnapshotAt(t.Context(), 9); !errors.Is(err, ErrNoVersion) {
		t.Errorf("version 9: %v", err)
	}

	changes, err := fresh.Changes(t.Context(), 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	type change struct {
		V             int64
		Adds, Removes []string
		New           bool
		Txns          map[string]int64
		Plan          string
	}
	var got []change
	for _, v := range changes {
		c := change{V: v.Version, Txns: v.Txns, Plan: v.Info.Parameters["plan"], New: v.Adds[0].DataChange}
		for _, f := range v.Adds {
			c.Adds = append(c.Adds, f.Path)
		}
		for _, f := range v.Removes {
			c.Removes = append(c.Removes, f.Path)
		}
		got = append(got, c)
	}
	if diff := cmp.Diff([]change{
		{1, []string{"b.parquet", "dir with blank/a%1.parquet"}, nil, true, map[string]int64{"headrace/x": 10}, "p/0"},
		{2, []string{"c.parquet"}, []string{"b.parquet"}, true, map[string]int64{"headrace/x": 12, "y": 1}, ""},
		{3, []string{"d.parquet"}, []string{"c.parquet"}, false, nil, ""},
	}, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if _, err := fresh.Changes(t.Context(), 3, 5); !errors.Is(err, ErrNoVersion) {
		t.Errorf("changes to version 5: %v", err)
	}
	if s, err := fresh.Refresh(t.Context()); err != nil || s != fresh.Last() {
		t.Errorf("refresh without news: %v %v", s, err)
	}
}

func TestCommitRefuses(t *testing.T) {
	table := create(t, definition())
	live := file(t, table.Dir(), "live.parquet")
	other, err := Open(t.Context(), table.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, other, Commit{ReadVersion: Latest, Adds: []AddFile{live}, Txns: []TxnStep{{"x", 0, 5}}})
	fresh := file(t, table.Dir(), "fresh.parquet")
	short := fresh
	short.Size = 7
	parted := fresh
	parted.PartitionValues = map[string]string{"shard": "1"}
	for name, c := range map[string]struct {
		commit Commit
		is     error
		text   string
	}{
		"empty":               {Commit{}, nil, "empty"},
		"txn moved":           {Commit{Txns: []TxnStep{{"x", 0, 5}}}, ErrTxnMoved, `"x" stands at 5, not at 0`},
		"txn absent":          {Commit{Txns: []TxnStep{{"z", 3, 5}}}, ErrTxnMoved, "stands at 0"},
		"txn twice":           {Commit{Txns: []TxnStep{{"z", 0, 5}, {"z", 5, 6}}}, nil, "twice"},
		"txn backwards":       {Commit{Txns: []TxnStep{{"x", 5, 5}}}, nil, "from < to"},
		"add and remove":      {Commit{Adds: []AddFile{live}, Removes: []string{live.Path}}, ErrCorrupt, "beside"},
		"remove of not live":  {Commit{Removes: []string{"gone.parquet"}}, ErrConflict, "gone.parquet"},
		"add of live":         {Commit{Adds: []AddFile{live}}, ErrConflict, "live already"},
		"add of wrong size":   {Commit{Adds: []AddFile{short}}, nil, "7"},
		"add of no file":      {Commit{Adds: []AddFile{{Path: "no.parquet", Size: 1}}}, fs.ErrNotExist, "no.parquet"},
		"add from outside":    {Commit{Adds: []AddFile{{Path: "../x.parquet", Size: 1}}}, nil, "within"},
		"add with partition":  {Commit{Adds: []AddFile{parted}}, nil, "partition"},
		"read in the future":  {Commit{ReadVersion: 9, Adds: []AddFile{fresh}}, ErrNoVersion, "newest is 1"},
		"column dropped":      {Commit{Metadata: &Definition{Schema: Schema{Fields: definition().Schema.Fields[:2]}}}, ErrConflict, "value"},
		"property for more":   {Commit{Metadata: &Definition{Schema: definition().Schema, Properties: map[string]string{"delta.columnMapping.mode": "name"}}}, ErrUnsupported, "columnMapping"},
		"statistics not JSON": {Commit{Adds: []AddFile{{Path: fresh.Path, Size: 1, StatsJSON: "{"}}}, nil, "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			c.commit.Operation = "WRITE"
			_, err := table.Commit(t.Context(), c.commit)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if s, _ := table.Refresh(t.Context()); s.Version() != 1 {
		t.Errorf("version %d after refusals", s.Version())
	}
	var moved *TxnMovedError
	_, err = table.Commit(t.Context(), Commit{Operation: "WRITE", Txns: []TxnStep{{"x", 0, 5}}})
	if !errors.As(err, &moved) || moved.Stored != 5 {
		t.Errorf("got %v", err)
	}
}

func TestMetadataChangeConflicts(t *testing.T) {
	table := create(t, definition())
	def := definition()
	def.Schema.Fields = append(def.Schema.Fields, Field{Name: "unit", Type: String})
	mustCommit(t, table, Commit{ReadVersion: 0, Metadata: &def, Operation: "ADD COLUMNS"})
	if _, ok := table.Last().Schema().Field("unit"); !ok {
		t.Error("column was not added")
	}
	_, err := table.Commit(t.Context(), Commit{ReadVersion: 0, Operation: "WRITE", Adds: []AddFile{file(t, table.Dir(), "a.parquet")}})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("got %v", err)
	}
	mustCommit(t, table, Commit{ReadVersion: 1, Adds: []AddFile{file(t, table.Dir(), "a.parquet")}})
}

func TestAppendOnlyAndPartitions(t *testing.T) {
	table := create(t, Definition{
		Schema:           Schema{Fields: []Field{{Name: "shard", Type: Integer}, {Name: "v", Type: Double}}},
		PartitionColumns: []string{"shard"}, Properties: map[string]string{"delta.appendOnly": "true"},
	})
	a, b := file(t, table.Dir(), "shard=1/a.parquet"), file(t, table.Dir(), "b.parquet")
	a.PartitionValues, b.PartitionValues = map[string]string{"shard": "1"}, map[string]string{"shard": ""}
	mustCommit(t, table, Commit{ReadVersion: Latest, Adds: []AddFile{a, b}})
	if _, err := table.Commit(t.Context(), Commit{Operation: "DELETE", Removes: []string{"b.parquet"}}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("removing from an append-only table: %v", err)
	}
	c := file(t, table.Dir(), "c.parquet")
	c.PartitionValues = map[string]string{"shard": "1"}
	mustCommit(t, table, Commit{ReadVersion: Latest, Operation: "OPTIMIZE", Rearranges: true, Adds: []AddFile{c}, Removes: []string{a.Path}})
	fresh, err := Open(t.Context(), table.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range fresh.Last().Files() {
		got[f.Path] = f.PartitionValues["shard"]
	}
	if diff := cmp.Diff(map[string]string{"b.parquet": "", "c.parquet": "1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTemporaryFiles(t *testing.T) {
	now := time.Now()
	table := create(t, definition())
	log := filepath.Join(table.Dir(), logDir)
	old, young := filepath.Join(log, ".00000000000000000001.json.a.tmp"), filepath.Join(log, ".00000000000000000001.json.b.tmp")
	for _, p := range []string{old, young} {
		if err := os.WriteFile(p, []byte("{half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, now, now.Add(-61*time.Minute)); err != nil {
		t.Fatal(err)
	}
	fresh, err := Open(t.Context(), table.Dir(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, fresh, Commit{ReadVersion: 0, Txns: []TxnStep{{"x", 0, 1}}})
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Error("old temporary file is still there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("young temporary file was removed")
	}
	names, err := os.ReadDir(log)
	if err != nil || len(names) != 3 {
		t.Errorf("log holds %v, want 2 entries and 1 temporary file", names)
	}
}

func TestPutIfAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "_plans", "silver", "7", "0")
	if err := PutIfAbsent(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := PutIfAbsent(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "one" {
		t.Errorf("%q %v", b, err)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("directory holds %v", names)
	}
}

const (
	protocol12 = `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}`
	metaLine   = `{"metaData":{"id":"m","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}`
)

// putLog writes log files by name.
func putLog(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, logDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, logDir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func entryName(v int64) string { return fmt.Sprintf("%020d.json", v) }

func TestOpenRefuses(t *testing.T) {
	good := protocol12 + "\n" + metaLine + "\n"
	schema := func(field string) string {
		return protocol12 + "\n" + strings.Replace(metaLine, `{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}`, strings.ReplaceAll(field, `"`, `\"`), 1)
	}
	for name, c := range map[string]struct {
		files map[string]string
		is    error
		text  string
	}{
		"corrupt line":         {map[string]string{entryName(0): good, entryName(1): "{\"add\":{\n"}, ErrCorrupt, entryName(1) + ": line 1"},
		"gap":                  {map[string]string{entryName(0): good, entryName(2): "{}"}, ErrCorrupt, entryName(1) + " is missing"},
		"broken checkpoint":    {map[string]string{entryName(10): "{}", "00000000000000000010.checkpoint.parquet": "x"}, ErrCorrupt, "00000000000000000010.checkpoint.parquet"},
		"only a checkpoint":    {map[string]string{"00000000000000000010.checkpoint.parquet": "x"}, ErrCorrupt, "00000000000000000010.checkpoint.parquet"},
		"many-part checkpoint": {map[string]string{entryName(10): "{}", "00000000000000000010.checkpoint.0000000001.0000000002.parquet": "x"}, ErrUnsupported, "00000000000000000010.checkpoint.0000000001.0000000002.parquet"},
		"broken hint":          {map[string]string{entryName(0): good, "_last_checkpoint": "{"}, ErrCorrupt, "_last_checkpoint"},
		"no start":             {map[string]string{entryName(1): good}, ErrCorrupt, entryName(0)},
		"no metadata":          {map[string]string{entryName(0): protocol12}, ErrCorrupt, "metaData"},
		"no protocol":          {map[string]string{entryName(0): metaLine}, ErrCorrupt, "protocol"},
		"reader version":       {map[string]string{entryName(0): strings.Replace(good, `ReaderVersion":1`, `ReaderVersion":2`, 1)}, ErrUnsupported, "reader version 2"},
		"reader feature":       {map[string]string{entryName(0): good, entryName(1): `{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}`}, ErrUnsupported, "deletionVectors"},
		"deletion vector":      {map[string]string{entryName(0): good + `{"add":{"path":"a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true,"deletionVector":{"storageType":"u"}}}`}, ErrUnsupported, "deletion vector"},
		"path out":             {map[string]string{entryName(0): good + `{"add":{"path":"..%2Fa","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}`}, ErrUnsupported, "within"},
		"path elsewhere":       {map[string]string{entryName(0): good + `{"add":{"path":"s3://b/a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}`}, ErrUnsupported, "within"},
		"add and remove":       {map[string]string{entryName(0): good + `{"add":{"path":"a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}` + "\n" + `{"remove":{"path":"a","dataChange":true}}`}, ErrCorrupt, "line 4"},
		"two txn":              {map[string]string{entryName(0): good + `{"txn":{"appId":"x","version":1}}` + "\n" + `{"txn":{"appId":"x","version":2}}`}, ErrCorrupt, `"x"`},
		"two actions a line":   {map[string]string{entryName(0): good + `{"txn":{"appId":"x","version":1},"commitInfo":{}}`}, ErrCorrupt, "2 actions"},
		"decimal":              {map[string]string{entryName(0): schema(`{"name":"a","type":"decimal(3,1)","nullable":true,"metadata":{}}`)}, ErrUnsupported, "decimal"},
		"map":                  {map[string]string{entryName(0): schema(`{"name":"a","type":{"type":"map","keyType":"string","valueType":"string"},"nullable":true,"metadata":{}}`)}, ErrUnsupported, "nested"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), putLog(t, c.files), Options{})
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOpenTolerates(t *testing.T) {
	dir := putLog(t, map[string]string{
		entryName(0): protocol12 + "\r\n\n" + metaLine + "\n" + `{"commitInfo":{"operation":7,"operationParameters":{"n":3}}}` + "\n" + `{"cdc":{"path":"x"}}`,
		entryName(1): `{"commitInfo":"free"}` + "\n" + `{"remove":{"path":"never","dataChange":true}}`,
		"00000000000000000001.checkpoint.0000000001.0000000002.parquet": "not read", "_last_checkpoint": "{}", "00000000000000000001.crc": "{", ".x.tmp": "", "00000000000000000000.00000000000000000001.compacted.json": "{",
	})
	table, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v := table.Last().Version(); v != 1 {
		t.Errorf("version %d", v)
	}
}

func TestWriterRefuses(t *testing.T) {
	good := protocol12 + "\n" + metaLine + "\n"
	for name, text := range map[string]string{
		"writer version": strings.Replace(good, `WriterVersion":2`, `WriterVersion":4`, 1),
		"writer feature": strings.Replace(good, `"minWriterVersion":2`, `"minWriterVersion":7,"writerFeatures":["appendOnly","rowTracking"]`, 1),
		"invariant":      strings.Replace(good, `\"metadata\":{}`, `\"metadata\":{\"delta.invariants\":\"{}\"}`, 1),
		"not null":       strings.Replace(good, `\"nullable\":true`, `\"nullable\":false`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			table, err := Open(t.Context(), putLog(t, map[string]string{entryName(0): text}), Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = table.Commit(t.Context(), Commit{Operation: "WRITE", Txns: []TxnStep{{"x", 0, 1}}})
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("got %v", err)
			}
		})
	}
}
