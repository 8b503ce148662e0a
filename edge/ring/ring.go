package ring

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headrace/headrace/internal/freespace"
	"github.com/headrace/headrace/signal"
)

// Defaults of [Options].
const (
	DefaultMaxBytes     = 256 << 20
	DefaultSegmentBytes = 8 << 20
	DefaultFlushBytes   = 4 << 20
	DefaultFlushSpan    = 15 * time.Minute
	DefaultFloorBytes   = 64 << 20
)

// maxBuffered bounds what is appended and not yet written.
const maxBuffered = 1 << 20

// Options say where the ring is and how much it keeps; zero is the default.
type Options struct {
	Dir      string
	MaxBytes int64
	// MaxAge is how long samples are kept, by the plant's clock; 0 is as long as
	// there is room.
	MaxAge       time.Duration
	Clock        signal.Clock // the plant's; needed with MaxAge
	Config       string       // hash of the configuration that the edge runs by; "" is not said
	SegmentBytes int64
	// Slow samples are packed when they are so many bytes, or span so much time.
	FlushBytes int
	FlushSpan  time.Duration
	// PinnedBytes bounds what pins keep beyond MaxBytes; 0 is a quarter of it.
	PinnedBytes int64
	// FloorBytes is the free space below which the ring gives up its oldest, and
	// then keeps nothing more: the outbox comes first.
	FloorBytes uint64
	Free       func(dir string) (uint64, error)
	Log        *slog.Logger
}

