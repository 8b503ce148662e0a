package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// Registry is the authority on assets and sensors. Its versions are published
// as the tables registry.assets and registry.sensors, and every silver batch is
// pinned to one of them.
type Registry interface {
	// Version is the newest version, above 0.
	Version(ctx context.Context) (int64, error)
	// Rows are the rows of a version, which never change.
	Rows(ctx context.Context, version int64) ([]signal.AssetMeta, []signal.SensorMeta, error)
	// Ensure registers the paths that are unknown.
	Ensure(ctx context.Context, paths []signal.Path) error
}

// maxHold bounds how long a value may be held: every held minute is a row.
const maxHold = 24 * 3600 * 1_000_000

const registryApp = "headrace/registry"

func assetFields() []delta.Field {
	return []delta.Field{
		{Name: "asset", Type: delta.String},
		{Name: "asset_id", Type: delta.String},
		{Name: "class", Type: delta.String},
		{Name: "description", Type: delta.String},
		{Name: "owner", Type: delta.String},
		{Name: "claimed", Type: delta.Boolean},
		{Name: "valid_from", Type: delta.Timestamp},
		{Name: "valid_to", Type: delta.Timestamp},
		{Name: "registry_version", Type: delta.Long},
		{Name: "mounting", Type: delta.String},
		{Name: "rpm", Type: delta.Double},
		{Name: "bearing_name", Type: delta.String},
		{Name: "bpfo", Type: delta.Double},
		{Name: "bpfi", Type: delta.Double},
		{Name: "bsf2", Type: delta.Double},
		{Name: "ftf", Type: delta.Double},
		{Name: "healthy_asset", Type: delta.String},
		{Name: "healthy_from", Type: delta.Timestamp},
		{Name: "healthy_to", Type: delta.Timestamp},
	}
}

func sensorFields() []delta.Field {
	return []delta.Field{
		{Name: "path", Type: delta.String},
		{Name: "sensor_id", Type: delta.String},
		{Name: "unit", Type: delta.String},
		{Name: "kind", Type: delta.String},
		{Name: "min_possible", Type: delta.Double},
		{Name: "max_possible", Type: delta.Double},
		{Name: "interpolation", Type: delta.String},
		{Name: "max_hold_us", Type: delta.Long},
		{Name: "owner", Type: delta.String},
		{Name: "claimed", Type: delta.Boolean},
		{Name: "valid_from", Type: delta.Timestamp},
		{Name: "valid_to", Type: delta.Timestamp},
		{Name: "registry_version", Type: delta.Long},
		{Name: "stuck_after_us", Type: delta.Long},
	}
}

func columnsOf(fields []delta.Field) []duck.Column {
	out := make([]duck.Column, len(fields))
	for i, f := range fields {
		t := duck.String
		switch f.Type {
		case delta.Double:
			t = duck.Float64
		case delta.Long:
			t = duck.Int64
		case delta.Boolean:
			t = duck.Bool
		case delta.Timestamp:
			t = duck.Timestamp
		}
		out[i] = duck.Column{Name: f.Name, Type: t}
	}
	return out
}

// registryRows is one version of the registry, kept in a session's tables
// registry.assets and registry.sensors.
type registryRows struct {
	version int64
	loaded  bool
}

// load brings a version into the session.
func (r *registryRows) load(ctx context.Context, s *duck.Session, reg Registry, version int64) error {
	if r.loaded && r.version == version {
		return nil
	}
	r.loaded = false
	assets, sensors, err := reg.Rows(ctx, version)
	if err != nil {
		return fmt.Errorf("reading registry version %d: %w", version, err)
	}
	a := duck.NewAppender(columnsOf(assetFields()))
	defer a.Release()
	for _, m := range assets {
		a.String(0, string(m.Asset))
		a.String(1, m.AssetID)
		a.String(2, m.Class)
		a.String(3, m.Description)
		a.String(4, m.Owner)
		a.Bool(5, m.Claimed)
		a.Timestamp(6, int64(clampTime(m.ValidFrom)))
		a.Timestamp(7, int64(min(m.ValidTo, signal.MaxTime)))
		a.Int64(8, version)
		appendMachine(a, m)
		if err := a.EndRow(); err != nil {
			return fmt.Errorf("reading registry version %d: %w", version, err)
		}
	}
	if err := loadRows(ctx, s, tableAssets, a); err != nil {
		return err
	}
	b := duck.NewAppender(columnsOf(sensorFields()))
	defer b.Release()
	for _, m := range sensors {
		if err := appendSensor(b, m, version); err != nil {
			return fmt.Errorf("reading registry version %d: sensor %s: %w", version, m.Path, err)
		}
	}
	if err := loadRows(ctx, s, tableSensors, b); err != nil {
		return err
	}
	r.version, r.loaded = version, true
	return nil
}

