// Package registry says which assets and sensors there are, what they are and
// whose: the authority for names, units, limits and owners.
//
// It is bitemporal. A row holds over its validity [valid_from, valid_to), the
// time in the plant, and over its recorded interval [recorded_from,
// recorded_to), counted in versions of the registry. A row is never
// overwritten: a correction closes its recorded interval and adds rows, so that
// what was known at a version can be read for ever.
//
// It holds no measured values and does not know who reads it.
package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/internal/sqlite"
	"github.com/headrace/headrace/signal"
)

// What a sensor gets that nobody has described: its value holds until the next
// one, for so long.
const (
	defaultInterpolation = "step"
	defaultMaxHold       = 300 * time.Second
)

// Options of a registry.
type Options struct {
	Clock signal.Clock // stamps versions; nil is the machine's clock
	Log   *slog.Logger
}

// Registry is an open registry. It is safe for concurrent use.
type Registry struct {
	db    *sqlite.DB
	clock signal.Clock
	log   *slog.Logger

	mu       sync.Mutex               // guards known
	known    map[signal.Path]struct{} // paths seen to be recorded; only ever grows
	snapshot atomic.Pointer[Snapshot] // of the newest version that was asked for
}

// Open opens or creates the registry's file.
func Open(ctx context.Context, path string, opts Options) (*Registry, error) {
	db, err := sqlite.Open(ctx, path, migrations())
	if err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	r := &Registry{db: db, clock: opts.Clock, log: opts.Log, known: map[signal.Path]struct{}{}}
	if r.clock == nil {
		r.clock = signal.WallClock{}
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	// The first version: there is always one to read.
	err = db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO version (version, recorded_at, reason) SELECT 1, ?, 'created' WHERE NOT EXISTS (SELECT 1 FROM version)`,
			signal.MicrosOf(r.clock.Now()))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the registry %s: %w", path, err), db.Close())
	}
	return r, nil
}

// Close closes the file.
func (r *Registry) Close() error { return r.db.Close() }

// Version is the newest version; every committed change adds one to it.
func (r *Registry) Version(ctx context.Context) (version int64, err error) {
	err = r.db.Read(ctx, func(tx *sql.Tx) (err error) {
		version, err = newest(ctx, tx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading the registry's version: %w", err)
	}
	return version, nil
}

// VersionAt is the newest version recorded at or before at.
func (r *Registry) VersionAt(ctx context.Context, at time.Time) (version int64, err error) {
	err = r.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT version FROM version WHERE recorded_at <= ? ORDER BY version DESC LIMIT 1`, signal.MicrosOf(at)).Scan(&version)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("the registry has no version of %s or before: it is younger", at.UTC().Format(time.RFC3339Nano))
	}
	if err != nil {
		return 0, fmt.Errorf("reading the registry's versions: %w", err)
	}
	return version, nil
}

// Rows returns what was recorded at a version, sorted by name and validity. The
// answer for a version never changes; the caller must not change it either.
func (r *Registry) Rows(ctx context.Context, version int64) ([]signal.AssetMeta, []signal.SensorMeta, error) {
	if s := r.snapshot.Load(); s != nil && s.Version == version {
		return s.Assets, s.Sensors, nil
	}
	var assets []signal.AssetMeta
	var sensors []signal.SensorMeta
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		last, err := newest(ctx, tx)
		if err != nil {
			return err
		}
		if version < 1 || version > last {
			return fmt.Errorf("there is none; the newest is %d", last)
		}
		if assets, err = selectAssets(ctx, tx, `WHERE recorded_from <= ?1 AND recorded_to > ?1 ORDER BY asset, valid_from`, version); err != nil {
			return err
		}
		sensors, err = selectSensors(ctx, tx, `WHERE recorded_from <= ?1 AND recorded_to > ?1 ORDER BY path, valid_from`, version)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading version %d of the registry: %w", version, err)
	}
	return assets, sensors, nil
}

// Ensure registers the sensors that are unknown, and their assets: unclaimed,
// without limits, valid always. It is idempotent, and costs nothing for paths
// it has seen. A path that cannot be a name is left out: what comes with it
// stays unregistered.
func (r *Registry) Ensure(ctx context.Context, paths []signal.Path) error {
	r.mu.Lock()
	var unknown []signal.Path
	for _, p := range paths {
		if _, ok := r.known[p]; !ok {
			unknown = append(unknown, p)
		}
	}
	r.mu.Unlock()
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	valid := unknown[:0]
	for _, p := range unknown {
		if _, err := signal.ParsePath(string(p)); err != nil {
			r.log.Warn("sensor cannot be registered", "err", err)
			continue
		}
		valid = append(valid, p)
	}
	var added int
	version, err := r.change(ctx, "arrival", func(ctx context.Context, c *change) error {
		added = 0
		for _, p := range valid {
			was, err := c.sensors(ctx, p)
			if err != nil {
				return err
			}
			if len(was) > 0 {
				continue
			}
			if err := c.sensorRows(ctx, add, []signal.SensorMeta{Undescribed(p)}); err != nil {
				return err
			}
			added++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("registering sensors that arrived: %w", err)
	}
	if added > 0 {
		r.log.Info("registered unclaimed sensors", "count", added, "version", version)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range valid {
		r.known[p] = struct{}{}
	}
	return nil
}

// Unclaimed is a sensor that was registered by arrival.
type Unclaimed struct {
	Path    signal.Path
	Since   time.Time // when it was recorded
	Version int64     // the version that recorded it
}

// Unclaimed lists the sensors that nobody has described yet, sorted by path.
func (r *Registry) Unclaimed(ctx context.Context) ([]Unclaimed, error) {
	out := []Unclaimed{}
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT s.path, min(v.recorded_at), min(v.version) FROM sensor s JOIN version v ON v.version = s.recorded_from
			WHERE s.recorded_to = ? AND NOT s.claimed GROUP BY s.path ORDER BY s.path`, current)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var u Unclaimed
			var at signal.Micros
			if err := rows.Scan(&u.Path, &at, &u.Version); err != nil {
				return err
			}
			u.Since = at.Time()
			out = append(out, u)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("listing unclaimed sensors: %w", err)
	}
	return out, nil
}
