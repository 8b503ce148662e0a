package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/deadletter"
	"github.com/headrace/headrace/spine/routes"
)

const (
	bronzeTable     = "bronze.readings"
	rawTable        = "bronze.raw"
	silverTable     = "silver.readings"
	quarantineTable = "silver.readings_quarantine"
)

// spine reads what lies in Kafka beyond bronze, and the open dead letters.
func (v *verifier) spine(ctx context.Context, cat *catalog.Catalog) error {
	cfg := v.Kafka
	cfg.ClientID = "headrace-ledger"
	admin, err := kafkac.NewAdmin(cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	read := map[string]string{record.TopicReadings: bronzeTable, record.TopicEvents: bronzeTable, record.TopicRaw: rawTable}
	routed, err := routes.NewReader(cfg).Topics(ctx)
	if err != nil {
		return err
	}
	for topic, raw := range routed {
		read[topic] = bronzeTable
		if raw {
			read[topic] = rawTable
		}
	}
	names := append(slices.Collect(maps.Keys(read)), record.TopicDeadletter)
	topics, err := admin.Topics(ctx, names...)
	if err != nil {
		return err
	}
	offsets, err := admin.ListOffsets(ctx, names...)
	if err != nil {
		return err
	}
	var ranges []kafkac.Range
	for tp, o := range offsets {
		if tp.Topic == record.TopicDeadletter {
			continue
		}
		start := o.Start
		if table := read[tp.Topic]; table != "" {
			bronze, err := cat.Snapshot(table)
			if err != nil {
				return err
			}
			start = max(start, bronze.Txn(pipeline.BronzeTxn(table, topics[tp.Topic].ID, tp.Partition)))
		}
		ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: start, End: o.End})
	}
	// Letters that were sent again and taken stand where the others do.
	letters, err := deadletter.List(ctx, cfg, 0)
	if err != nil {
		return err
	}
	for _, l := range letters {
		id := message{l.Edge, l.Boot, l.Stream, l.N}
		if l.Closed || l.Edge == "" || v.dead[id] { // a resend may be refused again
			continue
		}
		v.edge(l.Edge).Deadletter += l.Readings
		v.dead[id] = l.Readings > 0
	}
	var batch signal.Batch
	return kafkac.Read(ctx, cfg, ranges, func(r kafkac.Record) error {
		if r.Topic == record.TopicEvents && record.IsEvent(header(r, record.HeaderKind)) {
			return nil // a birth or a death
		}
		readings := 1 // bytes that cannot be read become one row
		if record.Decode(r.Value, &batch) == nil {
			readings = len(batch.Readings)
			if read[r.Topic] == rawTable {
				readings = int(record.Samples(&batch))
			}
		}
		v.waiting[identity(r)] = readings
		return nil
	})
}

func identity(r kafkac.Record) message {
	return message{header(r, record.HeaderEdge), header(r, record.HeaderBoot), header(r, record.HeaderStream), header(r, record.HeaderN)}
}

func header(r kafkac.Record, key string) string {
	b, _ := r.Header(key)
	return string(b)
}

// bronze counts rows, and rows that stand twice.
func (v *verifier) bronze(ctx context.Context, s *duck.Session) error {
	return v.each(ctx, s, `SELECT coalesce(edge, ''), sum(c), sum(c - 1)
		FROM (SELECT edge, boot, stream, n, i, kafka_topic, kafka_partition, count(*) AS c,
			-- what could not be read has no identity but its place in the spine
			CASE WHEN coalesce(boot, '') = '' THEN kafka_offset END AS place
			FROM bronze.readings GROUP BY ALL)
		GROUP BY 1`, func(e *Edge, n []int64) { e.Bronze, e.Doubled = n[0], n[1] })
}

// raw does the same with blocks of samples.
func (v *verifier) raw(ctx context.Context, s *duck.Session) error {
	return v.each(ctx, s, `SELECT coalesce(edge, ''), sum(samples), sum(c - 1)
		FROM (SELECT edge, boot, stream, n, i, kafka_topic, kafka_partition, count(*) AS c, sum(count) AS samples,
			CASE WHEN coalesce(boot, '') = '' THEN kafka_offset END AS place
			FROM bronze.raw GROUP BY ALL)
		GROUP BY 1`, func(e *Edge, n []int64) { e.Raw, e.RawDoubled = n[0], n[1] })
}

