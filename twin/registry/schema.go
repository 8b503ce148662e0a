package registry

import (
	"context"
	"database/sql"
	"math"

	"github.com/headrace/headrace/signal"
)

// current is the recorded_to of a row that still holds.
const current int64 = math.MaxInt64

// migrations is the schema and its history. The triggers keep the rules even
// against a hand at the file.
func migrations() []string {
	return []string{`
CREATE TABLE version (
  version     INTEGER PRIMARY KEY,
  recorded_at INTEGER NOT NULL, -- microseconds since 1970, UTC
  reason      TEXT NOT NULL
) STRICT;

CREATE TABLE asset (
  asset         TEXT NOT NULL,  -- site/line/asset
  asset_id      TEXT NOT NULL,
  class         TEXT NOT NULL,
  description   TEXT NOT NULL,
  owner         TEXT NOT NULL,  -- '' unowned
  claimed       INTEGER NOT NULL,
  valid_from    INTEGER NOT NULL,
  valid_to      INTEGER NOT NULL CHECK (valid_from < valid_to),
  recorded_from INTEGER NOT NULL REFERENCES version,
  recorded_to   INTEGER NOT NULL DEFAULT 9223372036854775807 CHECK (recorded_from < recorded_to)
) STRICT;
CREATE INDEX asset_recorded ON asset (recorded_to, asset);
CREATE INDEX asset_by_id ON asset (asset_id, recorded_to);
CREATE INDEX asset_by_version ON asset (recorded_from);

CREATE TABLE sensor (
  path          TEXT NOT NULL,  -- site/line/asset/sensor
  sensor_id     TEXT NOT NULL,
  unit          TEXT NOT NULL,  -- UCUM
  kind          TEXT NOT NULL,
  min_possible  REAL NOT NULL,
  max_possible  REAL NOT NULL CHECK (min_possible <= max_possible),
  interpolation TEXT NOT NULL CHECK (interpolation IN ('step', 'linear')),
  max_hold_us   INTEGER NOT NULL CHECK (max_hold_us > 0),
  owner         TEXT NOT NULL,
  claimed       INTEGER NOT NULL,
  valid_from    INTEGER NOT NULL,
  valid_to      INTEGER NOT NULL CHECK (valid_from < valid_to),
  recorded_from INTEGER NOT NULL REFERENCES version,
  recorded_to   INTEGER NOT NULL DEFAULT 9223372036854775807 CHECK (recorded_from < recorded_to)
) STRICT;
CREATE INDEX sensor_recorded ON sensor (recorded_to, path);
CREATE INDEX sensor_by_id ON sensor (sensor_id, recorded_to);
CREATE INDEX sensor_by_version ON sensor (recorded_from);
` + guards("asset", "asset", firstAssetColumns) + guards("sensor", "path", firstSensorColumns), `
ALTER TABLE asset ADD COLUMN mounting TEXT NOT NULL DEFAULT '';
ALTER TABLE asset ADD COLUMN rpm REAL NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN bearing_name TEXT NOT NULL DEFAULT '';
ALTER TABLE asset ADD COLUMN bpfo REAL NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN bpfi REAL NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN bsf2 REAL NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN ftf REAL NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN healthy_asset TEXT NOT NULL DEFAULT ''; -- '' its own
ALTER TABLE asset ADD COLUMN healthy_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE asset ADD COLUMN healthy_to INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sensor ADD COLUMN stuck_after_us INTEGER NOT NULL DEFAULT 0; -- 0 for ever
DROP TRIGGER asset_overlap;
DROP TRIGGER asset_closed;
DROP TRIGGER asset_content;
DROP TRIGGER asset_keep;
DROP TRIGGER sensor_overlap;
DROP TRIGGER sensor_closed;
DROP TRIGGER sensor_content;
DROP TRIGGER sensor_keep;
` + guards("asset", "asset", assetColumns) + guards("sensor", "path", sensorColumns)}
}

// The columns that a row had at first.
const (
	firstAssetColumns  = `asset, asset_id, class, description, owner, claimed, valid_from, valid_to`
	firstSensorColumns = `path, sensor_id, unit, kind, min_possible, max_possible, interpolation, max_hold_us, owner, claimed, valid_from, valid_to`
)

