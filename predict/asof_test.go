package predict

import (
	"context"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/registry"
)

const (
	pump   = signal.Asset("demo/line-1/p-101")
	second = signal.Micros(1_000_000)
	noon   = signal.Micros(1_767_614_400_000_000) // 2026-01-05T12:00:00Z
)

// views is a lake with the station's tables and a session of the SQL engine.
func views(t *testing.T) *Worker {
	t.Helper()
	db, err := duck.Open(t.Context(), duck.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(t.Context(), Options{LakeDir: t.TempDir(), DB: db, Registry: noRegistry{}, Clock: signal.WallClock{}})
	if err != nil {
		t.Fatal(err)
	}
	if w.session, err = db.Session(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.session.Close()
		db.Close()
	})
	return w
}

// keep writes a row of features.vibration.
func (w *Worker) keep(t *testing.T, sensor string, event, available signal.Micros, op string, rms float64) {
	t.Helper()
	app := appender(vibrationColumns())
	app.String(0, string(pump))
	app.String(1, sensor)
	app.Timestamp(2, int64(event))
	app.Timestamp(3, int64(available))
	app.String(4, features.Definition())
	app.String(5, op)
	app.Bool(6, true)
	app.Int32(7, features.Rolling)
	app.Float64(8, rms)
	for i := range features.Names()[1:] {
		app.Null(9 + i)
	}
	app.Int64(8+len(features.Names()), 1)
	app.Int32(9+len(features.Names()), 0)
	if err := app.EndRow(); err != nil {
		t.Fatal(err)
	}
	if err := w.write(t.Context(), tableVibration, app, w.next(tableVibration)); err != nil {
		t.Fatal(err)
	}
}

// What is read as of a time is what was available then, whatever came later: a
// correction, a retraction, a window of the future.
func TestFeaturesAsOfATime(t *testing.T) {
	w := views(t)
	w.keep(t, "de_acceleration", noon, noon+5*second, "I", 1)
	w.keep(t, "de_acceleration", noon+60*second, noon+65*second, "I", 2)
	w.keep(t, "de_acceleration", noon+60*second, noon+300*second, "I", 3) // a correction
	w.keep(t, "de_acceleration", noon+60*second, noon+400*second, "D", 3) // and taken back
	w.keep(t, "de_acceleration", noon+500*second, noon+90*second, "I", 9) // a clock ahead
	w.keep(t, "nde_acceleration", noon-700*second, noon-690*second, "I", 7)

	for name, c := range map[string]struct {
		at, known signal.Micros
		status    features.Status
		rms       float64
	}{
		"before anything":        {-second, -second, features.NotAvailable, 0},
		"measured, not known":    {4 * second, 4 * second, features.NotAvailable, 0},
		"known":                  {59 * second, 59 * second, features.Found, 1},
		"the next not known yet": {64 * second, 64 * second, features.Found, 1},
		"the next":               {100 * second, 100 * second, features.Found, 2},
		"corrected":              {300 * second, 300 * second, features.Found, 3},
		"as known before":        {300 * second, 299 * second, features.Found, 2},
		"taken back":             {400 * second, 400 * second, features.Found, 1},
		"known late counts at":   {450 * second, 9000 * second, features.Found, 1},
	} {
		got, err := ReadFeatures(t.Context(), w.session, w.LakeDir, pump, noon+c.at, noon+c.known)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]VibrationFeatures{}
		for _, v := range got.Vibration {
			found[v.Sensor] = v
		}
		v, there := found["de_acceleration"]
		if !there && c.status != features.NotAvailable || there && v.Status != c.status || v.Values["log_rms"] != c.rms {
			t.Errorf("%s: %+v, want %s %v", name, v, c.status, c.rms)
		}
	}
	got, err := ReadFeatures(t.Context(), w.session, w.LakeDir, pump, noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := Features{
		Vibration: []VibrationFeatures{{Sensor: "de_acceleration", Status: features.NotAvailable}, {Sensor: "nde_acceleration", Status: features.OutsideTTL}},
		Process:   ProcessFeatures{Status: features.NotAvailable, HoursSinceService: math.NaN()},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateNaNs()); d != "" {
		t.Error(d)
	}
}

// A lake without feature views answers that there is nothing.
func TestFeaturesOfAnEmptyLake(t *testing.T) {
	w := views(t)
	got, err := ReadFeatures(t.Context(), w.session, t.TempDir(), pump, noon, noon)
	if err != nil || len(got.Vibration) > 0 || got.Process.Status != features.NotAvailable {
		t.Errorf("%+v, %v", got, err)
	}
}

// Learning sees what was available, corrections included, and a window of the
// healthy period that comes late makes the model be learnt anew.
func TestLateHealthyWindow(t *testing.T) {
	w := views(t)
	k := channelKey{pump, "de_acceleration"}
	h := signal.Healthy{Asset: pump, From: noon - second, To: noon + 60*second}
	w.keep(t, k.sensor, noon, noon+5*second, "I", 1)
	w.keep(t, k.sensor, noon, noon+50*second, "I", 2)
	w.keep(t, k.sensor, noon+60*second, noon+90*second, "I", 3)
	w.keep(t, k.sensor, noon+61*second, noon+62*second, "I", 4)
	for known, want := range map[signal.Micros][]float64{4: nil, 5: {1}, 60: {2}, 100: {2, 3}} {
		rows, err := w.healthyRows(t.Context(), h, k.sensor, noon+known*second)
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, r := range rows {
			got = append(got, r[0])
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("known at %d s: %s", known, d)
		}
	}
	other := channelKey{"demo/line-1/p-102", k.sensor}
	w.models[k], w.models[other] = &trained{healthy: h}, &trained{healthy: h}
	w.forgetModels(k, h.To+1)
	w.forgetModels(other, h.To)
	if len(w.models) != 2 {
		t.Error("windows outside the healthy period made models be forgotten")
	}
	w.forgetModels(k, h.To)
	if len(w.models) != 0 {
		t.Errorf("%d models know nothing of the late window", len(w.models))
	}
}

// noRegistry knows no asset.
type noRegistry struct{}

func (noRegistry) Version(context.Context) (int64, error) { return 1, nil }

func (noRegistry) Snapshot(context.Context) (*registry.Snapshot, error) {
	return &registry.Snapshot{Version: 1}, nil
}