// pending gathers the rows of bronze in versions that silver has yet to read.
func (v *verifier) pending(ctx context.Context, s *duck.Session, cat *catalog.Catalog) error {
	bronze, err := cat.Snapshot(bronzeTable)
	if err != nil {
		return err
	}
	silver, err := cat.Snapshot(silverTable)
	if err != nil {
		return err
	}
	for _, q := range []string{
		"CREATE OR REPLACE TEMP TABLE read_to (shard INT, version BIGINT)",
		"CREATE OR REPLACE TEMP TABLE pending AS SELECT edge, " + place + " FROM bronze.readings LIMIT 0",
	} {
		if err := s.Exec(ctx, q); err != nil {
			return err
		}
	}
	for shard := range pipeline.Shards {
		at := silver.Txn(fmt.Sprintf("headrace/%s/%d", silverTable, shard))
		if err := s.Exec(ctx, "INSERT INTO read_to VALUES (?, ?)", shard, at); err != nil {
			return err
		}
	}
	// Of the shards that have rows, the one that is furthest behind.
	var least sql.NullInt64
	if err := s.QueryRow(ctx, "SELECT min(version) FROM read_to WHERE shard IN (SELECT DISTINCT shard FROM bronze.readings)").Scan(&least); err != nil {
		return err
	}
	if !least.Valid {
		return nil
	}
	table, err := delta.Open(ctx, filepath.Join(v.Lake, "bronze", "readings"), delta.Options{})
	if err != nil {
		return err
	}
	const stride = 256
	for from := least.Int64; from < bronze.Version(); from += stride {
		versions, err := table.Changes(ctx, from, min(from+stride, bronze.Version()))
		if err != nil {
			return err
		}
		for _, version := range versions {
			if err := v.pendingIn(ctx, s, version); err != nil {
				return err
			}
		}
	}
	return v.each(ctx, s, "SELECT coalesce(edge, ''), count(*) FROM pending GROUP BY 1", func(e *Edge, n []int64) { e.Pending = n[0] })
}

func (v *verifier) pendingIn(ctx context.Context, s *duck.Session, version delta.Version) error {
	for _, f := range version.Adds {
		if !f.DataChange {
			continue
		}
		file := filepath.Join(v.Lake, "bronze", "readings", filepath.FromSlash(f.Path))
		err := s.Exec(ctx, fmt.Sprintf(`INSERT INTO pending SELECT edge, %s FROM read_parquet(%s) b
			JOIN read_to r ON r.shard = b.shard AND r.version < %d`, place, duck.Literal(file), version.Version))
		if err != nil {
			return err
		}
	}
	return nil
}

// place names a row by where its record lies in the spine, which no row lacks.
const place = "kafka_topic, kafka_partition, kafka_offset, i"

// silver compares the tables behind bronze with it, row by row.
func (v *verifier) silver(ctx context.Context, s *duck.Session) error {
	for _, q := range []string{
		// Quarantine is committed first: what silver has yet to read is pending there too.
		"CREATE OR REPLACE TEMP TABLE behind AS SELECT edge, " + place + ", true AS good FROM silver.readings UNION ALL " +
			"SELECT edge, " + place + ", false FROM silver.readings_quarantine ANTI JOIN pending USING (" + place + ")",
		"CREATE OR REPLACE TEMP TABLE left_out AS SELECT b.* FROM bronze.readings b ANTI JOIN behind USING (" + place + ") ANTI JOIN pending USING (" + place + ")",
	} {
		if err := s.Exec(ctx, q); err != nil {
			return err
		}
	}
	if err := v.each(ctx, s, `SELECT coalesce(edge, ''), count(*) FILTER (WHERE good), count(*) FILTER (WHERE NOT good) FROM behind GROUP BY 1`,
		func(e *Edge, n []int64) { e.Silver, e.Quarantined = n[0], n[1] }); err != nil {
		return err
	}
	if err := v.each(ctx, s, `SELECT coalesce(edge, ''), sum(c - 1) FROM (SELECT edge, `+place+`, count(*) AS c FROM behind GROUP BY ALL) GROUP BY 1
		UNION ALL SELECT coalesce(edge, ''), count(*) FROM behind ANTI JOIN bronze.readings USING (`+place+`) GROUP BY 1`,
		func(e *Edge, n []int64) { e.Foreign += n[0] }); err != nil {
		return err
	}
	// A repeat has the same path, times, value and quality as a row of silver.
	return v.each(ctx, s, `SELECT coalesce(l.edge, ''), count(*) FROM left_out l
		WHERE EXISTS (FROM silver.readings r WHERE r.path = l.path AND r.event_time = l.event_time AND r.alive_at IS NOT DISTINCT FROM l.alive_at
			AND r.value_raw IS NOT DISTINCT FROM l.value AND r.text IS NOT DISTINCT FROM l.text AND r.quality IS NOT DISTINCT FROM l.quality)
		GROUP BY 1`, func(e *Edge, n []int64) { e.Repeated = n[0] })
}

