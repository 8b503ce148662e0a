package ring

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A record on disk: magic | kind | three zeros | length of the payload | CRC32C of
// kind to length and of the payload | payload; numbers little-endian.
const (
	magic       = "HRR2"
	headerBytes = 16
	maxPayload  = 8 << 20
)

type kind byte

const (
	kindWave    kind = 1 // a block of samples of a channel
	kindSlow    kind = 2 // runs of an asset's slow samples
	kindSamples kind = 3 // of a journal: slow samples as they came
	kindMark    kind = 4 // a journal's samples are all in the segments
	kindIndex   kind = 5 // of a sealed segment: where its records are
	kindConfig  kind = 6 // by which configuration what follows was measured
)

func checksum(head, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(head, table), table, payload)
}

// begin makes room for a record's header; end fills it in once the payload stands
// behind it.
func begin(dst []byte) []byte { return append(dst, make([]byte, headerBytes)...) }

func end(b []byte, at int, k kind) {
	head, payload := b[at:at+headerBytes], b[at+headerBytes:]
	copy(head, magic)
	head[4] = byte(k)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[12:], checksum(head[4:12], payload))
}

// whole returns the record at the start of b, and its size; size is 0 if there is
// none.
func whole(b []byte) (k kind, payload []byte, size int) {
	if len(b) < headerBytes || string(b[:4]) != magic {
		return 0, nil, 0
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if n > maxPayload || int(n) > len(b)-headerBytes {
		return 0, nil, 0
	}
	payload = b[headerBytes : headerBytes+int(n)]
	if binary.LittleEndian.Uint32(b[12:]) != checksum(b[4:12], payload) {
		return 0, nil, 0
	}
	return kind(b[4]), payload, headerBytes + int(n)
}

// scan calls visit with the records of b. What is damaged is passed over up to
// the next whole record; it returns how many bytes that were, and where the last
// whole record ends.
func scan(b []byte, visit func(k kind, at int, payload []byte) error) (damaged, sound int, err error) {
	at, skipped := 0, 0
	for at < len(b) {
		k, payload, size := whole(b[at:])
		if size == 0 {
			next := bytes.Index(b[at+1:], []byte(magic))
			if next < 0 {
				return damaged, sound, nil
			}
			skipped += 1 + next
			at += 1 + next
			continue
		}
		damaged, skipped = damaged+skipped, 0
		if err := visit(k, at, payload); err != nil {
			return damaged, sound, err
		}
		at += size
		sound = at
	}
	return damaged, sound, nil
}
