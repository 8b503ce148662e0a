package bridge_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/deadletter"
)

// What a source of an edge refused becomes a dead letter with the bytes as they
// came to it, under the message's own identity, and the edge is acknowledged.
func TestRefusedBySourceIsADeadLetter(t *testing.T) {
	p := newPlant(t)
	p.bridge(t, nil)
	e := newEdge(t, p.mqtt(), "skab", "valve1-0", "boot-a")
	stream := signal.NewStream("skab/edge/valve1-0", signal.Refused)
	for _, r := range []record.Refusal{
		{Source: "mqtt", From: "plant/x", Reason: "no JSON", Bytes: []byte("\xff\x00{")},
		{Source: "files", From: "/in/a.csv:7", Reason: "no time", Uncarried: 12},
		{Source: "mqtt", From: record.TopicReadings, Reason: "long", Bytes: []byte("beginning"), Cut: 99},
	} {
		e.send(stream, r.Reading(5))
	}
	e.send(stream, reading("x", 1, 2)) // none of ours
	e.drain(t)
	letters, err := deadletter.List(t.Context(), p.kafka(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, readings := map[string]string{}, int64(0)
	seen := map[string]bool{}
	for _, l := range letters {
		if l.Edge != "skab/valve1-0" || l.Boot != "boot-a" || l.Stream != string(stream) {
			t.Errorf("%+v", l)
		}
		if !seen[l.N] {
			readings += l.Readings
		}
		seen[l.N] = true
		if l.Source == "" {
			got[l.N] = l.Reason
			continue
		}
		got[l.N] = l.Source + " " + l.Topic + " " + l.Reason + " " + string(l.Value())
		if l.Refusal() == "" {
			t.Errorf("%s could be sent to %s again", l.ID(), l.Topic)
		}
		if want := map[string][2]int64{"0": {0, 0}, "1": {12, 0}, "2": {0, 99}}[l.N]; want != [2]int64{l.Uncarried, l.Cut} {
			t.Errorf("%s: %d only counted, cut from %d", l.N, l.Uncarried, l.Cut)
		}
	}
	want := map[string]string{
		"0": "mqtt plant/x no JSON \xff\x00{", "1": "files /in/a.csv:7 no time ", "2": "mqtt headrace.readings long beginning",
		"3": "reading a message of class refused: unexpected end of JSON input",
	}
	if d := cmp.Diff(want, got); d != "" || readings != 4 {
		t.Errorf("%d readings: %s", readings, d)
	}
}
