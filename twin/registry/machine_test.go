package registry

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

const machines = `
templates:
  m: {class: motor, mounting: bed, rpm: 1500, bearing: {name: "6205", bpfo: 3.58, bpfi: 5.42, bsf2: 4.71, ftf: 0.4},
      healthy: {asset: s/l/a, from: 2026-01-01T00:00:00Z, to: 2026-01-01T01:00:00Z}, vibration: [de],
      sensors: {de.rms: {max: 5}, t: {unit: Cel, stuck_after: 2m}}}
assets:
  - {asset: s/l/a, template: m}
  - {asset: s/l/b, template: m, rpm: 3000}
`

func TestMachines(t *testing.T) {
	r, _ := open(t)
	if _, err := r.Load(t.Context(), "machines.yaml", []byte(machines)); err != nil {
		t.Fatal(err)
	}
	snap, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, ok := snap.Asset("s/l/b", 0)
	hour := signal.Micros(3600e6)
	from := signal.Micros(1767225600e6)
	b.AssetID = ""
	want := signal.AssetMeta{
		Asset: "s/l/b", Class: "motor", Claimed: true, Mounting: "bed", RPM: 3000, Bearing: signal.Bearing{Name: "6205", BPFO: 3.58, BPFI: 5.42, BSF2: 4.71, FTF: 0.4},
		Healthy: signal.Healthy{Asset: "s/l/a", From: from, To: from + hour}, ValidFrom: signal.MinTime, ValidTo: signal.MaxTime,
	}
	if d := cmp.Diff(want, b); d != "" || !ok {
		t.Error(d)
	}
	if n := len(snap.SensorsOf("s/l/a", 0)); n != 15 {
		t.Errorf("%d sensors, want 14 of the channel and one", n)
	}
	rms, _ := snap.Sensor("s/l/a/de.rms", 0)
	temp, _ := snap.Sensor("s/l/a/t", 0)
	if rms.MaxPossible != 5 || rms.Unit != "[g]" || temp.StuckAfterMicros != 120e6 {
		t.Errorf("%+v %+v", rms, temp)
	}
	for bad, says := range map[string]string{
		strings.Replace(machines, "{asset: s/l/b, template: m,", "{asset: s/l/b, template: m, mounting: wall,", 1): "take one of the same class and mounting",
		strings.Replace(machines, "bpfo: 3.58", "bpfo: -1", 1):                                                     "bpfo is -1",
		strings.Replace(machines, "to: 2026-01-01T01", "to: 2025-01-01T01", 1):                                     "is empty",
		strings.Replace(machines, ", to: 2026-01-01T01:00:00Z", "", 1):                                             "give from and to",
		strings.Replace(machines, "stuck_after: 2m", "stuck_after: soon", 1):                                       "is not a duration",
	} {
		r, _ := open(t)
		if _, err := r.Load(t.Context(), "bad.yaml", []byte(bad)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
}
