package pipeline

import (
	"fmt"
	"strconv"
	"strings"
)

// unitCode is a UCUM code that values can be converted from and to: the base unit's
// value is (value - zero) * num / den. Whole numbers keep conversions exact
// where they can be.
type unitCode struct {
	code           string
	dimension      int
	zero, num, den float64
}

const (
	temperature = iota + 1
	pressure
	acceleration
	velocity
	length
	volumeFlow
	current
	voltage
	power
	frequency
	ratio
	duration
)

// units lists the known codes; base units are Cel, Pa, m/s2, mm/s, mm, L/min,
// A, V, W, Hz, 1 and s. Codes that UCUM writes otherwise and senders use
// nevertheless (g, psi, rpm) stand beside UCUM's.
func units() []unitCode {
	return []unitCode{
		{"Cel", temperature, 0, 1, 1},
		{"K", temperature, 273.15, 1, 1},
		{"[degF]", temperature, 32, 5, 9},
		{"Pa", pressure, 0, 1, 1},
		{"hPa", pressure, 0, 100, 1},
		{"mbar", pressure, 0, 100, 1},
		{"kPa", pressure, 0, 1000, 1},
		{"bar", pressure, 0, 100_000, 1},
		{"MPa", pressure, 0, 1_000_000, 1},
		{"[psi]", pressure, 0, 6894.757293168361, 1},
		{"psi", pressure, 0, 6894.757293168361, 1},
		{"m/s2", acceleration, 0, 1, 1},
		{"mm/s2", acceleration, 0, 1, 1000},
		{"[g]", acceleration, 0, 980_665, 100_000},
		{"g", acceleration, 0, 980_665, 100_000},
		{"mm/s", velocity, 0, 1, 1},
		{"m/s", velocity, 0, 1000, 1},
		{"[in_i]/s", velocity, 0, 127, 5},
		{"in_i/s", velocity, 0, 127, 5},
		{"mm", length, 0, 1, 1},
		{"um", length, 0, 1, 1000},
		{"cm", length, 0, 10, 1},
		{"m", length, 0, 1000, 1},
		{"[in_i]", length, 0, 127, 5},
		{"L/min", volumeFlow, 0, 1, 1},
		{"l/min", volumeFlow, 0, 1, 1},
		{"L/s", volumeFlow, 0, 60, 1},
		{"l/s", volumeFlow, 0, 60, 1},
		{"m3/h", volumeFlow, 0, 50, 3},
		{"m3/s", volumeFlow, 0, 60_000, 1},
		{"A", current, 0, 1, 1},
		{"mA", current, 0, 1, 1000},
		{"uA", current, 0, 1, 1_000_000},
		{"kA", current, 0, 1000, 1},
		{"V", voltage, 0, 1, 1},
		{"mV", voltage, 0, 1, 1000},
		{"kV", voltage, 0, 1000, 1},
		{"W", power, 0, 1, 1},
		{"kW", power, 0, 1000, 1},
		{"MW", power, 0, 1_000_000, 1},
		{"Hz", frequency, 0, 1, 1},
		{"kHz", frequency, 0, 1000, 1},
		{"{rpm}", frequency, 0, 1, 60},
		{"rpm", frequency, 0, 1, 60},
		{"/min", frequency, 0, 1, 60},
		{"{rev}/min", frequency, 0, 1, 60},
		{"1", ratio, 0, 1, 1},
		{"%", ratio, 0, 1, 100},
		{"[ppm]", ratio, 0, 1, 1_000_000},
		{"s", duration, 0, 1, 1},
		{"ms", duration, 0, 1, 1000},
		{"us", duration, 0, 1, 1_000_000},
		{"min", duration, 0, 60, 1},
		{"h", duration, 0, 3600, 1},
		{"d", duration, 0, 86_400, 1},
	}
}

func unitCase(pick func(unitCode) string) string {
	var b strings.Builder
	b.WriteString("CASE u")
	for _, u := range units() {
		fmt.Fprintf(&b, " WHEN '%s' THEN %s", u.code, pick(u))
	}
	b.WriteString(" END")
	return b.String()
}

// macros are the functions that pipelines use and DuckDB lacks: Spark's names
// and the conversion of units.
func macros() []string {
	double := func(f func(unitCode) float64) string {
		return unitCase(func(u unitCode) string { return strconv.FormatFloat(f(u), 'e', -1, 64) })
	}
	return []string{
		`CREATE OR REPLACE MACRO explode(list) AS unnest(list)`,
		`CREATE OR REPLACE MACRO "sequence"(a, b, step) AS generate_series(a, b, step)`,
		`CREATE OR REPLACE MACRO unix_micros(t) AS epoch_us(t)`,
		`CREATE OR REPLACE MACRO timestamp_micros(us) AS make_timestamptz(us)`,
		`CREATE OR REPLACE MACRO pmod(a, b) AS ((a % b) + b) % b`,
		`CREATE OR REPLACE MACRO sum_in_order(x, k) AS sum(x ORDER BY k)`,
		`CREATE OR REPLACE MACRO unit_dimension(u) AS ` + unitCase(func(u unitCode) string { return strconv.Itoa(u.dimension) }),
		`CREATE OR REPLACE MACRO unit_zero(u) AS ` + double(func(u unitCode) float64 { return u.zero }),
		`CREATE OR REPLACE MACRO unit_num(u) AS ` + double(func(u unitCode) float64 { return u.num }),
		`CREATE OR REPLACE MACRO unit_den(u) AS ` + double(func(u unitCode) float64 { return u.den }),
		// Equal units leave every bit of a value as it is.
		`CREATE OR REPLACE MACRO to_canonical(v, a, b) AS CASE
			WHEN b IS NULL OR b = '' OR a = '' OR a = b THEN v
			WHEN unit_dimension(a) = unit_dimension(b)
			THEN (v - unit_zero(a)) * (unit_num(a) * unit_den(b)) / (unit_den(a) * unit_num(b)) + unit_zero(b)
			ELSE v END`,
		`CREATE OR REPLACE MACRO canonical_unit(a, b) AS CASE
			WHEN b IS NULL OR b = '' THEN a
			WHEN a = '' OR a = b OR unit_dimension(a) = unit_dimension(b) THEN b
			ELSE a END`,
	}
}
