// Package duck runs SQL in an in-process DuckDB: Arrow batches in, rows and
// Parquet files out. It is the one place that imports DuckDB and Arrow.
//
// It is a working memory, not a store: nothing in it outlives the process, and
// it knows nothing of tables beyond files and their columns. Build with the
// tag duckdb_arrow.
package duck

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	duckdb "github.com/duckdb/duckdb-go/v2"
)

// The defaults of Options.
const (
	DefaultMemoryLimit = "128MB"
	DefaultThreads     = 2
)

// Options of a database.
type Options struct {
	MemoryLimit string // as DuckDB writes it; DefaultMemoryLimit if empty
	Threads     int    // DefaultThreads if 0
	TempDir     string // where DuckDB spills; made if absent
	// AllowedDirs, if not empty, are the only directories besides TempDir that
	// SQL may touch, and its settings are locked. For SQL that users write.
	AllowedDirs []string
	// Init is run in every new session, for its macros.
	Init []string
}

// DB is a DuckDB without a file. It is safe for concurrent use.
type DB struct {
	pool     *sql.DB
	init     []string
	sessions atomic.Int64
}

// Open starts a DuckDB.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.TempDir == "" {
		return nil, errors.New("opening DuckDB: no directory for its temporary files")
	}
	if err := os.MkdirAll(o.TempDir, 0o755); err != nil {
		return nil, fmt.Errorf("opening DuckDB: %w", err)
	}
	if o.MemoryLimit == "" {
		o.MemoryLimit = DefaultMemoryLimit
	}
	if o.Threads == 0 {
		o.Threads = DefaultThreads
	}
	connector, err := duckdb.NewConnector("", nil)
	if err != nil {
		return nil, fmt.Errorf("opening DuckDB: %w", err)
	}
	pool := sql.OpenDB(connector)
	// A connection carries its session's temporary objects: none is reused.
	pool.SetMaxIdleConns(0)
	db := &DB{pool: pool, init: o.Init}
	settings := []string{
		"SET GLOBAL memory_limit = " + Literal(o.MemoryLimit),
		"SET GLOBAL threads = " + strconv.Itoa(o.Threads),
		// What a query is done with goes back to the system soon.
		"SET GLOBAL allocator_flush_threshold = '4MB'",
		"SET GLOBAL allocator_bulk_deallocation_flush_threshold = '8MB'",
		"SET GLOBAL preserve_insertion_order = false", // order is in the rows; keeping it costs memory
		"SET GLOBAL temp_directory = " + Literal(o.TempDir),
		"SET GLOBAL TimeZone = 'UTC'",
		// All that is needed is linked in; nothing is fetched.
		"SET GLOBAL autoinstall_known_extensions = false",
		"SET GLOBAL autoload_known_extensions = false",
		// The system's page cache holds the same bytes.
		"SET GLOBAL enable_external_file_cache = false",
	}
	if len(o.AllowedDirs) > 0 {
		dirs := make([]string, 0, len(o.AllowedDirs)+1)
		for _, d := range append(slices.Clip(o.AllowedDirs), o.TempDir) {
			dirs = append(dirs, Literal(strings.TrimSuffix(d, "/")+"/"))
		}
		settings = append(settings, "SET GLOBAL allowed_directories = ["+strings.Join(dirs, ", ")+"]",
			"SET GLOBAL enable_external_access = false", "SET GLOBAL lock_configuration = true")
	}
	for _, s := range settings {
		if _, err := pool.ExecContext(ctx, s); err != nil {
			return nil, errors.Join(fmt.Errorf("opening DuckDB: %w", wrap(s, err)), pool.Close())
		}
	}
	return db, nil
}

// Close ends the DuckDB. Its sessions must be closed before.
func (db *DB) Close() error {
	if err := db.pool.Close(); err != nil {
		return fmt.Errorf("closing DuckDB: %w", err)
	}
	return nil
}

// Session is one connection with a catalog of its own: the schemas, tables,
// views and macros made in it are seen by no other session, and end with it.
// It is not safe for concurrent use.
type Session struct {
	conn *sql.Conn
	name string
}

// Session opens a session.
func (db *DB) Session(ctx context.Context) (*Session, error) {
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening DuckDB session: %w", err)
	}
	s := &Session{conn: conn, name: "session" + strconv.FormatInt(db.sessions.Add(1), 10)}
	for _, q := range append([]string{"ATTACH ':memory:' AS " + s.name, "USE " + s.name}, db.init...) {
		if err := s.Exec(ctx, q); err != nil {
			return nil, errors.Join(fmt.Errorf("opening DuckDB session: %w", err), s.Close())
		}
	}
	return s, nil
}

// Close ends the session and frees what it holds.
func (s *Session) Close() error {
	ctx := context.Background()
	err := s.Exec(ctx, "USE memory")
	if err == nil {
		err = s.Exec(ctx, "DETACH DATABASE IF EXISTS "+s.name)
	}
	if err = errors.Join(err, s.conn.Close()); err != nil {
		return fmt.Errorf("closing DuckDB session: %w", err)
	}
	return nil
}

// Exec runs SQL that returns no rows.
func (s *Session) Exec(ctx context.Context, query string, args ...any) error {
	if _, err := s.conn.ExecContext(ctx, query, args...); err != nil {
		return wrap(query, err)
	}
	return nil
}

// Query runs SQL that returns rows.
func (s *Session) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := s.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, wrap(query, err)
	}
	return rows, nil
}

// QueryRow runs SQL that returns one row.
func (s *Session) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return s.conn.QueryRowContext(ctx, query, args...)
}

// raw lends the driver's connection.
func (s *Session) raw(f func(driver.Conn) error) error {
	return s.conn.Raw(func(c any) error {
		dc, ok := c.(driver.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", c)
		}
		return f(dc)
	})
}

// wrap names the statement that failed by its first line.
func wrap(query string, err error) error {
	line, _, _ := strings.Cut(strings.TrimSpace(query), "\n")
	const limit = 160
	if len(line) > limit {
		line = strings.ToValidUTF8(line[:limit], "") + "…"
	}
	return fmt.Errorf("running SQL %q: %w", line, err)
}

// Quote writes an identifier.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal writes a text.
func Literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
