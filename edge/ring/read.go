package ring

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/headrace/headrace/signal"
)

// Blocks calls visit with the kept blocks of a channel from index from up to
// before, that left out, in order. A block is visit's only during the call.
func (r *Ring) Blocks(asset signal.Asset, sensor string, from, before uint64, visit func(Block) error) error {
	if from >= before || from >= r.channels[sensorKey{asset, sensor, signal.Raw}] {
		return nil
	}
	if err := r.write(); err != nil {
		return fmt.Errorf("writing ring %s: %w", r.opt.Dir, err)
	}
	path := asset.Sensor(sensor)
	// The segments that hold the range are the newest: from there back until one
	// begins before it.
	var hold []segmentEntriesOf
	for _, s := range slices.Backward(r.segments) {
		of, err := r.entriesOf(s)
		if err != nil {
			return fmt.Errorf("reading ring %s: %w", r.opt.Dir, err)
		}
		of.entries = slices.DeleteFunc(slices.Clone(of.entries), func(e entry) bool { return e.kind != kindWave || e.path != path })
		hold = append(hold, of)
		if len(of.entries) > 0 && of.entries[0].number <= from {
			break
		}
	}
	for _, of := range slices.Backward(hold) {
		err := of.visit(func(f *os.File, e *entry) error {
			if e.number < from || e.number >= before {
				return nil
			}
			data, err := readRecord(f, e)
			if errors.Is(err, errDamaged) {
				r.stats.Damaged++
				return nil
			}
			if err != nil {
				return err
			}
			return visit(Block{Time: e.from, First: e.number, Bytes: data})
		})
		if err != nil {
			return fmt.Errorf("reading blocks of %s from ring %s: %w", path, r.opt.Dir, err)
		}
	}
	return nil
}

// segmentEntriesOf is a segment's file and what is in it.
type segmentEntriesOf struct {
	name    string
	entries []entry
}

