package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/signal"
)

const (
	segmentEnding = ".ring"
	trailerMagic  = "HRRI"
	trailerBytes  = 12 // magic, offset of the index, CRC32C of both
	maxSegment    = 64 << 20
)

// entry is where a record of a segment is, and what it is of.
type entry struct {
	kind     kind
	path     signal.Path // of a wave its channel, of slow samples their asset, as far as a path goes
	at       int
	from, to signal.Micros // of its samples; of a wave the time of its first
	number   uint64        // of a wave the index of its first sample, of a mark its journal
}

// segment is one file.
type segment struct {
	number   int
	size     int64
	from, to signal.Micros // of its samples
	sealed   bool
}

func (s *segment) widen(e *entry) {
	if e.kind != kindWave && e.kind != kindSlow {
		return
	}
	if s.from == 0 && s.to == 0 {
		s.from, s.to = e.from, e.to
	}
	s.from, s.to = min(s.from, e.from), max(s.to, e.to)
}

func segmentFile(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%010d%s", number, segmentEnding))
}

// segmentNumbers are the segments in a directory, ascending.
func segmentNumbers(dir string) ([]int, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, f := range files {
		n, err := strconv.Atoi(strings.TrimSuffix(f.Name(), segmentEnding))
		if err == nil && n > 0 && filepath.Base(segmentFile("", n)) == f.Name() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// The fields of a record's payload, and of an entry of the index.
const (
	fieldPath   = 1 // channel, or asset
	fieldFrom   = 2
	fieldNumber = 3
	fieldData   = 4
	fieldTo     = 5
	fieldKind   = 6
	fieldAt     = 7
)

func appendBytes[T string | []byte](b []byte, num protowire.Number, v T) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(len(v)))
	return append(b, v...)
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// describe reads what an index needs of a record.
func describe(k kind, at int, payload []byte) (e entry, data []byte, err error) {
	e.kind, e.at = k, at
	hasTo := false
	err = protofield.Each(payload, func(num protowire.Number, u uint64, b []byte, _ int) error {
		switch num {
		case fieldPath:
			e.path = signal.Path(b)
		case fieldFrom:
			e.from = signal.Micros(u)
		case fieldTo:
			e.to, hasTo = signal.Micros(u), true
		case fieldNumber:
			e.number = u
		case fieldData:
			data = b
		}
		return nil
	})
	if !hasTo {
		e.to = e.from
	}
	return e, data, err
}

// appendIndex appends a sealed segment's index record and the trailer that finds it.
func appendIndex(b []byte, at int64, entries []entry) []byte {
	start := len(b)
	b = begin(b)
	var one []byte
	for i := range entries {
		e := &entries[i]
		one = appendVarint(one[:0], fieldKind, uint64(e.kind))
		one = appendVarint(one, fieldAt, uint64(e.at))
		one = appendBytes(one, fieldPath, string(e.path))
		one = appendVarint(one, fieldFrom, uint64(e.from))
		one = appendVarint(one, fieldTo, uint64(e.to))
		one = appendVarint(one, fieldNumber, e.number)
		b = appendBytes(b, fieldData, one)
	}
	end(b, start, kindIndex)
	tail := append([]byte(trailerMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(tail[4:], uint32(at))
	return binary.LittleEndian.AppendUint32(append(b, tail...), checksum(tail, nil))
}

// readIndex reads the index of a sealed segment; errDamaged without one.
func readIndex(f io.ReaderAt, size int64) ([]entry, error) {
	if size < trailerBytes {
		return nil, errDamaged
	}
	var tail [trailerBytes]byte
	if _, err := f.ReadAt(tail[:], size-trailerBytes); err != nil {
		return nil, err
	}
	at := int64(binary.LittleEndian.Uint32(tail[4:]))
	if string(tail[:4]) != trailerMagic || binary.LittleEndian.Uint32(tail[8:]) != checksum(tail[:8], nil) || at > size-trailerBytes {
		return nil, errDamaged
	}
	b := make([]byte, size-trailerBytes-at)
	if _, err := f.ReadAt(b, at); err != nil {
		return nil, err
	}
	k, payload, n := whole(b)
	if n == 0 || k != kindIndex {
		return nil, errDamaged
	}
	var entries []entry
	err := protofield.Each(payload, func(_ protowire.Number, _ uint64, b []byte, _ int) error {
		var e entry
		err := protofield.Each(b, func(num protowire.Number, u uint64, b []byte, _ int) error {
			switch num {
			case fieldKind:
				e.kind = kind(u)
			case fieldAt:
				e.at = int(u)
			case fieldPath:
				e.path = signal.Path(b)
			case fieldFrom:
				e.from = signal.Micros(u)
			case fieldTo:
				e.to = signal.Micros(u)
			case fieldNumber:
				e.number = u
			}
			return nil
		})
		if err != nil || e.at < 0 || int64(e.at) > at {
			return errDamaged
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, errDamaged
	}
	return entries, nil
}

// segmentEntries reads what is in a segment: by its index, or record by record.
// damaged is how many bytes of it are no records, sound where the last one ends.
func segmentEntries(f *os.File) (entries []entry, sealed bool, damaged, sound int, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, false, 0, 0, err
	}
	entries, err = readIndex(f, info.Size())
	if err == nil {
		return entries, true, 0, int(info.Size()), nil
	}
	if !errors.Is(err, errDamaged) {
		return nil, false, 0, 0, err
	}
	if info.Size() > maxSegment {
		return nil, false, 0, 0, fmt.Errorf("it has %d bytes, more than %d: it is no segment of a ring", info.Size(), maxSegment)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, info.Size()), b); err != nil {
		return nil, false, 0, 0, err
	}
	damaged, sound, err = scan(b, func(k kind, at int, payload []byte) error {
		if k == kindIndex {
			return nil
		}
		e, _, err := describe(k, at, payload)
		if err == nil {
			entries = append(entries, e)
		}
		return nil // a record that says nothing is one that nobody asks for
	})
	return entries, false, damaged, sound, err
}

// readRecord reads the record of an entry.
func readRecord(f io.ReaderAt, e *entry) (data []byte, err error) {
	var head [headerBytes]byte
	if _, err := f.ReadAt(head[:], int64(e.at)); err != nil {
		return nil, errDamaged
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if string(head[:4]) != magic || n > maxPayload {
		return nil, errDamaged
	}
	b := append(head[:], make([]byte, n)...)
	if _, err := f.ReadAt(b[headerBytes:], int64(e.at)+headerBytes); err != nil {
		return nil, errDamaged
	}
	k, payload, size := whole(b)
	if size == 0 || k != e.kind {
		return nil, errDamaged
	}
	_, data, err = describe(k, e.at, payload)
	if err != nil {
		return nil, errDamaged
	}
	return data, nil
}
