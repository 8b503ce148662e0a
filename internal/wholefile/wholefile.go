// Package wholefile replaces small files so that after a crash there is the old
// one or the new one, never half of one. What is in them is their owners' own.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
)

// Replace writes content beside a file, syncs it and renames it over the file,
// which then has the permissions perm. Two calls for one name may not run at once.
func Replace(name string, content []byte, perm fs.FileMode) error {
	next := name + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}
