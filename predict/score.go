package predict

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/signal"
)

func nan() float64 { return math.NaN() }

// trained is a channel's model and the healthy period it was learnt from.
type trained struct {
	*model.Model
	healthy signal.Healthy
	// failed says why there is none from that period, so that it is not tried again.
	failed bool
}

// keys are the channels in order, so that what is written is the same every time.
func (w *Worker) keys() []channelKey {
	return slices.SortedFunc(maps.Keys(w.channels), func(a, b channelKey) int {
		return cmp.Or(cmp.Compare(a.asset, b.asset), cmp.Compare(a.sensor, b.sensor))
	})
}

// writeFeatures commits the rows that silver up to a version has changed.
func (w *Worker) writeFeatures(ctx context.Context, to int64) error {
	app := appender(vibrationColumns())
	at := w.stamp()
	type fresh struct {
		key channelKey
		c   *channel
		featureRow
	}
	var rows []fresh
	for _, k := range w.keys() {
		c := w.channels[k]
		for _, row := range w.changed(k, c) {
			row.available = at
			rows = append(rows, fresh{k, c, row})
			app.String(0, string(k.asset))
			app.String(1, k.sensor)
			app.Timestamp(2, int64(row.event))
			app.Timestamp(3, int64(at))
			app.String(4, features.Definition())
			app.String(5, "I")
			app.Bool(6, row.running)
			app.Int32(7, int32(row.windows))
			for i, v := range row.vector {
				if math.IsNaN(v) {
					app.Null(8 + i)
				} else {
					app.Float64(8+i, v)
				}
			}
			app.Int64(8+len(row.vector), to)
			app.Int32(9+len(row.vector), int32(pipeline.Shard(k.asset)))
			if err := app.EndRow(); err != nil {
				app.Release()
				return fmt.Errorf("writing %s: %w", tableVibration, err)
			}
		}
	}
	txn := delta.TxnStep{AppID: "headrace/" + tableVibration, From: w.tables[tableVibration].Last().Txn("headrace/" + tableVibration), To: to}
	if err := w.write(ctx, tableVibration, app, txn); err != nil {
		return err
	}
	if len(rows) > 0 {
		w.Reached.At("predict.features_committed")
	}
	for _, r := range rows {
		r.c.emitted[r.event] = r.emitted
		delete(r.c.touched, r.event)
		r.c.pending = append(r.c.pending, r.featureRow)
		w.forgetModels(r.key, r.event)
	}
	w.mu.Lock()
	w.counts.features += int64(len(rows))
	w.mu.Unlock()
	w.forget()
	return nil
}

// changed are the touched windows of a channel that are whole and whose features
// differ from what was written; the others stay touched, or are let go.
func (w *Worker) changed(k channelKey, c *channel) (out []featureRow) {
	for _, end := range slices.Sorted(maps.Keys(c.touched)) {
		if !c.history.Complete(end) {
			continue
		}
		now := emitted{running: w.running(k.asset, end)}
		now.vector, now.windows = c.history.At(end, func(e signal.Micros) bool { return w.running(k.asset, e) })
		if old, ok := c.emitted[end]; ok && old.equal(now) {
			delete(c.touched, end)
			continue
		}
		out = append(out, featureRow{event: end, emitted: now})
	}
	return out
}

func (e emitted) equal(o emitted) bool {
	if e.running != o.running || e.windows != o.windows {
		return false
	}
	for i, v := range e.vector {
		if v != o.vector[i] && !(math.IsNaN(v) && math.IsNaN(o.vector[i])) {
			return false
		}
	}
	return true
}

func (w *Worker) forget() {
	for _, c := range w.channels {
		before := c.history.Newest() - horizon
		c.history.Forget(before)
		maps.DeleteFunc(c.emitted, func(e signal.Micros, _ emitted) bool { return e < before })
		maps.DeleteFunc(c.touched, func(e signal.Micros, _ bool) bool { return e < before })
	}
}

// modelFor returns the model by which a row of a channel is scored; wait tells
// that there will be one.
func (w *Worker) modelFor(ctx context.Context, k channelKey, at signal.Micros) (m *model.Model, wait bool, err error) {
	meta, ok := w.registry.Asset(k.asset, at)
	h := meta.Healthy
	if !ok || h.To == 0 {
		return nil, false, nil
	}
	if h.Asset == "" {
		h.Asset = k.asset
	}
	if t := w.models[k]; t != nil && t.healthy == h {
		return t.Model, t.failed && !w.over(h, k.sensor), nil
	}
	if !w.over(h, k.sensor) {
		return nil, true, nil
	}
	t, err := w.train(ctx, k, h)
	if err != nil {
		return nil, false, err
	}
	w.models[k] = t
	return t.Model, false, nil
}

// forgetModels drops the models that were learnt without a window that belongs
// to their healthy period and came late: they are learnt anew when they are
// needed. What they said keeps their name.
func (w *Worker) forgetModels(k channelKey, event signal.Micros) {
	maps.DeleteFunc(w.models, func(of channelKey, t *trained) bool {
		return of.sensor == k.sensor && t.healthy.Asset == k.asset && event > t.healthy.From && event <= t.healthy.To
	})
}

// over tells whether the healthy period has passed, by the machine's own windows.
func (w *Worker) over(h signal.Healthy, sensor string) bool {
	c := w.channels[channelKey{h.Asset, sensor}]
	return c != nil && c.history.Newest() > h.To
}

