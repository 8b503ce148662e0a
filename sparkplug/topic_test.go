package sparkplug

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

func TestParseTopic(t *testing.T) {
	long := strings.Repeat("x", maxLevelBytes+1)
	for _, c := range []struct {
		topic string
		want  Topic
		err   string
	}{
		{topic: "spBv1.0/g/NBIRTH/e", want: Topic{Type: NBirth, Group: "g", Edge: "e"}},
		{topic: "spBv1.0/g/DDATA/e/line:asset", want: Topic{Type: DData, Group: "g", Edge: "e", Device: "line:asset"}},
		{topic: "spBv1.0/a%20b/NCMD/100%25%20", want: Topic{Type: NCmd, Group: "a b", Edge: "100% "}},
		{topic: "spBv1.0/STATE/host 1", want: Topic{Type: StateT, Host: "host 1"}},
		{topic: "spBv1.0/STATE/NBIRTH/e", want: Topic{Type: NBirth, Group: "STATE", Edge: "e"}},
		{topic: "spBv1.0/STATE/", err: "empty level"},
		{topic: "spBv1.0/STATE", err: "empty level"},
		{topic: "spBv1.0/g/NBIRTH/e/d", err: "wrong number of levels"},
		{topic: "spBv1.0/g/DBIRTH/e", err: "wrong number of levels"},
		{topic: "spBv1.0/g/DBIRTH/e/", err: "empty level"},
		{topic: "spBv1.0/g/DBIRTH/e/d/x", err: "wrong number of levels"},
		{topic: "spBv1.0/g/NBIRTH", err: "empty level"},
		{topic: "spBv1.0//NBIRTH/e", err: "empty level"},
		{topic: "spBv1.0/g/XDATA/e", err: "no Sparkplug message type"},
		{topic: "spAv1.0/g/NBIRTH/e", err: "does not start with spBv1.0/"},
		{topic: "", err: "does not start with"},
		{topic: "spBv1.0/" + long + "/NBIRTH/e", err: "a level of 402 bytes"},
	} {
		got, err := ParseTopic(c.topic)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || len(err.Error()) > 400 {
				t.Errorf("%q: error %v, want %q", clip(c.topic), err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.topic, err)
		} else if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", c.topic, d)
		}
	}
}

func TestTopicHelpers(t *testing.T) {
	for got, want := range map[string]string{
		StateTopic("h 1"):           "spBv1.0/STATE/h%201",
		CommandTopic("g", "e"):      "spBv1.0/g/NCMD/e",
		AckTopic("my site", "e%"):   "headrace/ack/my%20site/e%25",
		DeviceOf("s/l 1/a"):         "l 1:a",
		Topic{Type: DData}.EdgeID(): "/",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if a, err := AssetOf("s", "l:a"); a != "s/l/a" || err != nil {
		t.Errorf("asset %q, %v", a, err)
	}
	for _, bad := range []string{"", "l", ":", "l:", "l:a:b", "l/x:a"} {
		if a, err := AssetOf("s", bad); err == nil {
			t.Errorf("device %q gave asset %q", bad, a)
		}
	}
}

// drawName draws what CheckName takes.
func drawName(t *rapid.T, label string) string {
	return rapid.StringOfN(rapid.RuneFrom([]rune("ab %205.-_ü日*>23AE\u00a0")), 1, 12, -1).
		Filter(func(s string) bool { return signal.CheckName(s) == nil }).Draw(t, label)
}

func TestTopicRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Topic{Type: rapid.SampledFrom([]MessageType{NBirth, NDeath, NData, NCmd, DBirth, DDeath, DData, DCmd}).Draw(t, "type")}
		want.Group, want.Edge = drawName(t, "group"), drawName(t, "edge")
		if want.Type[0] == 'D' {
			want.Device = drawName(t, "line") + ":" + drawName(t, "asset")
		}
		s := want.String()
		if strings.ContainsAny(s, " *>") {
			t.Fatalf("topic %q has what brokers do not take", s)
		}
		if got, err := ParseTopic(s); err != nil || got != want {
			t.Fatalf("%q: got %+v, %v; want %+v", s, got, err, want)
		}
	})
}
