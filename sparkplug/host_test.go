package sparkplug

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

// born returns a node and a host that has heard its births and one message.
func born(t testing.TB) (*EdgeNode, *HostSession) {
	t.Helper()
	n, h := newNode(t, testBoot), newHost()
	n.Connect(3)
	for _, m := range append(n.Birth(testNow), mustData(t, n, oneBatch(1, number("p", 1_500, 1, "bar")))...) {
		if r := hear(t, h, testWall, m); r.Outcome != Accepted {
			t.Fatalf("%v: %s", r.Outcome, r.Reason)
		}
	}
	return n, h
}

func TestHostEvents(t *testing.T) {
	n, h := born(t)
	births := n.Birth(testNow)
	ms := signal.Micros(1_700_000_000_123_000)
	for i, want := range []Event{
		{Edge: "works 1/cell%7", Kind: "nbirth", Time: ms, BdSeq: 3},
		{Edge: "works 1/cell%7", Device: "a:x", Asset: "works 1/a/x", Kind: "dbirth", Time: ms, BdSeq: 3, Seq: 1, Held: []signal.Reading{number("p", 1_500, 1, "bar")}},
	} {
		r := hear(t, h, testWall, births[i])
		if d := cmp.Diff(&want, r.Event); d != "" || r.Outcome != Accepted || len(r.Batches) != 0 {
			t.Errorf("birth %d: %v (-want +got):\n%s", i, r.Outcome, d)
		}
	}
	late := n.Will(testNow)
	n.Connect(4)
	for _, m := range n.Birth(testNow) {
		hear(t, h, testWall, m)
	}
	if r := hear(t, h, testWall, late); r.Outcome != Ignored || r.Event != nil {
		t.Errorf("the will of the session before: %v", r.Outcome)
	}
	m, ok := n.DeviceDeath(testNow, "works 1/a/x")
	if !ok {
		t.Fatal("no death")
	}
	r := hear(t, h, testWall, m)
	if d := cmp.Diff(&Event{Edge: "works 1/cell%7", Device: "a:x", Asset: "works 1/a/x", Kind: "ddeath", Time: ms, BdSeq: 4, Seq: 2}, r.Event); d != "" {
		t.Errorf("ddeath (-want +got):\n%s", d)
	}
	// A will was made long before it is delivered: the time is the host's.
	r = hear(t, h, testWall, n.Death(1))
	if d := cmp.Diff(&Event{Edge: "works 1/cell%7", Kind: "ndeath", Time: testNow, BdSeq: 4}, r.Event); d != "" {
		t.Errorf("ndeath (-want +got):\n%s", d)
	}
}

// A resent message names the present birth, whatever boot it was frozen in,
// and a death does not make what is still on its way unreadable.
func TestHostReadsBySession(t *testing.T) {
	n, h := born(t)
	data := mustData(t, n, oneBatch(2, number("p", 2, 2, "bar")))[0]
	hear(t, h, testWall, n.Death(testNow))
	h.Reconnected()
	if r := hear(t, h, testWall, data); r.Outcome != Accepted || r.Origin.Seq != 2 {
		t.Errorf("data behind a death: %v: %s", r.Outcome, r.Reason)
	}
	// Late, from before a rebirth: not read by the new table, nothing asked.
	n.Connect(4)
	for _, m := range n.Birth(testNow) {
		hear(t, h, testWall, m)
	}
	if r := hear(t, h, testWall, data); r.Outcome != NeedsRebirth || r.Rebirth {
		t.Errorf("late data: %+v", r)
	}
}

func TestHostAsksForRebirth(t *testing.T) {
	n, _ := born(t)
	h := newHost()
	data := mustData(t, n, oneBatch(2, number("p", 2, 2, "bar")))[0]
	for i, want := range []bool{true, false, false, true} {
		r := hear(t, h, testWall.Add(time.Duration(i)*700*time.Millisecond), data)
		if r.Outcome != NeedsRebirth || r.Rebirth != want || len(r.Batches) != 0 {
			t.Errorf("message %d: %+v, want rebirth %v", i, r, want)
		}
	}
	// Another process has the edge's name: its births are not ours.
	other := newNode(t, "another boot")
	other.Connect(9)
	for _, m := range append(other.Birth(testNow), mustData(t, other, oneBatch(1, number("q", 1, 1, "Pa")))[0]) {
		hear(t, h, testWall, m)
	}
	if r := hear(t, h, testWall.Add(time.Minute), data); r.Outcome != NeedsRebirth || !r.Rebirth {
		t.Errorf("another session's table was used: %+v", r)
	}
}

