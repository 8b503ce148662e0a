package record

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/signal"
)

// The formats of a waveform's samples: little-endian IEEE singles, or 16-bit
// counts of [Waveform].Scale each.
const (
	FormatF32 = "f32le"
	FormatI16 = "i16le"
)

// MaxSamples bounds a block; decoding refuses more before it allocates.
const MaxSamples = 1 << 20

// Waveform is a block of evenly spaced samples of one channel: the value of a
// reading of kind [signal.Wave], whose event time is that of the first sample.
type Waveform struct {
	First   uint64  // index of the first sample since the channel's beginning
	Rate    float64 // samples per second
	Format  string  // FormatF32 or FormatI16
	Scale   float64 // physical value of one count; 1 for FormatF32
	Samples []byte  // as acquired
}

// Len is the number of samples.
func (w *Waveform) Len() int {
	if size := sampleBytes(w.Format); size > 0 {
		return len(w.Samples) / size
	}
	return 0
}

// Floats writes the samples as physical values, using dst's memory again.
func (w *Waveform) Floats(dst []float64) []float64 {
	n := w.Len()
	dst = slices.Grow(dst[:0], n)[:n]
	if w.Format == FormatI16 {
		for i := range dst {
			dst[i] = w.Scale * float64(int16(binary.LittleEndian.Uint16(w.Samples[2*i:])))
		}
		return dst
	}
	for i := range dst {
		dst[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(w.Samples[4*i:])))
	}
	return dst
}

// Samples is how many samples a batch carries; a block that cannot be read has
// none.
func Samples(b *signal.Batch) uint64 {
	var w Waveform
	n := uint64(0)
	for i := range b.Readings {
		if v := b.Readings[i].Value; v.Kind == signal.Wave && DecodeWaveform([]byte(v.Text), &w) == nil {
			n += uint64(w.Len())
		}
	}
	return n
}

func sampleBytes(format string) int {
	switch format {
	case FormatF32:
		return 4
	case FormatI16:
		return 2
	}
	return 0
}

// The codecs of a block on the wire.
const (
	codecPlain = 0
	// codecShuffled: counts as differences, then the bytes of equal rank
	// together, then zstd. Neighbours are alike, so most upper bytes repeat.
	codecShuffled = 1
)

// zip holds the compressor, which is made at first use, may be used from
// several goroutines and never changes.
var zip = sync.OnceValue(func() (z struct {
	*zstd.Encoder
	*zstd.Decoder
},
) {
	// Neither fails: the options are constants.
	z.Encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(64<<10), zstd.WithLowerEncoderMem(true))
	z.Decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(4*MaxSamples))
	return z
})

// AppendWaveform appends the encoded block to dst, compressed where that makes
// it smaller.
func AppendWaveform(dst []byte, w *Waveform) []byte {
	size := sampleBytes(w.Format)
	dst = appendUint(dst, 1, w.First)
	dst = protowire.AppendFixed64(protowire.AppendTag(dst, 2, protowire.Fixed64Type), math.Float64bits(w.Rate))
	dst = appendUint(dst, 3, uint64(formatNumber(w.Format)))
	dst = protowire.AppendFixed64(protowire.AppendTag(dst, 4, protowire.Fixed64Type), math.Float64bits(w.Scale))
	dst = appendUint(dst, 7, uint64(w.Len()))
	packed := zip().EncodeAll(shuffle(nil, w.Samples, size), nil)
	if len(packed) < len(w.Samples) {
		dst = appendUint(dst, 6, codecShuffled)
		return protowire.AppendBytes(protowire.AppendTag(dst, 5, protowire.BytesType), packed)
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, 5, protowire.BytesType), w.Samples)
}

func formatNumber(format string) int {
	switch format {
	case FormatF32:
		return 1
	case FormatI16:
		return 2
	}
	return 0
}

// DecodeWaveform reads a block, using into's memory again. After an error into
// holds nothing of use.
func DecodeWaveform(p []byte, into *Waveform) error {
	samples := into.Samples[:0]
	*into = Waveform{}
	var codec, count uint64
	var body []byte
	r := reader{p}
	for len(r.p) > 0 {
		tag, u, b, err := r.next()
		if err != nil {
			return fmt.Errorf("decoding waveform: %w", err)
		}
		switch tag {
		case 1<<3 | varint:
			into.First = u
		case 2<<3 | fixed64:
			into.Rate = math.Float64frombits(u)
		case 3<<3 | varint:
			into.Format = [...]string{"", FormatF32, FormatI16, ""}[min(u, 3)]
		case 4<<3 | fixed64:
			into.Scale = math.Float64frombits(u)
		case 5<<3 | bytes:
			body = b
		case 6<<3 | varint:
			codec = u
		case 7<<3 | varint:
			count = u
		}
	}
	size := sampleBytes(into.Format)
	switch {
	case size == 0:
		return fmt.Errorf("decoding waveform: its format is not known")
	case count > MaxSamples:
		return fmt.Errorf("decoding waveform: %d samples are more than %d", count, MaxSamples)
	case !(into.Rate > 0) || math.IsInf(into.Rate, 0):
		return fmt.Errorf("decoding waveform: rate %v is no number of samples per second", into.Rate)
	case math.IsNaN(into.Scale) || math.IsInf(into.Scale, 0):
		return fmt.Errorf("decoding waveform: scale %v is no number", into.Scale)
	}
	switch codec {
	case codecPlain:
		into.Samples = append(samples, body...)
	case codecShuffled:
		shuffled, err := zip().DecodeAll(body, nil)
		if err != nil {
			return fmt.Errorf("decoding waveform: %w", err)
		}
		into.Samples = unshuffle(samples, shuffled, size)
	default:
		return fmt.Errorf("decoding waveform: codec %d is not known", codec)
	}
	if len(into.Samples) != int(count)*size {
		return fmt.Errorf("decoding waveform: %d bytes are not %d samples", len(into.Samples), count)
	}
	return nil
}

// shuffle puts bytes of equal rank together; counts are taken as differences.
func shuffle(dst, src []byte, size int) []byte {
	dst = slices.Grow(dst[:0], len(src))[:len(src)]
	if size == 0 {
		copy(dst, src)
		return dst
	}
	n := len(src) / size
	copy(dst[n*size:], src[n*size:])
	if size == 2 {
		last := uint16(0)
		for i := range n {
			v := binary.LittleEndian.Uint16(src[2*i:])
			// Zigzag: small differences of either sign have an upper byte of 0.
			d := int16(v - last)
			z := uint16(d<<1) ^ uint16(d>>15)
			dst[i], dst[n+i], last = byte(z), byte(z>>8), v
		}
		return dst
	}
	for rank := range size {
		for i := range n {
			dst[rank*n+i] = src[size*i+rank]
		}
	}
	return dst
}

// unshuffle undoes shuffle.
func unshuffle(dst, src []byte, size int) []byte {
	dst = slices.Grow(dst[:0], len(src))[:len(src)]
	n := len(src) / size
	copy(dst[n*size:], src[n*size:])
	if size == 2 {
		last := uint16(0)
		for i := range n {
			z := uint16(src[i]) | uint16(src[n+i])<<8
			last += z>>1 ^ -(z & 1)
			binary.LittleEndian.PutUint16(dst[2*i:], last)
		}
		return dst
	}
	for rank := range size {
		for i := range n {
			dst[size*i+rank] = src[rank*n+i]
		}
	}
	return dst
}
