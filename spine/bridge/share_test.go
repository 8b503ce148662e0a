package bridge_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
)

// Two bridges divide the nodes: each message is worked on once, and when one
// leaves, the other goes on with its nodes.
func TestBridgesDivideTheNodes(t *testing.T) {
	p := newPlant(t)
	share := func(o *bridge.Options) { o.Share = &bridge.Share{Kafka: p.kafka(), Session: 2 * time.Second} }
	first, stop := p.bridge(t, share)
	eventually(t, "the first bridge owns all", func() bool { return counter(first, "shares_now") == 16 })
	second, _ := p.bridge(t, share)
	eventually(t, "both have a share", func() bool {
		a, b := counter(first, "shares_now"), counter(second, "shares_now")
		return a > 0 && b > 0 && a+b == 16
	})
	var edges []*edge
	for i := range 12 {
		e := newEdge(t, p.mqtt(), "site", fmt.Sprintf("e%d", i), fmt.Sprintf("0198b2a4-0000-7000-8000-0000000000%02d", i))
		edges = append(edges, e)
	}
	send := func(n int) {
		for i := range n {
			for _, e := range edges {
				e.send("site/line/"+signal.Stream(e.name)+":telemetry", reading("pressure", signal.Micros(1_000_000+i), float64(i)))
			}
		}
	}
	send(20)
	for _, e := range edges {
		e.drain(t)
	}
	a, b := counter(first, "records"), counter(second, "records")
	t.Logf("%d and %d records, %d and %d messages of the other's", a, b, counter(first, "others"), counter(second, "others"))
	if a == 0 || b == 0 {
		t.Errorf("one bridge did all: %d and %d", a, b)
	}
	stop()
	eventually(t, "the other owns all", func() bool { return counter(second, "shares_now") == 16 })
	send(20)
	for _, e := range edges {
		e.drain(t)
	}
	stored, _ := p.stored(t)
	want := 0
	for _, e := range edges {
		want += len(e.sent)
		for id := range e.sent {
			if _, ok := stored[id]; !ok {
				t.Errorf("%s is not in Kafka", id)
			}
		}
	}
	if len(stored) != want {
		t.Errorf("%d messages in Kafka, %d were sent", len(stored), want)
	}
}
