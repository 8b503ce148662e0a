package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/signal"
)

// Series reads a sensor's history over [from, to): every moment of measurement,
// or at most maxPoints buckets if there are more of them than that.
type Series interface {
	Series(ctx context.Context, path signal.Path, from, to signal.Micros, maxPoints int) (Points, error)
}

// Points is a stretch of history in columns of equal length, by time.
type Points struct {
	Bucket signal.Micros   // width of a bucket; 0: the points are single readings
	T      []signal.Micros // time of measurement, or the beginning of the bucket

	// Of single readings.
	Values []signal.Value
	Good   []bool

	// Of buckets: the good numbers in it, NaN if there are none; readings; good ones.
	Min, Max, Mean []float64
	N, GoodN       []int64
}

func seriesBody(p Points) SeriesBody {
	b := SeriesBody{Mode: "raw", Count: int64(len(p.T)), T: make([]float64, len(p.T))}
	for i, t := range p.T {
		b.T[i] = float64(t) / 1e6
	}
	if p.Bucket > 0 {
		width := seconds(p.Bucket)
		b.Mode, b.BucketSeconds, b.Count = "buckets", &width, 0
		b.Min, b.Max, b.Mean, b.N, b.GoodN = numbers(p.Min), numbers(p.Max), numbers(p.Mean), p.N, p.GoodN
		for _, n := range p.N {
			b.Count += n
		}
		return b
	}
	b.Good = p.Good
	b.Value = make([]Number, len(p.Values))
	for i, v := range p.Values {
		b.Value[i] = none()
		switch v.Kind {
		case signal.Number, signal.Bool:
			b.Value[i] = Number(v.Number)
		case signal.Text:
			if b.Text == nil {
				b.Text = make([]*string, len(p.Values))
			}
			b.Text[i] = &p.Values[i].Text
		}
	}
	return b
}

func numbers(in []float64) []Number {
	out := make([]Number, len(in))
	for i, v := range in {
		out[i] = Number(v)
	}
	return out
}

// seriesQueries bounds the stretches that are read at the same time: each takes
// a share of the SQL engine's memory.
const seriesQueries = 2

// LakeSeries reads histories from silver.readings.
type LakeSeries struct {
	dir   string
	db    *duck.DB
	slots chan struct{}

	mu      sync.Mutex // guards opening
	catalog *catalog.Catalog
}

// NewLakeSeries reads from the lake in a folder, which need not be there yet.
func NewLakeSeries(dir string, db *duck.DB) *LakeSeries {
	return &LakeSeries{dir: dir, db: db, slots: make(chan struct{}, seriesQueries)}
}

// Series implements [Series]. Of several rows of one moment the last in the
// order of readings counts: a heartbeat is the same value again.
func (l *LakeSeries) Series(ctx context.Context, path signal.Path, from, to signal.Micros, maxPoints int) (Points, error) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return Points{}, ctx.Err()
	}
	p, err := l.read(ctx, path, from, to, maxPoints)
	if err != nil {
		return Points{}, fmt.Errorf("reading the history of %s: %w", path, err)
	}
	return p, nil
}

func (l *LakeSeries) read(ctx context.Context, path signal.Path, from, to signal.Micros, maxPoints int) (Points, error) {
	c, err := l.refreshed(ctx)
	if err != nil {
		return Points{}, err
	}
	const table = "silver.readings"
	relation, err := c.Relation(table,
		catalog.Range{Column: "event_time", Min: from, Max: to},
		catalog.Range{Column: "path", Min: string(path), Max: string(path)})
	if errors.Is(err, catalog.ErrNoTable) {
		return Points{}, nil // nothing has arrived yet
	}
	if err != nil {
		return Points{}, err
	}
	session, err := l.db.Session(ctx)
	if err != nil {
		return Points{}, err
	}
	defer session.Close()
	rows := fmt.Sprintf(`(SELECT * FROM %s WHERE path = %s AND event_time >= make_timestamptz(%d) AND event_time < make_timestamptz(%d))`,
		relation, duck.Literal(string(path)), from, to)
	var moments int
	if err := session.QueryRow(ctx, `SELECT count(DISTINCT event_time) FROM `+rows).Scan(&moments); err != nil {
		return Points{}, err
	}
	newest := `(SELECT epoch_us(event_time) AS us, unnest(max_by(struct_pack(kind, value, text, good), row(alive_at, edge, boot, stream, n, i)))
		FROM ` + rows + ` GROUP BY event_time)`
	if moments <= maxPoints {
		return readMoments(ctx, session, newest)
	}
	return readBuckets(ctx, session, newest, from, to, maxPoints)
}

// refreshed opens the lake at the first question and keeps up with it.
func (l *LakeSeries) refreshed(ctx context.Context) (*catalog.Catalog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.catalog != nil {
		return l.catalog, l.catalog.Refresh(ctx)
	}
	c, err := catalog.Open(ctx, l.dir)
	if err == nil {
		l.catalog = c
	}
	return c, err
}

// readMoments reads single readings.
func readMoments(ctx context.Context, s *duck.Session, newest string) (Points, error) {
	rows, err := s.Query(ctx, `SELECT us, kind, coalesce(value, 'nan'::DOUBLE), coalesce(text, ''), good FROM `+newest+` ORDER BY us`)
	if err != nil {
		return Points{}, err
	}
	defer rows.Close()
	p := Points{T: []signal.Micros{}, Values: []signal.Value{}, Good: []bool{}}
	for rows.Next() {
		var t signal.Micros
		var kind, text string
		var number float64
		var good bool
		if err := rows.Scan(&t, &kind, &number, &text, &good); err != nil {
			return Points{}, err
		}
		var v signal.Value
		switch kind {
		case "number":
			v = signal.NumberValue(number)
		case "bool":
			v = signal.BoolValue(number != 0)
		case "text":
			v = signal.TextValue(text)
		}
		p.T, p.Values, p.Good = append(p.T, t), append(p.Values, v), append(p.Good, good)
	}
	return p, rows.Err()
}

// readBuckets reads at most limit buckets; empty ones are left out.
func readBuckets(ctx context.Context, s *duck.Session, newest string, from, to signal.Micros, limit int) (Points, error) {
	width := (to - from + signal.Micros(limit) - 1) / signal.Micros(limit)
	rows, err := s.Query(ctx, fmt.Sprintf(`SELECT b, coalesce(min(v), 'nan'::DOUBLE), coalesce(max(v), 'nan'::DOUBLE), coalesce(avg(v), 'nan'::DOUBLE), count(*), count(*) FILTER (good)
		FROM (SELECT (us - %d) // %d AS b, good, CASE WHEN good AND kind IN ('number', 'bool') AND isfinite(value) THEN value END AS v FROM %s)
		GROUP BY b ORDER BY b`, from, width, newest))
	if err != nil {
		return Points{}, err
	}
	defer rows.Close()
	p := Points{Bucket: width}
	for rows.Next() {
		var b, n, goodN int64
		low, high, mean := math.NaN(), math.NaN(), math.NaN()
		if err := rows.Scan(&b, &low, &high, &mean, &n, &goodN); err != nil {
			return Points{}, err
		}
		p.T = append(p.T, from+signal.Micros(b)*width)
		p.Min, p.Max, p.Mean = append(p.Min, low), append(p.Max, high), append(p.Mean, mean)
		p.N, p.GoodN = append(p.N, n), append(p.GoodN, goodN)
	}
	return p, rows.Err()
}
