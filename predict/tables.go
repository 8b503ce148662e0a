package predict

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/predict/features"
)

// The tables that this station writes.
const (
	tableVibration   = "features.vibration"
	tableProcess     = "features.process"
	tableModels      = "gold.models"
	tablePredictions = "gold.predictions"
	tableHealth      = "gold.sensor_health"

	tableSilver     = "silver.readings"
	tableQuarantine = "silver.readings_quarantine"
	tableWindows    = "gold.windows_1m"
)

type column struct {
	name string
	kind duck.Type
}

func deltaType(t duck.Type) delta.Type {
	switch t {
	case duck.Float64:
		return delta.Double
	case duck.Int64:
		return delta.Long
	case duck.Int32:
		return delta.Integer
	case duck.Bool:
		return delta.Boolean
	case duck.Timestamp:
		return delta.Timestamp
	}
	return delta.String
}

func vibrationColumns() []column {
	out := []column{
		{"asset", duck.Dict},
		{"sensor", duck.Dict},
		{"event_time", duck.Timestamp},
		{"available_time", duck.Timestamp},
		{"definition", duck.Dict},
		{"op", duck.Dict},
		{"running", duck.Bool},
		{"windows", duck.Int32},
	}
	for _, name := range features.Names() {
		out = append(out, column{name, duck.Float64})
	}
	return append(out, column{"silver_version", duck.Int64}, column{"shard", duck.Int32})
}

func processColumns() []column {
	return []column{
		{"asset", duck.Dict},
		{"event_time", duck.Timestamp},
		{"available_time", duck.Timestamp},
		{"definition", duck.Dict},
		{"op", duck.Dict},
		{"running", duck.Bool},
		{"state", duck.Dict},
		{"hours_since_service", duck.Float64},
		{"means", duck.String},
		{"shard", duck.Int32},
	}
}

func modelColumns() []column {
	return []column{
		{"model", duck.Dict},
		{"asset", duck.Dict},
		{"sensor", duck.Dict},
		{"trained_at", duck.Timestamp},
		{"definition", duck.Dict},
		{"healthy_asset", duck.Dict},
		{"healthy_from", duck.Timestamp},
		{"healthy_to", duck.Timestamp},
		{"rows", duck.Int64},
		{"data", duck.Dict},
		{"t2_limit", duck.Float64},
		{"q_limit", duck.Float64},
		{"content", duck.String},
		{"shard", duck.Int32},
	}
}

func predictionColumns() []column {
	return []column{
		{"asset", duck.Dict},
		{"sensor", duck.Dict},
		{"event_time", duck.Timestamp},
		{"available_time", duck.Timestamp},
		{"feature_available", duck.Timestamp},
		{"status", duck.Dict},
		{"model", duck.Dict},
		{"t2", duck.Float64},
		{"t2_limit", duck.Float64},
		{"q", duck.Float64},
		{"q_limit", duck.Float64},
		{"score", duck.Float64},
		{"contributions", duck.String},
		{"shard", duck.Int32},
	}
}

func healthColumns() []column {
	return []column{
		{"path", duck.Dict},
		{"kind", duck.Dict},
		{"state", duck.Dict},
		{"since", duck.Timestamp},
		{"until", duck.Timestamp},
		{"detected", duck.Timestamp},
		{"evidence", duck.String},
		{"owner", duck.Dict},
		{"event_time", duck.Timestamp},
		{"available_time", duck.Timestamp},
		{"shard", duck.Int32},
	}
}

// definition is a table of this station.
type definition struct {
	name, comment string
	columns       []column
}

func definitions() []definition {
	return []definition{
		{tableVibration, "Rolling features of acceleration channels, with event and available time", vibrationColumns()},
		{tableProcess, "Slow sensors by minute, with event and available time", processColumns()},
		{tableModels, "Models: what a healthy machine looks like", modelColumns()},
		{tablePredictions, "Scores with the contribution of each feature", predictionColumns()},
		{tableHealth, "Faults of sensors: stuck, dead, impossible", healthColumns()},
	}
}

func tableDir(lake, name string) string {
	schema, table, _ := strings.Cut(name, ".")
	return filepath.Join(lake, schema, table)
}

