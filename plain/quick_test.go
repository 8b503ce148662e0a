package plain

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

// differ compares what the quick way says, where it says something, with the JSON
// decoder's.
func differ(payload []byte, format timeFormat) string {
	begin := signal.Reading{Sensor: "t", Unit: "K", Quality: signal.QualityGood}
	short, long := begin, begin
	if !quick(&short, payload, format, "Cel") {
		return cmp.Diff(begin, short)
	}
	if err := document(&long, payload, format); err != nil {
		return err.Error()
	}
	return cmp.Diff(long, short)
}

func TestQuickTakesTheUsualForms(t *testing.T) {
	for payload, want := range map[string]bool{
		`{"ts":1767592800250,"value":21.5,"unit":"Cel"}`:                  true,
		` { "value" : -0.5e-3 , "quality" : 192, "ts" : 1767592800250 } `: true,
		`{"value":1}`:                             true,
		`{"value":1e999}`:                         true,
		`{"value":1,"unit":""}`:                   true,
		`{"value":01}`:                            false,
		`{"value":1.}`:                            false,
		`{"value":+1}`:                            false,
		`{"value":-}`:                             false,
		`{"value":1,"value":2}`:                   false,
		`{"value":1,}`:                            false,
		`{"value":1}{}`:                           false,
		`{"value":"1"}`:                           false,
		`{"value":true}`:                          false,
		`{"value":1,"unit":"\u0043el"}`:           false,
		`{"value":1,"unit":"°C"}`:                 false,
		`{"value":1,"more":2}`:                    false,
		`{"ts":1767592800250}`:                    false,
		`{"value":1,"ts":"2026-01-05T06:00:00Z"}`: false,
		`{"value":1,"quality":-1}`:                false,
		`{}`:                                      false,
		`{`:                                       false,
		`21.5`:                                    false,
		``:                                        false,
	} {
		var r signal.Reading
		if got := quick(&r, []byte(payload), anyTime, ""); got != want {
			t.Errorf("%s: quick says %v, want %v", payload, got, want)
		}
		if d := differ([]byte(payload), anyTime); d != "" {
			t.Errorf("%s: the decoder says otherwise: %s", payload, d)
		}
	}
}

func TestQuickSaysWhatTheDecoderSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{
			`"value":1.25`, `"value":-1e3`, `"value":0`, `"value":00`, `"ts":1767592800250`, `"ts":1.5e12`, `"ts":"1767592800"`, `"unit":"Cel"`, `"unit":"bar"`, `"unit":7`,
			`"quality":192`, `"quality":1.5`, `"quality":70000`, `"x":1`, `"value":null`, ` `, `,`,
		})
		payload := "{"
		for i, p := range rapid.SliceOfN(part, 0, 5).Draw(t, "parts") {
			if i > 0 && rapid.IntRange(0, 20).Draw(t, "comma") > 0 {
				payload += ","
			}
			payload += p
		}
		payload += rapid.SampledFrom([]string{"}", "} ", "}}", ""}).Draw(t, "end")
		if d := differ([]byte(payload), timeFormat(rapid.IntRange(0, 5).Draw(t, "format"))); d != "" {
			t.Fatalf("%s: %s", payload, d)
		}
	})
}

func FuzzQuick(f *testing.F) {
	f.Add([]byte(`{"ts":1767592800250,"value":21.5,"unit":"Cel","quality":192}`), 0)
	f.Add([]byte(`{"value":-1E+2}`), 3)
	f.Fuzz(func(t *testing.T, payload []byte, format int) {
		if d := differ(payload, timeFormat(format&7%6)); d != "" {
			t.Fatalf("%q: %s", payload, d)
		}
	})
}

func TestReaderSaysWhatItsSetSays(t *testing.T) {
	s := set(t, Config{Prefix: "p", Rules: []Rule{
		{Topic: "f/{a}/{b}", Path: "s/l/{a}/{b}", Value: "/v", UnitIs: "bar"},
		{Topic: "g/{a}", Path: "s/l/a/{a}", UnitIs: "K", Class: "event", TimeFormat: "unix"},
	}})
	r := s.Reader()
	payloads := []string{`{"value":1,"unit":"Cel"}`, `{"value":2}`, `{"v":3}`, `4`, `{"value":5,"ts":1767592800,"unit":"bar"}`, `?`, `{"value":6,"x":1}`}
	for turn := range 2 {
		for _, topic := range []string{"p/s/l/a/t", "f/x/y", "g/z", "p/s/l", "h"} {
			for _, payload := range payloads {
				want, wantErr := s.Read(topic, []byte(payload), arrived)
				got, err := r.Read(topic, []byte(payload), arrived)
				if d := cmp.Diff(want, got); d != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
					t.Errorf("turn %d, %s %s: error %v, want %v; %s", turn, topic, payload, err, wantErr, d)
				}
			}
		}
	}
	for i := range maxPlaces + 10 {
		if _, err := r.Read(fmt.Sprintf("g/n%d", i), []byte("1"), arrived); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.places) > maxPlaces {
		t.Errorf("the reader remembers %d topics, want at most %d", len(r.places), maxPlaces)
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	r := set(t, Config{Prefix: "p"}).Reader()
	payload := []byte(`{"ts":1767592800250,"value":21.5,"unit":"Cel"}`)
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Read("p/s/l/a/t", payload, arrived) }); n != 0 {
		t.Errorf("a reading costs %v allocations, want 0", n)
	}
}
