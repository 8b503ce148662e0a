package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// Defaults of [Options].
const (
	DefaultMaxBytes     = 256 << 20
	DefaultSegmentBytes = 8 << 20
)

// A block on disk: magic | payload length | CRC32C of the payload | payload,
// numbers little-endian.
const (
	magic        = "HRR1"
	headerBytes  = 12
	maxBlock     = 8 << 20
	ending       = ".ring"
	maxBuffered  = 1 << 20
	fieldChannel = 1
	fieldTime    = 2
	fieldFirst   = 3
	fieldBlock   = 4
)

// Options say where the ring is and how large it may grow; zero is the default.
type Options struct {
	Dir          string
	MaxBytes     int64
	SegmentBytes int64
	Log          *slog.Logger
}

// Ring is an open ring. It is not safe for concurrent use.
type Ring struct {
	opt      Options
	segments []*segment // ascending by number
	channels map[signal.Path]*channel
	bytes    int64
	buffer   []byte // appended, not yet written
	scratch  []byte
}

type segment struct {
	number int
	file   *os.File
	size   int64 // with what is buffered
	synced bool
}

// channel is what the ring has of one: blocks in ascending order.
type channel struct {
	blocks []place
	next   uint64 // index after the newest block ever kept, +1 so that 0 is none
}

type place struct {
	segment int
	at      int64
	size    int
	first   uint64
}

// Open opens the ring in a directory, or makes it. What a crash has left half
// written is cut off.
func Open(opt Options) (*Ring, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if opt.SegmentBytes <= 0 {
		opt.SegmentBytes = min(DefaultSegmentBytes, max(opt.MaxBytes/4, 1))
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	r := &Ring{opt: opt, channels: map[signal.Path]*channel{}}
	if err := r.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening ring %s: %w", opt.Dir, err), r.closeFiles())
	}
	return r, nil
}

func (r *Ring) load() error {
	if err := os.MkdirAll(r.opt.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.opt.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ending))
		if err != nil || number <= 0 || e.Name() != name(number) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(r.opt.Dir, e.Name()), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		r.segments = append(r.segments, &segment{number: number, file: f, synced: true})
	}
	slices.SortFunc(r.segments, func(a, b *segment) int { return a.number - b.number })
	for _, s := range r.segments {
		if err := r.scan(s); err != nil {
			return fmt.Errorf("%s: %w", s.file.Name(), err)
		}
		r.bytes += s.size
	}
	return r.shrink()
}

func name(number int) string { return fmt.Sprintf("%010d%s", number, ending) }

// scan reads a segment's blocks, and cuts off what follows the last whole one.
func (r *Ring) scan(s *segment) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	for s.size+headerBytes <= info.Size() {
		payload, err := r.read(s, s.size, info.Size())
		if err != nil {
			r.opt.Log.Warn("the ring of waveforms was damaged and is cut off", "file", s.file.Name(), "at", s.size, "cause", err)
			break
		}
		b, err := parse(payload)
		if err != nil {
			return err
		}
		r.index(s, b, len(payload))
		s.size += headerBytes + int64(len(payload))
	}
	if s.size == info.Size() {
		return nil
	}
	return s.file.Truncate(s.size)
}

var errDamaged = errors.New("a block is not whole")

func (r *Ring) read(s *segment, at, end int64) ([]byte, error) {
	var head [headerBytes]byte
	if _, err := s.file.ReadAt(head[:], at); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[4:]))
	if string(head[:4]) != magic || n > maxBlock || at+headerBytes+n > end {
		return nil, errDamaged
	}
	r.scratch = slices.Grow(r.scratch[:0], int(n))[:n]
	if _, err := s.file.ReadAt(r.scratch, at+headerBytes); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if checksum(r.scratch) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, errDamaged
	}
	return r.scratch, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Block is a block of samples of a channel.
type Block struct {
	Time  signal.Micros // of its first sample
	First uint64
	Bytes []byte // encoded, as package record has it
}

type block struct {
	Block
	channel signal.Path
}

func parse(p []byte) (b block, err error) {
	for len(p) > 0 {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return b, protowire.ParseError(n)
		}
		p = p[n:]
		var u uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(p)
		default:
			n = protowire.ConsumeFieldValue(num, typ, p)
		}
		if n < 0 {
			return b, protowire.ParseError(n)
		}
		p = p[n:]
		switch num {
		case fieldChannel:
			b.channel = signal.Path(v)
		case fieldTime:
			b.Time = signal.Micros(u)
		case fieldFirst:
			b.First = u
		case fieldBlock:
			b.Bytes = v
		}
	}
	return b, nil
}

func (r *Ring) index(s *segment, b block, size int) {
	c := r.channels[b.channel]
	if c == nil {
		c = &channel{}
		r.channels[b.channel] = c
	}
	if b.First < c.next {
		return
	}
	c.blocks = append(c.blocks, place{segment: s.number, at: s.size, size: size, first: b.First})
	c.next = b.First + 1
}

