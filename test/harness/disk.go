package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/headrace/headrace/test/need"
)

// Tmpfs mounts a small disk for the test, or skips it where the test may not mount.
func Tmpfs(t testing.TB, mib int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib))
	need.Suite(t, "root", err == nil, fmt.Sprintf("mounting a small disk needs root: %v", err))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			// A file that is still open somewhere must not keep the mount for ever.
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
			t.Errorf("unmounting the small disk: %v", err)
		}
	})
	return dir
}

// Fill writes a file into dir that leaves free bytes of its disk, and returns its name.
func Fill(t testing.TB, dir string, free uint64) string {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "filler")
	if left := st.Bavail * uint64(st.Bsize); left > free {
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(left-free)); err != nil {
			t.Fatal(err)
		}
	}
	return file
}
