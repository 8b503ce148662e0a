package predict

import (
	"context"
	"errors"
	"fmt"

	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/health"
)

// versionsAtOnce bounds how much of silver one step takes.
const versionsAtOnce = 16

// row is what this station reads of a row of silver.
type row struct {
	path         signal.Path
	event, alive signal.Micros
	value        signal.Value
	good         bool
	stream       signal.Stream
	complete     signal.Micros // 0 without a promise
}

// follow is a table that is read by version.
type follow struct {
	name  string
	table *delta.Table
	at    int64 // the newest version taken
}

// open opens the table; ok is false while there is none.
func (f *follow) open(ctx context.Context, lake string) (ok bool, err error) {
	if f.table != nil {
		return true, nil
	}
	t, err := delta.Open(ctx, tableDir(lake, f.name), delta.Options{})
	if errors.Is(err, delta.ErrNotTable) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("following %s: %w", f.name, err)
	}
	f.table = t
	return true, nil
}

// added are the files of the next versions, at most some, and the version that
// they lead to. There are none when to is at.
func (f *follow) added(ctx context.Context, lake string, upTo int64) (files []*delta.File, to int64, err error) {
	if ok, err := f.open(ctx, lake); !ok {
		return nil, f.at, err
	}
	snap, err := f.table.Refresh(ctx)
	if err != nil {
		return nil, f.at, fmt.Errorf("following %s: %w", f.name, err)
	}
	to = min(snap.Version(), f.at+versionsAtOnce)
	if upTo >= 0 {
		to = min(to, upTo)
	}
	if to <= f.at {
		return nil, f.at, nil
	}
	versions, err := f.table.Changes(ctx, f.at, to)
	if err != nil {
		return nil, f.at, fmt.Errorf("following %s after version %d: %w", f.name, f.at, err)
	}
	for _, v := range versions {
		for i := range v.Adds {
			if v.Adds[i].DataChange {
				files = append(files, v.Adds[i])
			}
		}
	}
	return files, to, nil
}

// behind tells whether the table has versions that were not taken.
func (f *follow) behind(ctx context.Context, lake string) (bool, error) {
	if ok, err := f.open(ctx, lake); !ok {
		return false, err
	}
	snap, err := f.table.Refresh(ctx)
	if err != nil {
		return false, fmt.Errorf("following %s: %w", f.name, err)
	}
	return snap.Version() > f.at, nil
}

// readSilver calls fn with the rows of some files, in the order of time.
func (w *Worker) readSilver(ctx context.Context, files []*delta.File, fn func(*row)) error {
	if len(files) == 0 {
		return nil
	}
	from, err := relation(w.silver.table, files)
	if err != nil {
		return err
	}
	return w.engine(ctx, func(ctx context.Context) error {
		rows, err := w.session.Query(ctx, `SELECT path, epoch_us(event_time), epoch_us(alive_at), kind, coalesce(value, 'nan'::DOUBLE), coalesce(text, ''), good, stream, coalesce(epoch_us(complete_to), 0)
			FROM `+from+` ORDER BY event_time, alive_at, edge, boot, stream, n, i`)
		if err != nil {
			return fmt.Errorf("reading %s: %w", tableSilver, err)
		}
		for rows.Next() {
			var r row
			var kind, text string
			var number float64
			if err := rows.Scan(&r.path, &r.event, &r.alive, &kind, &number, &text, &r.good, &r.stream, &r.complete); err != nil {
				return errors.Join(fmt.Errorf("reading %s: %w", tableSilver, err), rows.Close())
			}
			switch kind {
			case "number":
				r.value = signal.NumberValue(number)
			case "bool":
				r.value = signal.BoolValue(number != 0)
			case "text":
				r.value = signal.TextValue(text)
			}
			fn(&r)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
}

// readRefused gives the monitor what silver refused for its value.
func (w *Worker) readRefused(ctx context.Context, upTo int64) (progress bool, err error) {
	files, to, err := w.quarantine.added(ctx, w.LakeDir, upTo)
	if err != nil || to == w.quarantine.at {
		return false, err
	}
	if len(files) > 0 {
		from, err := relation(w.quarantine.table, files)
		if err != nil {
			return false, err
		}
		err = w.engine(ctx, func(ctx context.Context) error {
			rows, err := w.session.Query(ctx, `SELECT path, epoch_us(event_time), epoch_us(alive_at), coalesce(value, 0) FROM `+from+`
				WHERE list_contains(violations, 'possible_value') AND path <> '' AND event_time IS NOT NULL ORDER BY alive_at, event_time`)
			if err != nil {
				return fmt.Errorf("reading %s: %w", tableQuarantine, err)
			}
			var refused []health.Refused
			for rows.Next() {
				var r health.Refused
				if err := rows.Scan(&r.Path, &r.EventTime, &r.AliveAt, &r.Value); err != nil {
					return errors.Join(fmt.Errorf("reading %s: %w", tableQuarantine, err), rows.Close())
				}
				refused = append(refused, r)
			}
			w.monitor.Refused(refused)
			return errors.Join(rows.Err(), rows.Close())
		})
		if err != nil {
			return false, err
		}
	}
	w.quarantine.at = to
	return true, nil
}
