package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var schema = []string{
	`CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT`,
	`CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent) STRICT;
	 INSERT INTO parent VALUES (7)`,
}

func open(t *testing.T, path string, migrations []string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, migrations)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestOpenSetsWhatDurabilityNeeds(t *testing.T) {
	// A name that a URI would misread.
	db := open(t, filepath.Join(t.TempDir(), "a ?b%20#c.db"), schema)
	got := map[string]string{}
	err := db.Write(t.Context(), func(tx *sql.Tx) error {
		for _, p := range []string{"journal_mode", "synchronous", "foreign_keys", "busy_timeout", "user_version"} {
			var v string
			if err := tx.QueryRow("PRAGMA " + p).Scan(&v); err != nil {
				return err
			}
			got[p] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "user_version": "2"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(db.path), "*.db"))
	if len(names) != 1 || names[0] != db.path {
		t.Errorf("the file is %q, want %q", names, db.path)
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	old, err := Open(t.Context(), path, schema[:1])
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	// A migration that fails leaves the schema before it.
	if _, err := Open(t.Context(), path, []string{schema[0], `CREATE TABLE child (id INTEGER); SELECT nonsense`}); err == nil {
		t.Fatal("a broken migration was accepted")
	}
	db, err := Open(t.Context(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO child VALUES (1, 8)`)
		return err
	})
	if err == nil {
		t.Error("a foreign key that points nowhere was accepted")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	_, err = Open(t.Context(), path, schema[:1])
	var newer *NewerError
	if !errors.As(err, &newer) {
		t.Fatalf("opening data of a newer version: %v, want NewerError", err)
	}
	if d := cmp.Diff(&NewerError{Path: path, Found: 2, Known: 1}, newer); d != "" {
		t.Error(d)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("a refused file was changed")
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte("this is a letter to somebody, not a database at all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.db")
	raw, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec(`CREATE TABLE recipes (id INTEGER)`); err != nil {
		t.Fatal(err)
	}
	raw.Close()
	for _, path := range []string{text, other} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), path, schema)
		if _, ok := errors.AsType[*ForeignError](err); !ok {
			t.Errorf("%s: %v, want ForeignError", filepath.Base(path), err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Errorf("%s was changed", filepath.Base(path))
		}
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "no", "such", "x.db"), schema); err == nil {
		t.Error("a missing folder was accepted")
	}
}

func TestReadersSeeOneStateAndCannotWrite(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"), schema)
	count := func(tx *sql.Tx) (n int) {
		if err := tx.QueryRow(`SELECT count(*) FROM parent`).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	err := db.Read(t.Context(), func(tx *sql.Tx) error {
		before := count(tx)
		err := db.Write(t.Context(), func(w *sql.Tx) error {
			_, err := w.Exec(`INSERT INTO parent VALUES (8)`)
			return err
		})
		if err != nil {
			return err
		}
		if after := count(tx); after != before {
			t.Errorf("a reader saw %d rows, then %d", before, after)
		}
		if _, err := tx.Exec(`INSERT INTO parent VALUES (9)`); err == nil {
			t.Error("a reader wrote")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWritersAreSerialised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	a, b := open(t, path, schema), open(t, path, schema) // as two processes would
	add := func(ctx context.Context, db *DB) error {
		return db.Write(ctx, func(tx *sql.Tx) error {
			var n int
			if err := tx.QueryRow(`SELECT max(id) FROM parent`).Scan(&n); err != nil {
				return err
			}
			_, err := tx.Exec(`INSERT INTO parent VALUES (?)`, n+1)
			return err
		})
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := add(t.Context(), []*DB{a, b}[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	err := a.Read(t.Context(), func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT max(id) FROM parent`).Scan(&n); err != nil {
			return err
		}
		if n != 47 {
			t.Errorf("max(id) = %d after 40 writers from 7, want 47", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
