package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/signal"
)

// SilverRow is what a live view needs of a row of silver.readings.
type SilverRow struct {
	Path      signal.Path
	EventTime signal.Micros
	AliveAt   signal.Micros
	Value     signal.Value
	Unit      string
	Quality   signal.Quality
	Good      bool
	Edge      string
	Boot      string
	Stream    string
	N         uint64
	I         int
}

// TailOptions say where to tail from.
type TailOptions struct {
	Dir  string   // of the lake
	DB   *duck.DB // a session is opened
	From int64    // silver versions after it are read; 0 reads all
	Poll time.Duration
	// Wake, if given, is signalled when a new version is likely; see
	// [Worker.Wake].
	Wake <-chan struct{}
}

// TailSilver calls fn with the rows that each new version of silver.readings
// adds, oldest version first and in the order of readings within one, until
// ctx ends or fn returns an error. A version without new rows is told with
// none. The rows are fn's only during the call. Rows are read some thousands at
// a time, so fn may be called several times for one version.
func TailSilver(ctx context.Context, o TailOptions, fn func(version int64, rows []SilverRow) error) error {
	if o.Poll == 0 {
		o.Poll = 500 * time.Millisecond
	}
	t, err := delta.Open(ctx, tableDir(o.Dir, tableSilver), delta.Options{})
	if err != nil {
		return fmt.Errorf("following %s: %w", tableSilver, err)
	}
	s, err := o.DB.Session(ctx)
	if err != nil {
		return fmt.Errorf("following %s: %w", tableSilver, err)
	}
	defer s.Close()
	for at := o.From; ctx.Err() == nil; {
		snap, err := t.Refresh(ctx)
		if err != nil {
			return fmt.Errorf("following %s: %w", tableSilver, err)
		}
		if snap.Version() <= at {
			wait(ctx, o.Poll, o.Wake)
			continue
		}
		changes, err := t.Changes(ctx, at, min(snap.Version(), at+64))
		if err != nil {
			return fmt.Errorf("following %s after version %d: %w", tableSilver, at, err)
		}
		for _, v := range changes {
			if err := tailVersion(ctx, s, t, v, fn); err != nil {
				return err
			}
			at = v.Version
		}
	}
	return ctx.Err()
}

const tailRows = 4096

func tailVersion(ctx context.Context, s *duck.Session, t *delta.Table, v delta.Version, fn func(int64, []SilverRow) error) error {
	var b batch
	b.take(v)
	if len(b.adds) == 0 {
		return fn(v.Version, nil)
	}
	from, err := relation(t, b.adds)
	if err != nil {
		return err
	}
	rows, err := s.Query(ctx, `SELECT path, epoch_us(event_time), epoch_us(alive_at), kind, coalesce(value, 0), coalesce(text, ''), coalesce(unit, ''), quality, good, edge, boot, stream, n, i
		FROM `+from+` ORDER BY event_time, alive_at, edge, boot, stream, n, i`)
	if err != nil {
		return fmt.Errorf("following %s at version %d: %w", tableSilver, v.Version, err)
	}
	out := make([]SilverRow, 0, tailRows)
	for rows.Next() {
		var r SilverRow
		var kind string
		var number float64
		if err := rows.Scan(&r.Path, &r.EventTime, &r.AliveAt, &kind, &number, &r.Value.Text, &r.Unit, &r.Quality, &r.Good, &r.Edge, &r.Boot, &r.Stream, &r.N, &r.I); err != nil {
			return errors.Join(fmt.Errorf("following %s at version %d: %w", tableSilver, v.Version, err), rows.Close())
		}
		r.Value = silverValue(kind, number, r.Value.Text)
		if out = append(out, r); len(out) == tailRows {
			if err := fn(v.Version, out); err != nil {
				return errors.Join(err, rows.Close())
			}
			out = out[:0]
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("following %s at version %d: %w", tableSilver, v.Version, err)
	}
	if len(out) == 0 {
		return nil
	}
	return fn(v.Version, out)
}

func silverValue(kind string, number float64, text string) signal.Value {
	switch kind {
	case "number":
		return signal.NumberValue(number)
	case "bool":
		return signal.BoolValue(number != 0)
	case "text":
		return signal.TextValue(text)
	}
	return signal.Value{}
}
