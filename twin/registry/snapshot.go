package registry

import (
	"context"

	"github.com/headrace/headrace/signal"
)

// Snapshot is one version of the registry with look-up. It does not change.
type Snapshot struct {
	Version int64
	Assets  []signal.AssetMeta  // sorted by asset, validity
	Sensors []signal.SensorMeta // sorted by path, validity

	assets map[signal.Asset][]signal.AssetMeta
	paths  map[signal.Asset][]signal.SensorMeta // an asset's sensors stand together
}

// Snapshot returns the newest version.
func (r *Registry) Snapshot(ctx context.Context) (*Snapshot, error) {
	version, err := r.Version(ctx)
	if err != nil {
		return nil, err
	}
	if s := r.snapshot.Load(); s != nil && s.Version == version {
		return s, nil
	}
	assets, sensors, err := r.Rows(ctx, version)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		Version: version, Assets: assets, Sensors: sensors,
		assets: group(assets, func(m signal.AssetMeta) signal.Asset { return m.Asset }),
		paths:  group(sensors, func(m signal.SensorMeta) signal.Asset { return m.Path.Asset() }),
	}
	r.snapshot.Store(s)
	return s, nil
}

// group cuts rows that stand together by key; the parts share their memory.
func group[K comparable, M any](rows []M, key func(M) K) map[K][]M {
	out := map[K][]M{}
	for begin := 0; begin < len(rows); {
		k, end := key(rows[begin]), begin+1
		for end < len(rows) && key(rows[end]) == k {
			end++
		}
		out[k] = rows[begin:end:end]
		begin = end
	}
	return out
}

// Asset returns what holds of an asset at a time.
func (s *Snapshot) Asset(a signal.Asset, at signal.Micros) (signal.AssetMeta, bool) {
	for _, m := range s.assets[a] {
		if m.ValidFrom <= at && at < m.ValidTo {
			return m, true
		}
	}
	return signal.AssetMeta{}, false
}

// SensorsOf returns what holds of an asset's sensors at a time, sorted by path.
func (s *Snapshot) SensorsOf(a signal.Asset, at signal.Micros) []signal.SensorMeta {
	var out []signal.SensorMeta
	for _, m := range s.paths[a] {
		if m.ValidFrom <= at && at < m.ValidTo {
			out = append(out, m)
		}
	}
	return out
}

// Sensor returns what holds of a sensor at a time.
func (s *Snapshot) Sensor(p signal.Path, at signal.Micros) (signal.SensorMeta, bool) {
	for _, m := range s.paths[p.Asset()] {
		if m.Path == p && m.ValidFrom <= at && at < m.ValidTo {
			return m, true
		}
	}
	return signal.SensorMeta{}, false
}

// Known tells whether a sensor is registered, at whatever time.
func (s *Snapshot) Known(p signal.Path) bool {
	for _, m := range s.paths[p.Asset()] {
		if m.Path == p {
			return true
		}
	}
	return false
}
