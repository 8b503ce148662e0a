package registry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/headrace/headrace/signal"
)

// complete fills in what a change leaves out.
func complete(ch Change) Change {
	ch.Assets, ch.Sensors = slices.Clone(ch.Assets), slices.Clone(ch.Sensors)
	for i := range ch.Assets {
		m := &ch.Assets[i]
		always(&m.ValidFrom, &m.ValidTo)
	}
	for i := range ch.Sensors {
		m := &ch.Sensors[i]
		always(&m.ValidFrom, &m.ValidTo)
		m.Interpolation = cmp.Or(m.Interpolation, defaultInterpolation)
		m.MaxHoldMicros = cmp.Or(m.MaxHoldMicros, defaultMaxHold.Microseconds())
	}
	return ch
}

func always(from, to *signal.Micros) {
	*from, *to = cmp.Or(*from, signal.MinTime), cmp.Or(*to, signal.MaxTime)
}

func check(ch Change) error {
	for _, m := range ch.Assets {
		if _, err := signal.ParseAsset(string(m.Asset)); err != nil {
			return err
		}
		if err := checkValidity(m.ValidFrom, m.ValidTo); err != nil {
			return fmt.Errorf("asset %s: %w", m.Asset, err)
		}
		if err := checkMachine(m); err != nil {
			return fmt.Errorf("asset %s: %w", m.Asset, err)
		}
	}
	for _, m := range ch.Sensors {
		if err := checkSensor(m); err != nil {
			return fmt.Errorf("sensor %s: %w", m.Path, err)
		}
	}
	return nil
}

func checkSensor(m signal.SensorMeta) error {
	if _, err := signal.ParsePath(string(m.Path)); err != nil {
		return err
	}
	switch m.Kind {
	case "", "number", "bool", "text":
	default:
		return fmt.Errorf("kind %q is not number, bool or text", m.Kind)
	}
	switch {
	case math.IsNaN(m.MinPossible) || math.IsNaN(m.MaxPossible):
		return errors.New("a limit is not a number; use ±Inf for none")
	case m.MinPossible > m.MaxPossible:
		return fmt.Errorf("min %g is above max %g", m.MinPossible, m.MaxPossible)
	case m.Interpolation != "step" && m.Interpolation != "linear":
		return fmt.Errorf("interpolation %q is not step or linear", m.Interpolation)
	case m.StuckAfterMicros < 0:
		return fmt.Errorf("stuck_after of %d µs is below zero", m.StuckAfterMicros)
	case m.MaxHoldMicros <= 0:
		return fmt.Errorf("max_hold of %d µs is not above zero", m.MaxHoldMicros)
	}
	return checkValidity(m.ValidFrom, m.ValidTo)
}

func checkValidity(from, to signal.Micros) error {
	if from < signal.MinTime || to > signal.MaxTime || from >= to {
		return fmt.Errorf("validity %s is empty or outside of the years 1 to 9999", interval(from, to))
	}
	return nil
}

// Undescribed is what holds of a sensor that nobody has described: no limits,
// any unit and kind, no owner.
func Undescribed(p signal.Path) signal.SensorMeta {
	return signal.SensorMeta{
		Path: p, MinPossible: math.Inf(-1), MaxPossible: math.Inf(1),
		Interpolation: defaultInterpolation, MaxHoldMicros: defaultMaxHold.Microseconds(),
		ValidFrom: signal.MinTime, ValidTo: signal.MaxTime,
	}
}
