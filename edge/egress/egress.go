// Package egress measures what an edge sends against what its raw data would
// be: 16-bit counts under zstd. What the saving costs, the largest difference
// between a value and what the far end shows of it, the filter knows.
//
// It counts since the start of the process and keeps nothing on disk.
package egress

import (
	"encoding/binary"
	"maps"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Class is a class of sensors.
type Class string

// The classes.
const (
	Vibration Class = "vibration" // waveforms and what is made of them
	Process   Class = "process"   // numbers
	State     Class = "state"     // texts and truth values
)

// Classes lists them.
func Classes() []Class { return []Class{Vibration, Process, State} }

// Figures are of one class, in bytes.
type Figures struct {
	Raw        int64 // what the source said, as 16-bit counts under zstd; texts as they are
	Data       int64 // readings on the wire, with their share of the message
	Heartbeats int64 // repeats of held values
	Waveforms  int64 // raw windows that were let through
	Resent     int64 // what went again

	Readings int64 // taken from the source; of waveforms, samples
}

// Sent is all that went over the wire for the class.
func (f Figures) Sent() int64 { return f.Data + f.Heartbeats + f.Waveforms + f.Resent }

// Report is what a meter has counted.
type Report struct {
	Classes map[Class]Figures
	Births  int64 // and deaths
	Idle    int64 // how far streams are complete, newest values for other hosts
	Acks    int64 // received
}

// Meter counts. It is safe for concurrent use.
type Meter struct {
	mu      sync.Mutex
	report  Report
	numbers map[sensor]*number
	zip     *zstd.Encoder
	packed  []byte
	wave    record.Waveform
	counts  []byte
	floats  []float64
}

type sensor struct {
	asset signal.Asset
	name  string
}

// number is what is remembered of a sensor: the values of the block that is not
// counted yet.
type number struct {
	step  float64 // of a count
	block []byte
}

// blockValues are compressed together: some minutes of a sensor read once a second.
const blockValues = 512

// NewMeter returns a meter.
func NewMeter() *Meter {
	// The options are constants and cannot fail.
	zip, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(64<<10))
	return &Meter{report: Report{Classes: map[Class]Figures{}}, numbers: map[sensor]*number{}, zip: zip}
}

// ClassOf is the class of a reading of the source.
func ClassOf(c signal.Class, k signal.Kind) Class {
	switch {
	case c == signal.Raw || k == signal.Wave:
		return Vibration
	case c == signal.Event || k == signal.Text || k == signal.Bool:
		return State
	}
	return Process
}

// Taken counts a reading that the source delivered; band is the sensor's, 0
// without one.
func (m *Meter) Taken(asset signal.Asset, c signal.Class, r *signal.Reading, band float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	class := ClassOf(c, r.Value.Kind)
	f := m.report.Classes[class]
	switch {
	case class == Vibration:
		m.takenWave(&f, r)
	case r.Value.Kind == signal.Number:
		f.Readings++
		m.takenNumber(&f, sensor{asset, r.Sensor}, r.Value.Number, band)
	default:
		f.Readings++
		f.Raw += int64(max(len(r.Value.Text), 1))
	}
	m.report.Classes[class] = f
}

func (m *Meter) takenWave(f *Figures, r *signal.Reading) {
	if record.DecodeWaveform([]byte(r.Value.Text), &m.wave) != nil {
		return
	}
	f.Readings += int64(m.wave.Len())
	if m.wave.Format == record.FormatI16 {
		f.Raw += m.zipped(m.wave.Samples)
		return
	}
	// As a converter of 16 bits would say it, its range set to the block's peak.
	m.floats = m.wave.Floats(m.floats)
	peak := 0.0
	for _, v := range m.floats {
		peak = max(peak, math.Abs(v))
	}
	m.counts = m.counts[:0]
	for _, v := range m.floats {
		m.counts = binary.LittleEndian.AppendUint16(m.counts, uint16(int16(math.Round(v/max(peak, math.SmallestNonzeroFloat32)*math.MaxInt16))))
	}
	f.Raw += m.zipped(m.counts)
}

