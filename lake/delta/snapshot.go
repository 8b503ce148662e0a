package delta

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
)

// File is a data file of a table. Use it by pointer; it is never changed.
type File struct {
	AddFile
	rows  int64 // -1: the statistics do not say
	stats atomic.Pointer[Stats]
}

// Rows is the number of rows as the statistics have it; false if they do not.
func (f *File) Rows() (int64, bool) { return max(f.rows, 0), f.rows >= 0 }

// Snapshot is a table at one version. It is immutable and safe for concurrent
// use.
type Snapshot struct {
	dir      string
	version  int64
	protocol Protocol
	metadata Metadata
	// changed is the newest version that wrote protocol or metadata.
	changed int64
	files   []*File // sorted by path
	txns    map[string]int64
}

// Version is the number of the newest log entry in the snapshot.
func (s *Snapshot) Version() int64 { return s.version }

// Schema is the table's columns.
func (s *Snapshot) Schema() Schema { return s.metadata.Schema }

// Metadata is the table's description. It must not be changed.
func (s *Snapshot) Metadata() Metadata { return s.metadata }

// Protocol is what the table asks of readers and writers.
func (s *Snapshot) Protocol() Protocol { return s.protocol }

// Files are the live files in order of their paths. The slice must not be
// changed.
func (s *Snapshot) Files() []*File { return s.files }

// File finds a live file.
func (s *Snapshot) File(path string) (*File, bool) {
	i, ok := slices.BinarySearchFunc(s.files, path, func(f *File, p string) int { return strings.Compare(f.Path, p) })
	if !ok {
		return nil, false
	}
	return s.files[i], true
}

// Txn is the stored number of an application; 0 if it never committed.
func (s *Snapshot) Txn(appID string) int64 { return s.txns[appID] }

// Txns are the stored numbers of all applications.
func (s *Snapshot) Txns() map[string]int64 { return maps.Clone(s.txns) }

// Stats parses a file's statistics once and keeps them with the file: some
// kilobytes for a wide table. Where the number of rows is enough, File.Rows is
// cheap; where one column of many files is, use [ParseStats] and keep that.
// It returns nil without an error for a file that has no statistics.
func (s *Snapshot) Stats(f *File) (*Stats, error) {
	if st := f.stats.Load(); st != nil || f.StatsJSON == "" {
		return st, nil
	}
	st, err := ParseStats(f.StatsJSON, s.metadata.Schema)
	if err != nil {
		return nil, fmt.Errorf("reading statistics of %s in %s: %w", f.Path, s.dir, err)
	}
	f.stats.Store(st)
	return st, nil
}

// Rows is the number of rows as the statistics have it; false if a file has
// none.
func (s *Snapshot) Rows() (int64, bool) {
	var n int64
	for _, f := range s.files {
		if f.rows < 0 {
			return 0, false
		}
		n += f.rows
	}
	return n, true
}

// replay lays log entries over a snapshot. Files are merged once at the end,
// so that reading many entries costs what they hold.
type replay struct {
	next     Snapshot
	base     []*File
	adds     map[string]*File
	gone     map[string]bool
	ownsTxns bool
}

func newReplay(base *Snapshot) *replay {
	return &replay{next: *base, base: base.files, adds: make(map[string]*File), gone: make(map[string]bool)}
}

// apply takes the entry of the next version.
func (r *replay) apply(e *entry) {
	r.next.version++
	if e.protocol != nil {
		r.next.protocol, r.next.changed = *e.protocol, r.next.version
	}
	if e.metadata != nil {
		r.next.metadata, r.next.changed = *e.metadata, r.next.version
	}
	if len(e.txns) > 0 {
		if !r.ownsTxns {
			r.next.txns, r.ownsTxns = maps.Clone(r.next.txns), true
			if r.next.txns == nil {
				r.next.txns = make(map[string]int64)
			}
		}
		maps.Copy(r.next.txns, e.txns)
	}
	for _, f := range e.removes {
		delete(r.adds, f.Path)
		r.gone[f.Path] = true
	}
	for _, f := range e.adds {
		r.adds[f.Path] = f
		r.gone[f.Path] = true // an older description of the same file
	}
}

// finish checks that this package may read the result, and returns it.
func (r *replay) finish() (*Snapshot, error) {
	s := r.next
	if s.changed < 0 || s.metadata.ID == "" && len(s.metadata.Schema.Fields) == 0 {
		return nil, fmt.Errorf("opening %s: version 0 has no metaData: %w", s.dir, ErrCorrupt)
	}
	if s.protocol.MinReaderVersion == 0 {
		return nil, fmt.Errorf("opening %s: version 0 has no protocol: %w", s.dir, ErrCorrupt)
	}
	if err := s.protocol.checkRead(); err != nil {
		return nil, fmt.Errorf("opening %s at version %d: %w", s.dir, s.version, err)
	}
	if len(r.gone) == 0 {
		s.files = r.base
		return &s, nil
	}
	fresh := slices.SortedFunc(maps.Values(r.adds), func(a, b *File) int { return strings.Compare(a.Path, b.Path) })
	s.files = make([]*File, 0, len(r.base)+len(fresh))
	for _, f := range r.base {
		if r.gone[f.Path] {
			continue
		}
		if n := sort.Search(len(fresh), func(i int) bool { return fresh[i].Path > f.Path }); n > 0 {
			s.files, fresh = append(s.files, fresh[:n]...), fresh[n:]
		}
		s.files = append(s.files, f)
	}
	s.files = append(s.files, fresh...)
	return &s, nil
}

// checkRead refuses what this reader does not know.
func (p Protocol) checkRead() error {
	switch {
	case p.MinReaderVersion <= 1:
		return nil
	case p.MinReaderVersion == 3 && len(p.ReaderFeatures) == 0:
		return nil
	case p.MinReaderVersion == 3:
		return fmt.Errorf("table needs reader features %s: %w", strings.Join(p.ReaderFeatures, ", "), ErrUnsupported)
	}
	return fmt.Errorf("table needs reader version %d, this reader knows 1: %w", p.MinReaderVersion, ErrUnsupported)
}

// checkWrite refuses what this writer would not honour.
func (p Protocol) checkWrite(m Metadata) error {
	if p.MinWriterVersion == 7 {
		for _, f := range p.WriterFeatures {
			if f != "appendOnly" && f != "invariants" {
				return fmt.Errorf("table needs writer feature %q: %w", f, ErrUnsupported)
			}
		}
	} else if p.MinWriterVersion > 2 {
		return fmt.Errorf("table needs writer version %d, this writer knows 2: %w", p.MinWriterVersion, ErrUnsupported)
	}
	for _, f := range m.Schema.Fields {
		if _, ok := f.Metadata["delta.invariants"]; ok || f.Required {
			return fmt.Errorf("column %q has an invariant, which this writer cannot check: %w", f.Name, ErrUnsupported)
		}
	}
	return nil
}