// train learns a channel's model and stores it.
func (w *Worker) train(ctx context.Context, k channelKey, h signal.Healthy) (*trained, error) {
	at := w.stamp()
	rows, err := w.healthyRows(ctx, h, k.sensor, at)
	if err != nil {
		return nil, err
	}
	t := &trained{healthy: h}
	t.Model, err = model.Train(features.Definition(), model.Vibration(features.Names()), rows)
	if _, few := errors.AsType[*model.TooFewError](err); few {
		w.Log.Warn("there is no model", "asset", k.asset, "sensor", k.sensor, "healthy", h.Asset, "cause", err)
		t.failed, t.Model = true, nil
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	app := appender(modelColumns())
	app.String(0, t.Hash())
	app.String(1, string(k.asset))
	app.String(2, k.sensor)
	app.Timestamp(3, int64(at))
	app.String(4, t.Definition)
	app.String(5, string(h.Asset))
	app.Timestamp(6, int64(h.From))
	app.Timestamp(7, int64(h.To))
	app.Int64(8, int64(t.Rows))
	app.String(9, t.Data)
	app.Float64(10, t.T2Limit)
	app.Float64(11, t.QLimit)
	app.String(12, string(t.JSON()))
	app.Int32(13, int32(pipeline.Shard(k.asset)))
	if err := app.EndRow(); err != nil {
		app.Release()
		return nil, fmt.Errorf("writing %s: %w", tableModels, err)
	}
	if err := w.write(ctx, tableModels, app, w.next(tableModels)); err != nil {
		return nil, err
	}
	w.Reached.At("predict.model_committed")
	w.mu.Lock()
	w.counts.models++
	w.mu.Unlock()
	return t, nil
}

// score turns feature rows into predictions, as far as there are models.
func (w *Worker) score(ctx context.Context) (progress bool, err error) {
	var out []model.Prediction
	taken := map[*channel]int{}
	waiting := int64(0)
	for _, k := range w.keys() {
		c := w.channels[k]
		slices.SortStableFunc(c.pending, func(a, b featureRow) int { return cmp.Compare(a.event, b.event) })
		for _, row := range c.pending {
			p := model.Prediction{Asset: k.asset, Sensor: k.sensor, Event: row.event, FeatureAvailable: row.available, Status: model.NoModel}
			m, wait, err := w.modelFor(ctx, k, row.event)
			if err != nil {
				return false, err
			}
			if wait {
				waiting += int64(len(c.pending) - taken[c])
				break
			}
			switch {
			case m == nil:
			case !row.running:
				p.Status, p.Model = model.NotRunning, m.Hash()
			case row.windows < features.Least:
				p.Status, p.Model = model.Incomplete, m.Hash()
			default:
				m.Score(&p, features.Names(), row.vector[:])
			}
			taken[c]++
			out = append(out, p)
		}
	}
	w.mu.Lock()
	w.counts.waiting = waiting
	w.mu.Unlock()
	if len(out) == 0 {
		return false, nil
	}
	if err := w.writePredictions(ctx, out); err != nil {
		return false, err
	}
	for c, n := range taken {
		c.pending = slices.Delete(c.pending, 0, n)
	}
	return true, w.tell(ctx, out)
}

func (w *Worker) writePredictions(ctx context.Context, out []model.Prediction) error {
	app := appender(predictionColumns())
	at := w.stamp()
	for i := range out {
		p := &out[i]
		p.Available = at
		text, err := json.Marshal(p.Contributions)
		if err != nil {
			app.Release()
			return fmt.Errorf("writing %s: %w", tablePredictions, err)
		}
		app.String(0, string(p.Asset))
		app.String(1, p.Sensor)
		app.Timestamp(2, int64(p.Event))
		app.Timestamp(3, int64(at))
		app.Timestamp(4, int64(p.FeatureAvailable))
		app.String(5, string(p.Status))
		app.String(6, p.Model)
		for j, v := range []float64{p.T2, p.T2Limit, p.Q, p.QLimit, p.Score} {
			if p.Status == model.Scored {
				app.Float64(7+j, v)
			} else {
				app.Null(7 + j)
			}
		}
		app.String(12, string(text))
		app.Int32(13, int32(pipeline.Shard(p.Asset)))
		if err := app.EndRow(); err != nil {
			app.Release()
			return fmt.Errorf("writing %s: %w", tablePredictions, err)
		}
	}
	if err := w.write(ctx, tablePredictions, app, w.next(tablePredictions)); err != nil {
		return err
	}
	w.Reached.At("predict.predictions_committed")
	return nil
}

// tell hands predictions to the alerts and to who looks at risks.
func (w *Worker) tell(ctx context.Context, out []model.Prediction) error {
	faulty := func(asset signal.Asset, sensor string) bool {
		return w.monitor.Faulty(asset.Sensor(sensor)) || w.monitor.Faulty(asset.Sensor(sensor+".rms"))
	}
	begun, err := w.Alerts.Observe(ctx, out, faulty)
	if err != nil {
		return err
	}
	w.Reached.At("predict.alerts_observed")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.episodes += int64(begun)
	w.counts.predictions += int64(len(out))
	for _, p := range out {
		k := channelKey{p.Asset, p.Sensor}
		r := w.risks[k]
		if r == nil {
			r = &Risk{}
			w.risks[k] = r
		}
		if p.Event < r.Event {
			continue
		}
		r.Prediction = p
		if p.Status == model.Scored {
			w.counts.scored++
			if n := len(r.Trend); n > 0 && r.Trend[n-1].Event == p.Event {
				r.Trend = r.Trend[:n-1]
			}
			r.Trend = append(r.Trend, Score{p.Event, p.Score})
			r.Trend = r.Trend[max(0, len(r.Trend)-trend):]
		}
	}
	return nil
}
