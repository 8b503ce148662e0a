// Package command is what an edge can be asked over MQTT and what it answers: the
// topics and the JSON on them, described in docs/formats/edge-commands.md.
//
// It carries nothing out; packages edge and edge/supervisor do.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// Version of the protocol.
const Version = 1

// MaxBytes bounds a request, an answer, a report.
const MaxBytes = 1 << 20

// maxText bounds who, why and an id.
const maxText = 500

// RequestTopic is where an edge is asked.
func RequestTopic(group, node string) string {
	return "headrace/cmd/" + sparkplug.EdgeLevels(group, node)
}

// AnswerTopic is where it answers.
func AnswerTopic(group, node string) string {
	return "headrace/answer/" + sparkplug.EdgeLevels(group, node)
}

// ConfigTopic is where the configuration lies, retained, that the edge shall run by.
func ConfigTopic(group, node string) string {
	return "headrace/config/" + sparkplug.EdgeLevels(group, node)
}

// StateTopic is where an edge says, retained, how it fares.
func StateTopic(group, node string) string {
	return "headrace/state/" + sparkplug.EdgeLevels(group, node)
}

// The verbs of a request.
const (
	Replay = "replay"
	Plan   = "plan"
)

// Request asks an edge. The same id again is the same request: it is answered, and
// not carried out twice.
type Request struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Verb    string    `json:"verb"`
	Who     string    `json:"who"`
	Why     string    `json:"why,omitempty"`
	Asset   string    `json:"asset,omitempty"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"` // left out
	// BytesPerSecond, of the outbox's records, is an upper bound beside the edge's own; 0 is none.
	BytesPerSecond int64  `json:"bytes_per_second,omitempty"`
	Config         string `json:"config,omitempty"` // text of a configuration to plan
}

// The states of an answer.
const (
	Running = "running"
	Done    = "done"
	Refused = "refused" // not begun
	Failed  = "failed"
)

// Answer is what an edge says to a request; a replay is answered again and again.
type Answer struct {
	Version int     `json:"version"`
	ID      string  `json:"id"`
	Edge    string  `json:"edge"`
	State   string  `json:"state"`
	Reason  string  `json:"reason,omitempty"`
	Replay  *Job    `json:"replay,omitempty"`
	Plan    *Change `json:"plan,omitempty"`
}

// Job is a replay and how far it is.
type Job struct {
	ID             string        `json:"id"`
	Who            string        `json:"who"`
	Why            string        `json:"why"`
	Asset          signal.Asset  `json:"asset"`
	From           signal.Micros `json:"from"` // of what the ring had of the range
	To             signal.Micros `json:"to"`
	At             signal.Micros `json:"at"`             // all before it is in the outbox
	Same           int           `json:"same"`           // and so many samples of that time
	Left           string        `json:"left,omitempty"` // what of the range the ring had, if not all
	BytesPerSecond int64         `json:"bytes_per_second,omitempty"`
	Readings       uint64        `json:"readings"`
	Samples        uint64        `json:"samples"` // of waveforms
	Bytes          uint64        `json:"bytes"`   // of both, before compression on the way
	Rate           int64         `json:"rate"`    // bytes/s of the last second or so
	State          string        `json:"state"`
	Reason         string        `json:"reason,omitempty"`
}

// Progress is how much of the range is done, 0 to 1.
func (j *Job) Progress() float64 {
	if j.State == Done || j.To <= j.From {
		return 1
	}
	return min(1, max(0, float64(j.At-j.From)/float64(j.To-j.From)))
}

// Change is what a configuration would change.
type Change struct {
	Before   string   `json:"before"` // hashes
	After    string   `json:"after"`
	Sections []string `json:"sections"` // that differ
	Sensors  []string `json:"sensors"`  // measured of late, whose filter is another
	Refused  []string `json:"refused"`  // what a pushed configuration may not change
	Findings []string `json:"findings"` // what it may say by mistake
}

