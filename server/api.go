package server

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/registry"
	"github.com/headrace/headrace/twin/state"
)

// addAPI registers the operations of the native API and its document.
func (s *Server) addAPI(mux *http.ServeMux) {
	config := huma.DefaultConfig("Headrace", cmp.Or(s.opts.Version, "dev"))
	config.Info.Description = "Assets, their sensors' newest values with their age, stretches of history, and the counters of every station of the way."
	config.OpenAPIPath = "/api/openapi"
	config.DocsPath, config.SchemasPath = "", ""
	config.CreateHooks = nil // no $schema in answers
	config.RejectUnknownQueryParameters = true
	api := humago.New(mux, config)

	get(api, "list-assets", "/api/v1/assets", "All assets", s.listAssets)
	get(api, "get-asset", "/api/v1/assets/{site}/{line}/{asset}", "One asset with its sensors' newest values", s.getAsset, http.StatusNotFound)
	get(api, "get-series", "/api/v1/sensors/{site}/{line}/{asset}/{sensor}", "A stretch of a sensor's history", s.getSeries,
		http.StatusNotFound, http.StatusServiceUnavailable)
	get(api, "list-stations", "/api/v1/stations", "The counters of every station of this process", s.listStations)
	get(api, "get-status", "/api/v1/status", "What this process is and how it is", s.getStatus)
	get(api, "list-unclaimed", "/api/v1/registry/unclaimed", "Sensors that arrived and that nobody has described", s.listUnclaimed)
	s.addMaintenance(api)
	s.addLive(api, mux)
}

// answer is a body that no cache keeps.
type answer[T any] struct {
	CacheControl string `header:"Cache-Control"`
	Body         T
}

func get[I, T any](api huma.API, id, path, summary string, do func(context.Context, *I) (T, error), errors ...int) {
	op := huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: errors}
	huma.Register(api, op, func(ctx context.Context, in *I) (*answer[T], error) {
		body, err := do(ctx, in)
		if err != nil {
			return nil, err
		}
		return &answer[T]{CacheControl: "no-store", Body: body}, nil
	})
}

// broken logs what went wrong inside and says so without its innards.
func (s *Server) broken(what string, err error) error {
	s.log.Error(what, "err", err)
	return huma.Error500InternalServerError(what + " failed; the log says why")
}

