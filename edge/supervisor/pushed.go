package supervisor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/config"
	"github.com/headrace/headrace/internal/wholefile"
	"github.com/headrace/headrace/signal"
)

// PushedName is the configuration that came over MQTT last, and what became of it.
const PushedName = "config.pushed.json"

// maxTries is how often the edge starts by a pushed configuration that has not
// counted as good.
const maxTries = 3

// superseded is the state of a pushed configuration after the file was edited.
const superseded = "superseded"

// pushed is a configuration that came over MQTT. The later change wins: it wins over
// the file as that was when it came, and an edit of the file wins over it.
type pushed struct {
	command.Desired
	File  string `json:"file"`  // hash of the file's text when it came
	State string `json:"state"` // one of package command's, or superseded
	Cause string `json:"cause,omitempty"`
	Tries int    `json:"tries,omitempty"`
	// Kept is the one that was pushed before and is run by, if this one is not.
	Kept *command.Desired `json:"kept,omitempty"`
}

// current tells whether the edge shall run by it.
func (p *pushed) current(file []byte) bool {
	return (p.State == command.Applying || p.State == command.Applied) && p.File == textHash(file)
}

// kept is what was pushed and is run by over a file.
func (p *pushed) kept(file []byte) *command.Desired {
	switch {
	case p.File != textHash(file):
		return nil
	case p.State == command.Applied:
		return &p.Desired
	}
	return p.Kept
}

func textHash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (s *Supervisor) pushedFile() string { return filepath.Join(s.opt.Dir, PushedName) }

// loadPushed reads what came before; a file that cannot be read counts as none.
func (s *Supervisor) loadPushed() {
	b, err := os.ReadFile(s.pushedFile())
	if err == nil {
		err = json.Unmarshal(b, &s.pushed)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opt.Log.Error("the pushed configuration cannot be read; the edge goes on by the file", "cause", err)
		s.pushed = pushed{}
	}
}

// setPushed keeps what became of a pushed configuration, over restarts.
func (s *Supervisor) setPushed(p pushed) error {
	s.mu.Lock()
	s.pushed = p
	s.mu.Unlock()
	b, err := json.Marshal(p)
	if err == nil {
		err = wholefile.Replace(s.pushedFile(), b, 0o600)
	}
	if err != nil {
		s.opt.Log.Error("the pushed configuration cannot be kept", "cause", err)
	}
	return err
}

// become notes what became of the pushed configuration.
func (s *Supervisor) become(state string, cause error) {
	p := s.pushed
	p.State, p.Cause = state, ""
	if cause != nil {
		p.Cause = cause.Error()
	}
	_ = s.setPushed(p) // it has been logged
}

// Desired takes a configuration that came over MQTT; the newest one counts.
func (s *Supervisor) Desired(d command.Desired) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.ID == s.pushed.ID {
		return // it lies there retained, and was taken before
	}
	select {
	case <-s.desired:
	default:
	}
	s.desired <- d
}

// take decides on a configuration that came over MQTT; is tells whether to run by it.
func (s *Supervisor) take(d command.Desired, now plan) (next plan, is bool) {
	p := pushed{Desired: d, File: textHash(s.tried), State: command.Applying}
	before := s.pushed
	p.Kept = before.kept(s.tried)
	next, err := pushedPlan(d)
	if err == nil {
		if refused := config.Refused(now.Config, next.Config); len(refused) > 0 {
			err = &RefusedError{refused}
		}
	}
	if err == nil {
		// Before the edge runs by it, it must be there for the next start.
		err = s.setPushed(p)
	}
	if err != nil {
		s.opt.Log.Error("the pushed configuration is refused; the edge goes on as before", "id", d.ID, "who", d.Who, "why", d.Why, "cause", err)
		p.State, p.Cause = command.NotApplied, err.Error()
		_ = s.setPushed(p) // it has been logged
		s.refused = true
		s.note(Failed, err)
		return next, false
	}
	s.opt.Log.Info("a configuration was pushed", "id", d.ID, "who", d.Who, "why", d.Why, "config", next.Hash())
	s.refused = false
	return next, true
}

// RefusedError is a pushed configuration that changes what it may not.
type RefusedError struct{ Fields []string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("a pushed configuration may not change %v: names, brokers and credentials are the file's at the edge", e.Fields)
}

func pushedPlan(d command.Desired) (p plan, err error) {
	p.text, p.pushed = []byte(d.Text), true
	if p.Config, err = config.Parse("the pushed configuration", p.text); err != nil {
		return p, err
	}
	if d.Hash != "" && d.Hash != p.Hash() {
		return p, fmt.Errorf("the pushed configuration is %s and says that it is %s", p.Hash(), d.Hash)
	}
	return p, nil
}

// first is what to run by at a start: the pushed configuration if it is newer than
// the file, otherwise the file.
func (s *Supervisor) first() (plan, error) {
	now, err := s.read()
	s.tried = now.text
	if kept := s.pushed.Kept; kept != nil && !s.pushed.current(now.text) && s.pushed.File == textHash(now.text) {
		if p, failed := pushedPlan(*kept); failed == nil {
			return p, nil
		}
	}
	if !s.pushed.current(now.text) {
		if s.pushed.State == command.Applying || s.pushed.State == command.Applied {
			s.become(superseded, nil)
		}
		return now, err
	}
	next, failed := pushedPlan(s.pushed.Desired)
	if failed == nil && s.pushed.State == command.Applying {
		p := s.pushed
		p.Tries++
		if p.Tries > maxTries {
			failed = fmt.Errorf("the edge was started %d times by the pushed configuration, which never lasted", maxTries)
		} else {
			failed = s.setPushed(p)
		}
	}
	if failed != nil {
		s.opt.Log.Error("the pushed configuration is given up", "cause", failed)
		s.become(command.RolledBack, failed)
		if good, err := s.lastGood(); err == nil && !bytes.Equal(good.text, next.text) {
			return good, nil
		}
		return now, err
	}
	return next, nil
}

// Plan tells what a configuration would change.
func (s *Supervisor) Plan(text string, sensors map[signal.Path]string) (c command.Change, err error) {
	s.mu.Lock()
	now := s.config
	s.mu.Unlock()
	next, err := config.Parse("the configuration", []byte(text))
	if err != nil {
		return c, err
	}
	c = command.Change{
		Before: now.Hash(), After: next.Hash(), Sections: append([]string{}, config.Differ(now, next)...),
		Refused: append([]string{}, config.Refused(now, next)...), Findings: append([]string{}, next.Lint()...),
	}
	c.Sensors = []string{}
	for path, unit := range sensors {
		if !now.Filter.Alike(next.Filter, path.Sensor(), unit) {
			c.Sensors = append(c.Sensors, string(path))
		}
	}
	slices.Sort(c.Sensors)
	c.Sensors = c.Sensors[:min(len(c.Sensors), maxSensors)]
	return c, nil
}

// maxSensors bounds what a plan lists.
const maxSensors = 5000

// Describe fills in what a report says of the configuration.
func (s *Supervisor) Describe(r *command.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.State, r.Cause, r.Request, r.RequestWho, r.RequestWhy = s.state, s.cause, s.pushed.ID, s.pushed.Who, s.pushed.Why
	if r.State == Failed && s.pushed.State == command.RolledBack {
		r.State = command.RolledBack
	}
	if s.config != nil {
		r.Sections = s.config.Sections()
	}
	r.Origin = "file"
	if s.byPush {
		r.Origin = "pushed"
	}
}
