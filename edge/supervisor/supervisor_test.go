package supervisor

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/harness"
)

// site is an edge by a file.
type site struct {
	t    *testing.T
	addr string
	file string
	dir  string
	// probation is 100 ms if it is zero.
	probation time.Duration
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
		LookEvery: 5 * time.Millisecond, Probation: cmp.Or(s.probation, 100*time.Millisecond),
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
	s := &site{t: t, addr: "tcp://" + harness.PlantBroker(t), file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge")}
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

// An edit that changes nothing does not end probation.
func TestAnEditOfNothingLeavesProbation(t *testing.T) {
	s := &site{t: t, addr: "tcp://" + harness.PlantBroker(t), file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge"), probation: time.Hour}
	s.say(text)
	v, stop := s.run()
	s.until("the edge is on probation", v, func(st Status) bool { return st.State == Applying && st.Link })
	s.say("edge: [")
	s.until("the broken file is refused", v, func(st Status) bool { return st.State == Failed })
	s.say("# only a comment" + text)
	if st := s.until("the file is good again", v, func(st Status) bool { return st.State != Failed }); st.State != Applying || st.Cause != "" {
		t.Errorf("%+v", st)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// The end of probation does not hide that the file has been broken since.
func TestTheEndOfProbationHidesNoRefusal(t *testing.T) {
	s := &site{t: t, addr: "tcp://" + harness.PlantBroker(t), file: filepath.Join(t.TempDir(), "edge.yaml"), dir: filepath.Join(t.TempDir(), "edge"), probation: time.Second}
	s.say(text)
	v, stop := s.run()
	s.until("the edge is on probation", v, func(st Status) bool { return st.State == Applying })
	s.say("edge: [")
	s.until("the broken file is refused", v, func(st Status) bool { return st.State == Failed })
	st := s.until("the first counts as good", v, func(Status) bool { _, err := os.Stat(filepath.Join(s.dir, GoodName)); return err == nil })
	if st.State != Failed || st.Cause == "" {
		t.Errorf("%+v", st)
	}
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
