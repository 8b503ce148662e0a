package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/signal"
)

// sensorKey is a stream of slow samples.
type sensorKey struct {
	asset  signal.Asset
	sensor string
	class  signal.Class
}

// slow is the slow samples that are in no segment yet: in runs by sensor, and, for
// a restart, in the journal as they came.
type slow struct {
	runs   map[sensorKey]*run
	bytes  int // of the runs
	oldest signal.Micros
	newest signal.Micros

	// What of the journal is not written yet.
	pending []byte
	names   map[uint64]sensorKey // that the journal has named
	named   uint64               // the greatest number given
	last    signal.Micros
}

func newSlow() slow { return slow{runs: map[sensorKey]*run{}, names: map[uint64]sensorKey{}} }

// add takes a sample into its run.
func (s *slow) add(k sensorKey, v *signal.Reading) *run {
	r := s.runs[k]
	if r == nil {
		r = &run{}
		s.runs[k] = r
	}
	if len(s.runs) == 1 && r.n == 0 {
		s.oldest, s.newest = v.EventTime, v.EventTime
	}
	s.oldest, s.newest = min(s.oldest, v.EventTime), max(s.newest, v.EventTime)
	s.bytes += r.add(v)
	return r
}

// The kinds of values in a journal are those of package signal; number 0 names a
// sensor, others are one that was named.

// note appends a sample to what of the journal is not written yet.
func (s *slow) note(k sensorKey, r *run, v *signal.Reading) {
	b := s.pending
	if len(b) == 0 {
		s.last = 0 // each record of the journal can be read by itself
	}
	if r.number == 0 {
		s.named++
		r.number = s.named
		s.names[r.number] = k
		b = binary.AppendUvarint(b, 0)
		b = binary.AppendUvarint(b, r.number)
		b = appendText(appendText(b, string(k.class)), string(k.asset.Sensor(k.sensor)))
	}
	b = binary.AppendUvarint(b, r.number)
	b = binary.AppendUvarint(b, zigzag(int64(v.EventTime-s.last)))
	s.last = v.EventTime
	m := meta{v.Quality, v.Unit, v.Rescued, v.Historical, int64(v.AliveAt - v.EventTime)}
	b = append(m.append(b), byte(v.Value.Kind))
	switch v.Value.Kind {
	case signal.Number, signal.Bool:
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Value.Number))
	case signal.Text:
		b = appendText(b, v.Value.Text)
	default: // nothing more
	}
	s.pending = b
}

// recall reads what note has written: the records of a journal one after the
// other. Samples of a sensor that a lost record has named are passed over.
func (s *slow) recall(p []byte, visit func(k sensorKey, number uint64, v *signal.Reading)) error {
	c := cursor{b: p}
	s.last = 0
	for len(c.b) > 0 {
		number := c.uvarint()
		if number == 0 {
			number = c.uvarint()
			class := signal.Class(c.text())
			path, err := signal.ParsePath(c.text())
			if err != nil || c.bad {
				return errDamaged
			}
			s.names[number] = sensorKey{path.Asset(), path.Sensor(), class}
			s.named = max(s.named, number)
			continue
		}
		k := s.names[number]
		s.last += signal.Micros(unzigzag(c.uvarint()))
		v := signal.Reading{Sensor: k.sensor, EventTime: s.last}
		m := c.meta()
		v.AliveAt = v.EventTime + signal.Micros(m.hold)
		v.Quality, v.Unit, v.Rescued, v.Historical = m.quality, m.unit, m.rescued, m.historical
		switch v.Value.Kind = signal.Kind(c.byte()); v.Value.Kind {
		case signal.Number, signal.Bool:
			if b := c.take(8); b != nil {
				v.Value.Number = math.Float64frombits(binary.LittleEndian.Uint64(b))
			}
		case signal.Text:
			v.Value.Text = c.text()
		default:
			v.Value = signal.Value{}
		}
		if c.bad {
			return errDamaged
		}
		if k.asset != "" {
			visit(k, number, &v)
		}
	}
	return nil
}