// Append keeps a block. One that the channel has already, or that lies before
// the channel's newest, is left out: a source that is read again after a crash
// delivers what the ring has.
func (r *Ring) Append(asset signal.Asset, sensor string, b Block) error {
	path := asset.Sensor(sensor)
	if c := r.channels[path]; c != nil && b.First < c.next {
		return nil
	}
	at := len(r.buffer)
	out := append(r.buffer, make([]byte, headerBytes)...)
	out = protowire.AppendString(protowire.AppendTag(out, fieldChannel, protowire.BytesType), string(path))
	out = protowire.AppendVarint(protowire.AppendTag(out, fieldTime, protowire.VarintType), uint64(b.Time))
	out = protowire.AppendVarint(protowire.AppendTag(out, fieldFirst, protowire.VarintType), b.First)
	out = protowire.AppendBytes(protowire.AppendTag(out, fieldBlock, protowire.BytesType), b.Bytes)
	payload := out[at+headerBytes:]
	if len(payload) > maxBlock {
		return fmt.Errorf("keeping a block of %s in ring %s: %d bytes are more than %d", path, r.opt.Dir, len(payload), maxBlock)
	}
	copy(out[at:], magic)
	binary.LittleEndian.PutUint32(out[at+4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(out[at+8:], checksum(payload))
	size := int64(len(out) - at)

	s, err := r.room(size)
	if err != nil {
		return fmt.Errorf("keeping a block of %s in ring %s: %w", path, r.opt.Dir, err)
	}
	if len(r.buffer) == 0 && at > 0 { // room wrote what was buffered
		out = slices.Delete(out, 0, at)
	}
	r.buffer = out
	r.index(s, block{b, path}, len(payload))
	s.size += size
	s.synced = false
	r.bytes += size
	if len(r.buffer) >= maxBuffered {
		return r.flush()
	}
	return nil
}

// room returns the segment that the next bytes go to.
func (r *Ring) room(size int64) (*segment, error) {
	if n := len(r.segments); n > 0 && (r.segments[n-1].size == 0 || r.segments[n-1].size+size <= r.opt.SegmentBytes) {
		return r.segments[n-1], nil
	}
	if err := r.Sync(); err != nil {
		return nil, err
	}
	number := 1
	if n := len(r.segments); n > 0 {
		number = r.segments[n-1].number + 1
	}
	f, err := os.OpenFile(filepath.Join(r.opt.Dir, name(number)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, file: f}
	r.segments = append(r.segments, s)
	return s, r.shrink()
}

// shrink drops the oldest segments that the bound has no room for.
func (r *Ring) shrink() error {
	for r.bytes > r.opt.MaxBytes-r.opt.SegmentBytes && len(r.segments) > 1 {
		old := r.segments[0]
		r.segments = r.segments[1:]
		r.bytes -= old.size
		if err := errors.Join(old.file.Close(), os.Remove(old.file.Name())); err != nil {
			return fmt.Errorf("dropping the oldest waveforms: %w", err)
		}
		for _, c := range r.channels {
			c.blocks = slices.DeleteFunc(c.blocks, func(p place) bool { return p.segment == old.number })
		}
	}
	return nil
}

func (r *Ring) flush() error {
	if len(r.buffer) == 0 {
		return nil
	}
	s := r.segments[len(r.segments)-1]
	if _, err := s.file.WriteAt(r.buffer, s.size-int64(len(r.buffer))); err != nil {
		return fmt.Errorf("writing ring %s: %w", r.opt.Dir, err)
	}
	r.buffer = r.buffer[:0]
	return nil
}

// Sync makes durable what was kept.
func (r *Ring) Sync() error {
	if err := r.flush(); err != nil {
		return err
	}
	for _, s := range r.segments {
		if s.synced {
			continue
		}
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("syncing ring %s: %w", r.opt.Dir, err)
		}
		s.synced = true
	}
	return nil
}

// Blocks calls visit with the kept blocks of a channel from index from up to
// before, that left out, in order. A block is visit's only during the call.
func (r *Ring) Blocks(asset signal.Asset, sensor string, from, before uint64, visit func(Block) error) error {
	c := r.channels[asset.Sensor(sensor)]
	if c == nil {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	i := sort.Search(len(c.blocks), func(i int) bool { return c.blocks[i].first >= from })
	for _, p := range c.blocks[i:] {
		if p.first >= before {
			return nil
		}
		k := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].number >= p.segment })
		payload, err := r.read(r.segments[k], p.at, r.segments[k].size)
		if err != nil {
			return fmt.Errorf("reading a block of %s from ring %s: %w", asset.Sensor(sensor), r.opt.Dir, err)
		}
		b, err := parse(payload)
		if err != nil {
			return fmt.Errorf("reading a block of %s from ring %s: %w", asset.Sensor(sensor), r.opt.Dir, err)
		}
		if err := visit(b.Block); err != nil {
			return err
		}
	}
	return nil
}

// Bytes is the room that the ring takes on disk.
func (r *Ring) Bytes() int64 { return r.bytes }

// Close makes the ring durable and closes it.
func (r *Ring) Close() error { return errors.Join(r.Sync(), r.closeFiles()) }

func (r *Ring) closeFiles() error {
	var errs []error
	for _, s := range r.segments {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
