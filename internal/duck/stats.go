package duck

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	duckdb "github.com/duckdb/duckdb-go/v2"
)

const (
	// statsColumns is how many columns get statistics, as Delta Lake's
	// delta.dataSkippingNumIndexedCols has it by default.
	statsColumns = 32
	// statsRunes is where bounds of strings are cut.
	statsRunes = 32

	duckTime  = "2006-01-02 15:04:05.999999-07"
	deltaTime = "2006-01-02T15:04:05.000Z"
)

// columnStats turns DuckDB's statistics of a file into Delta Lake's.
func columnStats(columns []Field, stats *duckdb.OrderedMap) []ColumnStats {
	out := make([]ColumnStats, len(columns))
	for i, c := range columns {
		cs := ColumnStats{Name: c.Name, DeltaType: c.DeltaType, NullCount: -1}
		// Of an array DuckDB knows the elements, not the column.
		if v, ok := stats.Get(Quote(c.Name)); ok {
			text := func(key string) (string, bool) { return "", false }
			switch m := v.(type) {
			case duckdb.OrderedMap:
				text = func(key string) (string, bool) { return mapText(&m, key) }
			case *duckdb.OrderedMap:
				text = func(key string) (string, bool) { return mapText(m, key) }
			}
			if s, ok := text("null_count"); ok {
				if n, err := strconv.ParseInt(s, 10, 64); err == nil {
					cs.NullCount = n
				}
			}
			if s, ok := text("min"); ok {
				cs.Min = bound(s, c.DeltaType, false)
			}
			// Readers order NaN above all numbers: where there is one, no
			// number is an upper bound.
			nan, _ := text("has_nan")
			if s, ok := text("max"); ok && nan != "true" {
				cs.Max = bound(s, c.DeltaType, true)
			}
		}
		out[i] = cs
	}
	return out
}

func mapText(m *duckdb.OrderedMap, key string) (string, bool) {
	v, ok := m.Get(key)
	if !ok || v == nil {
		return "", false
	}
	s, ok := v.(string)
	return s, ok
}

// bound converts one bound, and returns nil for what cannot be one. What it
// returns is never inside the true bound.
func bound(s, deltaType string, upper bool) any {
	switch deltaType {
	case "long", "integer":
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil
		}
		return n
	case "double":
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
		return x
	case "string":
		return textBound(s, upper)
	case "date":
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			return nil
		}
		return d.Format(time.DateOnly)
	case "timestamp":
		t, err := time.Parse(duckTime, s)
		if err != nil {
			return nil
		}
		ms := t.Truncate(time.Millisecond) // towards the year 1, so down
		if upper && ms.Before(t) {
			ms = ms.Add(time.Millisecond)
		}
		if ms.Year() > 9999 {
			return nil
		}
		return ms.UTC().Format(deltaTime)
	}
	return nil
}

// textBound cuts a long string; as an upper bound the last character that can
// be is raised, so that the result stays above.
func textBound(s string, upper bool) any {
	if !utf8.ValidString(s) {
		return nil
	}
	runes := []rune(s)
	if len(runes) <= statsRunes {
		return s
	}
	runes = runes[:statsRunes]
	if !upper {
		return string(runes)
	}
	for i, r := range slices.Backward(runes) {
		next := r + 1
		if next == 0xD800 { // surrogates are no characters
			next = 0xE000
		}
		if next <= utf8.MaxRune {
			return string(runes[:i]) + string(next)
		}
	}
	return nil
}

// statsJSON writes the stats field of an add action.
func statsJSON(rows int64, columns []ColumnStats) (string, error) {
	w := struct {
		NumRecords int64            `json:"numRecords"`
		MinValues  map[string]any   `json:"minValues"`
		MaxValues  map[string]any   `json:"maxValues"`
		NullCount  map[string]int64 `json:"nullCount"`
	}{rows, map[string]any{}, map[string]any{}, map[string]int64{}}
	for _, c := range columns[:min(len(columns), statsColumns)] {
		if c.Min != nil {
			w.MinValues[c.Name] = c.Min
		}
		if c.Max != nil {
			w.MaxValues[c.Name] = c.Max
		}
		if c.NullCount >= 0 {
			w.NullCount[c.Name] = c.NullCount
		}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(w); err != nil {
		return "", fmt.Errorf("encoding statistics: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
