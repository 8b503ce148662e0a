package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/test/harness"
)

// desk is who pushes configurations from afar.
type desk struct {
	*site
	client *command.Client
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	s := &site{t: t, addr: "tcp://" + harness.PlantBroker(t), file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge")}
	s.say(text)
	client, err := command.Dial(t.Context(), mqttc.Config{Addresses: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &desk{s, client}
}

func (d *desk) text(deadband string) string {
	return strings.ReplaceAll(strings.Replace(text, "deadband: 1", "deadband: "+deadband, 1), "ADDR", d.addr)
}

func (d *desk) desired(text string) command.Desired {
	q := command.Desired{ID: uuid.NewString(), Text: text, Who: "ann", Why: "test", Time: time.Now()}
	if cfg, err := config.Parse("x", []byte(text)); err == nil {
		q.Hash = cfg.Hash()
	}
	return q
}

func (d *desk) push(text string) command.Report {
	d.t.Helper()
	r, decided, err := d.client.Apply(d.t.Context(), "lyon/hall-1", d.desired(text), 20*time.Second, nil)
	if err != nil || !decided {
		d.t.Fatalf("decided %t, %v; %+v", decided, err, r)
	}
	return r
}

func hash(t *testing.T, text string) string {
	t.Helper()
	cfg, err := config.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Hash()
}

// A pushed configuration takes effect and lasts over a restart; one that is broken or
// changes what it may not is refused, and neither stops the edge nor a start; an edit
// of the file wins over what was pushed before it.
func TestPushed(t *testing.T) {
	d := newDesk(t)
	v, stop := d.run()
	d.until("the file counts as good", v, func(st Status) bool { return st.State == Applied && st.Link })
	two := hash(t, d.text("2"))
	if r := d.push(d.text("2")); r.State != command.Applied || r.Config != two || r.Origin != "pushed" {
		t.Errorf("%+v", r)
	}
	for name, c := range map[string]struct{ text, cause string }{
		"broken":          {"edge: [", "pushed"},
		"another broker":  {strings.Replace(d.text("3"), d.addr, "tcp://127.0.0.1:1", 1), "mqtt.addresses"},
		"a user":          {strings.Replace(d.text("3"), "mqtt: {addresses", "mqtt: {user: eve, addresses", 1), "mqtt.user"},
		"a file of a key": {strings.Replace(d.text("3"), "mqtt: {addresses", "mqtt: {key: /etc/shadow, addresses", 1), "mqtt.key"},
		"another name":    {strings.Replace(d.text("3"), "hall-1", "hall-2", 1), "edge.node"},
		"a password":      {strings.Replace(d.text("3"), "mqtt: {addresses", "mqtt: {password: x, addresses", 1), "password"},
	} {
		r := d.push(c.text)
		if r.State != command.NotApplied || r.Config != two || !strings.Contains(r.Cause, c.cause) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	v, stop = d.run()
	d.until("after a restart it runs by what was pushed last and is good", v, func(st Status) bool { return st.Config == two && st.Link })
	d.say(strings.Replace(text, "deadband: 1", "deadband: 4", 1))
	d.until("the edited file wins", v, func(st Status) bool { return st.State == Applied && st.Config == hash(t, d.text("4")) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	v, stop = d.run()
	d.until("also after a restart", v, func(st Status) bool { return st.State == Applied && st.Config == hash(t, d.text("4")) && st.Link })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// What is pushed while the edge is away takes effect when it is back.
func TestPushedWhileAway(t *testing.T) {
	d := newDesk(t)
	q := d.desired(d.text("2"))
	if _, decided, err := d.client.Apply(t.Context(), "lyon/hall-1", q, time.Millisecond, nil); err != nil || decided {
		t.Fatalf("decided %t, %v", decided, err)
	}
	v, stop := d.run()
	d.until("it takes effect", v, func(st Status) bool { return st.State == Applied && st.Config == q.Hash })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A configuration by which the edge does not work is given up for the last good one.
func TestPushedAndRolledBack(t *testing.T) {
	d := newDesk(t)
	v, stop := d.run()
	good := d.until("the file counts as good", v, func(st Status) bool { return st.State == Applied && st.Link && st.Figures["source_connected_now"] == 1 })
	plc, err := mqttc.Connect(t.Context(), mqttc.Config{Addresses: []string{d.addr}, ClientID: "plc", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer plc.Abort()
	// Nobody takes what is measured: more waits than the outbox may then have.
	const values, size = 60, 30_000
	for i := range values {
		payload := fmt.Sprintf(`{"ts": "2026-01-05T06:00:%02dZ", "value": "%d%s"}`, i, i, strings.Repeat("x", size))
		if err := plc.Publish(context.Background(), "plant/lyon/hall/pump-3/text", 1, false, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	d.until("it waits in the outbox", v, func(st Status) bool { return st.Figures["outbox_bytes_now"] > values*size/2 })
	r := d.push(d.text("1") + "outbox: {mega_bytes: 1}\n")
	if r.State != command.RolledBack || r.Config != good.Config || !strings.Contains(r.Cause, "outbox") {
		t.Errorf("%+v", r)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	v, stop = d.run()
	d.until("a restart does not try it again", v, func(st Status) bool { return st.Config == good.Config && st.State == Applied && st.Link })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A start that a pushed configuration has prevented again and again goes on without.
func TestPushedThatPreventsStarts(t *testing.T) {
	d := newDesk(t)
	v, stop := d.run()
	good := d.until("the file counts as good", v, func(st Status) bool { return st.State == Applied })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{File: d.file, Dir: d.dir})
	s.tried = b
	p := pushed{Desired: d.desired(d.text("2")), File: textHash(b), State: command.Applying}
	if err := s.setPushed(p); err != nil {
		t.Fatal(err)
	}
	for i := range maxTries {
		s = New(Options{File: d.file, Dir: d.dir})
		s.loadPushed()
		if now, err := s.first(); err != nil || now.Hash() != p.Hash {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	s = New(Options{File: d.file, Dir: d.dir})
	s.loadPushed()
	if now, err := s.first(); err != nil || now.Hash() != good.Config || s.pushed.State != command.RolledBack {
		t.Errorf("%v, %s", err, s.pushed.State)
	}
}

// A plan says what would change, and by name what may not.
func TestPlan(t *testing.T) {
	d := newDesk(t)
	v, stop := d.run()
	before := d.until("the file counts as good", v, func(st Status) bool { return st.State == Applied && st.Link })
	ask := func(text string) command.Answer {
		t.Helper()
		a, err := d.client.Ask(t.Context(), "lyon/hall-1", command.Request{ID: uuid.NewString(), Verb: command.Plan, Who: "ann", Config: text}, 20*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := ask(d.text("2"))
	if a.Plan == nil || a.Plan.Before != before.Config || a.Plan.After != hash(t, d.text("2")) || len(a.Plan.Sections) != 1 || a.Plan.Sections[0] != "filters" || len(a.Plan.Refused) != 0 {
		t.Errorf("%+v %+v", a, a.Plan)
	}
	a = ask(strings.Replace(d.text("1"), "hall-1", "hall-2", 1))
	if a.Plan == nil || len(a.Plan.Refused) == 0 || a.Plan.Refused[0] != "edge.node" {
		t.Errorf("%+v %+v", a, a.Plan)
	}
	if a = ask("edge: ["); a.State != command.Refused || a.Reason == "" {
		t.Errorf("%+v", a)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
