package ownclock

import (
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Clock is a machine's clock as it is: what it shows, and what it has counted.
type Clock interface {
	Now() time.Time
	// Since tells how long the machine runs, which no step of the clock changes,
	// and names the boot within which that means anything.
	Since() (boot string, d time.Duration)
	// Synced tells whether the machine says that something keeps its clock right.
	Synced() bool
}

// Machine is the clock of the machine.
type Machine struct {
	boot  string
	began time.Time
}

// NewMachine returns the clock of this machine.
func NewMachine() *Machine {
	m := &Machine{began: time.Now()}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		m.boot = strings.TrimSpace(string(b))
	}
	if _, ok := sinceBoot(); m.boot == "" || !ok {
		m.boot = "process-" + uuid.NewString() // a restart of the process is all that can be known
	}
	return m
}

// Now is the wall clock's time.
func (m *Machine) Now() time.Time { return time.Now() }

// Since counts from the machine's boot, or where that is not known from the
// process's start.
func (m *Machine) Since() (string, time.Duration) {
	if d, ok := sinceBoot(); ok && !strings.HasPrefix(m.boot, "process-") {
		return m.boot, d
	}
	return m.boot, time.Since(m.began)
}

// Synced asks the kernel.
func (m *Machine) Synced() bool { return synced() }

// Built is when this program was made: no clock that is right shows less. Without
// the build's own word it is a day of this version's.
func Built() time.Time {
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key != "vcs.time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && t.After(built) {
				built = t
			}
		}
	}
	return built
}