func (m *Meter) zipped(b []byte) int64 {
	m.packed = m.zip.EncodeAll(b, m.packed[:0])
	return int64(len(m.packed))
}

func (m *Meter) takenNumber(f *Figures, key sensor, value, band float64) {
	n := m.numbers[key]
	if n == nil {
		// A count is an eighth of the deadband, or 1/30000 of the first value.
		n = &number{step: max(band/8, 1e-12)}
		if band == 0 {
			n.step = max(math.Abs(value)/30_000, 1e-12)
		}
		m.numbers[key] = n
	}
	count := math.Round(value / n.step)
	n.block = binary.LittleEndian.AppendUint16(n.block, uint16(int64(max(min(count, 1e15), -1e15))))
	if len(n.block) >= 2*blockValues {
		f.Raw += m.zipped(n.block)
		n.block = n.block[:0]
	}
}

// Message counts the bytes of a message of readings; derived tells which of them
// were made of waveforms. A message's bytes are shared out evenly.
func (m *Meter) Message(b *signal.Batch, bytes int, again bool, derived func(sensor string) bool) {
	if len(b.Readings) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, stream := b.Stream.Split()
	type share struct{ data, beats int }
	shares := map[Class]share{}
	for i := range b.Readings {
		r := &b.Readings[i]
		class := ClassOf(stream, r.Value.Kind)
		if derived(r.Sensor) {
			class = Vibration
		}
		s := shares[class]
		if r.Held() {
			s.beats++
		} else {
			s.data++
		}
		shares[class] = s
	}
	for class, s := range shares {
		f := m.report.Classes[class]
		data, beats := int64(bytes*s.data/len(b.Readings)), int64(bytes*s.beats/len(b.Readings))
		switch {
		case again:
			f.Resent += data + beats
		case stream == signal.Raw:
			f.Waveforms += data
		default:
			f.Data += data
			f.Heartbeats += beats
		}
		m.report.Classes[class] = f
	}
}

// Birth counts the bytes of a birth or a death.
func (m *Meter) Birth(bytes int) { m.add(&m.report.Births, bytes) }

// Idle counts what repeats how far streams are complete.
func (m *Meter) Idle(bytes int) { m.add(&m.report.Idle, bytes) }

// Ack counts what is received of acknowledgements.
func (m *Meter) Ack(bytes int) { m.add(&m.report.Acks, bytes) }

func (m *Meter) add(to *int64, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*to += int64(bytes)
}

// Report is what was counted so far, with the numbers that wait for their block.
func (m *Meter) Report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.report
	out.Classes = make(map[Class]Figures, len(m.report.Classes))
	maps.Copy(out.Classes, m.report.Classes)
	f := out.Classes[Process]
	for _, n := range m.numbers {
		if len(n.block) > 0 {
			f.Raw += m.zipped(n.block)
		}
	}
	out.Classes[Process] = f
	return out
}

// Packet is how many bytes an MQTT PUBLISH takes: fixed header, topic, payload.
func Packet(topic string, payload int) int {
	rest := 2 + len(topic) + payload
	n := 1 + rest
	for v := rest; ; v >>= 7 {
		n++
		if v < 0x80 {
			return n
		}
	}
}

// RawBytes is what the values of one sensor take as a converter of 16 bits over
// [low, high] says them, under zstd in the meter's blocks.
func RawBytes(values []float64, low, high float64) int64 {
	m := NewMeter()
	var n int64
	for len(values) > 0 {
		block := values[:min(len(values), blockValues)]
		values = values[len(block):]
		m.counts = m.counts[:0]
		for _, v := range block {
			part := max(0, min(1, (v-low)/(high-low)))
			m.counts = binary.LittleEndian.AppendUint16(m.counts, uint16(math.Round(part*math.MaxUint16)))
		}
		n += m.zipped(m.counts)
	}
	return n
}

// RawWave is what a block of samples takes the same way.
func (m *Meter) RawWave(r *signal.Reading) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var f Figures
	m.takenWave(&f, r)
	return f.Raw
}
