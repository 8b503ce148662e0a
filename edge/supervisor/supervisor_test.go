package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/headrace/headrace/signal"
)

func broker(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(srv.AddHook(new(auth.AllowHook), nil), srv.AddListener(listeners.NewNet("tcp", l)), srv.Serve()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	return "tcp://" + l.Addr().String()
}

// site is an edge by a file.
type site struct {
	t    *testing.T
	addr string
	file string
	dir  string
}

// say writes the file with a deadband and a user, whose password no file holds.
func (s *site) say(text string) {
	s.t.Helper()
	text = strings.ReplaceAll(text, "ADDR", s.addr)
	if err := os.WriteFile(s.file+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		s.t.Fatal(err)
	}
}

const text = `
edge: {group: lyon, node: hall-1}
mqtt: {addresses: ["ADDR"]}
source: {mqtt: {addresses: ["ADDR"]}, map: {prefix: plant}}
filters: {rules: [{deadband: 1}]}
`

func (s *site) run() (v *Supervisor, stop func() error) {
	s.t.Helper()
	v = New(Options{
		File: s.file, Dir: s.dir, Clock: signal.WallClock{}, Getenv: func(string) string { return "" },
		LookEvery: 5 * time.Millisecond, Probation: 100 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	s.t.Cleanup(cancel)
	return v, func() error { cancel(); return <-done }
}

func (s *site) until(what string, v *Supervisor, ok func(Status) bool) Status {
	s.t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(20 * time.Second)
	for {
		st := v.Status()
		if ok(st) {
			return st
		}
		select {
		case <-look.C:
		case <-deadline:
			s.t.Fatalf("did not happen within 20 s: %s; %+v", what, st)
		}
	}
}

// A change takes effect; a broken file stops neither the edge nor a restart; one
// under which the edge cannot work is given up for the last good one.
func TestByTheFile(t *testing.T) {
	s := &site{t: t, addr: broker(t), file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge")}
	s.say(text)
	v, stop := s.run()
	first := s.until("the file counts as good", v, func(st Status) bool { return st.State == Applied && st.Link })
	if first.Edge != "lyon/hall-1" || len(first.Config) != 16 {
		t.Errorf("%+v", first)
	}

	s.say("# only a comment" + text)
	s.say(strings.Replace(text, "deadband: 1", "deadband: 2", 1))
	second := s.until("the change counts as good", v, func(st Status) bool { return st.State == Applied && st.Config != first.Config && st.Link })

	s.say(strings.Replace(text, "deadband: 1", "deadbandd: 2", 1))
	st := s.until("the broken file is refused", v, func(st Status) bool { return st.State == Failed })
	if st.Config != second.Config || !strings.Contains(st.Cause, "deadbandd") || !st.Link {
		t.Errorf("%+v", st)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	v, stop = s.run()
	s.until("the edge starts by the last good file", v, func(st Status) bool { return st.State == Failed && st.Config == second.Config && st.Link })
	s.say(strings.Replace(text, "mqtt: {addresses: ", "mqtt: {user: nobody, addresses: ", 1))
	s.until("a configuration without its password is given up", v, func(st Status) bool {
		return st.State == Failed && strings.Contains(st.Cause, "nobody") && st.Config == second.Config && st.Link
	})
	s.say(text)
	s.until("and the first is good again", v, func(st Status) bool { return st.State == Applied && st.Config == first.Config })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// Without a configuration that works there is no edge.
func TestNothingToGoOnBy(t *testing.T) {
	s := &site{t: t, addr: "tcp://127.0.0.1:1", file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge")}
	s.say("edge: [")
	_, stop := s.run()
	if err := stop(); err == nil || !strings.Contains(err.Error(), "edge.yaml") {
		t.Errorf("%v", err)
	}
}
