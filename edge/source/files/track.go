package files

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

const (
	// maxFiles bounds the files that are remembered.
	maxFiles = 4096
	// headBytes and tailBytes, before the place where reading stands, tell a file
	// from another.
	headBytes = 1024
	tailBytes = 256
	// A copy that a rotation makes is there for a moment beside what it copies.
	copyPolls = 3
)

// entry is where a file is read, as it stands in a position.
type entry struct {
	Name   string `json:"name"`           // as it is called now
	First  string `json:"first"`          // as it was called first: {file}
	Inode  uint64 `json:"inode"`          // of the file system
	Offset int64  `json:"offset"`         // of what is read next
	Line   int64  `json:"line"`           // its number, from 1
	Head   uint32 `json:"head"`           // CRC32 of the file's first bytes, of those before Offset
	Tail   uint32 `json:"tail"`           // CRC32 of the last bytes before Offset
	Skip   bool   `json:"skip,omitempty"` // in the middle of a line that is too long
	Broken bool   `json:"broken,omitempty"`
}

// file is a file that is followed.
type file struct {
	read    entry // after what was read
	taken   entry // after what was taken
	titles  *titles
	asset   signal.Asset
	size    int64
	mod     time.Time // by the file system
	changed time.Time // when that was seen to change last
	partial int64     // the size at which its last line had no end; -1: none
	doubt   int       // polls that it may still be the copy of another
	there   bool
}

func newFile(e entry) *file { return &file{read: e, taken: e, partial: -1} }

// found is a file of the folder.
type found struct {
	name  string
	inode uint64
	size  int64
	mod   time.Time
	of    *file
}

// scan looks at the folder and tells which of its files are which.
func (s *watcher) scan(now time.Time) error {
	entries, err := os.ReadDir(s.opt.Set.Dir)
	if err != nil {
		return fmt.Errorf("looking into the folder of the files source: %w", err)
	}
	var all []*found
	byInode, byName := map[uint64]*found{}, map[string]*found{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or no file
		}
		f := &found{name: e.Name(), size: info.Size(), mod: info.ModTime()}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.inode = st.Ino
		}
		if _, twice := byInode[f.inode]; twice && f.inode != 0 {
			continue // another name of the same file
		}
		all = append(all, f)
		byInode[f.inode], byName[f.name] = f, f
	}
	var orphans []entry // whose bytes may be under another name now
	for _, f := range s.files {
		f.there = false
		at := byInode[f.read.Inode]
		if at == nil || at.of != nil {
			// Who writes files anew and renames them leaves what was read as it was.
			if at = byName[f.read.Name]; at != nil && (at.of != nil || !s.same(at, f.read)) {
				at = nil
			}
		}
		if at == nil {
			orphans = append(orphans, f.taken)
			continue
		}
		at.of, f.there = f, true
		if news := at.size != f.size || !at.mod.Equal(f.mod) || at.name != f.read.Name; news && !s.same(at, f.read) {
			s.log.Warn("a file was begun anew, or is another", "file", s.path(at.name), "at", f.read.Offset)
			s.totals.Rotated++
			orphans = append(orphans, f.taken)
			if f.size > f.read.Offset && !f.read.Broken {
				s.totals.Lost++
				s.log.Error("a file was cut before it was read to its end", "file", s.path(at.name), "bytes", f.size-f.read.Offset)
			}
			*f = *newFile(entry{Name: at.name, First: at.name, Inode: at.inode, Line: 1})
			f.there = true
		}
		s.saw(f, at, now)
	}
	s.files = slices.DeleteFunc(s.files, func(f *file) bool {
		if !f.there && f.size > f.read.Offset && !f.read.Broken {
			s.totals.Lost++
			s.log.Error("a file is gone that was not read to its end", "file", s.path(f.read.Name), "bytes", f.size-f.read.Offset)
		}
		return !f.there
	})
	s.decide(orphans)
	s.more = 0
	for _, at := range all {
		if at.of != nil || !s.opt.Set.takes(at.name) {
			continue
		}
		if len(s.files) >= maxFiles {
			s.more++
			continue
		}
		s.files = append(s.files, s.begin(at, orphans, now))
	}
	if s.more > 0 && !s.moreSaid {
		s.log.Error("there are more files than are followed; move away what has been read", "folder", s.opt.Set.Dir, "most", maxFiles, "waiting", s.more)
	}
	s.moreSaid = s.more > 0
	slices.SortStableFunc(s.files, func(a, b *file) int { return strings.Compare(a.read.Name, b.read.Name) })
	return nil
}

// begin follows a file that is new. What an orphan's position fits is the orphan's.
func (s *watcher) begin(at *found, orphans []entry, now time.Time) *file {
	e := entry{Name: at.name, First: at.name, Inode: at.inode, Line: 1}
	doubt := 0
	for _, o := range orphans {
		if o.Offset > 0 && s.same(at, o) {
			e = o
			e.Name, e.Inode = at.name, at.inode
			break
		}
	}
	if e.Offset == 0 {
		for _, f := range s.files {
			if f.read.Offset > 0 && s.same(at, f.read) {
				doubt = copyPolls
			}
		}
	}
	f := newFile(e)
	f.doubt, f.there = doubt, true
	s.saw(f, at, now)
	return f
}