// visit calls fn with the segment's entries. A segment that is gone is passed
// over: it was the oldest.
func (s *segmentEntriesOf) visit(fn func(*os.File, *entry) error) error {
	if len(s.entries) == 0 {
		return nil
	}
	f, err := os.Open(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range s.entries {
		if err := fn(f, &s.entries[i]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

func (r *Ring) entriesOf(s *segment) (segmentEntriesOf, error) {
	of := segmentEntriesOf{name: segmentFile(r.opt.Dir, s.number)}
	if !s.sealed {
		of.entries = r.entries
		return of, nil
	}
	f, err := os.Open(of.name)
	if err != nil {
		return of, err
	}
	of.entries, _, _, _, err = segmentEntries(f)
	return of, errors.Join(err, f.Close())
}

// Sample is one that the ring has kept.
type Sample struct {
	Asset   signal.Asset
	Class   signal.Class
	Reading signal.Reading // of class raw its value is a block
}

// Reader reads a ring, also one that another goroutine or process appends to: it
// sees what was synced. It changes nothing and keeps no file open.
type Reader struct {
	dir   string
	codec *codec
	seed  maphash.Seed
	// Damaged is how many records were passed over.
	Damaged int64
}

// OpenReader opens the ring in a directory for reading.
func OpenReader(dir string) (*Reader, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("reading ring: %w", err)
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("reading ring %s: %w", dir, err)
	}
	return &Reader{dir: dir, codec: c, seed: maphash.MakeSeed()}, nil
}

// Close lets the reader's memory go.
func (r *Reader) Close() { r.codec.close() }

// Read calls visit with what the ring has kept of an asset, or of all if it is "",
// with a time in [from, to). Samples of one sensor come in the order in which they
// were taken, but for what was taken late, and what a crash has left twice comes
// once. A sample is visit's only during the call.
func (r *Reader) Read(asset signal.Asset, from, to signal.Micros, visit func(*Sample) error) error {
	// The journal first: what is packed meanwhile is then seen twice, not missed.
	rest, err := r.journals()
	if err == nil {
		err = r.segments(asset, from, to, rest, visit)
	}
	if err != nil {
		return fmt.Errorf("reading ring %s: %w", r.dir, err)
	}
	return nil
}

// journals are the samples that are in no segment, or were not a moment ago.
func (r *Reader) journals() (slow, error) {
	s := newSlow()
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return s, err
	}
	slices.SortFunc(files, func(a, b os.DirEntry) int {
		return cmp.Or(len(a.Name())-len(b.Name()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name(), journalPrefix)
		if _, err := strconv.ParseUint(rest, 10, 64); !ok || err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(r.dir, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // packed
		}
		if err != nil {
			return s, err
		}
		clear(s.names)
		_, _, err = scan(b, func(_ kind, _ int, payload []byte) error {
			raw, err := r.codec.unpack(payload)
			if err == nil {
				err = s.recall(raw, func(k sensorKey, _ uint64, v *signal.Reading) { s.add(k, v) })
			}
			if err != nil {
				r.Damaged++
			}
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// recent is what is remembered of a sensor's samples, to tell those that come
// again: a source is read again after a crash from where the outbox stands, and a
// journal may hold what was packed.
type recent struct {
	newest signal.Micros
	hashes []uint64 // of the last ones
	next   int
}

// maxRecent is how many samples of a sensor may come again.
const maxRecent = 512

// again tells whether a sample came before, and remembers it.
func (r *recent) again(seed maphash.Seed, v *signal.Reading) bool {
	h := maphash.Comparable(seed, struct {
		at, alive signal.Micros
		kind      signal.Kind
		bits      uint64
		text      string
		quality   signal.Quality
		unit      string
	}{v.EventTime, v.AliveAt, v.Value.Kind, math.Float64bits(v.Value.Number), v.Value.Text, v.Quality, v.Unit})
	if v.EventTime <= r.newest && slices.Contains(r.hashes, h) {
		return true
	}
	r.newest = max(r.newest, v.EventTime)
	if len(r.hashes) < maxRecent {
		r.hashes = append(r.hashes, h)
		return false
	}
	r.hashes[r.next] = h
	r.next = (r.next + 1) % maxRecent
	return false
}

func (r *Reader) segments(asset signal.Asset, from, to signal.Micros, rest slow, visit func(*Sample) error) error {
	numbers, err := segmentNumbers(r.dir)
	if err != nil {
		return err
	}
	tail := map[sensorKey]*recent{}
	inRange := func(e *entry) bool {
		if e.from >= to || e.to < from {
			return false
		}
		switch e.kind {
		case kindWave:
			return asset == "" || e.path.Asset() == asset
		case kindSlow:
			return asset == "" || signal.Asset(e.path) == asset
		}
		return false
	}
	for _, n := range numbers {
		of := segmentEntriesOf{name: segmentFile(r.dir, n)}
		f, err := os.Open(of.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		of.entries, _, _, _, err = segmentEntries(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		of.entries = slices.DeleteFunc(of.entries, func(e entry) bool { return !inRange(&e) })
		err = of.visit(func(f *os.File, e *entry) error {
			data, err := readRecord(f, e)
			if err == nil && e.kind == kindWave {
				p := e.path
				return visit(&Sample{p.Asset(), signal.Raw, signal.Reading{
					Sensor: p.Sensor(), EventTime: e.from, AliveAt: e.from, Value: signal.WaveValue(string(data)), Quality: signal.QualityGood,
				}})
			}
			var runs map[sensorKey]*run
			if err == nil {
				runs, err = readRuns(r.codec, signal.Asset(e.path), data)
			}
			if errors.Is(err, errDamaged) {
				r.Damaged++
				return nil
			}
			if err != nil {
				return err
			}
			return r.runs(runs, from, to, tail, visit)
		})
		if err != nil {
			return err
		}
	}
	for k := range rest.runs {
		if asset != "" && k.asset != asset {
			delete(rest.runs, k)
		}
	}
	return r.runs(rest.runs, from, to, tail, visit)
}

// runs visits the samples of runs of one record, by time. Those that come again are
// passed over.
func (r *Reader) runs(runs map[sensorKey]*run, from, to signal.Micros, tail map[sensorKey]*recent, visit func(*Sample) error) error {
	var out []Sample
	for k, run := range runs {
		seen := tail[k]
		if seen == nil {
			seen = &recent{newest: math.MinInt64}
			tail[k] = seen
		}
		err := run.samples(k.sensor, func(v signal.Reading) error {
			if seen.again(r.seed, &v) {
				return nil
			}
			if v.EventTime >= from && v.EventTime < to {
				out = append(out, Sample{k.asset, k.class, v})
			}
			return nil
		})
		if err != nil {
			r.Damaged++
		}
	}
	slices.SortStableFunc(out, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(max(a.Reading.EventTime, a.Reading.AliveAt), max(b.Reading.EventTime, b.Reading.AliveAt)),
			cmp.Compare(a.Asset, b.Asset), cmp.Compare(a.Reading.Sensor, b.Reading.Sensor))
	})
	for i := range out {
		if err := visit(&out[i]); err != nil {
			return err
		}
	}
	return nil
}
