package registry

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/headrace/headrace/signal"
)

// row is what holds over a validity.
type row interface {
	comparable
	signal.AssetMeta | signal.SensorMeta
}

// span points at a row's validity.
func span[M row](m *M) (from, to *signal.Micros) {
	if a, ok := any(m).(*signal.AssetMeta); ok {
		return &a.ValidFrom, &a.ValidTo
	}
	s := any(m).(*signal.SensorMeta)
	return &s.ValidFrom, &s.ValidTo
}

// name is the asset or path that a row describes.
func name[M row](m M) string {
	if a, ok := any(m).(signal.AssetMeta); ok {
		return string(a.Asset)
	}
	return string(any(m).(signal.SensorMeta).Path)
}

func claimed[M row](m M) bool {
	if a, ok := any(m).(signal.AssetMeta); ok {
		return a.Claimed
	}
	return any(m).(signal.SensorMeta).Claimed
}

// OverlapError says that two rows of one name would hold at the same time.
type OverlapError struct {
	Name                     string // the asset or path
	From, To                 signal.Micros
	RecordedFrom, RecordedTo signal.Micros // the other row's validity
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("%s: validity %s overlaps %s; end one before the other begins", e.Name, interval(e.From, e.To), interval(e.RecordedFrom, e.RecordedTo))
}

func interval(from, to signal.Micros) string {
	bound := func(m signal.Micros) string {
		switch m {
		case signal.MinTime, signal.MaxTime:
			return "…"
		}
		return m.Time().Format(time.RFC3339Nano)
	}
	return "[" + bound(from) + ", " + bound(to) + ")"
}

// inOrder sorts rows of one name by validity and refuses an overlap.
func inOrder[M row](rows []M) error {
	slices.SortFunc(rows, func(a, b M) int {
		af, _ := span(&a)
		bf, _ := span(&b)
		return cmp.Compare(*af, *bf)
	})
	for i := 1; i < len(rows); i++ {
		wf, wt := span(&rows[i-1])
		f, t := span(&rows[i])
		if *f < *wt {
			return &OverlapError{Name: name(rows[i]), From: *f, To: *t, RecordedFrom: *wf, RecordedTo: *wt}
		}
	}
	return nil
}

// mode is how a change meets what is recorded.
type mode int

const (
	add       mode = iota // refuse to overlap it
	correct               // win over it, for the validity of each row
	replace               // be the whole timeline
	unclaimed             // be the whole timeline where nobody has described the name
)

// merge returns the timeline of one name that shall hold from what holds and
// what a change says.
func merge[M row](how mode, was, rows []M) ([]M, error) {
	if how == add {
		rows = slices.Concat(was, rows)
		err := inOrder(rows)
		return joined(rows), err
	}
	if err := inOrder(rows); err != nil {
		return nil, err
	}
	if how == unclaimed && slices.ContainsFunc(was, claimed[M]) {
		return was, nil
	}
	if how != correct {
		return joined(rows), nil
	}
	return overlay(was, rows), nil
}

// overlay lays rows over a timeline: they win for their validity, what was
// there before and after them stays. Neighbours that say the same become one.
func overlay[M row](was, rows []M) []M {
	out := slices.Clone(was)
	for _, r := range rows {
		from, to := span(&r)
		var next []M
		for _, w := range out {
			wf, wt := span(&w)
			if *wt <= *from || *to <= *wf {
				next = append(next, w)
				continue
			}
			if *wf < *from {
				before := w
				_, end := span(&before)
				*end = *from
				next = append(next, before)
			}
			if *to < *wt {
				after := w
				begin, _ := span(&after)
				*begin = *to
				next = append(next, after)
			}
		}
		out = append(next, r)
	}
	_ = inOrder(out) // cannot overlap: each row was cut out before
	return joined(out)
}

func joined[M row](rows []M) []M {
	var out []M
	for _, r := range rows {
		if len(out) > 0 {
			last := &out[len(out)-1]
			lf, lt := span(last)
			f, t := span(&r)
			same := r
			sf, st := span(&same)
			*sf, *st = *lf, *lt
			if *lt == *f && same == *last {
				*lt = *t
				continue
			}
		}
		out = append(out, r)
	}
	return out
}
