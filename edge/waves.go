package edge

import (
	"errors"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headrace/headrace/edge/protofield"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// fieldWaves is where the state of the vibration stage stands behind the
// filter's, which passes over fields that are not its own.
const fieldWaves protowire.Number = 15

// waves is what the intake does with waveforms.
type waves struct {
	stage   *vibration.Stage
	ring    *ring.Ring
	wave    record.Waveform
	derived []signal.Reading
}

// RingDir is where the edge with the given directory keeps what it measures.
func RingDir(dir string) string { return filepath.Join(dir, "ring") }

func (a *Agent) openWaves(state []byte) (*waves, error) {
	w := &waves{}
	frozen, err := frozenWaves(state)
	if err != nil {
		return nil, err
	}
	if w.stage, err = a.opt.Vibration.Open(frozen); err != nil {
		return nil, err
	}
	w.stage.LogTo(a.log)
	w.ring, err = ring.Open(ring.Options{
		Dir: RingDir(a.opt.Dir), MaxBytes: a.opt.RingBytes, MaxAge: a.opt.RingAge, Clock: a.opt.Clock, Config: a.opt.config(), FloorBytes: 2 * a.opt.FloorBytes, Log: a.log,
	})
	if err != nil {
		return w, err
	}
	if err = w.refill(); err != nil {
		err = errors.Join(err, w.ring.Close())
	}
	return w, err
}

// refill gives the stage back the samples that waited for their window.
func (w *waves) refill() error {
	return w.stage.Refill(func(asset signal.Asset, sensor string, from, before uint64, visit func([]byte) error) error {
		return w.ring.Blocks(asset, sensor, from, before, func(b ring.Block) error { return visit(b.Bytes) })
	})
}

func frozenWaves(state []byte) (out []byte, err error) {
	err = protofield.Each(state, func(num protowire.Number, _ uint64, b []byte, _ int) error {
		if num == fieldWaves {
			out = b
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the frozen state: %w", err)
	}
	return out, nil
}

// freeze puts the stage's state behind the filter's.
func (w *waves) freeze(filter []byte) []byte {
	state := w.stage.State()
	if len(state) == 0 {
		return filter
	}
	return protowire.AppendBytes(protowire.AppendTag(filter, fieldWaves, protowire.BytesType), state)
}

func (w *waves) sync() error { return w.ring.Sync() }

func (w *waves) close() error { return w.ring.Close() }

// addWave keeps a block of samples, adds what is made of it to the pack, and
// the blocks that leave as they are.
func (p *packer) addWave(s *source.Sample) error {
	w := p.waves
	block := []byte(s.Reading.Value.Text)
	if s.Reading.Value.Kind != signal.Wave {
		return fmt.Errorf("the source delivered a raw reading of %s that is no waveform", s.Asset.Sensor(s.Reading.Sensor))
	}
	if err := record.DecodeWaveform(block, &w.wave); err != nil {
		p.refuse(s, err)
		return nil
	}
	p.samples += uint64(w.wave.Len())
	p.a.meter.Taken(s.Asset, s.Class, &s.Reading, 0)
	first := w.wave.First
	err := w.ring.Append(s.Asset, s.Reading.Sensor, ring.Block{Time: s.Reading.EventTime, First: first, Bytes: block})
	if err != nil {
		return err
	}
	derived, pass, err := w.stage.Window(s.Asset, &s.Reading, &w.wave, w.derived[:0])
	w.derived = derived
	if err != nil {
		return err
	}
	if len(derived) > 0 {
		k := p.message(s.Asset, signal.Telemetry)
		for i := range derived {
			p.seen[k].SeenTo = max(p.seen[k].SeenTo, derived[i].AliveAt)
		}
		p.derived += len(derived)
		p.put(k, derived)
		for i := range derived {
			if err := p.judge(s.Asset, &derived[i]); err != nil {
				return err
			}
		}
	}
	if !pass.Ship {
		return nil
	}
	r := s.Reading
	err = w.ring.Blocks(s.Asset, r.Sensor, pass.From, first, func(b ring.Block) error {
		if err := record.DecodeWaveform(b.Bytes, &w.wave); err != nil {
			return err
		}
		r.EventTime, r.AliveAt, r.Value = b.Time, b.Time, signal.WaveValue(string(b.Bytes))
		p.ship(s.Asset, r, uint64(w.wave.Len()))
		return nil
	})
	if err = errors.Join(err, record.DecodeWaveform(block, &w.wave)); err != nil {
		return fmt.Errorf("reading what was before a trigger of %s: %w", s.Asset.Sensor(r.Sensor), err)
	}
	p.ship(s.Asset, s.Reading, uint64(w.wave.Len()))
	return nil
}

// ship adds a block to the stream of raw waveforms, in a message of its own
// when the last has no room.
func (p *packer) ship(asset signal.Asset, r signal.Reading, samples uint64) {
	key := streamKey{asset, signal.Raw}
	if k, ok := p.streams[key]; ok {
		size := len(r.Value.Text)
		for i := range p.messages[k].Readings {
			size += len(p.messages[k].Readings[i].Value.Text)
		}
		if size > maxPackBytes*3/4 {
			delete(p.streams, key)
		}
	}
	k := p.message(asset, signal.Raw)
	p.seen[k].SeenTo = max(p.seen[k].SeenTo, r.AliveAt)
	p.shipped += samples
	p.put(k, []signal.Reading{r})
}
