package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// The directions of [Result.Better].
const (
	Higher = "higher"
	Lower  = "lower"
)

// Report is what a bench has found.
type Report struct {
	Bench   string   `json:"bench"`
	Machine Machine  `json:"machine"`
	Input   string   `json:"input"`
	Results []Result `json:"results"`
	// Profile is a CPU profile of the run, kept where a goal was missed.
	Profile string `json:"profile,omitempty"`
}

// Machine is where it ran.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Go     string  `json:"go"`
	OSArch string  `json:"os_arch"`
	Load1  float64 `json:"load_1m"` // before the run: others' work slows ours
}

// Result is one figure. Goal 0 with Better "" is a figure without a goal.
type Result struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Better string  `json:"better,omitempty"`
	Goal   float64 `json:"goal"`
	Met    bool    `json:"met"`
}

// judged is a figure with its goal.
func judged(name string, value float64, unit, better string, goal float64) Result {
	met := value >= goal
	if better == Lower {
		met = value <= goal
	}
	return Result{Name: name, Value: value, Unit: unit, Better: better, Goal: goal, Met: met}
}

// figure is one without a goal.
func figure(name string, value float64, unit string) Result {
	return Result{Name: name, Value: value, Unit: unit, Met: true}
}

// Missed are the results whose goal was not reached.
func (r *Report) Missed() []Result {
	var out []Result
	for _, v := range r.Results {
		if !v.Met {
			out = append(out, v)
		}
	}
	return out
}

func thisMachine() Machine {
	m := Machine{CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version(), OSArch: runtime.GOOS + "/" + runtime.GOARCH}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &m.Load1)
	}
	return m
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
