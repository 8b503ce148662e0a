package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/headrace/headrace/server/datadir"
)

// Report is what a bench found.
type Report struct {
	Machine string   `json:"machine"`
	Input   string   `json:"input"`
	Results []Result `json:"results"`
	// Profile is a CPU profile (pprof) of what missed a goal; "" if none did.
	Profile string `json:"profile,omitempty"`
}

// Result is one figure. Met is nil where there is no goal.
type Result struct {
	Name   string   `json:"name"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit"`
	Better string   `json:"better"` // "higher" or "lower"
	Goal   *float64 `json:"goal,omitempty"`
	Met    *bool    `json:"met,omitempty"`
}

// The sides on which a figure is better.
const (
	higher = "higher"
	lower  = "lower"
)

// add adds a figure.
func (r *Report) add(name string, value float64, unit, better string) {
	r.Results = append(r.Results, Result{Name: name, Value: value, Unit: unit, Better: better})
}

// aim adds a figure that has a goal.
func (r *Report) aim(name string, value float64, unit, better string, goal float64) {
	met := value >= goal
	if better == lower {
		met = value <= goal
	}
	r.Results = append(r.Results, Result{name, value, unit, better, &goal, &met})
}

// Met tells whether every goal is met.
func (r *Report) Met() bool {
	return !slices.ContainsFunc(r.Results, func(x Result) bool { return x.Met != nil && !*x.Met })
}

// Print writes the report for people.
func (r *Report) Print(to io.Writer) error {
	fmt.Fprintf(to, "%s\n%s\n\n", r.Machine, r.Input)
	t := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
	for _, x := range r.Results {
		goal := ""
		if x.Goal != nil {
			verdict := "met"
			if !*x.Met {
				verdict = "MISSED"
			}
			goal = fmt.Sprintf("goal %s: %s", number(*x.Goal), verdict)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Name, number(x.Value), x.Unit, goal)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Profile != "" {
		fmt.Fprintf(to, "\nwhere the time went: go tool pprof -top %s\n", r.Profile)
	}
	return nil
}

func number(v float64) string {
	switch {
	case v >= 1000 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// machine says what it runs on.
func machine() string {
	model := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer func() { _ = f.Close() }()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d × %s, %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// process is a child that is measured.
type process struct {
	cmd *exec.Cmd
	dir string
	run datadir.Run
	end chan struct{}
}

// ProfileVariable names the file to which a child writes a CPU profile.
const ProfileVariable = "HEADRACE_CPU_PROFILE"

// startRoles starts roles of this binary in a directory of their own.
func startRoles(ctx context.Context, dir, profile string, args ...string) (*process, error) {
	p, err := startSelf(ctx, profile, append(args, "--dir", dir)...)
	if err != nil {
		return nil, err
	}
	p.dir = dir
	for {
		if run, ok := datadir.ReadRun(dir); ok && run.PID == p.cmd.Process.Pid {
			p.run = run
			return p, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.end:
			return nil, fmt.Errorf("the process that is to be measured ended at once: headrace %s", strings.Join(args, " "))
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		}
	}
}

// startSelf starts this binary.
func startSelf(ctx context.Context, profile string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, profile, self, args...)
}

// start starts a program, which is killed if ctx ends.
func start(ctx context.Context, profile, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), end: make(chan struct{})}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if profile != "" {
		p.cmd.Env = append(os.Environ(), ProfileVariable+"="+profile)
	}
	// The thread that starts a child with a death signal must outlive it.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			close(p.end)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(name), err)
	}
	return p, nil
}

// stop ends the child and waits for it.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.end:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.end
	}
}

// cpu is the processor time that the child has taken.
func (p *process) cpu() time.Duration {
	if p == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold anything; utime and stime are 14 and 15.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100
}

// rss is the child's resident memory in bytes, and peak its most so far.
func (p *process) rss() (now, peak float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		v, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		switch name {
		case "VmRSS":
			now = v * 1024
		case "VmHWM":
			peak = v * 1024
		}
	}
	return now, peak
}

// cpuTime is what this process has used of all cores. Unlike wall time it is
// not stretched by what else the machine does.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the process's CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// percentile of durations, which it sorts; p from 0 to 1.
func percentile(of []time.Duration, p float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[min(int(p*float64(len(of))), len(of)-1)]
}
