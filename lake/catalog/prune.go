package catalog

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// Range asks for rows whose column lies in [Min, Max]. A nil end is open.
// Values are string, int64, int, float64, bool, [signal.Micros] or [time.Time],
// as the column's type needs; a date takes days since 1970 or a time.Time.
type Range struct {
	Column   string
	Min, Max any
}

// Files returns the files of a table's newest known version that can hold rows
// in all ranges. It drops only what the log proves to hold none; the rows that
// are left must still be filtered.
func (c *Catalog) Files(table string, ranges ...Range) ([]*delta.File, error) {
	_, files, err := c.pick(table, ranges)
	return files, err
}

// Relation writes what Files returns as a relation for a FROM clause.
func (c *Catalog) Relation(table string, ranges ...Range) (string, error) {
	s, files, err := c.pick(table, ranges)
	if err != nil {
		return "", err
	}
	return c.relation(table, s, files)
}

func (c *Catalog) pick(table string, ranges []Range) (*delta.Snapshot, []*delta.File, error) {
	t, err := c.table(table)
	if err != nil {
		return nil, nil, err
	}
	s := t.log.Last()
	files, err := t.index.prune(s, ranges)
	if err != nil {
		return nil, nil, fmt.Errorf("picking files of %s: %w", table, err)
	}
	return s, files, nil
}

// index keeps what files hold of the columns that were asked for: reading a
// file's statistics is slow, and keeping all of them is large.
type index struct {
	mu      sync.Mutex
	columns map[string]map[*delta.File]bounds
}

type bounds struct {
	low, high any  // nil: not known
	empty     bool // all null, so in no range
}

// of returns the bounds of a column for every file of a snapshot.
func (x *index) of(s *delta.Snapshot, column string) (map[*delta.File]bounds, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.columns[column]
	files := s.Files()
	missing := 0
	for _, f := range files {
		if _, ok := old[f]; !ok {
			missing++
		}
	}
	if missing == 0 {
		return old, nil
	}
	// A new map: readers hold the old one, and files that are gone stay behind.
	fresh := make(map[*delta.File]bounds, len(files))
	for _, f := range files {
		b, ok := old[f]
		if !ok {
			if f.StatsJSON != "" {
				st, err := delta.ParseStats(f.StatsJSON, s.Schema())
				if err != nil {
					return nil, fmt.Errorf("statistics of %s: %w", f.Path, err)
				}
				n, counted := st.NullCount[column]
				b = bounds{low: st.Min[column], high: st.Max[column], empty: counted && n == st.NumRecords}
			}
		}
		fresh[f] = b
	}
	if x.columns == nil {
		x.columns = make(map[string]map[*delta.File]bounds)
	}
	x.columns[column] = fresh
	return fresh, nil
}

// limit is a Range with its column looked up and its values in the form that
// statistics have.
type limit struct {
	column    string
	typ       delta.Type
	partition bool
	min, max  any
	bounds    map[*delta.File]bounds // unless partition
}

func (x *index) prune(s *delta.Snapshot, ranges []Range) ([]*delta.File, error) {
	limits := make([]limit, 0, len(ranges))
	for _, r := range ranges {
		f, ok := s.Schema().Field(r.Column)
		if !ok {
			return nil, fmt.Errorf("there is no column %q", r.Column)
		}
		l := limit{column: r.Column, typ: f.Type}
		for _, p := range s.Metadata().PartitionColumns {
			l.partition = l.partition || p == r.Column
		}
		var err error
		if l.min, err = normal(r.Min, f.Type); err == nil {
			l.max, err = normal(r.Max, f.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", r.Column, err)
		}
		if l.min == nil && l.max == nil {
			continue
		}
		if !l.partition {
			if l.bounds, err = x.of(s, r.Column); err != nil {
				return nil, err
			}
		}
		limits = append(limits, l)
	}
	if len(limits) == 0 {
		return s.Files(), nil
	}
	var out []*delta.File
	for _, f := range s.Files() {
		keep := true
		for i := range limits {
			keep = keep && limits[i].canHold(f)
		}
		if keep {
			out = append(out, f)
		}
	}
	return out, nil
}

// canHold tells whether a file can hold a row within the limit. Nulls are
// within none.
func (l *limit) canHold(f *delta.File) bool {
	b := l.bounds[f]
	if l.partition {
		text := f.PartitionValues[l.column]
		b.empty = text == ""
		b.low = partitionValue(text, l.typ)
		b.high = b.low
	}
	switch {
	case b.empty:
		return false
	case l.min != nil && b.high != nil && compare(b.high, l.min) < 0:
		return false
	case l.max != nil && b.low != nil && compare(b.low, l.max) > 0:
		return false
	}
	return true
}

// normal turns a value into the form that statistics have.
func normal(v any, t delta.Type) (any, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case string:
		if t == delta.String {
			return x, nil
		}
	case bool:
		if t == delta.Boolean {
			return x, nil
		}
	case int:
		return normal(int64(x), t)
	case signal.Micros:
		if t == delta.Timestamp {
			return int64(x), nil
		}
	case time.Time:
		switch t {
		case delta.Timestamp:
			return x.UnixMicro(), nil
		case delta.Date:
			return int64(math.Floor(float64(x.Unix()) / 86400)), nil
		}
	case int64:
		switch t {
		case delta.Long, delta.Integer, delta.Timestamp, delta.Date:
			return x, nil
		case delta.Double:
			return float64(x), nil
		}
	case float64:
		if t == delta.Double && !math.IsNaN(x) {
			return x, nil
		}
	}
	return nil, fmt.Errorf("a range of %T does not fit type %s", v, t)
}

// partitionValue returns nil, which proves nothing, for types whose text it
// does not read.
func partitionValue(text string, t delta.Type) any {
	switch t {
	case delta.String:
		return text
	case delta.Long, delta.Integer:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case delta.Date:
		if d, err := time.Parse(time.DateOnly, text); err == nil {
			return int64(math.Floor(float64(d.Unix()) / 86400))
		}
	}
	return nil
}

// compare orders two values of one type; bool has false first.
func compare(a, b any) int {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y)
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y)
		}
	case bool:
		if y, ok := b.(bool); ok {
			return cmp.Compare(strconv.FormatBool(x), strconv.FormatBool(y))
		}
	}
	return 0
}
