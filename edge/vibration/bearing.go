package vibration

import (
	"errors"
	"fmt"
	"math"
)

// Orders are impacts per revolution of the shaft; see [signal.Bearing]. An order
// of 0 is unknown, and has no feature. In their place the bearing's geometry may
// be given.
type Orders struct {
	BPFO float64 `yaml:"bpfo" json:"bpfo,omitempty"`
	BPFI float64 `yaml:"bpfi" json:"bpfi,omitempty"`
	BSF2 float64 `yaml:"bsf2" json:"bsf2,omitempty"` // twice the ball's spin: it strikes both races
	FTF  float64 `yaml:"ftf" json:"ftf,omitempty"`

	// Balls is n, BallDiameter d and PitchDiameter D in one unit of length,
	// ContactAngle phi in degrees.
	Balls         int     `yaml:"balls" json:"balls,omitempty"`
	BallDiameter  float64 `yaml:"ball_diameter" json:"ball_diameter,omitempty"`
	PitchDiameter float64 `yaml:"pitch_diameter" json:"pitch_diameter,omitempty"`
	ContactAngle  float64 `yaml:"contact_angle" json:"contact_angle,omitempty"`
}

// Geometry returns the orders of a bearing of n balls of diameter d on a pitch
// diameter D, in contact at phi degrees, whose inner ring turns and whose outer
// stands, without slip (Randall and Antoni, 2011, eq. 1 to 4).
func Geometry(n int, d, D, phi float64) (Orders, error) {
	switch {
	case n < 2 || n > 1000:
		return Orders{}, fmt.Errorf("bearing: %d balls; want 2 to 1000", n)
	case !(d > 0) || math.IsInf(D, 0) || !(D > d):
		return Orders{}, fmt.Errorf("bearing: balls of diameter %v on a pitch diameter of %v; want 0 < ball_diameter < pitch_diameter", d, D)
	case !(phi >= 0 && phi < 90):
		return Orders{}, fmt.Errorf("bearing: contact_angle is %v; want 0 to less than 90 degrees", phi)
	}
	ratio := d / D * math.Cos(phi*math.Pi/180)
	return Orders{
		BPFO:  float64(n) / 2 * (1 - ratio),
		BPFI:  float64(n) / 2 * (1 + ratio),
		BSF2:  D / d * (1 - ratio*ratio),
		FTF:   (1 - ratio) / 2,
		Balls: n, BallDiameter: d, PitchDiameter: D, ContactAngle: phi,
	}, nil
}

// complete fills in the orders of a geometry.
func (o Orders) complete() (Orders, error) {
	if o.Balls == 0 && o.BallDiameter == 0 && o.PitchDiameter == 0 && o.ContactAngle == 0 {
		return o, nil
	}
	if o.BPFO != 0 || o.BPFI != 0 || o.BSF2 != 0 || o.FTF != 0 {
		return o, errors.New("bearing: orders and geometry are both given, and could disagree; leave out one")
	}
	return Geometry(o.Balls, o.BallDiameter, o.PitchDiameter, o.ContactAngle)
}

// list is in the order of orderNames.
func (o *Orders) list() [4]float64 { return [4]float64{o.BPFO, o.BPFI, o.BSF2, o.FTF} }