// openTables opens the station's tables, making those that are missing.
func (w *Worker) openTables(ctx context.Context) error {
	for _, d := range definitions() {
		def := delta.Definition{Name: d.name, Description: d.comment, Properties: map[string]string{"delta.appendOnly": "true"}}
		for _, c := range d.columns {
			def.Schema.Fields = append(def.Schema.Fields, delta.Field{Name: c.name, Type: deltaType(c.kind)})
		}
		dir := tableDir(w.LakeDir, d.name)
		t, err := delta.OpenOrCreate(ctx, dir, def, delta.Options{})
		if err != nil {
			return fmt.Errorf("opening table %s: %w", d.name, err)
		}
		if !t.Last().Schema().Equal(def.Schema) {
			return fmt.Errorf("opening table %s: it has other columns than this version writes; move %s away to have it made anew", d.name, dir)
		}
		w.tables[d.name] = t
	}
	return nil
}

// appender returns an appender of a table's rows.
func appender(columns []column) *duck.Appender {
	out := make([]duck.Column, len(columns))
	for i, c := range columns {
		out[i] = duck.Column{Name: c.name, Type: c.kind}
	}
	return duck.NewAppender(out)
}

// write commits an appender's rows; txn guards against a second worker and
// against writing twice. It releases the appender.
func (w *Worker) write(ctx context.Context, name string, app *duck.Appender, txn delta.TxnStep) error {
	defer app.Release()
	if app.Rows() == 0 {
		return nil
	}
	t := w.tables[name]
	file := delta.NewDataPath()
	path := filepath.Join(t.Dir(), file)
	var size int64
	var stats string
	err := w.engine(ctx, func(ctx context.Context) error {
		rows, err := app.Finish()
		if err != nil {
			return err
		}
		defer rows.Release()
		if err := w.session.Load(ctx, "predicted", rows); err != nil {
			return err
		}
		defer func() { _ = w.session.Exec(context.WithoutCancel(ctx), "DROP TABLE predicted") }()
		info, err := w.session.CopyParquet(ctx, "SELECT * FROM predicted", path)
		size, stats = info.Bytes, info.StatsJSON
		return err
	})
	if err == nil {
		_, err = t.Commit(ctx, delta.Commit{
			ReadVersion: delta.Latest, Operation: "STREAMING UPDATE", Parameters: map[string]string{"flow": name},
			Adds: []delta.AddFile{{Path: file, Size: size, StatsJSON: stats}}, Txns: []delta.TxnStep{txn},
		})
	}
	if err != nil {
		if errors.Is(err, delta.ErrTxnMoved) {
			_ = os.Remove(path) // nobody's: the commit was refused
			err = fmt.Errorf("%w; another process writes it: let one process of the lake have the role predict", err)
		}
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// next is the transaction of a table whose order of commits alone matters.
func (w *Worker) next(name string) delta.TxnStep {
	app := "headrace/" + name
	stored := w.tables[name].Last().Txn(app)
	return delta.TxnStep{AppID: app, From: stored, To: stored + 1}
}

// engine runs fn while it is this station's turn in the SQL engine.
func (w *Worker) engine(ctx context.Context, fn func(context.Context) error) error {
	if w.Turn != nil {
		giveBack, err := w.Turn(ctx)
		if err != nil {
			return err
		}
		defer giveBack()
	}
	return fn(ctx)
}

// relation is the SQL relation of some files of a table.
func relation(t *delta.Table, files []*delta.File) (string, error) {
	snap := t.Last()
	schema, partitioned := snap.Schema(), snap.Metadata().PartitionColumns
	p := duck.Parquet{PartitionColumns: partitioned}
	for _, f := range schema.Fields {
		p.Columns = append(p.Columns, duck.Field{Name: f.Name, SQLType: duck.SQLType(string(f.Type)), DeltaType: string(f.Type)})
	}
	for _, f := range files {
		part := make([]string, len(partitioned))
		for i, c := range partitioned {
			part[i] = f.PartitionValues[c]
		}
		p.Files = append(p.Files, duck.ParquetFile{Path: filepath.Join(t.Dir(), filepath.FromSlash(f.Path)), Partition: part})
	}
	return p.SQL()
}