// Desired is a configuration to run by.
type Desired struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Hash    string    `json:"hash"`
	Text    string    `json:"text"`
	Who     string    `json:"who"`
	Why     string    `json:"why"`
	Time    time.Time `json:"time"`
}

// The states of a configuration.
const (
	Applying   = "applying" // on probation
	Applied    = "applied"
	NotApplied = "failed"      // refused; the edge runs by the one before
	RolledBack = "rolled back" // tried, and given up for the last good one
)

// Report is what an edge says of itself.
type Report struct {
	Version    int               `json:"version"`
	Edge       string            `json:"edge"`
	Time       time.Time         `json:"time"` // of saying so, by the edge's wall clock
	Config     string            `json:"config"`
	State      string            `json:"state"`
	Cause      string            `json:"cause,omitempty"`
	Origin     string            `json:"origin,omitempty"`  // of the configuration: file or pushed
	Request    string            `json:"request,omitempty"` // id of the pushed configuration seen last
	RequestWho string            `json:"request_who,omitempty"`
	RequestWhy string            `json:"request_why,omitempty"`
	Sections   map[string]string `json:"sections,omitempty"`
	Host       bool              `json:"host_online"`
	Stalled    string            `json:"stalled,omitempty"`
	Figures    map[string]int64  `json:"figures,omitempty"`
	Assets     []signal.Asset    `json:"assets,omitempty"` // that it measures
}

// ReportEvery is how often an edge says how it fares if nothing changes.
const ReportEvery = 30 * time.Second

// ParseRequest reads and checks a request.
func ParseRequest(b []byte) (r Request, err error) {
	if err := decode(b, &r); err != nil {
		return r, fmt.Errorf("reading a request: %w", err)
	}
	if err := identified(r.Version, r.ID, r.Who, r.Why); err != nil {
		return r, fmt.Errorf("reading a request: %w", err)
	}
	return r, nil
}

// Check tells what of a replay cannot be.
func (r *Request) Check() error {
	if _, err := signal.ParseAsset(r.Asset); err != nil {
		return err
	}
	switch {
	case r.Why == "":
		return errors.New("it does not say why")
	case r.From.IsZero() || r.To.IsZero() || !r.From.Before(r.To):
		return fmt.Errorf("the range from %s to %s is empty", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	case r.BytesPerSecond < 0:
		return fmt.Errorf("%d bytes per second is not a rate", r.BytesPerSecond)
	}
	return nil
}

// ParseDesired reads and checks a configuration to run by.
func ParseDesired(b []byte) (d Desired, err error) {
	if err := decode(b, &d); err != nil {
		return d, fmt.Errorf("reading a desired configuration: %w", err)
	}
	if err := identified(d.Version, d.ID, d.Who, d.Why); err != nil {
		return d, fmt.Errorf("reading a desired configuration: %w", err)
	}
	return d, nil
}

// ParseAnswer reads an answer.
func ParseAnswer(b []byte) (a Answer, err error) {
	if err := decode(b, &a); err != nil {
		return a, fmt.Errorf("reading an answer: %w", err)
	}
	return a, nil
}

// ParseReport reads a report.
func ParseReport(b []byte) (r Report, err error) {
	if err := decode(b, &r); err != nil {
		return r, fmt.Errorf("reading a report: %w", err)
	}
	return r, nil
}

func decode(b []byte, into any) error {
	if len(b) > MaxBytes {
		return fmt.Errorf("%d bytes are more than %d", len(b), MaxBytes)
	}
	return json.NewDecoder(bytes.NewReader(b)).Decode(into)
}

func identified(version int, id, who, why string) error {
	switch {
	case version != Version:
		return fmt.Errorf("version %d is not known; this edge speaks %d", version, Version)
	case id == "" || who == "":
		return errors.New("id and who must be given")
	case len(id) > maxText || len(who) > maxText || len(why) > maxText:
		return fmt.Errorf("id, who and why are %d bytes at most", maxText)
	}
	return nil
}
