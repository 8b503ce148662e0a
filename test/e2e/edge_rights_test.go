package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/broker"
	"github.com/headrace/headrace/test/harness"
)

// The rights of docs/formats/edge-commands.md: who may ask is answered, who may only
// look is not heard, and an edge without the rights works as before.
func TestWhoMayAskAnEdge(t *testing.T) {
	t.Parallel()
	password, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	user := func(name string, publish, subscribe []string) broker.User {
		return broker.User{Name: name, Password: string(password), Publish: publish, Subscribe: subscribe}
	}
	old := func(node string) (publish, subscribe []string) {
		return []string{"spBv1.0/lyon/+/" + node, "spBv1.0/lyon/+/" + node + "/+"},
			[]string{"spBv1.0/lyon/NCMD/" + node, "spBv1.0/STATE/+", "headrace/ack/lyon/" + node}
	}
	p1, s1 := old("hall-1")
	p2, s2 := old("hall-2")
	b, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), Users: []broker.User{
		user("hall-1", append(p1, "headrace/answer/lyon/hall-1", "headrace/state/lyon/hall-1"), append(s1, "headrace/cmd/lyon/hall-1", "headrace/config/lyon/hall-1")),
		user("hall-2", p2, s2),
		user("engineer", []string{"headrace/cmd/lyon/+", "headrace/config/lyon/+"}, []string{"headrace/answer/#", "headrace/state/#"}),
		user("reader", nil, []string{"headrace/answer/#", "headrace/state/#"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(context.Background()) }()
	login := func(name string) mqttc.Config {
		return mqttc.Config{Addresses: []string{"tcp://" + b.Addr()}, Username: name, Password: "right"}
	}
	ctx, cancel := context.WithCancel(t.Context())
	agents := map[string]*edge.Agent{}
	done := make(chan error, 2)
	for _, node := range []string{"hall-1", "hall-2"} {
		a, err := edge.New(edge.Options{
			Dir: t.TempDir(), Group: "lyon", Node: node, Open: source.Gone, Filter: filter.None(), Clock: signal.WallClock{}, MQTT: login(node), FloorBytes: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		agents[node] = a
		go func() { done <- a.Run(ctx) }()
	}
	dial := func(name string) *command.Client {
		t.Helper()
		c, err := command.Dial(t.Context(), login(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	engineer, reader := dial("engineer"), dial("reader")
	plan := func(id string) command.Request {
		return command.Request{ID: id, Verb: command.Plan, Who: "ann", Config: "x"}
	}
	a, err := engineer.Ask(t.Context(), "lyon/hall-1", plan("one"), 30*time.Second, nil)
	if err != nil || a.State != command.Refused || a.Reason == "" {
		t.Errorf("%+v, %v", a, err)
	}
	harness.Eventually(t, 30*time.Second, "the reader sees the edge that may say so, and that alone", func() bool {
		reports, err := reader.Reports(t.Context())
		return err == nil && len(reports) == 1 && reports[0].Edge == "lyon/hall-1"
	})
	_, err = reader.Ask(t.Context(), "lyon/hall-1", plan("two"), time.Second, nil)
	var absent *command.AbsentError
	if !errors.As(err, &absent) || absent.Seen.IsZero() {
		t.Errorf("the reader's request: %v", err)
	}
	if st := agents["hall-2"].Status(); !st.Connected {
		t.Errorf("without the rights: %+v", st)
	}
	for _, c := range agents["hall-2"].Counters() {
		if c.Name == "sessions" && c.Value != 1 {
			t.Errorf("the edge without the rights connected %d times", c.Value)
		}
	}
	cancel()
	for range agents {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
