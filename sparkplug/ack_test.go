package sparkplug

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

func TestAckRoundTrip(t *testing.T) {
	if got, want := string(AppendAck(nil, Ack{"b\"1", []signal.Range{{From: 1, To: 5}, {From: 7, To: 7}}})), `{"boot":"b\"1","ranges":[[1,5],[7,7]]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Ack{Boot: rapid.StringN(1, 40, -1).Draw(t, "boot")}
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
			want.Ranges = append(want.Ranges, signal.Range{From: min(a, b), To: max(a, b)})
		}
		got, err := ParseAck(AppendAck(nil, want))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestParseAckRefuses(t *testing.T) {
	for in, want := range map[string]string{
		``:                                "unexpected end",
		`{}`:                              "boot is missing",
		`{"ranges":[[1,2]]}`:              "boot is missing",
		`{"boot":"b","ranges":[[2,1]]}`:   "from <= to",
		`{"boot":"b","ranges":[[1]]}`:     "from <= to",
		`{"boot":"b","ranges":[[-1,1]]}`:  "cannot unmarshal",
		`{"boot":"b","ranges":[[1,2.5]]}`: "cannot unmarshal",
		`{"boot":1}`:                      "cannot unmarshal",
		strings.Repeat(" ", MaxAckBytes) + `{  }`: "more than",
	} {
		if a, err := ParseAck([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, %v; want error %q", in, a, err, want)
		}
	}
	if a, err := ParseAck([]byte(`{"boot":"b","later":{}}`)); err != nil || a.Boot != "b" || len(a.Ranges) != 0 {
		t.Errorf("unknown key: %v, %v", a, err)
	}
}

func TestState(t *testing.T) {
	in := State{true, 1_700_000_000_000}
	if got, err := ParseState(AppendState(nil, in)); err != nil || got != in {
		t.Errorf("round trip: %v, %v", got, err)
	}
	for in, want := range map[string]string{
		`ONLINE`:                         "invalid character",
		`{"online":true}`:                "missing",
		`{"timestamp":1}`:                "missing",
		`{"online":1,"timestamp":1}`:     "cannot unmarshal",
		`{"online":true,"timestamp":-1}`: "cannot unmarshal",
		strings.Repeat(" ", 5000):        "more than",
	} {
		if s, err := ParseState([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, %v; want error %q", in, s, err, want)
		}
	}
	for _, c := range []struct{ have, heard, want State }{
		{State{}, State{true, 5}, State{true, 5}},
		{State{true, 5}, State{false, 4}, State{true, 5}}, // the will of an older session
		{State{true, 5}, State{false, 5}, State{false, 5}},
		{State{false, 6}, State{true, 5}, State{false, 6}},
		{State{false, 6}, State{true, 7}, State{true, 7}},
	} {
		if got := c.have.Next(c.heard); got != c.want {
			t.Errorf("%v, then %v: got %v, want %v", c.have, c.heard, got, c.want)
		}
	}
}
