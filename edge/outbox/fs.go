package outbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/headrace/headrace/internal/freespace"
)

// FS is what the outbox needs of a file system: one folder of files.
type FS interface {
	MkdirAll(dir string) error
	// List returns the names of the files in dir.
	List(dir string) ([]string, error)
	// Create makes a new file; it fails if there is one.
	Create(name string) (File, error)
	// Open opens a file, for reading alone if readOnly.
	Open(name string, readOnly bool) (File, error)
	Remove(name string) error
	// Holds tells whether name still leads to the open file f.
	Holds(name string, f File) (bool, error)
	// SyncDir makes creations and removals in dir durable.
	SyncDir(dir string) error
	// Free is the space left for dir, in bytes.
	Free(dir string) (uint64, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
}

// SpaceError says that the disk has no room: intake waits until it has.
type SpaceError struct {
	Dir         string
	Free, Floor uint64
	Cause       error // what the system said, nil if the floor was reached
}

func (e *SpaceError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("no space left for outbox %s: %v; free some", e.Dir, e.Cause)
	}
	return fmt.Sprintf("no space left for outbox %s: %d MiB free, floor %d MiB; free some", e.Dir, e.Free>>20, e.Floor>>20)
}

func (e *SpaceError) Unwrap() error { return e.Cause }

func noSpace(err error) bool {
	_, full := errors.AsType[*SpaceError](err)
	return full || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// osFS is the machine's own file system.
type osFS struct{}

// MkdirAll also makes the new folders durable.
func (f osFS) MkdirAll(dir string) error {
	err := os.Mkdir(dir, 0o750)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = f.MkdirAll(filepath.Dir(dir)); err != nil {
			return err
		}
		if err = os.Mkdir(dir, 0o750); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (osFS) Create(name string) (File, error) {
	return wrap(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640))
}

func (osFS) Open(name string, readOnly bool) (File, error) {
	if readOnly {
		return wrap(os.Open(name))
	}
	return wrap(os.OpenFile(name, os.O_RDWR, 0))
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Holds(name string, f File) (bool, error) {
	there, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	open, err := f.(osFile).Stat()
	return err == nil && os.SameFile(there, open), err
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Free(dir string) (uint64, error) { return freespace.Of(dir) }

type osFile struct{ *os.File }

func wrap(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// segmentSuffix ends the name of every segment file; before it stands the
// segment's number in ten digits.
const segmentSuffix = ".log"

func segmentName(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%010d%s", number, segmentSuffix))
}

// segmentNumbers lists the segments in dir, ascending. Other files are left alone.
func segmentNumbers(fsys FS, dir string) ([]uint32, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []uint32
	for _, name := range names {
		var n uint32
		if _, err := fmt.Sscanf(name, "%010d"+segmentSuffix, &n); err == nil && filepath.Base(segmentName(dir, n)) == name {
			out = append(out, n)
		}
	}
	sortNumbers(out)
	return out, nil
}