func appendMachine(a *duck.Appender, m signal.AssetMeta) {
	a.String(9, m.Mounting)
	a.Float64(10, m.RPM)
	a.String(11, m.Bearing.Name)
	for i, order := range []float64{m.Bearing.BPFO, m.Bearing.BPFI, m.Bearing.BSF2, m.Bearing.FTF} {
		a.Float64(12+i, order)
	}
	a.String(16, string(m.Healthy.Asset))
	for i, at := range []signal.Micros{m.Healthy.From, m.Healthy.To} {
		if m.Healthy.To == 0 {
			a.Null(17 + i)
		} else {
			a.Timestamp(17+i, int64(clampTime(at)))
		}
	}
}

func appendSensor(b *duck.Appender, m signal.SensorMeta, version int64) error {
	// Windows hold values as steps; a path that is to be read as a line says so
	// in its row, and the window says how it was calculated.
	switch m.Interpolation {
	case "", "step", "linear":
	default:
		return fmt.Errorf("interpolation %q is not step or linear", m.Interpolation)
	}
	if math.IsNaN(m.MinPossible) || math.IsNaN(m.MaxPossible) {
		return errors.New("limit is not a number; a sensor without limits has infinite ones")
	}
	b.String(0, string(m.Path))
	b.String(1, m.SensorID)
	b.String(2, m.Unit)
	b.String(3, m.Kind)
	b.Float64(4, m.MinPossible)
	b.Float64(5, m.MaxPossible)
	if m.Interpolation == "" {
		m.Interpolation = "step"
	}
	b.String(6, m.Interpolation)
	b.Int64(7, min(max(m.MaxHoldMicros, 0), maxHold))
	b.String(8, m.Owner)
	b.Bool(9, m.Claimed)
	b.Timestamp(10, int64(clampTime(m.ValidFrom)))
	b.Timestamp(11, int64(min(m.ValidTo, signal.MaxTime)))
	b.Int64(12, version)
	b.Int64(13, m.StuckAfterMicros)
	return b.EndRow()
}

// loadRows puts appended rows into a session table; the appender may be empty.
func loadRows(ctx context.Context, s *duck.Session, table string, a *duck.Appender) error {
	batch, err := a.Finish()
	if err != nil {
		return fmt.Errorf("loading %s: %w", table, err)
	}
	defer batch.Release()
	rows := strings.ReplaceAll(table, ".", "_")
	if err := s.Load(ctx, rows, batch); err != nil {
		return fmt.Errorf("loading %s: %w", table, err)
	}
	return s.Exec(ctx, "CREATE OR REPLACE VIEW "+table+" AS SELECT * FROM "+rows)
}

// publish replaces the registry's tables with the session's version, unless
// they hold it or a later one.
func (w *Worker) publish(ctx context.Context, s *duck.Session, version int64) error {
	for _, name := range []string{tableAssets, tableSensors} {
		if err := w.publishTable(ctx, s, name, version); err != nil && !errors.Is(err, delta.ErrTxnMoved) {
			return fmt.Errorf("publishing %s: %w", name, err)
		}
	}
	return nil
}

func (w *Worker) publishTable(ctx context.Context, s *duck.Session, name string, version int64) error {
	t := w.tables[name]
	snap, err := t.Refresh(ctx)
	if err != nil {
		return err
	}
	stored := snap.Txn(registryApp)
	if stored >= version {
		return nil
	}
	c := delta.Commit{
		ReadVersion: snap.Version(), Operation: "WRITE",
		Parameters: map[string]string{"mode": "Overwrite", "registryVersion": strconv.FormatInt(version, 10)},
		Txns:       []delta.TxnStep{{AppID: registryApp, From: stored, To: version}},
	}
	for _, f := range snap.Files() {
		c.Removes = append(c.Removes, f.Path)
	}
	file, ok, err := copyInto(ctx, s, t, "SELECT * FROM "+name, nil)
	if err != nil {
		return err
	}
	if ok {
		c.Adds = append(c.Adds, file.file)
	}
	_, err = t.Commit(ctx, c)
	if ok && errors.Is(err, delta.ErrTxnMoved) {
		_ = os.Remove(file.path) // nobody's: the commit was refused
	}
	return err
}
