// Package freespace asks the file system how much room is left. It watches
// nothing and decides nothing.
package freespace

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Of is the space, in bytes, that is left for path or its nearest existing parent.
func Of(path string) (uint64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return st.Bavail * uint64(st.Bsize), nil
		}
		parent := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || parent == path {
			return 0, fmt.Errorf("reading free space of %s: %w", path, err)
		}
		path = parent
	}
}
