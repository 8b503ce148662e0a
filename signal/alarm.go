package signal

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Alarm is what a local rule of an edge says: an episode in which a sensor was
// beyond a level. It is the text of a reading of class [Event]; docs/formats/alarm.md.
type Alarm struct {
	ID          string  `json:"id"` // the same for the same episode
	Rule        string  `json:"rule"`
	Sensor      string  `json:"sensor"`  // that the rule watches
	Channel     string  `json:"channel"` // what it is of: the name before the first dot
	FailureMode string  `json:"failure_mode"`
	Severity    string  `json:"severity"`
	State       string  `json:"state"`
	Started     Micros  `json:"started"` // first sample beyond the level
	Raised      Micros  `json:"raised"`
	Cleared     Micros  `json:"cleared,omitempty"` // 0 while it lasts
	Of          string  `json:"of"`                // "value" or "rate", per second
	Value       float64 `json:"value"`             // at the time of State
	Level       float64 `json:"level"`
	Unit        string  `json:"unit,omitempty"`
}

// The states of an alarm.
const (
	AlarmRaised  = "raised"
	AlarmCleared = "cleared"
)

const alarmInfix = ".alarm."

// SensorName is the name under which an alarm is a reading.
func (a *Alarm) SensorName() string { return a.Sensor + alarmInfix + a.Rule }

// At is when what the alarm says came to be.
func (a *Alarm) At() Micros {
	if a.State == AlarmCleared {
		return a.Cleared
	}
	return a.Raised
}

// Reading is the alarm as a reading of class [Event].
func (a *Alarm) Reading() (Reading, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return Reading{}, fmt.Errorf("encoding alarm %s: %w", a.SensorName(), err)
	}
	return Reading{Sensor: a.SensorName(), EventTime: a.At(), AliveAt: a.At(), Value: TextValue(string(text)), Quality: QualityGood}, nil
}

// ParseAlarm reads an alarm out of a reading of class [Event]; ok is false if it
// is none.
func ParseAlarm(sensor string, v Value) (a Alarm, ok bool) {
	if v.Kind != Text || !strings.Contains(sensor, alarmInfix) {
		return a, false
	}
	if json.Unmarshal([]byte(v.Text), &a) != nil || a.ID == "" || a.SensorName() != sensor {
		return a, false
	}
	switch a.State {
	case AlarmRaised:
		return a, a.Cleared == 0 && a.Started <= a.Raised && a.Raised != 0
	case AlarmCleared:
		return a, a.Started <= a.Raised && a.Raised <= a.Cleared && a.Raised != 0
	}
	return a, false
}
