package model

import "github.com/headrace/headrace/signal"

// Status says whether a prediction has a score, or why it has none.
type Status string

// The statuses.
const (
	Scored     Status = "scored"
	NoModel    Status = "no_model"    // the registry names no healthy period
	NotRunning Status = "not_running" // the machine does not run, so its features say nothing
	Incomplete Status = "incomplete"  // a feature is missing
)

// Prediction is what a model says of an asset at one event time: a row of
// gold.predictions.
type Prediction struct {
	Asset  signal.Asset
	Sensor string        // the vibration channel, "de_acceleration"
	Event  signal.Micros // end of the window
	// Available is when the prediction could first be read; FeatureAvailable
	// when its features could.
	Available, FeatureAvailable signal.Micros

	Status Status
	Model  string // content hash; "" without one

	T2, T2Limit float64 // Hotelling's T²: distance within the healthy subspace
	Q, QLimit   float64 // squared residual outside it
	// Score is the greater of T2/T2Limit and Q/QLimit; above 1 the limit is passed.
	Score         float64
	Contributions []Contribution // descending by Share
}

// Contribution is one feature's part in a score.
type Contribution struct {
	Feature string
	Share   float64 // of the score, 0..1
	Value   float64 // in the feature's own unit
	Healthy float64 // its mean over the healthy period
	Z       float64 // standardised distance from it
}
