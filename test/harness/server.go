package harness

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/test/need"
)

// Server is somebody else's program that listens: it can be killed, and
// started again where it was.
type Server struct {
	name string
	args []string
	dir  string
	addr string
	cmd  *exec.Cmd
	done chan struct{}
	out  Log
}

// serverStart bounds the start of a program on a busy machine.
const serverStart = 2 * time.Minute

// StartServer starts a program in dir and waits until addr takes connections.
// It is killed when the test ends.
func StartServer(t testing.TB, dir, addr, name string, args ...string) *Server {
	t.Helper()
	s := LaunchServer(t, dir, addr, name, args...)
	s.Await(t)
	return s
}

// LaunchServer starts a program and does not wait: a node of a cluster may
// need the others first.
func LaunchServer(t testing.TB, dir, addr, name string, args ...string) *Server {
	t.Helper()
	s := &Server{name: name, args: args, dir: dir, addr: addr}
	s.launch(t)
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), tail(s.out.String()))
		}
	})
	return s
}

// Addr is where it listens.
func (s *Server) Addr() string { return s.addr }

// Kill ends the program as a power cut would; it may be dead already.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Restart starts a killed program again.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.launch(t)
	s.Await(t)
}

func (s *Server) launch(t testing.TB) {
	t.Helper()
	s.cmd, s.done = exec.Command(s.name, s.args...), make(chan struct{})
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, &s.out, &s.out
	// Its own process group: a test ends a process by its id and nothing else.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", s.name, err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(s.cmd, s.done)
}

// Await waits until it listens.
func (s *Server) Await(t testing.TB) {
	t.Helper()
	Eventually(t, serverStart, s.name+" listens on "+s.addr, func() bool {
		select {
		case <-s.done:
			t.Fatalf("%s ended:\n%s", s.name, tail(s.out.String()))
		default:
		}
		return Listens(s.addr)
	})
}

// Jars returns the folder of a test's jars, or skips the test.
func Jars(t testing.TB, suite, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(Root(t), "scripts", "jars.sh"), name)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	need.Suite(t, suite, err == nil, strings.TrimSpace(errs.String()))
	return strings.TrimSpace(string(out))
}
