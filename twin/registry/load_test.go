package registry

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headrace/headrace/signal"
)

const plant = `
templates:
  pump:
    class: pump
    description: a pump
    owner: Rotating equipment
    sensors:
      current:  {unit: A, kind: number, min: 0, max: 50, interpolation: linear, max_hold: 60s}
      running:  {kind: bool}
assets:
  - asset: acme/line-1/p1
    template: pump
    sensors:
      current: {max: 60, owner: Electricians}
  - asset: acme/line-1/p2
    class: motor
    valid_from: 2026-01-31
    valid_to: 2026-02-01T06:00:00Z
`

func TestLoad(t *testing.T) {
	r, _ := open(t)
	if err := r.Ensure(t.Context(), []signal.Path{"acme/line-1/p1/current", "acme/line-1/p1/strange"}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "plant.yaml")
	if err := os.WriteFile(file, []byte(plant), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if v, err := r.LoadFile(t.Context(), file); err != nil || v != 3 {
			t.Fatalf("version %d, %v; want 3", v, err)
		}
	}
	assets, sensors := rows(t, r, 3)
	wantAssets := []signal.AssetMeta{
		{Asset: "acme/line-1/p1", Class: "pump", Description: "a pump", Owner: "Rotating equipment", Claimed: true, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime},
		{Asset: "acme/line-1/p2", Class: "motor", Claimed: true, ValidFrom: 1769817600e6, ValidTo: 1769925600e6},
	}
	if d := cmp.Diff(wantAssets, assets, cmpopts.IgnoreFields(signal.AssetMeta{}, "AssetID")); d != "" {
		t.Error(d)
	}
	unlimited := func(p signal.Path) signal.SensorMeta {
		return signal.SensorMeta{Path: p, MinPossible: math.Inf(-1), MaxPossible: math.Inf(1), Interpolation: "step", MaxHoldMicros: 300e6, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime}
	}
	running := unlimited("acme/line-1/p1/running")
	running.Kind, running.Owner, running.Claimed = "bool", "Rotating equipment", true
	wantSensors := []signal.SensorMeta{
		{Path: "acme/line-1/p1/current", Unit: "A", Kind: "number", MinPossible: 0, MaxPossible: 60, Interpolation: "linear", MaxHoldMicros: 60e6, Owner: "Electricians", Claimed: true, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime},
		running,
		unlimited("acme/line-1/p1/strange"), // not in the file: as it was
	}
	if d := cmp.Diff(wantSensors, sensors, cmpopts.IgnoreFields(signal.SensorMeta{}, "SensorID")); d != "" {
		t.Error(d)
	}
	_, before := rows(t, r, 2)
	if before[0].SensorID != sensors[0].SensorID {
		t.Error("a claimed sensor lost the id of its arrival")
	}
}

