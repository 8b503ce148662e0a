package record

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// A refusal comes back from a record as it went in, whatever its bytes are.
func TestRefusalSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Refusal{
			Source: rapid.String().Draw(t, "source"), From: rapid.String().Draw(t, "from"), Reason: rapid.String().Draw(t, "reason"),
			Cut: rapid.Int64Min(0).Draw(t, "cut"), Uncarried: rapid.Int64Min(0).Draw(t, "uncarried"),
			Bytes: rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "bytes"),
		}
		stream := signal.NewStream("s/edge/n", signal.Refused)
		b := signal.Batch{Origin: signal.Origin{Edge: "s/n", Boot: "b", Stream: stream}, Readings: []signal.Reading{want.Reading(7)}}
		var back signal.Batch
		if err := Decode(Append(nil, &b), &back); err != nil {
			t.Fatal(err)
		}
		got, err := ParseRefusal(&back)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestRefusalOfNothing(t *testing.T) {
	want := Refusal{Source: "files", Reason: "empty"}
	got, err := ParseRefusal(&signal.Batch{Readings: []signal.Reading{want.Reading(1)}})
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if Topic(signal.Refused) != TopicDeadletter {
		t.Errorf("refusals go to %s", Topic(signal.Refused))
	}
	for name, readings := range map[string][]signal.Reading{
		"none": nil, "two": make([]signal.Reading, 2), "no JSON": {{}}, "a number": {{Rescued: "{}", Value: signal.NumberValue(1)}},
	} {
		if _, err := ParseRefusal(&signal.Batch{Readings: readings}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzParseRefusal(f *testing.F) {
	f.Add(`{"source":"mqtt","from":"a/b","reason":"why"}`, "bytes")
	f.Fuzz(func(_ *testing.T, about, value string) {
		r, err := ParseRefusal(&signal.Batch{Readings: []signal.Reading{{Rescued: about, Value: signal.WaveValue(value)}}})
		if err == nil {
			r.Headers()
		}
	})
}
