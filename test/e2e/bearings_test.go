package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/predict/workorder"
	"github.com/headrace/headrace/test/harness"
)

// ordersOf are the orders of a data directory, "asset defect", of assets whose
// name holds part; "" is all.
func ordersOf(t *testing.T, dir, part string) []string {
	t.Helper()
	ctx := context.Background()
	book, err := workorder.Open(ctx, filepath.Join(dir, "orders.db"), workorder.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	orders, err := book.List(ctx, workorder.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range orders {
		if strings.Contains(string(o.Asset), part) {
			out = append(out, fmt.Sprintf("%s %s", o.Asset, o.Defect))
		}
	}
	return out
}

// bearings replays recordings of bearings to their end.
func bearings(t *testing.T, bin, recordings string, more ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	args := append([]string{"up"}, harness.Loopback()...)
	args = append(args, "--replay", "cwru:"+recordings, "--speed", "max", "--until-drained")
	p := harness.Start(t, bin, dir, nil, append(args, more...)...)
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("replay: exit %d, want 0", code)
	}
	harness.Verify(t, bin, dir)
	return dir
}

// changed copies recordings; each is given its name without ending and its
// samples, and returns the new ones.
func changed(t *testing.T, from string, change func(stem string, x []float32) (string, []float32)) string {
	t.Helper()
	to := t.TempDir()
	files, err := filepath.Glob(filepath.Join(from, "*.f32"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s holds no recordings: %v", from, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float32, len(b)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		stem, x := change(strings.TrimSuffix(filepath.Base(f), ".f32"), x)
		b = b[:0]
		for _, v := range x {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		if err := os.WriteFile(filepath.Join(to, stem+".f32"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

const normal = "1797_Normal"

// The whole way on real bearings: a model of the healthy half, one order for
// each of the two defects with its name, none for the healthy machine.
func TestBearingsBecomeOrders(t *testing.T) {
	recordings := harness.Data(t, "cwru")
	bin := harness.Binary(t)
	check := func(t *testing.T, dir string, rename func(string) string) {
		t.Helper()
		for _, want := range []struct{ stem, defect string }{
			{"1797_ir_7_de12", "inner_race"}, {"1797_or_at_6_7_de12", "outer_race"},
		} {
			asset := "cwru/rig/" + rename(want.stem)
			if got, one := ordersOf(t, dir, asset), asset+" "+want.defect; len(got) != 1 || got[0] != one {
				t.Errorf("orders %q, want one: %q", got, one)
			}
		}
		if got := ordersOf(t, dir, rename("1797_normal")); len(got) > 0 {
			t.Errorf("the healthy machine has orders: %q", got)
		}
		t.Logf("the ball's recording: %q", ordersOf(t, dir, rename("1797_b_7_de12")))
	}
	same := func(s string) string { return s }

	t.Run("as recorded", func(t *testing.T) {
		dir := bearings(t, bin, recordings)
		check(t, dir, same)
		for _, q := range []struct{ what, query string }{
			{"scored windows of the healthy machine above the limit for an alert's length", `SELECT count(*) FROM (
				SELECT sum((score > 1)::INT) OVER (ORDER BY event_time ROWS 5 PRECEDING) AS above FROM gold.predictions WHERE asset LIKE '%normal') WHERE above >= 5`},
			{"predictions before their features", `SELECT count(*) FROM gold.predictions WHERE available_time < feature_available`},
		} {
			if n := harness.Count(t, bin, dir, q.query); n != 0 {
				t.Errorf("%d %s", n, q.what)
			}
		}
	})
	t.Run("second healthy half 10 percent louder", func(t *testing.T) {
		dir := bearings(t, bin, changed(t, recordings, func(stem string, x []float32) (string, []float32) {
			for i := range x {
				if stem == normal && i >= len(x)/2 {
					x[i] *= 1.1
				}
			}
			return stem, x
		}))
		check(t, dir, same)
	})
	t.Run("second healthy half with noise", func(t *testing.T) {
		dir := bearings(t, bin, changed(t, recordings, func(stem string, x []float32) (string, []float32) {
			var sum float64
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			sd, rng := 0.1*math.Sqrt(sum/float64(len(x))), rand.New(rand.NewPCG(1, 2))
			for i := range x {
				if stem == normal && i >= len(x)/2 {
					x[i] += float32(sd * rng.NormFloat64())
				}
			}
			return stem, x
		}))
		check(t, dir, same)
	})
	t.Run("ten times as loud", func(t *testing.T) {
		dir := bearings(t, bin, changed(t, recordings, func(stem string, x []float32) (string, []float32) {
			for i := range x {
				x[i] *= 10
			}
			return stem, x
		}))
		check(t, dir, same)
	})
	names := map[string]string{"1797_normal": "a", "1797_ir_7_de12": "b", "1797_or_at_6_7_de12": "c", "1797_b_7_de12": "d"}
	t.Run("other names", func(t *testing.T) {
		rename := func(stem string) string { return "machine_" + names[strings.ToLower(stem)] }
		dir := bearings(t, bin,
			changed(t, recordings, func(stem string, x []float32) (string, []float32) { return rename(stem), x }),
			"--registry", registryOf(t, names, rename, true))
		check(t, dir, rename)
	})
	t.Run("no healthy period", func(t *testing.T) {
		same := func(stem string) string { return stem }
		dir := bearings(t, bin, recordings, "--registry", registryOf(t, names, same, false))
		if got := ordersOf(t, dir, ""); len(got) > 0 {
			t.Errorf("orders without a model: %q", got)
		}
		rows := harness.CSV(t, bin, dir, `SELECT DISTINCT status FROM gold.predictions`)
		if len(rows) != 1 || rows[0][0] != "no_model" {
			t.Errorf("statuses %v, want no_model alone", rows)
		}
	})
}

// registryOf writes a registry of the recordings' machines.
func registryOf(t *testing.T, names map[string]string, rename func(string) string, healthy bool) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`templates:
  rig:
    class: motor
    description: test rig
    owner: Rotating equipment
    mounting: rig
    rpm: 1797
    bearing: {name: 6205-2RS, bpfo: 3.5848, bpfi: 5.4152, bsf2: 4.7135, ftf: 0.3983}
`)
	if healthy {
		fmt.Fprintf(&b, "    healthy: {asset: cwru/rig/%s, from: 2026-01-01T00:00:00Z, to: 2026-01-01T00:00:10.164083Z}\n", rename("1797_normal"))
	}
	b.WriteString("    vibration: [de_acceleration]\nassets:\n")
	for stem := range names {
		fmt.Fprintf(&b, "  - {asset: cwru/rig/%s, template: rig}\n", rename(stem))
	}
	file := filepath.Join(t.TempDir(), "registry.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
