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
	Owner       string // "" is unowned
	Claimed     bool   // false: registered by arrival, nobody has looked at it
	ValidFrom   Micros
	ValidTo     Micros
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
	Owner         string
	Claimed       bool
	ValidFrom     Micros
	ValidTo       Micros
}