// The fields of a run in a record.
const (
	runSensor = 1
	runClass  = 2
	runCount  = 3
	runFirst  = 4
	runTimes  = 5
	runValues = 6
	runMetas  = 7
)

// codec compresses; it is used by one goroutine at a time.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
	raw []byte
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxUnpacked))
	return &codec{enc: enc, dec: dec}, err
}

// maxUnpacked bounds what a record may be when it is unpacked.
const maxUnpacked = 64 << 20

func (c *codec) close() {
	_ = c.enc.Close() // it writes nowhere
	c.dec.Close()
}

func (c *codec) unpack(b []byte) ([]byte, error) {
	out, err := c.dec.DecodeAll(b, c.raw[:0])
	if err != nil {
		return nil, errDamaged
	}
	c.raw = out
	return out, nil
}

// records hands the runs, asset by asset, to write as the payloads of records.
func (s *slow) records(c *codec, write func(e entry, payload []byte) error) error {
	byAsset := map[signal.Asset][]sensorKey{}
	for k := range s.runs {
		byAsset[k.asset] = append(byAsset[k.asset], k)
	}
	var payload, one []byte
	for _, asset := range slices.Sorted(maps.Keys(byAsset)) {
		keys := byAsset[asset]
		slices.SortFunc(keys, func(a, b sensorKey) int {
			return cmp.Or(cmp.Compare(a.sensor, b.sensor), cmp.Compare(a.class, b.class))
		})
		for len(keys) > 0 {
			e := entry{kind: kindSlow, path: signal.Path(asset)}
			raw := c.raw[:0]
			n := 0
			for _, k := range keys {
				r := s.runs[k]
				if n > 0 && len(raw)+len(r.times)+len(r.values)+len(r.metas) > maxPayload/2 {
					break
				}
				if n == 0 {
					e.from, e.to = r.least, r.most
				}
				e.from, e.to = min(e.from, r.least), max(e.to, r.most)
				one = appendBytes(one[:0], runSensor, k.sensor)
				one = appendBytes(one, runClass, string(k.class))
				one = appendVarint(one, runCount, uint64(r.n))
				one = appendVarint(one, runFirst, uint64(r.first))
				one = appendBytes(one, runTimes, r.times)
				one = appendBytes(one, runValues, r.values)
				one = appendBytes(one, runMetas, r.metas)
				raw = appendBytes(raw, fieldData, one)
				n++
			}
			keys, c.raw = keys[n:], raw
			payload = appendBytes(payload[:0], fieldPath, string(asset))
			payload = appendVarint(payload, fieldFrom, uint64(e.from))
			payload = appendVarint(payload, fieldTo, uint64(e.to))
			payload = appendBytes(payload, fieldData, c.enc.EncodeAll(raw, nil))
			if err := write(e, payload); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxRunSamples bounds the samples of a run that is read.
const maxRunSamples = 16 << 20

// readRuns reads the runs of a record of slow samples.
func readRuns(c *codec, asset signal.Asset, data []byte) (map[sensorKey]*run, error) {
	raw, err := c.unpack(data)
	if err != nil {
		return nil, err
	}
	out := map[sensorKey]*run{}
	err = protofield.Each(raw, func(_ protowire.Number, _ uint64, b []byte, _ int) error {
		k := sensorKey{asset: asset}
		r := &run{}
		err := protofield.Each(b, func(num protowire.Number, u uint64, b []byte, _ int) error {
			switch num {
			case runSensor:
				k.sensor = string(b)
			case runClass:
				k.class = signal.Class(b)
			case runCount:
				r.n = int(min(u, maxRunSamples))
			case runFirst:
				r.first = signal.Micros(u)
			case runTimes:
				r.times = slices.Clone(b)
			case runValues:
				r.values = slices.Clone(b)
			case runMetas:
				r.metas = slices.Clone(b)
			}
			return nil
		})
		out[k] = r
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading samples of %s: %w", asset, errDamaged)
	}
	return out, nil
}