func TestLoadRefuses(t *testing.T) {
	r, _ := open(t)
	for name, c := range map[string]struct{ doc, want string }{
		"unknown key":       {"assets:\n  - asset: a/b/c\n    sensors:\n      x: {unti: A}\n", `reading plant.yaml:4:11: unknown key "unti"; did you mean "unit"?`},
		"unknown template":  {"templates: {pump: {}}\nassets: [{asset: a/b/c, template: pmup}]", `asset a/b/c: template "pmup" is not in the file; did you mean "pump"?`},
		"two of one":        {"assets: [{asset: a/b/c}, {asset: a/b/c}]", "a/b/c: validity […, …) overlaps […, …)"},
		"broken":            {"assets: [", "plant.yaml:1:"},
		"not a list":        {"assets: {a: b}", "plant.yaml:1:"},
		"asset":             {"assets: [{asset: a/b}]", `"a/b" has 2 names`},
		"sensor":            {"assets: [{asset: a/b/c, sensors: {x/y: {}}}]", `sensor x/y: name "x/y" holds '/'`},
		"time":              {"assets: [{asset: a/b/c, valid_from: yesterday}]", `valid_from "yesterday" is not a time`},
		"hold":              {"assets: [{asset: a/b/c, sensors: {x: {max_hold: long}}}]", `max_hold "long" is not a duration`},
		"limits":            {"assets: [{asset: a/b/c, sensors: {x: {min: 2, max: 1}}}]", "sensor x: min 2 is above max 1"},
		"a limit of no use": {"assets: [{asset: a/b/c, sensors: {x: {min: .nan}}}]", "not a number"},
		"too long":          {strings.Repeat("#", 5<<20), "longer than 4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Load(t.Context(), "plant.yaml", []byte(c.doc))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
	if v := version(t, r); v != 1 {
		t.Errorf("refused files made version %d", v)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(plant))
	f.Add([]byte("assets: [{asset: a/b/c, sensors: {x: {min: .inf, max_hold: 1h}}}]"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		ch, err := parse("plant.yaml", doc)
		if err != nil {
			return
		}
		for _, m := range ch.Sensors {
			if err := checkSensor(m); err != nil && m.ValidFrom < m.ValidTo {
				t.Errorf("a sensor that cannot be recorded was taken: %v", err)
			}
		}
		again, err := parse("plant.yaml", doc)
		if d := cmp.Diff(ch, again); err != nil || d != "" {
			t.Errorf("read again it is another: %v %s", err, d)
		}
	})
}

func TestReplayOfSkab(t *testing.T) {
	r, _ := open(t)
	ctx := t.Context()
	// A reading came before the registry was set up; a sensor was described by hand.
	if err := r.Ensure(ctx, []signal.Path{"skab/valve1/0/pressure"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(ctx, "own.yaml", []byte(`assets: [{asset: skab/valve1/1, class: fan, sensors: {current: {unit: mA}}}]`)); err != nil {
		t.Fatal(err)
	}
	assets := []signal.Asset{"skab/valve1/1", "skab/valve1/0", "skab/valve1/0", "skab/anomaly-free/anomaly-free", "elsewhere/l/a"}
	for range 2 {
		if v, err := r.ApplyReplay(ctx, "skab", assets); err != nil || v != 4 {
			t.Fatalf("version %d, %v; want 4", v, err)
		}
	}
	gotAssets, sensors := rows(t, r, 4)
	classes := map[signal.Asset]string{}
	for _, a := range gotAssets {
		classes[a.Asset] = a.Class + ", " + a.Owner
	}
	if d := cmp.Diff(map[signal.Asset]string{
		"skab/valve1/0": "pump, Rotating equipment", "skab/valve1/1": "fan, ", "skab/anomaly-free/anomaly-free": "pump, Rotating equipment",
	}, classes); d != "" {
		t.Error(d)
	}
	if len(sensors) != 24 {
		t.Errorf("%d sensors, want 8 for each of 3 assets", len(sensors))
	}
	want := signal.SensorMeta{
		Path: "skab/valve1/0/pressure", Unit: "bar", Kind: "number", MinPossible: -5, MaxPossible: 25, Interpolation: "step", MaxHoldMicros: 300e6,
		Owner: "Rotating equipment", Claimed: true, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime,
	}
	snap, err := r.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := snap.Sensor("skab/valve1/0/pressure", 0)
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(signal.SensorMeta{}, "SensorID")); d != "" {
		t.Error(d)
	}
	if own, _ := snap.Sensor("skab/valve1/1/current", 0); own.Unit != "mA" {
		t.Errorf("what was described by hand is %v now", own)
	}
	if left, err := r.Unclaimed(ctx); err != nil || len(left) != 0 {
		t.Errorf("unclaimed: %v, %v", left, err)
	}
	if _, err := r.ApplyReplay(ctx, "skap", nil); err == nil || !strings.Contains(err.Error(), "there is one for cwru, skab") {
		t.Errorf("an unknown replay: %v", err)
	}
}
