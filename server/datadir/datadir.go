// Package datadir is the folder in which a Headrace process keeps its state:
// who may use it, which version wrote it, and what runs in it now.
//
// It knows the names inside the folder and nothing of their contents.
package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headrace/headrace/internal/freespace"
	"github.com/headrace/headrace/internal/wholefile"
)

// Format is the version of the folder's layout that this build writes and reads.
const Format = 1

// StartFloor is the free space, in bytes, without which a process does not start.
const StartFloor = 64 << 20

const (
	markerName = "headrace.json"
	lockName   = "lock"
	runName    = "run.json"
)

// Marker is the content of headrace.json.
type Marker struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // the build that made the folder
	Created time.Time `json:"created"`
}

// Run is the content of run.json: the process that uses the folder now.
type Run struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Roles   []string  `json:"roles"`
	MQTT    string    `json:"mqtt,omitempty"`
	Kafka   string    `json:"kafka,omitempty"`
	HTTP    string    `json:"http,omitempty"`
}

// Dir is an opened data folder; it holds the folder's lock until Close.
type Dir struct {
	path string
	lock *os.File
}

// Open takes the folder for this process. A missing or empty folder is made
// ours; one that holds other things, belongs to a newer version, is used by
// another process or lies on a full disk is refused and left as it is.
func Open(path, version string, now time.Time) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if err := checkKind(abs); err != nil {
		return nil, err
	}
	if err := checkSpace(abs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(abs, 0o750); err != nil {
		return nil, fmt.Errorf("creating data directory: %w; choose another with --dir", err)
	}
	lock, err := takeLock(filepath.Join(abs, lockName), abs)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: abs, lock: lock}
	if err := d.mark(version, now); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Check tells whether path is a data folder of ours, for verbs that only read.
func Check(path string) error {
	m, err := readMarker(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not a Headrace data directory: it has no %s; name the one that `headrace up` used with --dir", path, markerName)
	}
	if err != nil {
		return err
	}
	return checkFormat(path, m)
}

// ReadRun returns what runs in the folder, and whether something does.
func ReadRun(path string) (Run, bool) {
	var r Run
	b, err := os.ReadFile(filepath.Join(path, runName))
	if err != nil || json.Unmarshal(b, &r) != nil || r.PID <= 0 {
		return Run{}, false
	}
	f, err := os.Open(filepath.Join(path, lockName))
	if err != nil {
		return Run{}, false
	}
	defer f.Close()
	// A lock that can be had means that the process is gone.
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return Run{}, false
	}
	return r, true
}

// Path is the folder's absolute path; Path(names…) a place inside it.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// WriteRun says what runs in the folder from now on.
func (d *Dir) WriteRun(r Run) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Replace(d.Path(runName), append(b, '\n'), 0o640)
}

// Close gives the folder back.
func (d *Dir) Close() error {
	err := os.Remove(d.Path(runName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.lock.Close())
}

// checkKind refuses what is no folder of ours before anything is touched.
func checkKind(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("opening data directory: %w; choose another with --dir", err)
	}
	m, err := readMarker(path)
	if err == nil {
		return checkFormat(path, m)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		// What a start that was cut short may leave behind.
		if n := e.Name(); n != lockName && n != "lost+found" && !strings.HasPrefix(n, markerName) {
			return fmt.Errorf("directory %s is not empty and not a Headrace data directory (it holds %s); choose an empty or new one with --dir", path, n)
		}
	}
	return nil
}

func checkFormat(path string, m Marker) error {
	if m.Format > Format {
		return fmt.Errorf("data directory %s was written by Headrace %s (format %d), this build reads up to format %d; run that version or a newer one", path, m.Version, m.Format, Format)
	}
	return nil
}

func checkSpace(path string) error {
	free, err := freespace.Of(path)
	if err != nil {
		return err
	}
	if free < StartFloor {
		return fmt.Errorf("disk of data directory %s has %d MiB free, %d MiB are needed to start; free some space or choose another disk with --dir", path, free>>20, StartFloor>>20)
	}
	return nil
}

func takeLock(file, dir string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("opening lock of data directory %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		who := "another process"
		if r, ok := ReadRun(dir); ok {
			who = fmt.Sprintf("process %d", r.PID)
		}
		return nil, errors.Join(
			fmt.Errorf("data directory %s is in use by %s; stop it or choose another with --dir", dir, who), f.Close())
	}
	return f, nil
}

func (d *Dir) mark(version string, now time.Time) error {
	_, err := readMarker(d.path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := json.MarshalIndent(Marker{Format: Format, Version: version, Created: now.UTC()}, "", "  ")
	if err != nil {
		return err
	}
	if err := wholefile.Replace(d.Path(markerName), append(b, '\n'), 0o640); err != nil {
		return fmt.Errorf("marking data directory %s: %w", d.path, err)
	}
	return nil
}

func readMarker(path string) (Marker, error) {
	var m Marker
	file := filepath.Join(path, markerName)
	b, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Format < 1 {
		return m, fmt.Errorf("reading %s: it is not the marker of a Headrace data directory; restore it from a backup or choose another directory with --dir", file)
	}
	return m, nil
}
