package registry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/headrace/headrace/signal"
)

// Change is a set of rows that one version records. Of a row may be left out:
// the id (kept, or derived from the name), interpolation (step), max_hold
// (300 s), and either bound of its validity (without end on that side).
type Change struct {
	Reason  string // for the record: who wanted it, from which file
	Assets  []signal.AssetMeta
	Sensors []signal.SensorMeta
}

// Add records rows where nothing is recorded yet. A row whose validity overlaps
// a recorded one of the same name is refused with an [OverlapError], and then
// nothing is recorded. It returns the version that holds the change.
func (r *Registry) Add(ctx context.Context, ch Change) (int64, error) { return r.apply(ctx, add, ch) }

// Correct records rows that win over what was recorded for their validity; what
// was recorded before and after it stays. A correction that says what is
// recorded already changes nothing and makes no version.
func (r *Registry) Correct(ctx context.Context, ch Change) (int64, error) {
	return r.apply(ctx, correct, ch)
}

func (r *Registry) apply(ctx context.Context, how mode, ch Change) (int64, error) {
	ch = complete(ch)
	if err := check(ch); err != nil {
		return 0, fmt.Errorf("changing the registry: %w", err)
	}
	version, err := r.change(ctx, ch.Reason, func(ctx context.Context, c *change) error {
		for _, rows := range byName(ch.Assets) {
			if err := c.assetRows(ctx, how, rows); err != nil {
				return err
			}
		}
		for _, rows := range byName(ch.Sensors) {
			if err := c.sensorRows(ctx, how, rows); err != nil {
				return err
			}
		}
		all, err := selectAssets(ctx, c.tx, `WHERE recorded_to = ?`, current)
		if err != nil {
			return err
		}
		return checkHealthy(all, ch.Assets)
	})
	if err != nil {
		return 0, fmt.Errorf("changing the registry: %w", err)
	}
	return version, nil
}

// byName groups rows by the name that they describe, sorted.
func byName[M row](rows []M) [][]M {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b M) int { return cmp.Compare(name(a), name(b)) })
	var out [][]M
	for i, r := range rows {
		if i == 0 || name(rows[i-1]) != name(r) {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], r)
	}
	return out
}

// newID derives an id from a name, so that the same plant set up twice has the
// same ids. attempt tells names apart that have had other owners of their id.
func newID(kind, name string, attempt int) string {
	space := uuid.NewSHA1(uuid.NameSpaceURL, []byte("urn:headrace:registry:"+kind))
	if attempt > 0 {
		name = fmt.Sprintf("%s#%d", name, attempt)
	}
	return uuid.NewSHA1(space, []byte(name)).String()
}

// change is one version in the making. Its methods run in one transaction.
type change struct {
	tx      *sql.Tx
	version int64 // what the change will be
	now     signal.Micros
	reason  string
	begun   bool // the version is recorded: something has changed
}

// change runs fn and records one version if fn changed anything; it returns the
// version that holds then.
func (r *Registry) change(ctx context.Context, reason string, fn func(context.Context, *change) error) (version int64, err error) {
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		var last int64
		var at signal.Micros
		if err := tx.QueryRowContext(ctx, `SELECT version, recorded_at FROM version ORDER BY version DESC LIMIT 1`).Scan(&last, &at); err != nil {
			return err
		}
		// Recorded time does not run backwards, whatever the clock does.
		c := &change{tx: tx, version: last + 1, now: max(at, signal.MicrosOf(r.clock.Now())), reason: reason}
		if err := fn(ctx, c); err != nil {
			return err
		}
		version = last
		if c.begun {
			version = c.version
			return c.checkIDs(ctx)
		}
		return nil
	})
	return version, err
}

func (c *change) assets(ctx context.Context, a signal.Asset) ([]signal.AssetMeta, error) {
	return selectAssets(ctx, c.tx, `WHERE recorded_to = ? AND asset = ? ORDER BY valid_from`, current, a)
}

func (c *change) sensors(ctx context.Context, p signal.Path) ([]signal.SensorMeta, error) {
	return selectSensors(ctx, c.tx, `WHERE recorded_to = ? AND path = ? ORDER BY valid_from`, current, p)
}

// identifyAssets gives rows without an id the one that their name has.
func (c *change) identifyAssets(ctx context.Context, was, rows []signal.AssetMeta) error {
	id := ""
	if len(was) > 0 {
		id = was[0].AssetID
	}
	for i := range rows {
		if rows[i].AssetID != "" {
			continue
		}
		if id == "" {
			var err error
			if id, err = c.freshID(ctx, "asset", string(rows[i].Asset), `SELECT count(*) FROM asset WHERE asset_id = ? AND asset <> ?`); err != nil {
				return err
			}
		}
		rows[i].AssetID = id
	}
	return nil
}

