package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A frame is a header of headerBytes and a payload:
//
//	magic "HRO1" | payload length | CRC32C of the payload | CRC32C of the twelve bytes before
//
// numbers little-endian. One frame is what one fsync makes durable, and the
// next is written only after it: at most the last frame of the newest segment
// can be torn.
const (
	magic       = "HRO1"
	headerBytes = 16
	// maxFrameBytes bounds a payload; a longer length is damage.
	maxFrameBytes = 64 << 20
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// putHeader fills the first headerBytes of frame, whose payload follows them.
func putHeader(frame []byte) {
	payload := frame[headerBytes:]
	copy(frame, magic)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(frame[8:], checksum(payload))
	binary.LittleEndian.PutUint32(frame[12:], checksum(frame[:12]))
}

// parseHeader returns the payload's length and checksum.
func parseHeader(h []byte) (length int64, sum uint32, ok bool) {
	if len(h) < headerBytes || string(h[:4]) != magic ||
		binary.LittleEndian.Uint32(h[12:]) != checksum(h[:12]) {
		return 0, 0, false
	}
	length = int64(binary.LittleEndian.Uint32(h[4:]))
	return length, binary.LittleEndian.Uint32(h[8:]), length <= maxFrameBytes
}

// scanResult is what a scan of one segment found.
type scanResult struct {
	end     int64 // end of the last whole frame
	corrupt int   // damaged stretches with a whole frame after them
	tail    int64 // bytes after end
}

// scan calls visit with every whole frame of a file, in order. What is damaged
// is passed over by looking for the next whole frame.
func scan(f io.ReaderAt, size int64, visit func(payloadAt int64, payload []byte) error) (scanResult, error) {
	var res scanResult
	var buf []byte
	damaged := false
	header := make([]byte, headerBytes)
	for at := int64(0); at+headerBytes <= size; {
		if _, err := f.ReadAt(header, at); err != nil {
			return res, err
		}
		length, sum, ok := parseHeader(header)
		ok = ok && at+headerBytes+length <= size
		if ok {
			if int64(cap(buf)) < length {
				buf = make([]byte, length)
			}
			buf = buf[:length]
			if _, err := f.ReadAt(buf, at+headerBytes); err != nil && !errors.Is(err, io.EOF) {
				return res, err
			}
			ok = checksum(buf) == sum
		}
		if !ok {
			damaged = true
			next, err := findMagic(f, at+1, size)
			if err != nil {
				return res, err
			}
			at = next
			continue
		}
		if damaged {
			res.corrupt++
			damaged = false
		}
		if err := visit(at+headerBytes, buf); err != nil {
			return res, err
		}
		at += headerBytes + length
		res.end = at
	}
	res.tail = size - res.end
	return res, nil
}

// findMagic returns the place of the next magic at or after at, or size.
func findMagic(f io.ReaderAt, at, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for at < size {
		n := min(int64(len(buf)), size-at)
		if _, err := f.ReadAt(buf[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := int64(0); i+int64(len(magic)) <= n; i++ {
			if string(buf[i:i+int64(len(magic))]) == magic {
				return at + i, nil
			}
		}
		if n < int64(len(buf)) {
			break
		}
		at += n - int64(len(magic)) + 1
	}
	return size, nil
}
