package predict

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/signal"
)

// publishHealth writes the findings that gold.sensor_health does not have.
func (w *Worker) publishHealth(ctx context.Context) error {
	findings := w.monitor.Findings()
	open := int64(0)
	app := appender(healthColumns())
	at := w.stamp()
	news := map[faultKey]signal.Micros{}
	for _, f := range findings {
		if f.Until == 0 {
			open++
		}
		k := faultKey{f.Path, f.Kind, f.Since}
		if until, ok := w.published[k]; ok && until == f.Until {
			continue
		}
		if until, ok := news[k]; ok && until == f.Until {
			continue
		}
		news[k] = f.Until
		app.String(0, string(f.Path))
		app.String(1, f.Kind)
		state := "open"
		if f.Until != 0 {
			state = "ended"
		}
		app.String(2, state)
		app.Timestamp(3, int64(f.Since))
		if f.Until != 0 {
			app.Timestamp(4, int64(f.Until))
		} else {
			app.Null(4)
		}
		app.Timestamp(5, int64(f.Detected))
		app.String(6, f.Evidence)
		app.String(7, f.Owner)
		app.Timestamp(8, int64(max(f.Detected, f.Until)))
		app.Timestamp(9, int64(at))
		app.Int32(10, int32(pipeline.Shard(f.Path.Asset())))
		if err := app.EndRow(); err != nil {
			app.Release()
			return fmt.Errorf("writing %s: %w", tableHealth, err)
		}
	}
	if err := w.write(ctx, tableHealth, app, w.next(tableHealth)); err != nil {
		return err
	}
	maps.Copy(w.published, news)
	w.mu.Lock()
	w.findings, w.counts.findings = findings, open
	w.mu.Unlock()
	return nil
}

// process is what is remembered of features.process.
type process struct {
	newest map[signal.Asset]signal.Micros // greatest start of a window
	wait   map[minute]bool                // minutes that may have changed
	wrote  map[minute]string              // means as written
}

type minute struct {
	asset signal.Asset
	start signal.Micros
}

const minuteMicros = signal.Micros(60_000_000)

// processApp is the transaction of features.process: the version of
// gold.windows_1m that it is made of.
const processApp = "headrace/" + tableProcess

// processDefinition names how features.process is made.
const processDefinition = "process/1 minute means"

// processFeatures makes rows of the minutes of gold.windows_1m that are over and
// have changed.
func (w *Worker) processFeatures(ctx context.Context) (progress bool, err error) {
	files, to, err := w.windows.added(ctx, w.LakeDir, -1)
	if err != nil || to == w.windows.at {
		return false, err
	}
	p := &w.process
	if p.newest == nil {
		*p = process{map[signal.Asset]signal.Micros{}, map[minute]bool{}, map[minute]string{}}
	}
	if len(files) > 0 {
		if err := w.touchMinutes(ctx, files); err != nil {
			return false, err
		}
	}
	if err := w.writeMinutes(ctx, to); err != nil {
		return false, err
	}
	w.windows.at = to
	return true, nil
}

func (w *Worker) touchMinutes(ctx context.Context, files []*delta.File) error {
	from, err := relation(w.windows.table, files)
	if err != nil {
		return err
	}
	return w.engine(ctx, func(ctx context.Context) error {
		return each(ctx, w.session, `SELECT DISTINCT asset, epoch_us(window_start) FROM `+from, func(rows *sql.Rows) error {
			var m minute
			if err := rows.Scan(&m.asset, &m.start); err != nil {
				return err
			}
			w.process.wait[m] = true
			w.process.newest[m.asset] = max(w.process.newest[m.asset], m.start)
			return nil
		})
	})
}

func (w *Worker) writeMinutes(ctx context.Context, to int64) error {
	p := &w.process
	var due []minute
	least, greatest := signal.MaxTime, signal.MinTime
	for m := range p.wait {
		if m.start < p.newest[m.asset] {
			due = append(due, m)
			least, greatest = min(least, m.start), max(greatest, m.start)
		}
	}
	if len(due) == 0 {
		return nil
	}
	means, err := w.means(ctx, least, greatest)
	if err != nil {
		return err
	}
	slices.SortFunc(due, func(a, b minute) int {
		if a.start != b.start {
			return int(max(min(a.start-b.start, 1), -1))
		}
		return slices.Compare([]byte(a.asset), []byte(b.asset))
	})
	app := appender(processColumns())
	at := w.stamp()
	wrote := map[minute]string{}
	for _, m := range due {
		text, err := json.Marshal(means[m]) // sorted by name
		if err != nil {
			app.Release()
			return fmt.Errorf("writing %s: %w", tableProcess, err)
		}
		if len(means[m]) == 0 || p.wrote[m] == string(text) {
			continue
		}
		wrote[m] = string(text)
		end := m.start + minuteMicros
		app.String(0, string(m.asset))
		app.Timestamp(1, int64(end))
		app.Timestamp(2, int64(at))
		app.String(3, processDefinition)
		app.String(4, "I")
		app.Bool(5, w.running(m.asset, end-1))
		app.String(6, w.stateOf(m.asset, end-1))
		serviced := signal.Micros(0)
		if w.LastService != nil {
			if serviced, err = w.LastService(ctx, m.asset, at); err != nil {
				app.Release()
				return err
			}
		}
		if serviced > 0 && serviced <= end {
			app.Float64(7, float64(end-serviced)/3.6e9)
		} else {
			app.Null(7)
		}
		app.String(8, string(text))
		app.Int32(9, int32(pipeline.Shard(m.asset)))
		if err := app.EndRow(); err != nil {
			app.Release()
			return fmt.Errorf("writing %s: %w", tableProcess, err)
		}
	}
	txn := delta.TxnStep{AppID: processApp, From: w.tables[tableProcess].Last().Txn(processApp), To: to}
	if err := w.write(ctx, tableProcess, app, txn); err != nil {
		return err
	}
	for _, m := range due {
		delete(p.wait, m)
	}
	maps.Copy(p.wrote, wrote)
	maps.DeleteFunc(p.wrote, func(m minute, _ string) bool { return m.start < p.newest[m.asset]-horizon })
	w.mu.Lock()
	w.counts.process += int64(len(wrote))
	w.mu.Unlock()
	return nil
}

// means are the time-weighted means of the minutes' slow sensors.
func (w *Worker) means(ctx context.Context, from, to signal.Micros) (map[minute]map[string]float64, error) {
	cat := w.catalog
	if err := cat.Refresh(ctx); err != nil {
		return nil, err
	}
	relation, err := cat.Relation(tableWindows, catalog.Range{Column: "window_start", Min: from, Max: to})
	if err != nil {
		return nil, err
	}
	out := map[minute]map[string]float64{}
	err = w.engine(ctx, func(ctx context.Context) error {
		return each(ctx, w.session, fmt.Sprintf(`SELECT asset, epoch_us(window_start), sensor, mean FROM %s
			WHERE mean IS NOT NULL AND NOT contains(sensor, '.') AND window_start BETWEEN make_timestamptz(%d) AND make_timestamptz(%d)`, relation, from, to), func(rows *sql.Rows) error {
			var m minute
			var sensor string
			var mean float64
			if err := rows.Scan(&m.asset, &m.start, &sensor, &mean); err != nil {
				return err
			}
			if out[m] == nil {
				out[m] = map[string]float64{}
			}
			out[m][sensor] = mean
			return nil
		})
	})
	return out, err
}