// identifySensors gives rows without an id the one that their path has.
func (c *change) identifySensors(ctx context.Context, was, rows []signal.SensorMeta) error {
	id := ""
	if len(was) > 0 {
		id = was[0].SensorID
	}
	for i := range rows {
		if rows[i].SensorID != "" {
			continue
		}
		if id == "" {
			var err error
			if id, err = c.freshID(ctx, "sensor", string(rows[i].Path), `SELECT count(*) FROM sensor WHERE sensor_id = ? AND path <> ?`); err != nil {
				return err
			}
		}
		rows[i].SensorID = id
	}
	return nil
}

// freshID finds an id for a name that nothing else has ever had: something that
// was renamed keeps the id of its old name.
func (c *change) freshID(ctx context.Context, kind, name, others string) (string, error) {
	for attempt := 0; ; attempt++ {
		id := newID(kind, name, attempt)
		var n int
		if err := c.tx.QueryRowContext(ctx, others, id, name).Scan(&n); err != nil || n == 0 {
			return id, err
		}
	}
}

// assetRows brings rows of one asset into its timeline.
func (c *change) assetRows(ctx context.Context, how mode, rows []signal.AssetMeta) error {
	was, err := c.assets(ctx, rows[0].Asset)
	if err != nil {
		return err
	}
	if err := c.identifyAssets(ctx, was, rows); err != nil {
		return err
	}
	want, err := merge(how, was, rows)
	if err != nil {
		return err
	}
	return set(ctx, c, was, want, `UPDATE asset SET recorded_to = ? WHERE recorded_to = ? AND asset = ? AND valid_from = ?`, insertAsset)
}

// sensorRows brings rows of one path into its timeline.
func (c *change) sensorRows(ctx context.Context, how mode, rows []signal.SensorMeta) error {
	was, err := c.sensors(ctx, rows[0].Path)
	if err != nil {
		return err
	}
	if err := c.identifySensors(ctx, was, rows); err != nil {
		return err
	}
	want, err := merge(how, was, rows)
	if err != nil {
		return err
	}
	if err := c.ensureAsset(ctx, rows[0].Path.Asset()); err != nil {
		return err
	}
	return set(ctx, c, was, want, `UPDATE sensor SET recorded_to = ? WHERE recorded_to = ? AND path = ? AND valid_from = ?`, insertSensor)
}

// ensureAsset registers an asset that nothing is known of.
func (c *change) ensureAsset(ctx context.Context, a signal.Asset) error {
	was, err := c.assets(ctx, a)
	if err != nil || len(was) > 0 {
		return err
	}
	return c.assetRows(ctx, add, []signal.AssetMeta{{Asset: a, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime}})
}

// set makes want the timeline of a name: rows that hold no longer are closed,
// new ones added, equal ones left alone.
func set[M row](ctx context.Context, c *change, was, want []M, closing string, insert func(context.Context, *sql.Tx, M, int64) error) error {
	if slices.Equal(was, want) {
		return nil
	}
	if !c.begun {
		c.begun = true
		if _, err := c.tx.ExecContext(ctx, `INSERT INTO version (version, recorded_at, reason) VALUES (?, ?, ?)`, c.version, c.now, c.reason); err != nil {
			return err
		}
	}
	for _, w := range was {
		if slices.Contains(want, w) {
			continue
		}
		from, _ := span(&w)
		if _, err := c.tx.ExecContext(ctx, closing, c.version, current, name(w), *from); err != nil {
			return fmt.Errorf("closing a row of %s: %w", name(w), err)
		}
	}
	for _, m := range want {
		if slices.Contains(was, m) {
			continue
		}
		if err := insert(ctx, c.tx, m, c.version); err != nil {
			return fmt.Errorf("recording a row of %s: %w", name(m), err)
		}
	}
	return nil
}

// IDError says that two names would have one id at the same time.
type IDError struct{ ID, Name, Other string }

func (e *IDError) Error() string {
	return fmt.Sprintf("id %s is at %s and at %s at the same time; end one before the other begins", e.ID, e.Name, e.Other)
}

// checkIDs looks, at the end of a change, whether an id that it recorded stands
// at two names at once.
func (c *change) checkIDs(ctx context.Context) error {
	for _, t := range []struct{ table, id, name string }{{"asset", "asset_id", "asset"}, {"sensor", "sensor_id", "path"}} {
		query := fmt.Sprintf(`SELECT a.%[2]s, a.%[3]s, b.%[3]s FROM %[1]s a JOIN %[1]s b ON b.%[2]s = a.%[2]s AND b.recorded_to = ?2
			WHERE a.recorded_from = ?1 AND a.recorded_to = ?2 AND a.%[3]s <> b.%[3]s AND a.valid_from < b.valid_to AND b.valid_from < a.valid_to LIMIT 1`, t.table, t.id, t.name)
		var e IDError
		switch err := c.tx.QueryRowContext(ctx, query, c.version, current).Scan(&e.ID, &e.Name, &e.Other); {
		case err == nil:
			return &e
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
	}
	return nil
}
