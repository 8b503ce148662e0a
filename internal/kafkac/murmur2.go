package kafkac

import "encoding/binary"

// Murmur2Positive is the hash of Kafka's default partitioner: murmur2 with its
// sign bit cleared, as the Java client computes it.
func Murmur2Positive(key []byte) uint32 { return murmur2(key) & 0x7fffffff }

// Partition is the partition of a key among n, the same that the Java client
// and [Producer] choose.
func Partition(key []byte, n int) int { return int(Murmur2Positive(key)) % n }

func murmur2(b []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b)
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
		b = b[4:]
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
