package outbox

// ReadStateFS is ReadState on a test's file system.
func ReadStateFS(fsys FS, dir string) (State, error) { return readState(fsys, dir) }
