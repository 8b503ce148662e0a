package server

import (
	"encoding/json"
	"math"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/headrace/headrace/signal"
)

// Number is a number in JSON; one that JSON cannot say (NaN, ±Inf) is null.
type Number float64

// MarshalJSON writes the number or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if f := float64(n); !math.IsNaN(f) && !math.IsInf(f, 0) {
		return json.Marshal(f)
	}
	return []byte("null"), nil
}

// Schema describes the type in the API's document.
func (Number) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Format: "double", Nullable: true}
}

// none is a number that there is not.
func none() Number { return Number(math.NaN()) }

// seconds is a span of data time.
func seconds(m signal.Micros) Number { return Number(float64(m) / 1e6) }

// Moment is a time in JSON, RFC 3339 in UTC; "not given" is null.
type Moment signal.Micros

// MarshalJSON writes the time or null.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(signal.Micros(m).Time().Format(time.RFC3339Nano))
}

// Schema describes the type in the API's document.
func (Moment) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Nullable: true}
}

// The states of a sensor, from best to worst; an asset's is its worst sensor's.
const (
	StatusGood   = "good"
	StatusSilent = "silent" // registered, never a value
	StatusStale  = "stale"  // no proof of life for longer than max_hold
	StatusBad    = "bad"    // its quality is not good
)

func severity(status string) int {
	switch status {
	case StatusSilent:
		return 1
	case StatusStale:
		return 2
	case StatusBad:
		return 3
	}
	return 0
}

// AssetHead is what every answer says of an asset.
type AssetHead struct {
	ID          string `json:"id" doc:"site/line/asset"`
	AssetID     string `json:"asset_id" doc:"stable over renames"`
	Site        string `json:"site"`
	Line        string `json:"line"`
	Asset       string `json:"asset"`
	Class       string `json:"class" doc:"equipment class"`
	Description string `json:"description"`
	Owner       string `json:"owner" doc:"empty: unowned"`
	Claimed     bool   `json:"claimed" doc:"false: registered by arrival, nobody has described it"`
	EventTime   Moment `json:"event_time" doc:"newest time of measurement"`
	AgeSeconds  Number `json:"age_seconds" doc:"plant_time − event_time"`
	Status      string `json:"status" enum:"good,silent,stale,bad" doc:"the worst of its sensors"`
}

// AssetItem is an asset in the list.
type AssetItem struct {
	AssetHead
	Sensors int `json:"sensors" doc:"how many it has"`
}

// AssetList is the tree's data.
type AssetList struct {
	PlantTime       Moment      `json:"plant_time"`
	RegistryVersion int64       `json:"registry_version"`
	Assets          []AssetItem `json:"assets" nullable:"false"`
}

// AssetDetail is one asset with its sensors.
type AssetDetail struct {
	AssetHead
	PlantTime   Moment       `json:"plant_time"`
	SensorCount int          `json:"sensor_count"`
	Sensors     []SensorItem `json:"sensors" nullable:"false"`
}

// Reading is the newest value of a sensor.
type Reading struct {
	Path      string  `json:"path" doc:"site/line/asset/sensor"`
	Kind      string  `json:"kind" enum:"number,bool,text,null," doc:"empty: never a value"`
	Value     Number  `json:"value" doc:"a number; 0 or 1 for a bool"`
	Text      *string `json:"text"`
	Unit      string  `json:"unit" doc:"UCUM"`
	EventTime Moment  `json:"event_time" doc:"when it was measured"`
	AliveAt   Moment  `json:"alive_at" doc:"last proof that the sensor stands behind it"`
	Quality   *int    `json:"quality" doc:"OPC quality, 192 is good"`
	Good      *bool   `json:"good"`
}

// Limits are what a value can possibly be.
type Limits struct {
	Min Number `json:"min" doc:"null: none"`
	Max Number `json:"max" doc:"null: none"`
}

// SensorItem is a sensor with its newest value.
type SensorItem struct {
	Reading
	Sensor          string `json:"sensor" doc:"last name of the path"`
	SensorID        string `json:"sensor_id" doc:"stable over renames"`
	Status          string `json:"status" enum:"good,silent,stale,bad"`
	AgeSeconds      Number `json:"age_seconds" doc:"plant_time − event_time"`
	AliveAgeSeconds Number `json:"alive_age_seconds" doc:"plant_time − alive_at"`
	Limits          Limits `json:"limits"`
	Interpolation   string `json:"interpolation" enum:"step,linear"`
	MaxHoldSeconds  Number `json:"max_hold_seconds" doc:"how long a value counts after its last proof of life"`
	Owner           string `json:"owner"`
	Claimed         bool   `json:"claimed"`
}

// SeriesBody is a stretch of a sensor's history, in columns of equal length.
type SeriesBody struct {
	Path          string    `json:"path"`
	Unit          string    `json:"unit"`
	PlantTime     Moment    `json:"plant_time"`
	From          Moment    `json:"from"`
	To            Moment    `json:"to" doc:"exclusive"`
	Mode          string    `json:"mode" enum:"raw,buckets"`
	Count         int64     `json:"count" doc:"readings in the stretch"`
	BucketSeconds *Number   `json:"bucket_seconds,omitempty"`
	T             []float64 `json:"t" nullable:"false" doc:"Unix seconds; of a bucket its beginning"`
	Value         []Number  `json:"value,omitempty" nullable:"false" doc:"mode raw"`
	Text          []*string `json:"text,omitempty" nullable:"false" doc:"mode raw, only if a reading has one"`
	Good          []bool    `json:"good,omitempty" nullable:"false" doc:"mode raw"`
	Min           []Number  `json:"min,omitempty" nullable:"false" doc:"mode buckets: of the good numbers"`
	Max           []Number  `json:"max,omitempty" nullable:"false"`
	Mean          []Number  `json:"mean,omitempty" nullable:"false"`
	N             []int64   `json:"n,omitempty" nullable:"false" doc:"mode buckets: readings"`
	GoodN         []int64   `json:"good_n,omitempty" nullable:"false" doc:"mode buckets: good ones"`
}

// StationCounter is one figure of a station.
type StationCounter struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// Station is the figures of one station.
type Station struct {
	Station  string           `json:"station"`
	Counters []StationCounter `json:"counters" nullable:"false"`
}

// StationList is the figures of all stations of the process.
type StationList struct {
	PlantTime Moment    `json:"plant_time"`
	Stations  []Station `json:"stations" nullable:"false"`
}

// StatusBody is what the process says of itself.
type StatusBody struct {
	Ready     bool              `json:"ready"`
	PlantTime Moment            `json:"plant_time"`
	Speed     Number            `json:"speed" doc:"plant seconds per second; null: the plant's clock follows event time"`
	Drained   bool              `json:"drained"`
	Version   string            `json:"version"`
	Roles     []string          `json:"roles" nullable:"false"`
	Addresses map[string]string `json:"addresses"`
	Problems  []string          `json:"problems" nullable:"false"`
}

// ClockTick is the plant's clock, told each second.
type ClockTick struct {
	PlantTime Moment `json:"plant_time"`
	Speed     Number `json:"speed" doc:"as in the status"`
}

// UnclaimedSensor is a sensor that was registered by arrival.
type UnclaimedSensor struct {
	Path  string `json:"path"`
	Since Moment `json:"since" doc:"when it was registered"`
}

// UnclaimedList is the sensors that nobody has described.
type UnclaimedList struct {
	RegistryVersion int64             `json:"registry_version"`
	Sensors         []UnclaimedSensor `json:"sensors" nullable:"false"`
}
