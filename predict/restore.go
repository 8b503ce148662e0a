package predict

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/health"
)

// restore brings the memory to where the tables are: silver up to what
// features.vibration is made of is read again without writing, then what was not
// scored, and what the alerts have not seen.
func (w *Worker) restore(ctx context.Context) error {
	w.channels, w.states = map[channelKey]*channel{}, map[signal.Asset][]stateAt{}
	w.monitor = health.New(func(p signal.Path, at signal.Micros) (signal.SensorMeta, bool) { return w.registry.Sensor(p, at) })
	w.silver.at, w.quarantine.at, w.windows.at = 0, 0, w.tables[tableProcess].Last().Txn(processApp)
	made := w.tables[tableVibration].Last().Txn("headrace/" + tableVibration)
	for {
		files, to, err := w.silver.added(ctx, w.LakeDir, made)
		if err != nil {
			return err
		}
		if to == w.silver.at {
			break
		}
		if err := w.readSilver(ctx, files, w.take); err != nil {
			return err
		}
		if err := w.tellAlarms(ctx); err != nil {
			return err
		}
		w.silver.at = to
		for _, k := range w.keys() {
			c := w.channels[k]
			for _, row := range w.changed(k, c) {
				c.emitted[row.event] = row.emitted
				delete(c.touched, row.event)
			}
		}
		w.forget()
	}
	cat := w.catalog
	if err := cat.Refresh(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *catalog.Catalog) error{w.restoreStamp, w.restoreModels, w.restorePublished, w.restorePending, w.restoreAlerts} {
		if err := w.engine(ctx, func(ctx context.Context) error { return step(ctx, cat) }); err != nil {
			return fmt.Errorf("going on where the tables are: %w", err)
		}
	}
	return nil
}

