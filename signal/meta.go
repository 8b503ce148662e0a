package signal

// The bounds of validity: a row of the registry that holds always runs from
// [MinTime] to [MaxTime] (0001-01-01 and 9999-12-31, UTC).
const (
	MinTime Micros = -62_135_596_800_000_000
	MaxTime Micros = 253_402_214_400_000_000
)

// AssetMeta is what the registry says of an asset over [ValidFrom, ValidTo).
type AssetMeta struct {
	Asset       Asset
	AssetID     string // stable over renames
	Class       string // equipment class (ISO 14224), "" if unknown
	Description string
	Owner       string  // "" is unowned
	Claimed     bool    // false: registered by arrival, nobody has looked at it
	Mounting    string  // how it stands and is coupled; assets of one class and mounting compare
	RPM         float64 // nominal shaft speed, 0 if unknown
	Bearing     Bearing
	Healthy     Healthy
	ValidFrom   Micros
	ValidTo     Micros
}

// Bearing is the geometry of a rolling bearing as the defect orders that follow
// from it: impacts per revolution of the shaft. All zero if unknown.
type Bearing struct {
	Name string  // "6205-2RS"
	BPFO float64 // outer race
	BPFI float64 // inner race
	BSF2 float64 // ball: twice its spin, since it hits both races
	FTF  float64 // cage
}

// Healthy names the period that a model of the asset learns from, [From, To) in
// event time. Without one there is no model.
type Healthy struct {
	Asset    Asset // whose period it is: of the same class and mounting; "" is the asset's own
	From, To Micros
}

// SensorMeta is what the registry says of a sensor over [ValidFrom, ValidTo).
// Validity of one path never overlaps.
type SensorMeta struct {
	Path        Path
	SensorID    string // stable over renames
	Unit        string // canonical unit, UCUM; "" takes what is sent
	Kind        string // "number", "bool", "text" or "" for any
	MinPossible float64
	MaxPossible float64 // beyond these a value is impossible; ±Inf without limits
	// Interpolation is how a value holds between readings: "step" or "linear".
	Interpolation string
	MaxHoldMicros int64 // how long a value counts after its last proof of life
	// StuckAfterMicros is how long a live sensor may show one value; 0 for ever.
	StuckAfterMicros int64
	Owner            string
	Claimed          bool
	ValidFrom        Micros
	ValidTo          Micros
}
