package model

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/need"
)

func recording(t *testing.T, name string) []float64 {
	t.Helper()
	dir := os.Getenv("HEADRACE_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	b, err := os.ReadFile(filepath.Join(dir, "cwru", name+".f32"))
	need.Suite(t, "data", err == nil, "no recordings of bearings in "+dir+"; set HEADRACE_DATA to their folder")
	x := make([]float64, len(b)/4)
	for i := range x {
		x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
	}
	return x
}

// rowsOf are the rolling features of a signal, as the edge and the feature
// station make them.
func rowsOf(t *testing.T, x []float64) (rows [][]float64) {
	t.Helper()
	st, err := vibration.CWRU().Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	var h features.History
	for first := 0; first+4096 <= len(x); first += 4096 {
		w := record.Waveform{First: uint64(first), Rate: 12_000, Format: record.FormatF32, Scale: 1}
		for _, v := range x[first : first+4096] {
			w.Samples = binary.LittleEndian.AppendUint32(w.Samples, math.Float32bits(float32(v)))
		}
		at := signal.Micros(float64(first) / 12_000 * 1e6)
		out, _, err := st.Window("c/r/m", &signal.Reading{Sensor: "de", EventTime: at, Unit: "[g]", Quality: 192}, &w, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out {
			if _, place, ok := features.Channel(r.Sensor); ok {
				h.Put(r.EventTime, place, r.Value.Number)
			}
		}
		if v, n := h.At(out[0].EventTime, func(signal.Micros) bool { return true }); n >= features.Least {
			rows = append(rows, v[:])
		}
	}
	return rows
}

// score tells how many rows are above the limit, the most of any 6 in a row, and
// the least and greatest score.
func score(m *Model, rows [][]float64) (above, most int, least, greatest float64) {
	var last []bool
	least = math.Inf(1)
	for _, r := range rows {
		var p Prediction
		m.Score(&p, features.Names(), r)
		last = append(last, p.Score > 1)
		if len(last) > 6 {
			last = last[1:]
		}
		n := 0
		for _, b := range last {
			if b {
				n++
			}
		}
		if p.Score > 1 {
			above++
		}
		most = max(most, n)
		least, greatest = min(least, p.Score), max(greatest, p.Score)
	}
	return above, most, least, greatest
}

// Of real bearings, what is healthy stays below the limit with more gain and
// noise too, what is not goes far beyond; gain over all changes nothing.
func TestRealBearings(t *testing.T) {
	normal := recording(t, "1797_Normal")
	half := len(normal) / 2
	train := func(gain float64) *Model {
		m, err := Train("test", Vibration(features.Names()), rowsOf(t, scaled(normal[:half], gain)))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	rng := rand.New(rand.NewPCG(1, 2))
	sd := 0.0
	for _, v := range normal {
		sd += v * v
	}
	sd = 0.1 * math.Sqrt(sd/float64(len(normal)))
	noisy := make([]float64, len(normal)-half)
	for i := range noisy {
		noisy[i] = normal[half+i] + sd*rng.NormFloat64()
	}
	one := train(1)
	t.Logf("%d rows, %d components, limits %.1f and %.1f", one.Rows, len(one.Components), one.T2Limit, one.QLimit)
	for _, c := range []struct {
		name  string
		x     []float64
		alarm bool
	}{
		{"second half", normal[half:], false},
		{"second half, 10 % louder", scaled(normal[half:], 1.1), false},
		{"second half, 10 % quieter", scaled(normal[half:], 0.9), false},
		{"second half, with noise", noisy, false},
		{"inner race", recording(t, "1797_IR_7_DE12"), true},
		{"outer race", recording(t, "1797_OR_at_6_7_DE12"), true},
	} {
		rows := rowsOf(t, c.x)
		above, most, least, greatest := score(one, rows)
		t.Logf("%s: score %.2f to %.2f, %d of %d above", c.name, least, greatest, above, len(rows))
		if c.alarm && least < 2 || !c.alarm && most >= 3 {
			t.Errorf("%s: score %v to %v, %d above, %d of 6", c.name, least, greatest, above, most)
		}
		_, _, l10, g10 := score(train(10), rowsOf(t, scaled(c.x, 10)))
		if math.Abs(l10-least) > 1e-3*least || math.Abs(g10-greatest) > 1e-3*greatest {
			t.Errorf("%s: ten times as loud: score %v to %v, was %v to %v", c.name, l10, g10, least, greatest)
		}
	}
	_, _, least, greatest := score(one, rowsOf(t, recording(t, "1797_B_7_DE12")))
	t.Logf("ball: score %.2f to %.2f", least, greatest)
}

func scaled(x []float64, gain float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = gain * v
	}
	return out
}

// T² and Q against their definition with the full inverse, and contributions
// that add up.
func TestScoreAgainstDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	names := features.Names()
	rows := make([][]float64, 40)
	for i := range rows {
		common := rng.NormFloat64()
		rows[i] = make([]float64, len(names))
		for j := range rows[i] {
			rows[i][j] = common*float64(j%3) + 0.2*rng.NormFloat64()
		}
	}
	m, err := Train("d", Vibration(names), rows)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(m.JSON())
	if err != nil || back.Hash() != m.Hash() {
		t.Fatalf("%v", err)
	}
	for i, a := range m.Components {
		for k, b := range m.Components {
			dot := 0.0
			for j := range a {
				dot += a[j] * b[j]
			}
			if want := map[bool]float64{true: 1}[i == k]; math.Abs(dot-want) > 1e-9 {
				t.Errorf("components %d and %d: %v", i, k, dot)
			}
		}
	}
	var p Prediction
	m.Score(&p, names, rows[3])
	length, inside, t2 := 0.0, 0.0, 0.0
	for j := range m.Features {
		z := (rows[3][j] - m.Mean[j]) / m.Scale[j]
		length += z * z
	}
	for k, c := range m.Components {
		s := 0.0
		for j := range c {
			s += c[j] * (rows[3][j] - m.Mean[j]) / m.Scale[j]
		}
		inside += s * s
		t2 += s * s / m.Variance[k]
	}
	if math.Abs(p.T2-t2) > 1e-9 || math.Abs(p.Q-(length-inside)) > 1e-9 || p.Status != Scored {
		t.Errorf("T² %v, Q %v; want %v, %v", p.T2, p.Q, t2, length-inside)
	}
	sum := 0.0
	for _, c := range p.Contributions {
		sum += c.Share
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("contributions add up to %v", sum)
	}
	row := append([]float64(nil), rows[3]...)
	row[2] = math.NaN()
	var q Prediction
	if m.Score(&q, names, row); q.Status != Incomplete {
		t.Errorf("a row that lacks a feature is %s", q.Status)
	}
}

func TestTooFew(t *testing.T) {
	rows := make([][]float64, LeastRows-1)
	for i := range rows {
		rows[i] = make([]float64, 11)
	}
	_, err := Train("d", Vibration(features.Names()), rows)
	var few *TooFewError
	if !errors.As(err, &few) {
		t.Fatal(err)
	}
	if d := cmp.Diff(TooFewError{LeastRows - 1, LeastRows}, *few); d != "" {
		t.Error(d)
	}
	if _, err := Parse([]byte(`{"kind":"pca/1"}`)); err == nil {
		t.Error("an empty model was taken")
	}
}
