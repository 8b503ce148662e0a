package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headrace/headrace/cmd/internal/verb"
	"github.com/headrace/headrace/internal/freespace"
	"github.com/headrace/headrace/server/datadir"
)

// doctorCmd looks at what a start needs; it changes nothing that lasts.
type doctorCmd struct {
	Dir         string `help:"Data directory to look at." default:"./headrace-data" type:"path"`
	ListenMQTT  string `name:"listen-mqtt" help:"Address that MQTT will use." default:"127.0.0.1:1883"`
	ListenKafka string `name:"listen-kafka" help:"Address that Kafka will use." default:"127.0.0.1:9092"`
	ListenHTTP  string `name:"listen-http" help:"Address that the page will use." default:"127.0.0.1:8080"`
	Output      string `help:"Form of the answer: text or json." enum:"text,json" default:"text"`
}

// finding is one line of the doctor's answer.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

const (
	recommendedFree = 2 << 30
	minFiles        = 4096
	slowSync        = 50 * time.Millisecond
)

// Help shows an example.
func (doctorCmd) Help() string {
	return "Exit code 1 if something needs a remedy.\n\nExample:\n  headrace doctor --dir ./headrace-data"
}

// Run makes the checks and prints them.
func (c doctorCmd) Run(e *verb.Env) error {
	findings := c.examine()
	bad := false
	for _, f := range findings {
		bad = bad || !f.OK
	}
	if c.Output == "json" {
		if err := json.NewEncoder(e.Stdout).Encode(map[string]any{"ok": !bad, "checks": findings}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			mark := "ok  "
			if !f.OK {
				mark = "BAD "
			}
			fmt.Fprintf(e.Stdout, "%s %-12s %s\n", mark, f.Check, f.Found)
			if f.Remedy != "" {
				fmt.Fprintf(e.Stdout, "     %-12s → %s\n", "", f.Remedy)
			}
		}
	}
	if bad {
		return verb.ErrFound
	}
	return nil
}

func (c doctorCmd) examine() []finding {
	run, running := datadir.ReadRun(c.Dir)
	out := []finding{
		checkPort("port mqtt", c.ListenMQTT, "--listen-mqtt", running && run.MQTT == c.ListenMQTT),
		checkPort("port kafka", c.ListenKafka, "--listen-kafka", running && run.Kafka == c.ListenKafka),
		checkPort("port http", c.ListenHTTP, "--listen-http", running && run.HTTP == c.ListenHTTP),
	}
	return append(out, checkDir(c.Dir, running), checkDisk(c.Dir), checkSync(c.Dir), checkClock(time.Now()), checkFiles())
}

func checkPort(name, addr, flag string, ours bool) finding {
	f := finding{Check: name, OK: true, Found: addr + " is free"}
	if ours {
		f.Found = addr + " is used by the Headrace that runs here"
		return f
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		f.OK, f.Found = false, fmt.Sprintf("%s cannot be used: %v", addr, unwrapAll(err))
		f.Remedy = "stop what uses it, or choose another with " + flag
		return f
	}
	_ = l.Close()
	return f
}

func checkDir(dir string, running bool) finding {
	f := finding{Check: "directory", OK: true}
	if running {
		f.Found = dir + " is in use by a running Headrace"
		return f
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Found = dir + " will be created"
	case err != nil:
		f.OK, f.Found, f.Remedy = false, err.Error(), "choose another with --dir"
	case len(entries) == 0:
		f.Found = dir + " is empty"
	default:
		if err := datadir.Check(dir); err != nil {
			f.OK, f.Found, f.Remedy = false, err.Error(), "choose another with --dir"
		} else {
			f.Found = dir + " is a Headrace data directory"
		}
	}
	return f
}

func checkDisk(dir string) finding {
	f := finding{Check: "disk", OK: true}
	free, err := freespace.Of(dir)
	if err != nil {
		f.OK, f.Found, f.Remedy = false, err.Error(), "choose another disk with --dir"
		return f
	}
	f.Found = fmt.Sprintf("%.1f GiB free", float64(free)/(1<<30))
	if free < recommendedFree {
		f.OK, f.Remedy = false, fmt.Sprintf("free space up to %d GiB, or choose another disk with --dir; intake stops when the disk is nearly full", recommendedFree>>30)
	}
	return f
}

// checkSync measures what every acknowledgement waits for.
func checkSync(dir string) finding {
	f := finding{Check: "disk sync", OK: true}
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	file, err := os.CreateTemp(dir, ".headrace-doctor-*")
	if err != nil {
		f.OK, f.Found, f.Remedy = false, err.Error(), "make the directory writable, or choose another with --dir"
		return f
	}
	defer os.Remove(file.Name())
	defer file.Close()
	const rounds = 10
	start := time.Now()
	for range rounds {
		if _, err = file.Write(make([]byte, 4096)); err == nil {
			err = file.Sync()
		}
		if err != nil {
			f.OK, f.Found, f.Remedy = false, err.Error(), "check the disk, or choose another with --dir"
			return f
		}
	}
	each := time.Since(start) / rounds
	f.Found = fmt.Sprintf("4 KiB are durable after %s", each.Round(10*time.Microsecond))
	if each > slowSync {
		f.OK, f.Remedy = false, "use a faster disk: every acknowledgement waits for it"
	}
	return f
}

// checkClock reads the kernel's own opinion of its clock.
func checkClock(now time.Time) finding {
	f := finding{Check: "clock", OK: true, Found: now.UTC().Format(time.RFC3339) + ", synchronised"}
	if now.Year() < 2024 {
		f.OK, f.Found, f.Remedy = false, now.UTC().Format(time.RFC3339)+" is in the past", "set the clock, best by NTP (chrony, systemd-timesyncd)"
		return f
	}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	switch {
	case err != nil:
		f.Found = fmt.Sprintf("%s, synchronisation unknown (%v)", now.UTC().Format(time.RFC3339), err)
	case state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0:
		// A container or a laptop may keep time by other means: said, not refused.
		f.Found = now.UTC().Format(time.RFC3339) + ", the kernel does not call it synchronised"
		f.Remedy = "run an NTP client (chrony, systemd-timesyncd) where edges keep their own time"
	}
	return f
}

func checkFiles() finding {
	f := finding{Check: "open files", OK: true}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		f.OK, f.Found, f.Remedy = false, err.Error(), "check `ulimit -n`"
		return f
	}
	f.Found = fmt.Sprintf("%d may be open", lim.Cur)
	if lim.Cur < minFiles {
		f.OK, f.Remedy = false, fmt.Sprintf("raise it: `ulimit -n %d`, or LimitNOFILE= in the service", max(minFiles, 65536))
	}
	return f
}

// unwrapAll returns the innermost cause, which is what a user can act on.
func unwrapAll(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
