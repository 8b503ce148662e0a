package record

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/headrace/headrace/signal"
)

// Refusal is what an edge's source could not take, on its way to the dead
// letters: one in each message of class refused.
type Refusal struct {
	Source    string `json:"source"`              // the kind of the source
	From      string `json:"from"`                // a topic of the plant's broker, or file:line
	Reason    string `json:"reason"`              // why it was refused
	Cut       int64  `json:"cut,omitempty"`       // how many bytes there were, if not all are kept
	Uncarried int64  `json:"uncarried,omitempty"` // refused before it and only counted
	Bytes     []byte `json:"-"`
}

// refusedSensor names the reading that carries a refusal.
const refusedSensor = "refused"

// Reading is how a refusal travels: the bytes as they came, and all else beside
// them.
func (r *Refusal) Reading(at signal.Micros) signal.Reading {
	// Texts and numbers cannot fail to be JSON.
	about, _ := json.Marshal(r)
	out := signal.Reading{Sensor: refusedSensor, EventTime: at, AliveAt: at, Quality: signal.QualityGood, Rescued: string(about)}
	if len(r.Bytes) > 0 {
		out.Value = signal.WaveValue(string(r.Bytes))
	}
	return out
}

// ParseRefusal reads the only reading of a message of class refused.
func ParseRefusal(b *signal.Batch) (r Refusal, err error) {
	if len(b.Readings) != 1 {
		return r, fmt.Errorf("reading a message of class refused: it has %d readings, want 1", len(b.Readings))
	}
	in := &b.Readings[0]
	if err := json.Unmarshal([]byte(in.Rescued), &r); err != nil {
		return r, fmt.Errorf("reading a message of class refused: %w", err)
	}
	switch in.Value.Kind {
	case signal.Null:
	case signal.Wave:
		r.Bytes = []byte(in.Value.Text)
	default:
		return r, fmt.Errorf("reading a message of class refused: its value is of kind %d, want bytes", in.Value.Kind)
	}
	return r, nil
}

// Headers are those of the dead letter, beside the batch's.
func (r *Refusal) Headers() []Header {
	h := []Header{
		{HeaderReason, []byte(r.Reason)},
		{HeaderTopic, []byte(r.From)},
		{HeaderSource, []byte(r.Source)},
	}
	if r.Uncarried > 0 {
		h = append(h, Header{HeaderUncarried, strconv.AppendInt(nil, r.Uncarried, 10)})
	}
	return h
}
