package edge

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

const (
	// maxTextBytes bounds a text; whatever is longer would not fit a record.
	maxTextBytes = 128 << 10
	maxUnitBytes = 256
	// maxSensors bounds the names that are known to be good.
	maxSensors = 1 << 17
	// refusedEvery is how often a refusal is said in the log.
	refusedEvery = 10 * time.Second
)

type sensorName struct {
	asset signal.Asset
	name  string
}

// check tells why a sample cannot be taken, nil if it can. A source may deliver
// anything: what cannot be carried is counted, and stops nothing.
func (p *packer) check(s *source.Sample) error {
	key := sensorName{s.Asset, s.Reading.Sensor}
	if !p.known[key] {
		if _, err := signal.ParseAsset(string(s.Asset)); err != nil {
			return err
		}
		if site, _, _ := s.Asset.Split(); site != p.a.opt.Group {
			return fmt.Errorf("asset %s is not of site %s", s.Asset, p.a.opt.Group)
		}
		if err := signal.CheckName(s.Reading.Sensor); err != nil {
			return err
		}
		if len(p.known) >= maxSensors {
			clear(p.known)
		}
		p.known[key] = true
	}
	r := &s.Reading
	switch {
	case s.Class != signal.Telemetry && s.Class != signal.Event && s.Class != signal.Raw:
		return fmt.Errorf("class %q is not known", s.Class)
	case (s.Class == signal.Raw) != (r.Value.Kind == signal.Wave):
		return errors.New("a waveform goes with class raw, and nothing else does")
	case r.Value.Kind > signal.Wave:
		return fmt.Errorf("a value of kind %d is not known", r.Value.Kind)
	case r.EventTime < signal.MinTime || r.EventTime > signal.MaxTime || r.AliveAt < r.EventTime || r.AliveAt > signal.MaxTime:
		return fmt.Errorf("the times %d and %d µs are not in order, or out of range", r.EventTime, r.AliveAt)
	case r.Value.Kind != signal.Wave && (len(r.Value.Text) > maxTextBytes || !utf8.ValidString(r.Value.Text)):
		return fmt.Errorf("a text of %d bytes is longer than %d, or not UTF-8", len(r.Value.Text), maxTextBytes)
	case r.Value.Kind == signal.Wave && len(r.Value.Text) > maxPackBytes*3/4:
		return fmt.Errorf("a block of %d bytes is larger than %d", len(r.Value.Text), maxPackBytes*3/4)
	case len(r.Unit) > maxUnitBytes || !utf8.ValidString(r.Unit):
		return fmt.Errorf("a unit of %d bytes is longer than %d, or not UTF-8", len(r.Unit), maxUnitBytes)
	case len(r.Rescued) > maxTextBytes || !utf8.ValidString(r.Rescued):
		return fmt.Errorf("rescued fields of %d bytes are longer than %d, or not UTF-8", len(r.Rescued), maxTextBytes)
	}
	return nil
}

// refuse counts a sample that cannot be taken.
func (p *packer) refuse(s *source.Sample, cause error) {
	p.a.refused.Add(1)
	if now := time.Now(); now.Sub(p.refusedAt) >= refusedEvery {
		p.refusedAt = now
		p.a.log.Warn("a sample of the source is refused", "asset", s.Asset, "sensor", s.Reading.Sensor, "cause", cause)
	}
}