// each scans the rows of a query.
func each(ctx context.Context, s *duck.Session, query string, scan func(*sql.Rows) error) error {
	rows, err := s.Query(ctx, query)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := scan(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// restoreStamp keeps availability from running back: a replay's clock may start
// behind what was written before.
func (w *Worker) restoreStamp(ctx context.Context, cat *catalog.Catalog) error {
	for _, of := range []struct{ table, column string }{
		{tableVibration, "available_time"},
		{tableProcess, "available_time"},
		{tableModels, "trained_at"},
		{tablePredictions, "available_time"},
		{tableHealth, "available_time"},
	} {
		from, err := cat.Relation(of.table)
		if err != nil {
			return err
		}
		err = each(ctx, w.session, `SELECT coalesce(epoch_us(max(`+of.column+`)), 0) FROM `+from, func(rows *sql.Rows) error {
			var at signal.Micros
			err := rows.Scan(&at)
			w.lastStamp = max(w.lastStamp, at)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) restoreModels(ctx context.Context, cat *catalog.Catalog) error {
	from, err := cat.Relation(tableModels)
	if err != nil {
		return err
	}
	vibration, err := cat.Relation(tableVibration)
	if err != nil {
		return err
	}
	// A model that lacks a late window of its healthy period is learnt anew.
	return each(ctx, w.session, `SELECT m.asset, m.sensor, m.healthy_asset, epoch_us(m.healthy_from), epoch_us(m.healthy_to), m.content,
			EXISTS (SELECT 1 FROM `+vibration+` f WHERE f.asset = m.healthy_asset AND f.sensor = m.sensor
				AND f.event_time > m.healthy_from AND f.event_time <= m.healthy_to AND f.available_time > m.trained_at)
		FROM `+from+` m ORDER BY m.trained_at`, func(rows *sql.Rows) error {
		var k channelKey
		var h signal.Healthy
		var content string
		var stale bool
		if err := rows.Scan(&k.asset, &k.sensor, &h.Asset, &h.From, &h.To, &content, &stale); err != nil {
			return err
		}
		if stale {
			delete(w.models, k)
			return nil
		}
		m, err := model.Parse([]byte(content))
		if err != nil {
			return err
		}
		w.models[k] = &trained{Model: m, healthy: h}
		return nil
	})
}

func (w *Worker) restorePublished(ctx context.Context, cat *catalog.Catalog) error {
	from, err := cat.Relation(tableHealth)
	if err != nil {
		return err
	}
	return each(ctx, w.session, `SELECT path, kind, epoch_us(since), coalesce(epoch_us(until), 0) FROM `+from+` ORDER BY available_time`, func(rows *sql.Rows) error {
		var k faultKey
		var until signal.Micros
		if err := rows.Scan(&k.path, &k.kind, &k.since, &until); err != nil {
			return err
		}
		w.published[k] = until
		return nil
	})
}

// restorePending finds the feature rows without a prediction.
func (w *Worker) restorePending(ctx context.Context, cat *catalog.Catalog) error {
	rows, err := cat.Relation(tableVibration)
	if err != nil {
		return err
	}
	predictions, err := cat.Relation(tablePredictions)
	if err != nil {
		return err
	}
	return featureRows(ctx, w.session, `(SELECT f.* FROM `+rows+` f ANTI JOIN `+predictions+` p
		ON p.asset = f.asset AND p.sensor = f.sensor AND p.event_time = f.event_time AND p.feature_available = f.available_time)`,
		func(k channelKey, row featureRow) {
			c := w.channels[k]
			if c == nil {
				c = &channel{touched: map[signal.Micros]bool{}, emitted: map[signal.Micros]emitted{}}
				w.channels[k] = c
			}
			c.pending = append(c.pending, row)
		})
}

// featureRows scans rows of features.vibration, in the order of their times.
func featureRows(ctx context.Context, s *duck.Session, from string, fn func(channelKey, featureRow)) error {
	var columns strings.Builder
	for _, name := range features.Names() {
		columns.WriteString(", coalesce(" + name + ", 'nan'::DOUBLE)")
	}
	return each(ctx, s, `SELECT asset, sensor, epoch_us(event_time), epoch_us(available_time), op = 'D', running, windows`+columns.String()+` FROM `+from+` ORDER BY asset, sensor, event_time, available_time, silver_version`, func(rows *sql.Rows) error {
		var k channelKey
		var row featureRow
		to := []any{&k.asset, &k.sensor, &row.event, &row.available, &row.retracted, &row.running, &row.windows}
		for i := range row.vector {
			to = append(to, &row.vector[i])
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		fn(k, row)
		return nil
	})
}

// healthyRows are a healthy period's features as they are known at a time: what
// is learnt is learnt from what was available then.
func (w *Worker) healthyRows(ctx context.Context, h signal.Healthy, sensor string, known signal.Micros) (out [][]float64, err error) {
	cat := w.catalog
	if err := cat.Refresh(ctx); err != nil {
		return nil, err
	}
	from, err := cat.Relation(tableVibration, catalog.Range{Column: "event_time", Min: h.From, Max: h.To},
		catalog.Range{Column: "asset", Min: string(h.Asset), Max: string(h.Asset)})
	if err != nil {
		return nil, err
	}
	var list []features.Row
	var rows []featureRow
	err = w.engine(ctx, func(ctx context.Context) error {
		return featureRows(ctx, w.session, from, func(k channelKey, row featureRow) {
			if k.asset == h.Asset && k.sensor == sensor && row.event > h.From && row.event <= h.To {
				list = append(list, row.asOf(len(list)))
				rows = append(rows, row)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the healthy period of %s: %w", h.Asset, err)
	}
	for _, i := range features.Known(list, known) {
		if row := &rows[i]; row.running && row.windows >= features.Least {
			out = append(out, row.vector[:])
		}
	}
	return out, nil
}

// restoreAlerts hands the alerts the predictions that they may not have seen.
func (w *Worker) restoreAlerts(ctx context.Context, cat *catalog.Catalog) error {
	cursor, err := w.Alerts.Cursor(ctx)
	if err != nil {
		return err
	}
	from, err := cat.Relation(tablePredictions, catalog.Range{Column: "event_time", Min: cursor})
	if err != nil {
		return err
	}
	var out []model.Prediction
	err = each(ctx, w.session, `SELECT asset, sensor, epoch_us(event_time), epoch_us(available_time), epoch_us(feature_available), status, model,
			coalesce(t2, 0), coalesce(t2_limit, 0), coalesce(q, 0), coalesce(q_limit, 0), coalesce(score, 0), contributions
		FROM `+from+` ORDER BY asset, sensor, event_time, available_time`, func(rows *sql.Rows) error {
		var p model.Prediction
		var text string
		if err := rows.Scan(&p.Asset, &p.Sensor, &p.Event, &p.Available, &p.FeatureAvailable, &p.Status, &p.Model, &p.T2, &p.T2Limit, &p.Q, &p.QLimit, &p.Score, &text); err != nil {
			return err
		}
		out = append(out, p)
		return json.Unmarshal([]byte(text), &out[len(out)-1].Contributions)
	})
	if err != nil || len(out) == 0 {
		return err
	}
	return w.tell(ctx, out)
}