// The columns of a row, in the order in which they are read and written.
const (
	assetColumns = `asset, asset_id, class, description, owner, claimed, valid_from, valid_to,
		mounting, rpm, bearing_name, bpfo, bpfi, bsf2, ftf, healthy_asset, healthy_from, healthy_to`
	sensorColumns = `path, sensor_id, unit, kind, min_possible, max_possible, interpolation, max_hold_us, owner, claimed, valid_from, valid_to, stuck_after_us`
)

// guards are the triggers of one table: validity of a name does not overlap,
// rows are only ever closed.
func guards(table, name, columns string) string {
	return `
CREATE TRIGGER ` + table + `_overlap BEFORE INSERT ON ` + table + `
WHEN EXISTS (SELECT 1 FROM ` + table + ` o WHERE o.recorded_to = 9223372036854775807 AND o.` + name + ` = NEW.` + name + `
             AND o.valid_from < NEW.valid_to AND NEW.valid_from < o.valid_to)
BEGIN SELECT RAISE(ABORT, 'validity overlaps'); END;
CREATE TRIGGER ` + table + `_closed BEFORE UPDATE ON ` + table + ` WHEN OLD.recorded_to <> 9223372036854775807
BEGIN SELECT RAISE(ABORT, 'a closed row cannot change'); END;
CREATE TRIGGER ` + table + `_content BEFORE UPDATE OF recorded_from, ` + columns + ` ON ` + table + `
BEGIN SELECT RAISE(ABORT, 'a row can only be closed'); END;
CREATE TRIGGER ` + table + `_keep BEFORE DELETE ON ` + table + `
BEGIN SELECT RAISE(ABORT, 'a row cannot be deleted'); END;
`
}

func newest(ctx context.Context, tx *sql.Tx) (version int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT max(version) FROM version`).Scan(&version)
	return version, err
}

func selectAssets(ctx context.Context, tx *sql.Tx, where string, args ...any) ([]signal.AssetMeta, error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+assetColumns+` FROM asset `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []signal.AssetMeta
	for rows.Next() {
		var m signal.AssetMeta
		if err := rows.Scan(&m.Asset, &m.AssetID, &m.Class, &m.Description, &m.Owner, &m.Claimed, &m.ValidFrom, &m.ValidTo,
			&m.Mounting, &m.RPM, &m.Bearing.Name, &m.Bearing.BPFO, &m.Bearing.BPFI, &m.Bearing.BSF2, &m.Bearing.FTF,
			&m.Healthy.Asset, &m.Healthy.From, &m.Healthy.To); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

func selectSensors(ctx context.Context, tx *sql.Tx, where string, args ...any) ([]signal.SensorMeta, error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+sensorColumns+` FROM sensor `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []signal.SensorMeta
	for rows.Next() {
		var m signal.SensorMeta
		if err := rows.Scan(&m.Path, &m.SensorID, &m.Unit, &m.Kind, &m.MinPossible, &m.MaxPossible, &m.Interpolation, &m.MaxHoldMicros,
			&m.Owner, &m.Claimed, &m.ValidFrom, &m.ValidTo, &m.StuckAfterMicros); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

func insertAsset(ctx context.Context, tx *sql.Tx, m signal.AssetMeta, version int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO asset (`+assetColumns+`, recorded_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.Asset, m.AssetID, m.Class, m.Description, m.Owner, m.Claimed, m.ValidFrom, m.ValidTo,
		m.Mounting, m.RPM, m.Bearing.Name, m.Bearing.BPFO, m.Bearing.BPFI, m.Bearing.BSF2, m.Bearing.FTF,
		m.Healthy.Asset, m.Healthy.From, m.Healthy.To, version)
	return err
}

func insertSensor(ctx context.Context, tx *sql.Tx, m signal.SensorMeta, version int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO sensor (`+sensorColumns+`, recorded_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.Path, m.SensorID, m.Unit, m.Kind, m.MinPossible, m.MaxPossible, m.Interpolation, m.MaxHoldMicros, m.Owner, m.Claimed, m.ValidFrom, m.ValidTo,
		m.StuckAfterMicros, version)
	return err
}
