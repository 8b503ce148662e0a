package outbox_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/headrace/headrace/edge/outbox"
)

var errPowerCut = errors.New("power cut")

// memFS is a file system that loses what was not synced when its power is cut.
type memFS struct {
	mu      sync.Mutex
	live    map[string]*memFile // what processes see
	durable map[string]*memFile // directory entries that would survive
	space   int64               // free bytes
	syncs   int                 // sync points so far
	cutAt   int                 // cut the power at this sync point; 0: never
	after   bool                // … after it took effect
	off     bool
	writeTo int // fail the write of this number with ENOSPC half done; 0: never
	writes  int
}

type memFile struct {
	data   []byte
	synced []byte
}

func newMemFS() *memFS {
	return &memFS{live: map[string]*memFile{}, durable: map[string]*memFile{}, space: 1 << 40}
}

// sector is what a disk writes as one.
const sector = 64

// reboot returns the file system as a power cut leaves it: what was synced. If
// torn is set, of what was not an arbitrary part is there too: of directory
// entries, any of those made and removed; of a file's bytes, any sectors, in no
// order, the last one torn, and one bit of them wrong.
func (m *memFS) reboot(torn *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemFS()
	entries := maps.Clone(m.durable)
	if torn != nil {
		for _, name := range slices.Sorted(maps.Keys(m.live)) {
			if torn.IntN(2) == 0 {
				entries[name] = m.live[name]
			}
		}
		for _, name := range slices.Sorted(maps.Keys(m.durable)) {
			if m.live[name] == nil && torn.IntN(2) == 0 {
				delete(entries, name)
			}
		}
	}
	for name, f := range entries {
		data := slices.Clone(f.synced)
		if torn != nil && len(f.data) > len(data) {
			data = append(data, make([]byte, torn.IntN(len(f.data)-len(data)+1))...)
			whole := torn.IntN(3) == 0
			for at := len(f.synced); at < len(data); at += sector {
				if whole || torn.IntN(2) == 0 {
					copy(data[at:min(at+sector, len(data))], f.data[at:])
				}
			}
			if torn.IntN(2) == 0 && len(data) > len(f.synced) {
				data[len(f.synced)+torn.IntN(len(data)-len(f.synced))] ^= 0x40
			}
		}
		c := &memFile{data: data, synced: slices.Clone(data)}
		n.live[name], n.durable[name] = c, c
	}
	return n
}

// wipe removes every file.
func (m *memFS) wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.live)
	clear(m.durable)
}

// syncPoint runs effect, unless the power is cut here before it.
func (m *memFS) syncPoint(effect func()) error {
	if m.off {
		return errPowerCut
	}
	m.syncs++
	if m.syncs == m.cutAt {
		m.off = true
		if m.after {
			effect()
		}
		return errPowerCut
	}
	effect()
	return nil
}

func (m *memFS) MkdirAll(string) error { return nil }

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name := range m.live {
		if filepath.Dir(name) == dir {
			out = append(out, filepath.Base(name))
		}
	}
	return out, nil
}

func (m *memFS) Create(name string) (outbox.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, errPowerCut
	}
	if m.live[name] != nil {
		return nil, fs.ErrExist
	}
	m.live[name] = &memFile{}
	return &memHandle{m, m.live[name]}, nil
}

func (m *memFS) Open(name string, _ bool) (outbox.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.live[name] == nil {
		return nil, fs.ErrNotExist
	}
	return &memHandle{m, m.live[name]}, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return errPowerCut
	}
	if f := m.live[name]; f != nil {
		m.space += int64(len(f.data))
	}
	delete(m.live, name)
	return nil
}

func (m *memFS) Holds(name string, f outbox.File) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[name] != nil && m.live[name] == f.(*memHandle).f, nil
}

func (m *memFS) SyncDir(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncPoint(func() { m.durable = maps.Clone(m.live) })
}

func (m *memFS) Free(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(max(m.space, 0)), nil
}

func (m *memFS) setSpace(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space = n
}

// flip damages one byte of a file.
func (m *memFS) flip(name string, at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[name].data[at] ^= 0x10
}

func (m *memFS) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.live))
}

type memHandle struct {
	fs *memFS
	f  *memFile
}

func (h *memHandle) ReadAt(p []byte, at int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if at >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(p []byte, at int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.off {
		return 0, errPowerCut
	}
	h.fs.writes++
	n, err := len(p), error(nil)
	if grow := at + int64(len(p)) - int64(len(h.f.data)); grow > h.fs.space || h.fs.writes == h.fs.writeTo {
		n, err = len(p)/2, syscall.ENOSPC
	}
	if need := int(at) + n - len(h.f.data); need > 0 {
		h.f.data = append(h.f.data, make([]byte, need)...)
		h.fs.space -= int64(need)
	}
	copy(h.f.data[at:], p[:n])
	return n, err
}

func (h *memHandle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.fs.syncPoint(func() { h.f.synced = slices.Clone(h.f.data) })
}

func (h *memHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.off {
		return errPowerCut
	}
	h.fs.space += int64(len(h.f.data)) - size
	h.f.data = h.f.data[:size]
	h.f.synced = h.f.synced[:min(int64(len(h.f.synced)), size)]
	return nil
}

func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.f.data)), nil
}

func (h *memHandle) Close() error { return nil }