func (s *Server) listAssets(ctx context.Context, _ *struct{}) (AssetList, error) {
	snap, err := s.opts.Registry.Snapshot(ctx)
	if err != nil {
		return AssetList{}, s.broken("reading the registry", err)
	}
	now := s.plantNow()
	// What has values without being registered must not be invisible.
	names := s.opts.Twin.Assets()
	for _, m := range snap.Assets {
		if m.ValidFrom <= now && now < m.ValidTo {
			names = append(names, m.Asset)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	list := AssetList{PlantTime: Moment(now), RegistryVersion: snap.Version, Assets: make([]AssetItem, 0, len(names))}
	for _, a := range names {
		head, sensors := s.asset(snap, a, now)
		list.Assets = append(list.Assets, AssetItem{AssetHead: head, Sensors: len(sensors)})
	}
	return list, nil
}

type assetInput struct {
	Site  string `path:"site"`
	Line  string `path:"line"`
	Asset string `path:"asset"`
}

func (s *Server) getAsset(ctx context.Context, in *assetInput) (AssetDetail, error) {
	snap, err := s.opts.Registry.Snapshot(ctx)
	if err != nil {
		return AssetDetail{}, s.broken("reading the registry", err)
	}
	a := signal.NewAsset(in.Site, in.Line, in.Asset)
	now := s.plantNow()
	head, sensors := s.asset(snap, a, now)
	if _, registered := snap.Asset(a, now); !registered && len(sensors) == 0 {
		return AssetDetail{}, huma.Error404NotFound("there is no asset " + string(a))
	}
	return AssetDetail{AssetHead: head, PlantTime: Moment(now), SensorCount: len(sensors), Sensors: sensors}, nil
}

// asset puts together what the registry and the twin say of an asset.
func (s *Server) asset(snap *registry.Snapshot, a signal.Asset, now signal.Micros) (AssetHead, []SensorItem) {
	site, line, name := a.Split()
	meta, _ := snap.Asset(a, now)
	head := AssetHead{
		ID: string(a), AssetID: meta.AssetID, Site: site, Line: line, Asset: name, Class: meta.Class, Description: meta.Description,
		Owner: meta.Owner, Claimed: meta.Claimed, AgeSeconds: none(), Status: StatusGood,
	}
	rows := map[signal.Path]*state.Row{}
	for _, r := range s.opts.Twin.OfAsset(a) {
		rows[r.Path] = &r
	}
	sensors := make([]SensorItem, 0, len(rows))
	for _, m := range snap.SensorsOf(a, now) {
		sensors = append(sensors, sensorItem(m, rows[m.Path], now))
		delete(rows, m.Path)
	}
	for p, r := range rows { // values of sensors that are not registered now
		sensors = append(sensors, sensorItem(registry.Undescribed(p), r, now))
	}
	slices.SortFunc(sensors, func(a, b SensorItem) int { return cmp.Compare(a.Path, b.Path) })
	if len(sensors) == 0 {
		head.Status = StatusSilent
	}
	for _, item := range sensors {
		head.EventTime = max(head.EventTime, item.EventTime)
		if severity(item.Status) > severity(head.Status) {
			head.Status = item.Status
		}
	}
	if head.EventTime != 0 {
		head.AgeSeconds = seconds(now - signal.Micros(head.EventTime))
	}
	return head, sensors
}

// sensorItem is a registered sensor with its newest row, nil if it has none.
func sensorItem(m signal.SensorMeta, r *state.Row, now signal.Micros) SensorItem {
	item := SensorItem{
		Reading: Reading{Path: string(m.Path), Value: none(), Unit: m.Unit},
		Sensor:  m.Path.Sensor(), SensorID: m.SensorID, Status: StatusSilent, AgeSeconds: none(), AliveAgeSeconds: none(),
		Limits: Limits{Min: Number(m.MinPossible), Max: Number(m.MaxPossible)}, Interpolation: m.Interpolation,
		MaxHoldSeconds: seconds(signal.Micros(m.MaxHoldMicros)), Owner: m.Owner, Claimed: m.Claimed,
	}
	if r == nil {
		return item
	}
	item.Reading = reading(r)
	item.AgeSeconds, item.AliveAgeSeconds = seconds(now-r.EventTime), seconds(now-r.AliveAt)
	switch {
	case !r.Good:
		item.Status = StatusBad
	case int64(now-r.AliveAt) > m.MaxHoldMicros:
		item.Status = StatusStale
	default:
		item.Status = StatusGood
	}
	return item
}

func reading(r *state.Row) Reading {
	quality, good := int(r.Quality), r.Good
	out := Reading{
		Path: string(r.Path), Value: none(), Unit: r.Unit, EventTime: Moment(r.EventTime), AliveAt: Moment(r.AliveAt), Quality: &quality, Good: &good,
	}
	switch r.Value.Kind {
	case signal.Number:
		out.Kind, out.Value = "number", Number(r.Value.Number)
	case signal.Bool:
		out.Kind, out.Value = "bool", Number(r.Value.Number)
	case signal.Text:
		text := r.Value.Text
		out.Kind, out.Text = "text", &text
	default:
		out.Kind = "null"
	}
	return out
}

func (s *Server) listStations(context.Context, *struct{}) (StationList, error) {
	return s.stationList(), nil
}

func (s *Server) stationList() StationList {
	return StationList{PlantTime: Moment(s.plantNow()), Stations: stations(s.counters())}
}

func (s *Server) getStatus(context.Context, *struct{}) (StatusBody, error) {
	st := s.status()
	body := StatusBody{
		Ready: st.Ready, PlantTime: Moment(s.plantNow()), Speed: speed(st.Speed), Drained: st.Drained, Version: st.Version,
		Roles: st.Roles, Addresses: maps.Clone(st.Addresses), Problems: st.Problems,
	}
	if body.Roles == nil {
		body.Roles = []string{}
	}
	if body.Addresses == nil {
		body.Addresses = map[string]string{}
	}
	if body.Problems == nil {
		body.Problems = []string{}
	}
	return body, nil
}

// speed is null where the plant's clock follows event time.
func speed(v float64) Number {
	if v <= 0 {
		return none()
	}
	return Number(v)
}

func (s *Server) tick() ClockTick {
	return ClockTick{PlantTime: Moment(s.plantNow()), Speed: speed(s.status().Speed)}
}

func (s *Server) listUnclaimed(ctx context.Context, _ *struct{}) (UnclaimedList, error) {
	version, err := s.opts.Registry.Version(ctx)
	if err != nil {
		return UnclaimedList{}, s.broken("reading the registry", err)
	}
	sensors, err := s.opts.Registry.Unclaimed(ctx)
	if err != nil {
		return UnclaimedList{}, s.broken("reading the registry", err)
	}
	list := UnclaimedList{RegistryVersion: version, Sensors: make([]UnclaimedSensor, len(sensors))}
	for i, u := range sensors {
		list.Sensors[i] = UnclaimedSensor{Path: string(u.Path), Since: Moment(signal.MicrosOf(u.Since))}
	}
	return list, nil
}

// defaultStretch is how much history is shown when nothing else is asked for.
const defaultStretch = signal.Micros(10 * time.Minute / time.Microsecond)

type seriesInput struct {
	Site   string    `path:"site"`
	Line   string    `path:"line"`
	Asset  string    `path:"asset"`
	Sensor string    `path:"sensor"`
	From   time.Time `query:"from" doc:"default: ten minutes before to"`
	To     time.Time `query:"to" doc:"exclusive; default: just after the newest value"`
	Points int       `query:"points" default:"1200" minimum:"1" maximum:"10000" doc:"more readings than this are put into buckets"`
}

func (s *Server) getSeries(ctx context.Context, in *seriesInput) (SeriesBody, error) {
	snap, err := s.opts.Registry.Snapshot(ctx)
	if err != nil {
		return SeriesBody{}, s.broken("reading the registry", err)
	}
	path := signal.NewAsset(in.Site, in.Line, in.Asset).Sensor(in.Sensor)
	newest, has := s.opts.Twin.Get(path)
	if !has && !snap.Known(path) {
		return SeriesBody{}, huma.Error404NotFound("there is no sensor " + string(path))
	}
	if s.opts.Series == nil {
		return SeriesBody{}, huma.Error503ServiceUnavailable("this process has no lake; ask one that has the role lake")
	}
	now := s.plantNow()
	to := now
	if has {
		to = newest.EventTime + 1
	}
	if !in.To.IsZero() {
		to = signal.MicrosOf(in.To)
	}
	from := to - defaultStretch
	if !in.From.IsZero() {
		from = signal.MicrosOf(in.From)
	}
	if from >= to && in.To.IsZero() {
		to = from + 1 // nothing is as new as what is asked for
	}
	if from >= to {
		return SeriesBody{}, huma.Error422UnprocessableEntity("from is not before to")
	}
	points, err := s.opts.Series.Series(ctx, path, from, to, in.Points)
	if err != nil {
		return SeriesBody{}, s.broken("reading the lake", err)
	}
	body := seriesBody(points)
	body.Path, body.PlantTime, body.From, body.To, body.Unit = string(path), Moment(now), Moment(from), Moment(to), newest.Unit
	if m, ok := snap.Sensor(path, now); ok && body.Unit == "" {
		body.Unit = m.Unit
	}
	return body, nil
}
