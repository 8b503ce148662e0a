package sparkplug

import (
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/signal"
)

// The limits of an acknowledgement and of a host's state.
const (
	MaxAckBytes   = 1 << 20
	MaxStateBytes = 4 << 10
)

// Ack says which messages of one boot Kafka has acknowledged, by
// [signal.Origin.Seq]. It is published on [AckTopic], not retained.
type Ack struct {
	Boot   string         `json:"boot"`
	Ranges []signal.Range `json:"ranges"`
}

// AppendAck appends an acknowledgement, as JSON, to dst.
func AppendAck(dst []byte, a Ack) []byte {
	// Neither a string nor numbers can fail to be JSON.
	boot, _ := json.Marshal(a.Boot)
	dst = append(append(dst, `{"boot":`...), boot...)
	dst = append(dst, `,"ranges":[`...)
	for i, r := range a.Ranges {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, "[%d,%d]", r.From, r.To)
	}
	return append(dst, "]}"...)
}

// ParseAck reads an acknowledgement.
func ParseAck(p []byte) (Ack, error) {
	if len(p) > MaxAckBytes {
		return Ack{}, fmt.Errorf("reading acknowledgement: %d bytes are more than %d", len(p), MaxAckBytes)
	}
	var a Ack
	if err := json.Unmarshal(p, &a); err != nil {
		return Ack{}, fmt.Errorf("reading acknowledgement: %w", err)
	}
	if a.Boot == "" {
		return Ack{}, fmt.Errorf("reading acknowledgement: boot is missing")
	}
	return a, nil
}

// State is what a host says of itself on [StateTopic], retained.
type State struct {
	Online    bool   `json:"online"`
	Timestamp uint64 `json:"timestamp"` // Unix ms
}

// AppendState appends a state, as JSON, to dst.
func AppendState(dst []byte, s State) []byte {
	return fmt.Appendf(dst, `{"online":%t,"timestamp":%d}`, s.Online, s.Timestamp)
}

// ParseState reads a state; both fields must be there.
func ParseState(p []byte) (State, error) {
	if len(p) > MaxStateBytes {
		return State{}, fmt.Errorf("reading state: %d bytes are more than %d", len(p), MaxStateBytes)
	}
	var s struct {
		Online    *bool   `json:"online"`
		Timestamp *uint64 `json:"timestamp"`
	}
	if err := json.Unmarshal(p, &s); err != nil {
		return State{}, fmt.Errorf("reading state: %w", err)
	}
	if s.Online == nil || s.Timestamp == nil {
		return State{}, fmt.Errorf("reading state: online or timestamp is missing")
	}
	return State{*s.Online, *s.Timestamp}, nil
}

// Next applies a later message of the same host: one that is older than what
// is known changes nothing. The zero State is a host not heard of.
func (s State) Next(heard State) State {
	if heard.Timestamp < s.Timestamp {
		return s
	}
	return heard
}
