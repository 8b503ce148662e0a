package predict

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/lake/catalog"
	"github.com/headrace/headrace/predict/features"
	"github.com/headrace/headrace/signal"
)

// FeatureTTL is how old features may be that an as-of read answers.
const FeatureTTL = signal.Micros(10 * 60 * 1_000_000)

// Features is what the feature views say of an asset as of a time.
type Features struct {
	Vibration []VibrationFeatures // by channel
	Process   ProcessFeatures
}

// VibrationFeatures is a row of features.vibration as of a time; but for Sensor
// and Status all is empty unless one was found.
type VibrationFeatures struct {
	Sensor           string
	Status           features.Status
	Event, Available signal.Micros
	Running          bool
	Windows          int
	Values           map[string]float64 // those that are known
}

// ProcessFeatures is a row of features.process as of a time.
type ProcessFeatures struct {
	Status            features.Status
	Event, Available  signal.Micros
	Running           bool
	State             string
	HoursSinceService float64 // NaN if there was no service
	Means             map[string]float64
}

// ReadFeatures reads the feature views of a lake as they say it of an asset at
// t to somebody who knows what was available at k: the as-of rule of
// [features.AsOf], with [FeatureTTL]. A lake without the views answers that
// nothing was available.
func ReadFeatures(ctx context.Context, s *duck.Session, lake string, asset signal.Asset, t, k signal.Micros) (out Features, err error) {
	out.Process = ProcessFeatures{Status: features.NotAvailable, HoursSinceService: math.NaN()}
	cat, err := catalog.Open(ctx, lake)
	if err == nil {
		err = readVibration(ctx, s, cat, asset, t, k, &out)
	}
	if err == nil {
		err = readProcess(ctx, s, cat, asset, t, k, &out)
	}
	if errors.Is(err, catalog.ErrNoTable) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("reading the features of %s: %w", asset, err)
	}
	return out, nil
}

// within is the part of a view that an as-of read looks at, and a bit more: a
// row that is too old is told from one that is not there.
func within(cat *catalog.Catalog, table string, asset signal.Asset, t signal.Micros) (string, error) {
	from, err := cat.Relation(table, catalog.Range{Column: "event_time", Min: t - 2*FeatureTTL, Max: t},
		catalog.Range{Column: "asset", Min: string(asset), Max: string(asset)})
	return fmt.Sprintf("(SELECT * FROM %s WHERE asset = %s AND epoch_us(event_time) BETWEEN %d AND %d)", from, duck.Literal(string(asset)), t-2*FeatureTTL, t), err
}

func readVibration(ctx context.Context, s *duck.Session, cat *catalog.Catalog, asset signal.Asset, t, k signal.Micros, out *Features) error {
	from, err := within(cat, tableVibration, asset, t)
	if err != nil {
		return err
	}
	var channels []string
	list, rows := map[string][]features.Row{}, map[string][]featureRow{}
	err = featureRows(ctx, s, from, func(c channelKey, row featureRow) {
		if list[c.sensor] == nil {
			channels = append(channels, c.sensor)
		}
		list[c.sensor] = append(list[c.sensor], row.asOf(len(list[c.sensor])))
		rows[c.sensor] = append(rows[c.sensor], row)
	})
	for _, sensor := range channels {
		i, status := features.AsOf(list[sensor], t, k, FeatureTTL)
		f := VibrationFeatures{Sensor: sensor, Status: status}
		if i >= 0 {
			row := &rows[sensor][i]
			f.Event, f.Available, f.Running, f.Windows, f.Values = row.event, row.available, row.running, row.windows, map[string]float64{}
			for j, name := range features.Names() {
				if v := row.vector[j]; !math.IsNaN(v) {
					f.Values[name] = v
				}
			}
		}
		out.Vibration = append(out.Vibration, f)
	}
	return err
}

func readProcess(ctx context.Context, s *duck.Session, cat *catalog.Catalog, asset signal.Asset, t, k signal.Micros, out *Features) error {
	from, err := within(cat, tableProcess, asset, t)
	if err != nil {
		return err
	}
	var list []features.Row
	var rows []ProcessFeatures
	err = each(ctx, s, `SELECT epoch_us(event_time), epoch_us(available_time), op = 'D', running, state, coalesce(hours_since_service, 'nan'::DOUBLE), means
		FROM `+from+` ORDER BY event_time, available_time`, func(r *sql.Rows) error {
		p := ProcessFeatures{Status: features.Found}
		var retracted bool
		var means string
		if err := r.Scan(&p.Event, &p.Available, &retracted, &p.Running, &p.State, &p.HoursSinceService, &means); err != nil {
			return err
		}
		list = append(list, features.Row{Event: p.Event, Available: p.Available, Retracted: retracted, Seq: int64(len(list))})
		rows = append(rows, p)
		return json.Unmarshal([]byte(means), &rows[len(rows)-1].Means)
	})
	if err != nil {
		return err
	}
	i, status := features.AsOf(list, t, k, FeatureTTL)
	out.Process.Status = status
	if i >= 0 {
		out.Process = rows[i]
	}
	return nil
}
