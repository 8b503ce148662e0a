package delta

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func FuzzDecodeEntry(f *testing.F) {
	for _, s := range []string{
		"", protocol12, metaLine, protocol12 + "\n" + metaLine,
		`{"commitInfo":{"timestamp":1,"operation":"WRITE","operationParameters":{"mode":"Append"}}}`,
		`{"txn":{"appId":"x","version":1,"lastUpdated":2}}`,
		`{"add":{"path":"a%20b/c.parquet","partitionValues":{"p":null,"q":"1"},"size":1,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":1,\"minValues\":{\"a\":1}}"}}`,
		`{"remove":{"path":"a","deletionTimestamp":1,"dataChange":false}}`,
		`{"add":{"path":"/etc/passwd"}}`, `{"add":null}`, `[`, `{"protocol":{"minReaderVersion":99}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		for _, file := range append(e.adds, e.removes...) {
			if p := filepath.Join("/t", file.Path); !validPath(file.Path) || filepath.Dir(p) == "/" {
				t.Errorf("path %q leads out of the table", file.Path)
			}
			back, err := decodePath(encodePath(file.Path))
			if err != nil || back != file.Path {
				t.Errorf("path %q comes back as %q, %v", file.Path, back, err)
			}
		}
		r := newReplay(&Snapshot{version: -1, changed: -1})
		r.apply(e)
		s, err := r.finish()
		if err != nil {
			return
		}
		for _, file := range s.Files() {
			if _, ok := s.File(file.Path); !ok {
				t.Errorf("file %q is not found", file.Path)
			}
			_, _ = s.Stats(file)
		}
		// What can be read can be opened.
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, logDir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(entryPath(dir, 0), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), dir, Options{}); err != nil {
			t.Error(err)
		}
	})
}
