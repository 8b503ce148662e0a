// Package sqlite opens SQLite files the one way Headrace uses them: write-ahead
// log, every commit on the disk, one writer and any number of readers, schema
// versions in user_version. It is the one place that imports the SQLite driver.
//
// It knows no table; the owner of a file brings its migrations.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// readers bounds the connections that read at the same time.
const readers = 4

// DB is an open file. It is safe for concurrent use.
type DB struct {
	path  string
	write *sql.DB // one connection, transactions begin with the write lock
	read  *sql.DB // refuses to write
}

// NewerError says that a newer build wrote the file; it is left as it was.
type NewerError struct {
	Path         string
	Found, Known int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s holds data of a newer version (schema %d; this build knows %d): use the newer headrace", e.Path, e.Found, e.Known)
}

// ForeignError says that the file is no SQLite file, or one of somebody else;
// it is left as it was.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not a file of headrace: move it away or name another place", e.Path)
}

// Open opens or creates the file and brings its schema up to date. migrations[i]
// is the SQL that leads from schema i to i+1; each is applied whole or not at all.
func Open(ctx context.Context, path string, migrations []string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db := &DB{path: path}
	if db.write, err = sql.Open("sqlite", dsn(abs, "immediate", "busy_timeout(5000)", "synchronous(full)", "foreign_keys(on)")); err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	if err := db.migrate(ctx, migrations); err != nil {
		db.write.Close()
		var se *driver.Error
		if errors.As(err, &se) && se.Code()&0xff == codes.SQLITE_NOTADB {
			return nil, &ForeignError{Path: path}
		}
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if db.read, err = sql.Open("sqlite", dsn(abs, "deferred", "busy_timeout(5000)", "query_only(on)")); err != nil {
		db.write.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.read.SetMaxOpenConns(readers)
	return db, nil
}

func dsn(abs, lock string, pragmas ...string) string {
	u := url.URL{Scheme: "file", Path: abs, RawQuery: url.Values{"_pragma": pragmas, "_txlock": {lock}}.Encode()}
	return u.String()
}

// migrate looks before it writes: a file that is not ours stays untouched.
func (db *DB) migrate(ctx context.Context, migrations []string) error {
	version := 0
	err := db.Write(ctx, func(tx *sql.Tx) (err error) {
		version, err = db.check(ctx, tx, len(migrations))
		return err
	})
	if err != nil {
		return err
	}
	var mode string
	if err := db.write.QueryRowContext(ctx, `PRAGMA journal_mode = wal`).Scan(&mode); err != nil {
		return fmt.Errorf("turning on the write-ahead log: %w", err)
	}
	if mode != "wal" {
		return fmt.Errorf("turning on the write-ahead log: the file system gives mode %q; put the file on a local disk", mode)
	}
	for version < len(migrations) {
		err := db.Write(ctx, func(tx *sql.Tx) (err error) {
			// Somebody else may have been faster.
			if version, err = db.check(ctx, tx, len(migrations)); err != nil || version == len(migrations) {
				return err
			}
			if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
				return fmt.Errorf("migrating to schema %d: %w", version+1, err)
			}
			version++
			_, err = tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, version))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// check returns the file's schema version, or why the file is not for us.
func (db *DB) check(ctx context.Context, tx *sql.Tx, known int) (int, error) {
	var version, tables int
	if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&tables); err != nil {
		return 0, err
	}
	switch {
	case version > known:
		return 0, &NewerError{Path: db.path, Found: version, Known: known}
	case version < 0, version == 0 && tables > 0:
		return 0, &ForeignError{Path: db.path}
	}
	return version, nil
}

// Write runs fn in a transaction of its own that no other writer runs beside.
// It commits if fn returns nil, and is then on the disk.
func (db *DB) Write(ctx context.Context, fn func(*sql.Tx) error) error {
	return transact(ctx, db.write, fn)
}

// Read runs fn on one unchanging state of the file.
func (db *DB) Read(ctx context.Context, fn func(*sql.Tx) error) error {
	return transact(ctx, db.read, fn)
}

func transact(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed {
			_ = tx.Rollback() // the error that led here says more
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	committed = true // a commit that fails has ended the transaction too
	return tx.Commit()
}

// Close waits for what runs and folds the write-ahead log into the file.
func (db *DB) Close() error {
	// The readers first: the log is folded in by the last connection, which
	// must be able to write.
	err := errors.Join(db.read.Close(), db.write.Close())
	if err != nil {
		return fmt.Errorf("closing %s: %w", db.path, err)
	}
	return nil
}
