package delta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	tempSuffix = ".tmp"
	// tempLife is how long a temporary file may belong to a living writer.
	tempLife = time.Hour
)

// PutIfAbsent writes a file durably and whole, or not at all. If path exists
// the error matches fs.ErrExist and the file there is untouched. An error that
// matches ErrUnknownOutcome leaves open whether the file survives a crash.
// Missing parents are made.
func PutIfAbsent(path string, data []byte) error {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	temp := filepath.Join(dir, "."+base+"."+uuid.NewString()+tempSuffix)
	err := writeSynced(temp, data)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(dir); err != nil {
			return err
		}
		err = writeSynced(temp, data)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	// link(2), unlike rename(2), fails when the name is taken.
	err = os.Link(temp, path)
	// What cannot be removed now is swept an hour later.
	_ = os.Remove(temp)
	if err != nil {
		return fmt.Errorf("putting %s in place: %w", path, err)
	}
	if err := SyncDir(dir); err != nil {
		return fmt.Errorf("%w of %s: %w", ErrUnknownOutcome, path, err)
	}
	return nil
}

func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}

// makeDirs is MkdirAll whose new names survive a crash.
func makeDirs(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		if err := makeDirs(filepath.Dir(dir)); err != nil {
			return err
		}
		return makeDirs(dir)
	case err != nil:
		return fmt.Errorf("making directory: %w", err)
	}
	return SyncDir(filepath.Dir(dir))
}

// SweepTemps removes what crashed writers of [PutIfAbsent] left in a directory
// more than an hour before now.
func SweepTemps(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweeping temporary files: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < tempLife {
			continue // gone already, or young
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweeping temporary files: %w", err)
		}
	}
	return nil
}

// NewDataPath is a fresh name for a data file, relative to the table.
func NewDataPath() string {
	id, err := uuid.NewV7()
	if err != nil { // the system's random source is broken; uuid.New panics on it too
		id = uuid.New()
	}
	return "part-" + id.String() + ".zstd.parquet"
}