func (s *watcher) saw(f *file, at *found, now time.Time) {
	if f.size != at.size || !f.mod.Equal(at.mod) || f.changed.IsZero() {
		f.size, f.mod, f.changed = at.size, at.mod, now
	}
	f.read.Name, f.read.Inode = at.name, at.inode
	f.taken.Name, f.taken.Inode = at.name, at.inode
}

// decide goes on with the copies that a rotation has made: what they are copies of
// was begun anew. What is no copy after a while is a file of its own.
func (s *watcher) decide(orphans []entry) {
	for _, f := range s.files {
		if f.doubt == 0 {
			continue
		}
		f.doubt--
		for _, o := range orphans {
			if o.Offset > 0 && s.same(&found{name: f.read.Name, size: f.size}, o) {
				o.Name, o.Inode = f.read.Name, f.read.Inode
				f.read, f.taken, f.doubt = o, o, 0
			}
		}
	}
}

func (s *watcher) path(name string) string { return filepath.Join(s.opt.Set.Dir, name) }

// same tells whether a file has the bytes that were read.
func (s *watcher) same(at *found, e entry) bool {
	if at.size < e.Offset {
		return false
	}
	f, err := os.Open(s.path(at.name))
	if err != nil {
		return false
	}
	defer f.Close()
	head, tail, err := sums(f, e.Offset)
	return err == nil && head == e.Head && tail == e.Tail
}

// sums are the CRC32 of a file's first bytes and of the last, of those before an
// offset.
func sums(f io.ReaderAt, offset int64) (head, tail uint32, err error) {
	b := make([]byte, min(offset, headBytes))
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) || err != nil && len(b) > 0 {
		return 0, 0, err
	}
	head = crc32.ChecksumIEEE(b)
	b = b[:min(offset, tailBytes)]
	if _, err := f.ReadAt(b, offset-int64(len(b))); err != nil && len(b) > 0 {
		return 0, 0, err
	}
	return head, crc32.ChecksumIEEE(b), nil
}

// due tells whether there is something to read of a file, and whether its last
// line is whole without an end.
func (f *file) due(now time.Time, lastLine time.Duration) (due, last bool) {
	if f.read.Broken || f.doubt > 0 || f.size <= f.read.Offset {
		return false, false
	}
	last = now.Sub(f.changed) >= lastLine
	return f.partial != f.size || last, last
}

// next reads some rows of a file.
func (s *watcher) next(f *file, last bool) (moved bool, err error) {
	r, err := os.Open(s.path(f.read.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the next scan sees it
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", s.path(f.read.Name), err)
	}
	defer r.Close()
	head, tail, err := sums(r, f.read.Offset)
	if err != nil || head != f.read.Head && f.read.Offset > 0 || tail != f.read.Tail && f.read.Offset > 0 {
		f.size = -1 // the next scan looks at it closely
		return false, nil
	}
	if f.titles == nil && s.opt.Set.Format == CSV && f.read.Offset > 0 {
		if err := s.titles(f, r); err != nil {
			return false, fmt.Errorf("reading the header of %s again: %w", s.path(f.read.Name), err)
		}
	}
	n, err := r.ReadAt(s.buf, f.read.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading %s: %w", s.path(f.read.Name), err)
	}
	before := f.read
	s.rows(f, s.buf[:n], last && f.read.Offset+int64(n) >= f.size)
	if f.read == before {
		f.partial = f.size
		return false, nil
	}
	if f.read.Head, f.read.Tail, err = sums(r, f.read.Offset); err != nil {
		f.read = before
		return false, fmt.Errorf("reading %s: %w", s.path(f.read.Name), err)
	}
	return true, nil
}

// titles reads a file's first record.
func (s *watcher) titles(f *file, r io.ReaderAt) error {
	b := make([]byte, maxRecordBytes)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	record, _, why, ok := s.opt.Set.cut(trimBOM(b[:n]), true)
	if why != nil || !ok {
		return errors.Join(why, errors.New("there is no whole first line"))
	}
	return s.setTitles(f, record)
}

func (s *watcher) setTitles(f *file, record []byte) error {
	cells, err := s.opt.Set.cells(record)
	if err != nil {
		return err
	}
	f.titles, err = s.opt.Set.header(cells, len(cells))
	return err
}

const bom = "\xef\xbb\xbf"

func trimBOM(b []byte) []byte {
	if strings.HasPrefix(string(b[:min(len(b), 3)]), bom) {
		return b[3:]
	}
	return b
}

// stem is a file's name without ending, as an asset's name may have it.
func stem(name string) string {
	return source.CleanName(strings.TrimSuffix(name, filepath.Ext(name)))
}
