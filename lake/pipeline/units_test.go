package pipeline

import (
	"fmt"
	"math"
	"testing"
)

func TestUnits(t *testing.T) {
	l := newLake(t, 1)
	for _, c := range []struct {
		v        float64
		from, to string
		want     float64
		unit     string
	}{
		{212, "[degF]", "Cel", 100, "Cel"},
		{0, "Cel", "[degF]", 32, "[degF]"},
		{300, "K", "Cel", 26.850000000000023, "Cel"},
		{1, "bar", "kPa", 100, "kPa"},
		{2500, "mbar", "bar", 2.5, "bar"},
		{1, "[psi]", "Pa", 6894.757293168361, "Pa"},
		{2, "g", "m/s2", 19.6133, "m/s2"},
		{1, "in_i/s", "mm/s", 25.4, "mm/s"},
		{3, "m3/h", "L/min", 50, "L/min"},
		{1500, "{rpm}", "Hz", 25, "Hz"},
		{1500, "rpm", "{rpm}", 1500, "{rpm}"},
		{250, "mA", "A", 0.25, "A"},
		{50, "%", "1", 0.5, "1"},
		{0.1, "mm/s", "mm/s", 0.1, "mm/s"},
		{0.1, "", "mm/s", 0.1, "mm/s"},
		{0.1, "bogus", "", 0.1, "bogus"},
		{0.1, "bogus", "mm/s", 0.1, "bogus"},
		{0.1, "bar", "Cel", 0.1, "bar"},
	} {
		sql := fmt.Sprintf("SELECT to_canonical(%v::DOUBLE, '%s', '%s'), canonical_unit('%s', '%s')", c.v, c.from, c.to, c.from, c.to)
		if got, want := l.query(sql)[0], fmt.Sprintf("%v|%s", c.want, c.unit); got != want {
			t.Errorf("%v %s in %s is %s, want %s", c.v, c.from, c.to, got, want)
		}
	}
	// Every bit of a value stays when the units are equal.
	for _, v := range []float64{0.1, math.Pi, 1e-300, math.MaxFloat64, math.SmallestNonzeroFloat64} {
		for _, u := range []string{"Cel", "K", "[psi]", "g"} {
			sql := fmt.Sprintf("SELECT to_canonical(%v::DOUBLE, '%s', '%s') = %v::DOUBLE", v, u, u, v)
			if got := l.query(sql)[0]; got != "true" {
				t.Errorf("%v %s changed", v, u)
			}
		}
	}
	for _, u := range units() {
		if u.num <= 0 || u.den <= 0 || u.dimension == 0 {
			t.Errorf("unit %s cannot be converted", u.code)
		}
	}
}