// arrived takes off the messages on the way that are in bronze, and looks for
// skipped numbers.
func (v *verifier) arrived(ctx context.Context, s *duck.Session) error {
	words := []string{"edge", "boot", "stream", "n"}
	columns := make([]duck.Column, len(words))
	for i, w := range words {
		columns[i] = duck.Column{Name: w, Type: duck.String}
	}
	app := duck.NewAppender(columns)
	for m := range v.dead {
		delete(v.waiting, m)
	}
	for _, m := range v.elsewhere() {
		for i, word := range []string{m.edge, m.boot, m.stream, m.n} {
			app.String(i, word)
		}
		if err := app.EndRow(); err != nil {
			return err
		}
	}
	batch, err := app.Finish()
	if err != nil {
		return err
	}
	err = s.Load(ctx, "waiting", batch)
	batch.Release()
	app.Release()
	if err != nil {
		return err
	}
	const inBronze = `SELECT DISTINCT edge, boot, stream, n FROM bronze.readings WHERE coalesce(boot, '') <> ''
		UNION SELECT edge, boot, stream, n FROM bronze.raw WHERE coalesce(boot, '') <> ''`
	rows, err := s.Query(ctx, `SELECT w.edge, w.boot, w.stream, w.n FROM waiting w
		SEMI JOIN (`+inBronze+`) b ON b.edge = w.edge AND b.boot = w.boot AND b.stream = w.stream AND CAST(b.n AS VARCHAR) = w.n`)
	if err != nil {
		return err
	}
	defer rows.Close()
	present := map[message]bool{}
	for rows.Next() {
		var m message
		if err := rows.Scan(&m.edge, &m.boot, &m.stream, &m.n); err != nil {
			return err
		}
		present[m] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	v.inFlight(func(m message) bool { return present[m] })
	// Numbers below the greatest one that are not in bronze, on the way or dead letters.
	return v.each(ctx, s, `WITH seen AS (
			`+inBronze+` UNION SELECT edge, boot, stream, CAST(n AS BIGINT) FROM waiting WHERE TRY_CAST(n AS BIGINT) IS NOT NULL)
		SELECT edge, sum(greatest_n + 1 - numbers) FROM (SELECT edge, boot, stream, max(n) AS greatest_n, count(*) AS numbers FROM seen GROUP BY ALL)
		GROUP BY 1`, func(e *Edge, n []int64) { e.Missing = n[0] })
}

// elsewhere lists the messages that need not be in bronze.
func (v *verifier) elsewhere() []message {
	return slices.AppendSeq(slices.Collect(maps.Keys(v.waiting)), maps.Keys(v.dead))
}

// each runs a query of an edge and numbers.
func (v *verifier) each(ctx context.Context, s *duck.Session, query string, f func(*Edge, []int64)) (err error) {
	rows, err := s.Query(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	var name string
	numbers := make([]float64, len(columns)-1) // sums come as HUGEINT; a float holds every count exactly
	targets := []any{&name}
	for i := range numbers {
		targets = append(targets, &numbers[i])
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		out := make([]int64, len(numbers))
		for i, n := range numbers {
			out[i] = int64(n)
		}
		f(v.edge(name), out)
	}
	return rows.Err()
}
