package delta

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Stats is what the log says of a file's rows. A column without a bound is not
// in Min or Max; nothing may be concluded from that.
//
// Bounds are string, int64, float64 or bool; a timestamp is int64 microseconds
// and a date int64 days. A true value never lies outside its bounds: an upper
// bound of a timestamp is widened to the end of its millisecond, because
// writers cut it there.
type Stats struct {
	NumRecords int64
	Min, Max   map[string]any
	NullCount  map[string]int64
}

// ParseStats parses the statistics of an add action.
func ParseStats(text string, schema Schema) (*Stats, error) {
	var w struct {
		NumRecords *int64                     `json:"numRecords"`
		MinValues  map[string]json.RawMessage `json:"minValues"`
		MaxValues  map[string]json.RawMessage `json:"maxValues"`
		NullCount  map[string]json.RawMessage `json:"nullCount"`
	}
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if w.NumRecords == nil || *w.NumRecords < 0 {
		return nil, fmt.Errorf("no numRecords: %w", ErrCorrupt)
	}
	s := &Stats{
		NumRecords: *w.NumRecords, Min: make(map[string]any, len(w.MinValues)), Max: make(map[string]any, len(w.MaxValues)),
		NullCount: make(map[string]int64, len(w.NullCount)),
	}
	for _, f := range schema.Fields {
		if v, ok := parseBound(w.MinValues[f.Name], f.Type); ok {
			s.Min[f.Name] = v
		}
		if v, ok := parseBound(w.MaxValues[f.Name], f.Type); ok {
			if us, isInt := v.(int64); isInt && f.Type == Timestamp && us%1000 == 0 {
				v = us + 999
			}
			s.Max[f.Name] = v
		}
		if n, err := strconv.ParseInt(string(w.NullCount[f.Name]), 10, 64); err == nil {
			s.NullCount[f.Name] = n
		}
	}
	return s, nil
}

// countRows reads numRecords alone, without a walk through the rest where it
// comes first, as writers have it; -1 if it is not there.
func countRows(text string) int64 {
	if rest, ok := strings.CutPrefix(text, `{"numRecords":`); ok {
		if i := strings.IndexAny(rest, ",}"); i > 0 {
			if n, err := strconv.ParseInt(rest[:i], 10, 64); err == nil && n >= 0 {
				return n
			}
		}
	}
	var w struct {
		NumRecords *int64 `json:"numRecords"`
	}
	if text == "" || json.Unmarshal([]byte(text), &w) != nil || w.NumRecords == nil || *w.NumRecords < 0 {
		return -1
	}
	return *w.NumRecords
}

// parseBound returns false for what is absent or cannot be a bound.
func parseBound(raw json.RawMessage, t Type) (any, bool) {
	if len(raw) == 0 {
		return nil, false
	}
	switch t {
	case Long, Integer:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return n, err == nil
	case Double:
		x, err := strconv.ParseFloat(string(raw), 64)
		return x, err == nil && !math.IsNaN(x)
	case Boolean:
		b, err := strconv.ParseBool(string(raw))
		return b, err == nil
	case String, Timestamp, Date:
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return nil, false
		}
		switch t {
		case Timestamp:
			ts, err := time.Parse(time.RFC3339Nano, s)
			return ts.UnixMicro(), err == nil
		case Date:
			d, err := time.Parse(time.DateOnly, s)
			return d.Unix() / 86400, err == nil
		}
		return s, string(raw) != "null"
	}
	return nil, false
}
