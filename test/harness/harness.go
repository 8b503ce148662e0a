// Package harness builds and drives the real binary for the tests that run it
// as a user would. It is for tests alone.
package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/test/need"
)

// Root is the top of the checkout.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the source of the harness is not known")
	}
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Binary builds cmd/headrace with the given extra build tags and returns its path.
func Binary(t testing.TB, tags ...string) string {
	t.Helper()
	name := strings.Join(append([]string{"headrace"}, tags...), "-")
	out := filepath.Join(Root(t), "bin", name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out,
		"-tags", strings.Join(append([]string{"duckdb_arrow"}, tags...), ","), "./cmd/headrace")
	cmd.Dir = Root(t)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, b)
	}
	return out
}

// Data returns the folder of a recording ("skab"), or skips the test.
func Data(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("HEADRACE_DATA")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "data")
	}
	dir = filepath.Join(dir, name)
	_, err := os.Stat(dir)
	need.Suite(t, "data", err == nil, fmt.Sprintf("no recordings at %s; set HEADRACE_DATA to their folder", dir))
	return dir
}

// Loopback are the flags that let every listener choose a free port.
func Loopback() []string {
	return []string{"--listen-mqtt", "127.0.0.1:0", "--listen-kafka", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"}
}

// Proc is a running binary.
type Proc struct {
	Cmd  *exec.Cmd
	Dir  string // its data directory
	out  Log
	errs Log
	done chan struct{}
	err  error
}

// Start runs the binary with --dir dir; it is killed when the test ends.
func Start(t testing.TB, bin, dir string, env []string, args ...string) *Proc {
	t.Helper()
	p := &Proc{Dir: dir, done: make(chan struct{})}
	p.Cmd = exec.Command(bin, append(args, "--dir", dir)...)
	p.Cmd.Env = append(os.Environ(), env...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.out, &p.errs
	// Its own process group: a test ends a process by its id and nothing else.
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", bin, err)
	}
	go func() { p.err = p.Cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("stdout of %v:\n%s\nstderr:\n%s", args, tail(p.Stdout()), tail(p.Stderr()))
		}
	})
	return p
}

// Stdout is what the process has printed so far.
func (p *Proc) Stdout() string { return p.out.String() }

// Stderr is what it has complained of so far.
func (p *Proc) Stderr() string { return p.errs.String() }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Kill ends the process as a power cut would, and waits.
func (p *Proc) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.done
}

// Signal sends a signal.
func (p *Proc) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v: %v", s, err)
	}
}

// Exit waits for the process and returns its exit code, -1 if a signal ended it.
func (p *Proc) Exit(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		// The goroutines tell why it does not end.
		_ = p.Cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		t.Fatalf("the process did not end within %s", limit)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Ready waits until the process serves, and returns where.
func (p *Proc) Ready(t testing.TB, limit time.Duration) datadir.Run {
	t.Helper()
	var run datadir.Run
	Eventually(t, limit, "the process is ready", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the process ended before it was ready: %v\n%s", p.err, p.Stderr())
		default:
		}
		var ok bool
		run, ok = datadir.ReadRun(p.Dir)
		return ok && run.PID == p.Cmd.Process.Pid
	})
	return run
}

// RSS is the resident memory of the process in bytes; peak tells its maximum so far.
func (p *Proc) RSS(t testing.TB) (now, peak int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	return now, peak
}

// Result is what a verb answered.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a verb to its end.
func Run(t testing.TB, bin string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s %v: %v", bin, args, err)
	}
	return Result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// SQL runs a query over a data directory and decodes its JSON rows.
func SQL[T any](t testing.TB, bin, dir, query string) []T {
	t.Helper()
	r := Run(t, bin, "sql", query, "--dir", dir, "--output", "json")
	if r.Code != 0 {
		t.Fatalf("sql %s: exit %d\n%s", query, r.Code, r.Stderr)
	}
	var rows []T
	if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil {
		t.Fatalf("sql %s: %v\n%s", query, err, r.Stdout)
	}
	return rows
}

// Get fetches JSON from the process's API.
func Get(t testing.TB, run datadir.Run, path string, v any) {
	t.Helper()
	if err := get(t.Context(), "http://"+run.HTTP+path, v); err != nil {
		t.Fatal(err)
	}
}

func get(ctx context.Context, url string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, b)
	}
	return json.Unmarshal(b, v)
}

// Eventually waits until ok, or fails the test after the limit. It bounds a
// wait; it never decides what is right.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s until %s, in vain", limit, what)
		case <-tick.C:
		}
	}
}

func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// Log is written by goroutines of what is tested while the test reads it.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Stations are the counters of the process's stations, "edge.shipped" and so on.
func Stations(t testing.TB, run datadir.Run) map[string]int64 {
	t.Helper()
	var answer struct {
		Stations []struct {
			Station  string `json:"station"`
			Counters []struct {
				Name  string `json:"name"`
				Value int64  `json:"value"`
			} `json:"counters"`
		} `json:"stations"`
	}
	Get(t, run, "/api/v1/stations", &answer)
	counters := map[string]int64{}
	for _, s := range answer.Stations {
		for _, c := range s.Counters {
			counters[s.Station+"."+c.Name] += c.Value
		}
	}
	return counters
}

// Stopped tells whether a signal has stopped the process (not ended it).
func (p *Proc) Stopped(t testing.TB) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name in parentheses may hold blanks.
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "T")
}

// MaxRSS is the most memory, in bytes, that the ended process has held.
func (p *Proc) MaxRSS() int64 {
	usage, ok := p.Cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return usage.Maxrss << 10
}