func (o *Options) defaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = min(DefaultSegmentBytes, max(o.MaxBytes/4, 1))
	}
	o.SegmentBytes = min(o.SegmentBytes, maxSegment/2)
	if o.FlushBytes <= 0 {
		o.FlushBytes = int(min(DefaultFlushBytes, max(o.MaxBytes/16, 1)))
	}
	if o.FlushSpan <= 0 {
		o.FlushSpan = DefaultFlushSpan
	}
	if o.PinnedBytes <= 0 {
		o.PinnedBytes = o.MaxBytes / 4
	}
	if o.FloorBytes == 0 {
		o.FloorBytes = DefaultFloorBytes
	}
	if o.Free == nil {
		o.Free = freespace.Of
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Ring is an open ring. It is not safe for concurrent use; a [Reader] of the same
// directory may read while it appends.
type Ring struct {
	opt      Options
	codec    *codec
	segments []*segment // ascending by number; the last one is written to unless it is sealed
	file     *os.File   // of the last one
	entries  []entry    // of the last one
	buffer   []byte     // appended to it, not yet written
	synced   bool
	channels map[sensorKey]uint64 // index after a channel's newest block; 0 is none
	slow     slow
	journal  *os.File
	gen      uint64 // the journal's number
	pins     []Pin
	stats    Stats
	refusing bool
}

// Stats are what a ring has counted since it was opened, but for Bytes and Pinned,
// which are what it has.
type Stats struct {
	Bytes, Pinned      int64
	Samples, Blocks    int64 // kept
	SlowBytes          int64 // of slow samples in segments
	WaveBytes          int64 // of blocks in segments
	Damaged            int64 // bytes that were no records
	Refused            int64 // samples and blocks for which there was no room
	Packed             int64 // slow samples in segments
	Segments, Unpinned int64 // segments it has; pins given up for room
}

// Open opens the ring in a directory, or makes it. What a crash has left half
// written is cut off; a damaged record is passed over and counted.
func Open(opt Options) (*Ring, error) {
	opt.defaults()
	r := &Ring{opt: opt, channels: map[sensorKey]uint64{}, slow: newSlow(), synced: true}
	err := r.load()
	if err != nil {
		if r.codec != nil {
			r.codec.close()
		}
		return nil, errors.Join(fmt.Errorf("opening ring %s: %w", opt.Dir, err), closeFile(r.file), closeFile(r.journal))
	}
	return r, nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func (r *Ring) load() (err error) {
	if r.codec, err = newCodec(); err != nil {
		return err
	}
	if err := os.MkdirAll(r.opt.Dir, 0o700); err != nil {
		return err
	}
	if r.pins, err = readPins(r.opt.Dir); err != nil {
		r.opt.Log.Error("the ring's pins cannot be read and are forgotten", "dir", r.opt.Dir, "cause", err)
	}
	numbers, err := segmentNumbers(r.opt.Dir)
	if err != nil {
		return err
	}
	packed := uint64(0)
	for i, n := range numbers {
		if err := r.loadSegment(n, i == len(numbers)-1, &packed); err != nil {
			return fmt.Errorf("%s: %w", segmentFile(r.opt.Dir, n), err)
		}
	}
	if err := r.loadJournals(packed); err != nil {
		return err
	}
	if n := len(r.segments); n > 0 && !r.segments[n-1].sealed {
		if err := r.sayConfig(); err != nil {
			return err
		}
	}
	return r.shrink()
}

func (r *Ring) loadSegment(number int, last bool, packed *uint64) error {
	f, err := os.OpenFile(segmentFile(r.opt.Dir, number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	entries, sealed, damaged, sound, err := segmentEntries(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s := &segment{number: number, size: int64(sound), sealed: sealed || !last}
	if damaged > 0 {
		r.stats.Damaged += int64(damaged)
		r.opt.Log.Warn("a segment of the ring is damaged; the rest of it is read", "file", f.Name(), "bytes", damaged)
	}
	for i := range entries {
		e := &entries[i]
		s.widen(e)
		switch e.kind {
		case kindWave:
			k := sensorKey{e.path.Asset(), e.path.Sensor(), signal.Raw}
			r.channels[k] = max(r.channels[k], e.number+1)
		case kindMark:
			*packed = max(*packed, e.number)
		}
	}
	r.segments = append(r.segments, s)
	r.stats.Bytes += s.size
	if s.sealed {
		return f.Close()
	}
	r.file, r.entries = f, entries
	return f.Truncate(s.size)
}

// loadJournals takes up the samples that were in no segment, and goes on in the
// newest journal.
func (r *Ring) loadJournals(packed uint64) error {
	files, err := os.ReadDir(r.opt.Dir)
	if err != nil {
		return err
	}
	var gens []uint64
	for _, f := range files {
		if rest, ok := strings.CutPrefix(f.Name(), journalPrefix); ok {
			if gen, err := strconv.ParseUint(rest, 10, 64); err == nil {
				gens = append(gens, gen)
			}
		}
	}
	slices.Sort(gens)
	r.gen = packed + 1
	for _, gen := range gens {
		name := r.journalFile(gen)
		if gen <= packed {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if r.journal != nil { // an older one; its samples are packed with the others
			if err := r.journal.Close(); err != nil {
				return err
			}
		}
		r.gen = gen
		if err := r.loadJournal(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if r.journal != nil {
		return nil
	}
	return r.openJournal()
}

func (r *Ring) loadJournal(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	r.journal = f
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	clear(r.slow.names)
	r.slow.named = 0
	for _, run := range r.slow.runs {
		run.number = 0
	}
	damaged, sound, err := scan(b, func(_ kind, _ int, payload []byte) error {
		if raw, err := r.codec.unpack(payload); err == nil {
			err = r.slow.recall(raw, func(k sensorKey, number uint64, v *signal.Reading) { r.slow.add(k, v).number = number })
			if err == nil {
				return nil
			}
		}
		r.stats.Damaged += int64(len(payload))
		return nil
	})
	r.stats.Damaged += int64(damaged)
	if err != nil {
		return err
	}
	if err := f.Truncate(int64(sound)); err != nil {
		return err
	}
	_, err = f.Seek(int64(sound), 0)
	return err
}

const journalPrefix = "journal."

func (r *Ring) journalFile(gen uint64) string {
	return filepath.Join(r.opt.Dir, fmt.Sprintf("%s%d", journalPrefix, gen))
}

func (r *Ring) openJournal() (err error) {
	r.journal, err = os.OpenFile(r.journalFile(r.gen), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return err
}

// Block is a block of samples of a channel.
type Block struct {
	Time  signal.Micros // of its first sample
	First uint64
	Bytes []byte // encoded, as package record has it
}

// Append keeps a block. One that the channel has already, or that lies before
// the channel's newest, is left out: a source that is read again after a crash
// delivers what the ring has.
func (r *Ring) Append(asset signal.Asset, sensor string, b Block) error {
	k := sensorKey{asset, sensor, signal.Raw}
	if b.First < r.channels[k] {
		return nil
	}
	e := entry{kind: kindWave, path: asset.Sensor(sensor), from: b.Time, to: b.Time, number: b.First}
	payload := appendBytes(nil, fieldPath, string(e.path))
	payload = appendVarint(payload, fieldFrom, uint64(b.Time))
	payload = appendVarint(payload, fieldNumber, b.First)
	payload = appendBytes(payload, fieldData, b.Bytes)
	if len(payload) > maxPayload {
		return fmt.Errorf("keeping a block of %s in ring %s: %d bytes are more than %d", e.path, r.opt.Dir, len(payload), maxPayload)
	}
	if err := r.full(r.put(e, payload)); err != nil {
		return fmt.Errorf("keeping a block of %s in ring %s: %w", e.path, r.opt.Dir, err)
	}
	r.channels[k] = b.First + 1
	r.stats.Blocks++
	r.stats.WaveBytes += int64(headerBytes + len(payload))
	return nil
}

// AppendSample keeps a slow sample.
func (r *Ring) AppendSample(asset signal.Asset, class signal.Class, v *signal.Reading) error {
	if r.refusing {
		r.stats.Refused++
		return nil
	}
	k := sensorKey{asset, v.Sensor, class}
	r.slow.note(k, r.slow.add(k, v), v)
	r.stats.Samples++
	if r.slow.bytes >= r.opt.FlushBytes || r.slow.newest-r.slow.oldest >= signal.Micros(r.opt.FlushSpan/time.Microsecond) {
		if err := r.full(r.pack()); err != nil {
			return fmt.Errorf("packing the samples of ring %s: %w", r.opt.Dir, err)
		}
	}
	return nil
}

// pack moves the slow samples from the journal into the segments. The mark that
// ends it is synced after them, and the journal goes after the mark: a crash in
// between leaves samples twice at most, which a reader tells.
func (r *Ring) pack() error {
	samples := int64(0)
	for _, run := range r.slow.runs {
		samples += int64(run.n)
	}
	if samples == 0 {
		return nil
	}
	err := r.slow.records(r.codec, func(e entry, payload []byte) error {
		r.stats.SlowBytes += int64(headerBytes + len(payload))
		return r.put(e, payload)
	})
	if err != nil {
		return err
	}
	if err := r.syncSegments(); err != nil {
		return err
	}
	if err := r.put(entry{kind: kindMark, number: r.gen}, appendVarint(nil, fieldNumber, r.gen)); err != nil {
		return err
	}
	if err := r.syncSegments(); err != nil {
		return err
	}
	r.stats.Packed += samples
	old := r.journal
	r.gen++
	r.slow = newSlow()
	if err := r.openJournal(); err != nil {
		return err
	}
	return errors.Join(old.Close(), os.Remove(old.Name()))
}

// put appends a record to the newest segment.
func (r *Ring) put(e entry, payload []byte) error {
	size := int64(headerBytes + len(payload))
	if err := r.room(size); err != nil {
		return err
	}
	if r.refusing {
		r.stats.Refused++
		return nil
	}
	s := r.segments[len(r.segments)-1]
	e.at = int(s.size)
	at := len(r.buffer)
	r.buffer = append(begin(r.buffer), payload...)
	end(r.buffer, at, e.kind)
	r.entries = append(r.entries, e)
	s.widen(&e)
	s.size += size
	r.stats.Bytes += size
	r.synced = false
	if len(r.buffer) >= maxBuffered {
		return r.write()
	}
	return nil
}

// room makes the newest segment one that has room for a record.
func (r *Ring) room(size int64) error {
	n := len(r.segments)
	if n > 0 && !r.segments[n-1].sealed && (r.segments[n-1].size == 0 || r.segments[n-1].size+size <= r.opt.SegmentBytes) {
		return nil
	}
	number := 1
	if n > 0 {
		number = r.segments[n-1].number + 1
		if err := r.seal(); err != nil {
			return err
		}
	}
	if err := r.yield(); err != nil || r.refusing {
		return err
	}
	f, err := os.OpenFile(segmentFile(r.opt.Dir, number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r.segments = append(r.segments, &segment{number: number})
	r.file, r.entries = f, nil
	if err := r.sayConfig(); err != nil {
		return err
	}
	return r.shrink()
}

// seal ends the newest segment with its index.
func (r *Ring) seal() error {
	s := r.segments[len(r.segments)-1]
	if s.sealed {
		return nil
	}
	before := len(r.buffer)
	r.buffer = appendIndex(r.buffer, s.size, r.entries)
	s.size += int64(len(r.buffer) - before)
	r.stats.Bytes += int64(len(r.buffer) - before)
	r.synced = false
	if err := r.syncSegments(); err != nil {
		return err
	}
	s.sealed = true
	f := r.file
	r.file, r.entries = nil, nil
	return f.Close()
}

func (r *Ring) write() error {
	if len(r.buffer) == 0 {
		return nil
	}
	s := r.segments[len(r.segments)-1]
	if _, err := r.file.WriteAt(r.buffer, s.size-int64(len(r.buffer))); err != nil {
		return err
	}
	r.buffer = r.buffer[:0]
	return nil
}

func (r *Ring) syncSegments() error {
	if err := r.write(); err != nil || r.synced {
		return err
	}
	if err := r.file.Sync(); err != nil {
		return err
	}
	r.synced = true
	return nil
}

// full makes an error of a disk that is full none: the outbox comes first, so the
// ring gives up its oldest or keeps nothing more.
func (r *Ring) full(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	r.opt.Log.Warn("the disk is full; the ring gives up its oldest", "dir", r.opt.Dir, "cause", err)
	return r.yield()
}

// Sync makes durable what was kept.
func (r *Ring) Sync() error {
	if r.refusing {
		if err := r.yield(); err != nil {
			return fmt.Errorf("syncing ring %s: %w", r.opt.Dir, err)
		}
	}
	err := r.syncSegments()
	if err == nil && len(r.slow.pending) > 0 {
		b := append(begin(nil), r.codec.enc.EncodeAll(r.slow.pending, nil)...)
		end(b, 0, kindSamples)
		if _, err = r.journal.Write(b); err == nil {
			err = r.journal.Sync()
		}
		r.slow.pending = r.slow.pending[:0]
	}
	if err := r.full(err); err != nil {
		return fmt.Errorf("syncing ring %s: %w", r.opt.Dir, err)
	}
	return nil
}

// Stats are the ring's figures.
func (r *Ring) Stats() Stats {
	s := r.stats
	s.Segments = int64(len(r.segments))
	return s
}

// Close makes the ring durable and closes it.
func (r *Ring) Close() error {
	err := r.Sync()
	r.codec.close()
	return errors.Join(err, closeFile(r.file), closeFile(r.journal))
}