func TestHostRefuses(t *testing.T) {
	for want, change := range map[string]func(*Topic, *Payload, *Body){
		"decoding headrace.1 body": func(_ *Topic, p *Payload, _ *Body) { p.UUID = HeadraceUUID; p.Body = []byte{0xFF} },
		"has no class":             func(_ *Topic, _ *Payload, b *Body) { b.Stream = "works 1/a/x" },
		"came with the device of":  func(_ *Topic, _ *Payload, b *Body) { b.Stream = "works 1/a/y:event" },
		"is not line:asset":        func(t *Topic, _ *Payload, _ *Body) { t.Device = "a" },
		"boot of 0 bytes":          func(_ *Topic, _ *Payload, b *Body) { b.Boot = "" },
		"boot of 65 bytes":         func(_ *Topic, _ *Payload, b *Body) { b.Boot = strings.Repeat("x", 65) },
		"2 sub_milli for 1":        func(_ *Topic, _ *Payload, b *Body) { b.SubMilli = []uint32{1, 2} },
		"2 alive_after for 1":      func(_ *Topic, _ *Payload, b *Body) { b.AliveAfter = []uint64{1, 2} },
		"has no value of type 10":  func(_ *Topic, p *Payload, _ *Body) { p.Metrics[0].Value = Value{} },
		"a quality that is none": func(_ *Topic, p *Payload, _ *Body) {
			p.Metrics[0].Properties = []Property{{Key: PropertyQuality, Value: Int(1 << 16)}}
		},
	} {
		n, h := born(t)
		topic, p, body := decoded(t, mustData(t, n, oneBatch(2, number("p", 2, 2, "bar")))[0])
		p.Body = nil
		change(&topic, &p, &body)
		if p.Body == nil {
			p.Body = AppendBody(nil, &body)
		}
		r := h.Receive(testNow, testWall, topic, &p)
		if r.Outcome != Refused || !strings.Contains(r.Reason, want) || len(r.Batches) != 0 {
			t.Errorf("want refusal %q, got %v: %s", want, r.Outcome, r.Reason)
		}
		if sound := len(body.Boot) == 6 && r.Origin.Boot != ""; sound && (r.Origin.Boot != "frozen" || r.Origin.Seq != 2) {
			t.Errorf("%s: origin %+v cannot be acknowledged", want, r.Origin)
		}
		if len(body.Boot) > maxBootBytes && r.Origin.Boot != "" {
			t.Errorf("%s: origin %+v", want, r.Origin)
		}
	}
}

func TestHostRefusesBirths(t *testing.T) {
	for want, change := range map[string]func(*Topic, *Payload, *Body){
		"session boot of 0":   func(_ *Topic, _ *Payload, b *Body) { b.SessionBoot = "" },
		"is not line:asset":   func(t *Topic, _ *Payload, _ *Body) { t.Device = "a" },
		"has no alias":        func(_ *Topic, p *Payload, _ *Body) { p.Metrics[0].HasAlias = false },
		"not allowed":         func(_ *Topic, p *Payload, _ *Body) { p.Metrics[0].Name = "a/b" },
		"declared twice":      func(_ *Topic, p *Payload, _ *Body) { p.Metrics = append(p.Metrics, p.Metrics[0]) },
		"9 sub_milli for 1":   func(_ *Topic, _ *Payload, b *Body) { b.SubMilli = make([]uint32, 9) },
		"no value of type 10": func(_ *Topic, p *Payload, _ *Body) { p.Metrics[0].Value = Value{Field: FieldBytes} },
	} {
		n, h := born(t)
		topic, p, body := decoded(t, n.Birth(testNow)[1])
		body.SubMilli = nil
		change(&topic, &p, &body)
		p.Body = AppendBody(nil, &body)
		if r := h.Receive(testNow, testWall, topic, &p); r.Outcome != Refused || !strings.Contains(r.Reason, want) {
			t.Errorf("want refusal %q, got %v: %s", want, r.Outcome, r.Reason)
		}
	}
}

func TestHostBoundsNodes(t *testing.T) {
	h := newHost()
	topic := Topic{Type: DBirth, Group: "works 1", Edge: "cell%7"}
	wide := Payload{Metrics: make([]Metric, MaxElements/2)}
	for i, want := range []Outcome{Accepted, Accepted, Refused} {
		topic.Device = string(rune('a' + i))
		if r := h.Receive(testNow, testWall, topic, &wide); r.Outcome != want {
			t.Errorf("birth %d: %v: %s", i, r.Outcome, r.Reason)
		}
	}
	// What is declared anew takes the place of what was.
	for range 3 {
		topic.Device = "a"
		if r := h.Receive(testNow, testWall, topic, &wide); r.Outcome != Accepted {
			t.Errorf("born again: %v: %s", r.Outcome, r.Reason)
		}
	}
	h = newHost()
	for i := range maxDevices + 1 {
		topic.Device = strings.Repeat("d", 1+i%400) + string(rune('A'+i/400))
		r := h.Receive(testNow, testWall, topic, &Payload{})
		if (r.Outcome == Accepted) != (i < maxDevices) {
			t.Fatalf("device %d: %v: %s", i, r.Outcome, r.Reason)
		}
	}
}

func TestHostIgnoresOthers(t *testing.T) {
	h := newHost()
	for _, topic := range []Topic{
		{Type: NBirth, Group: "works 1", Edge: "other"},
		{Type: NCmd, Group: "works 1", Edge: "cell%7"},
		{Type: StateT, Host: "h"},
	} {
		if r := h.Receive(testNow, testWall, topic, &Payload{}); r.Outcome != Ignored || r.Reason == "" {
			t.Errorf("%v: %+v", topic, r)
		}
	}
	if s := Refused.String(); s != "refused" {
		t.Errorf("outcome %q", s)
	}
}
