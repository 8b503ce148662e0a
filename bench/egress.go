package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"slices"
	"time"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/plant"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// EgressOptions say what leaves which plant, and how.
type EgressOptions struct {
	Plant  plant.Config
	Filter *filter.Set
	// Delay is how long a telemetry reading waits for company, in event time;
	// states and waveforms wait for none.
	Delay time.Duration
	// IdleEvery is how often a silent stream says how far it is complete.
	IdleEvery time.Duration
}

// EgressClass is what left of one class of sensors.
type EgressClass struct {
	Class   string `json:"class"`
	Sensors int    `json:"sensors"`
	Samples int64  `json:"samples"` // measured; of vibration, of the waveforms
	Kept    int64  `json:"kept"`    // values that left for their own sake
	Held    int64  `json:"held"`    // repeats of held values, and values held back before an exception
	// Raw is 16-bit counts over the span under zstd, in blocks of 512 values a
	// sensor, without topics, times or headers.
	Raw   int64   `json:"raw_bytes"`
	Sent  int64   `json:"sent_bytes"` // its share of the messages, with what travels with them
	Saved float64 `json:"saved"`      // 1 - sent/raw
	// MeanError and MaxError are of what the far end makes of the values sent,
	// in percent of the sensor's span.
	MeanError float64 `json:"mean_error_percent"`
	MaxError  float64 `json:"max_error_percent"`
	Missed    int64   `json:"missed_exceptions"` // samples that the far end has further off than the band

	sum   float64 // of errors, in percent
	count int64
}

// EgressReport is what left a plant.
type EgressReport struct {
	Input   string        `json:"input"`
	Filter  string        `json:"filter"`
	Delay   float64       `json:"telemetry_delay_seconds"`
	Classes []EgressClass `json:"classes"`
	Births  int64         `json:"birth_bytes"`
	Idle    int64         `json:"idle_bytes"`
	Acks    int64         `json:"ack_bytes"` // one an acknowledged message, at most
	Pings   int64         `json:"keep_alive_bytes"`
	Raw     int64         `json:"raw_bytes"`
	Sent    int64         `json:"sent_bytes"`
	Saved   float64       `json:"saved"`
}

// point is a value of a sensor.
type point struct {
	at    signal.Micros
	value float64
}

// track is what is remembered of one sensor.
type track struct {
	class          string
	band           float64
	unit, sensor   string
	measured, sent []point
}

// departure is an edge whose messages are made and weighed, not sent.
type departure struct {
	opt      EgressOptions
	node     *sparkplug.EdgeNode
	filter   *filter.Filter
	stage    *vibration.Stage
	meter    *egress.Meter
	report   *EgressReport
	classes  map[string]*EgressClass
	tracks   map[signal.Path]*track
	packs    map[signal.Stream]*signal.Batch
	since    map[signal.Stream]signal.Micros
	spoke    map[signal.Stream]signal.Micros
	n        map[signal.Stream]uint64
	blocks   map[signal.Path][]block
	seq      uint64
	ackTopic string
	tally    filter.Tally
	out      []signal.Reading
	msgs     []sparkplug.Message
	shares   map[string]int
	wave     record.Waveform
}

// block is a window that a trigger may still want.
type block struct {
	first   uint64
	reading signal.Reading
}

const (
	bootID     = "01990000-0000-7000-8000-000000000000"
	keepBlocks = 256
	vibrations = "vibration"
)

// Egress runs a simulated plant through filters, features and the Sparkplug
// encoder by the plant's own time, and weighs every MQTT packet: data, births,
// repeats of how far streams are complete, acknowledgements and keep-alives,
// without TCP and TLS. Resends are no part of it, for nothing is lost here.
func Egress(ctx context.Context, opt EgressOptions) (report EgressReport, err error) {
	fail := func(err error) (EgressReport, error) { return EgressReport{}, fmt.Errorf("measuring egress: %w", err) }
	if opt.Plant.Duration <= 0 {
		return fail(errors.New("a plant without end; give it a duration, as in demo:duration=1h"))
	}
	if opt.IdleEvery <= 0 {
		opt.IdleEvery = 10 * time.Second
	}
	dir, err := os.MkdirTemp("", "headrace-egress-")
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := plant.Open(opt.Plant, dir)
	if err != nil {
		return fail(err)
	}
	edges, err := p.Edges()
	if err != nil {
		return fail(err)
	}
	report = EgressReport{Input: opt.Plant.String(), Filter: opt.Filter.Hash(), Delay: opt.Delay.Seconds()}
	classes := map[string]*EgressClass{}
	for _, e := range edges {
		if err := depart(ctx, p.Site(), e, opt, &report, classes); err != nil {
			return fail(fmt.Errorf("edge %s: %w", e.Node, err))
		}
	}
	for _, c := range classes {
		c.Saved = 1 - float64(c.Sent)/float64(max(c.Raw, 1))
		c.MeanError = c.sum / float64(max(c.count, 1))
		report.Raw, report.Sent = report.Raw+c.Raw, report.Sent+c.Sent
		report.Classes = append(report.Classes, *c)
	}
	slices.SortFunc(report.Classes, func(a, b EgressClass) int { return cmp.Or(cmp.Compare(b.Raw, a.Raw), cmp.Compare(a.Class, b.Class)) })
	report.Pings = int64(len(edges)) * int64(opt.Plant.Duration/(30*time.Second)) * 4
	report.Sent += report.Births + report.Idle + report.Acks + report.Pings
	report.Saved = 1 - float64(report.Sent)/float64(max(report.Raw, 1))
	return report, nil
}

func depart(ctx context.Context, site string, e plant.Edge, opt EgressOptions, report *EgressReport, classes map[string]*EgressClass) error {
	src, err := e.Open(nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	d := &departure{
		opt: opt, ackTopic: sparkplug.AckTopic(site, e.Node), meter: egress.NewMeter(), report: report, classes: classes, tracks: map[signal.Path]*track{},
		packs: map[signal.Stream]*signal.Batch{}, since: map[signal.Stream]signal.Micros{}, spoke: map[signal.Stream]signal.Micros{},
		n: map[signal.Stream]uint64{}, blocks: map[signal.Path][]block{}, shares: map[string]int{},
	}
	if d.filter, err = opt.Filter.Open(nil); err != nil {
		return err
	}
	if d.stage, err = e.Vibration.Open(nil); err != nil {
		return err
	}
	if d.node, err = sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: site, Edge: e.Node, SessionBoot: bootID}); err != nil {
		return err
	}
	d.node.Connect(0)
	for _, m := range d.node.Birth(signal.MicrosOf(time.Unix(1_790_000_000, 0))) {
		report.Births += int64(egress.Packet(m.Topic, len(m.Payload)))
	}
	for {
		chunk, err := src.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		now := signal.MicrosOf(chunk.Time)
		if err := d.due(now, false); err != nil {
			return err
		}
		for i := range chunk.Samples {
			if err := d.take(&chunk.Samples[i], now); err != nil {
				return err
			}
		}
		src.Take()
	}
	if err := d.due(math.MaxInt64, true); err != nil {
		return err
	}
	d.judge()
	return nil
}

func (d *departure) class(name string) *EgressClass {
	c := d.classes[name]
	if c == nil {
		c = &EgressClass{Class: name}
		d.classes[name] = c
	}
	return c
}

// quantityOf names classes of sensors by their unit.
func quantityOf(r *signal.Reading) string {
	switch {
	case r.Value.Kind != signal.Number:
		return "states"
	case r.Unit == "Cel":
		return "temperature"
	case r.Unit == "bar":
		return "pressure"
	case r.Unit == "L/min":
		return "flow"
	case r.Unit == "/min":
		return "speed"
	case r.Unit == "A":
		return "current"
	case r.Unit == "V":
		return "voltage"
	}
	return "other"
}

func (d *departure) take(s *source.Sample, now signal.Micros) error {
	if s.Class == signal.Raw {
		return d.window(s, now)
	}
	name := quantityOf(&s.Reading)
	c := d.class(name)
	c.Samples++
	path := s.Asset.Sensor(s.Reading.Sensor)
	t := d.tracks[path]
	if t == nil {
		t = &track{class: name, unit: s.Reading.Unit, sensor: s.Reading.Sensor}
		d.tracks[path] = t
		c.Sensors++
	}
	d.stage.Reading(s.Asset, &s.Reading)
	var v filter.Verdict
	d.out, v = d.filter.Apply(d.out[:0], s.Asset, s.Reading, &d.tally)
	t.band = v.Band
	if v.Sent {
		c.Kept++
	}
	c.Held += int64(len(d.out))
	if v.Sent {
		c.Held--
	}
	if s.Reading.Value.Kind == signal.Number {
		t.measured = append(t.measured, point{s.Reading.EventTime, s.Reading.Value.Number})
		for i := range d.out {
			if r := &d.out[i]; !r.Held() {
				t.sent = append(t.sent, point{r.EventTime, r.Value.Number})
			}
		}
	} else {
		c.Raw += int64(max(1, len(s.Reading.Value.Text)))
	}
	return d.put(s.Asset, s.Class, d.out, now)
}

func (d *departure) window(s *source.Sample, now signal.Micros) error {
	c := d.class(vibrations)
	text := []byte(s.Reading.Value.Text)
	if err := record.DecodeWaveform(text, &d.wave); err != nil {
		return err
	}
	c.Samples += int64(d.wave.Len())
	c.Raw += d.meter.RawWave(&s.Reading)
	path := s.Asset.Sensor(s.Reading.Sensor)
	first := d.wave.First
	kept := d.blocks[path]
	if kept == nil {
		c.Sensors++
	}
	kept = append(kept, block{first, s.Reading})
	if len(kept) > keepBlocks {
		kept = kept[1:]
	}
	d.blocks[path] = kept
	derived, pass, err := d.stage.Window(s.Asset, &s.Reading, &d.wave, nil)
	if err != nil {
		return err
	}
	c.Kept += int64(len(derived))
	if err := d.put(s.Asset, signal.Telemetry, derived, now); err != nil || !pass.Ship {
		return err
	}
	for _, b := range kept {
		if b.first < pass.From || b.first > first {
			continue
		}
		if err := d.put(s.Asset, signal.Raw, []signal.Reading{b.reading}, now); err != nil {
			return err
		}
	}
	return nil
}

func (d *departure) put(asset signal.Asset, class signal.Class, readings []signal.Reading, now signal.Micros) error {
	stream := signal.NewStream(asset, class)
	if _, ok := d.spoke[stream]; !ok {
		d.spoke[stream] = now
	}
	if len(readings) == 0 {
		return nil
	}
	b := d.packs[stream]
	if b == nil {
		b = &signal.Batch{}
		d.packs[stream] = b
	}
	if len(b.Readings) == 0 {
		d.since[stream] = now
	}
	b.Readings = append(b.Readings, readings...)
	return nil
}

// due sends what has waited long enough, and has silent streams speak.
func (d *departure) due(now signal.Micros, all bool) error {
	for _, stream := range slices.Sorted(maps.Keys(d.packs)) { // in an order of its own, for equal runs
		b := d.packs[stream]
		_, class := stream.Split()
		wait := signal.Micros(0)
		if class == signal.Telemetry {
			wait = signal.Micros(d.opt.Delay / time.Microsecond)
		}
		if len(b.Readings) > 0 && (all || now-d.since[stream] >= max(wait, 1)) {
			at := d.since[stream] + wait
			if err := d.send(stream, b, at); err != nil {
				return err
			}
		}
	}
	if all {
		return nil
	}
	for _, stream := range slices.Sorted(maps.Keys(d.spoke)) {
		at := d.spoke[stream]
		if _, class := stream.Split(); class == signal.Raw || now-at < signal.Micros(d.opt.IdleEvery/time.Microsecond) {
			continue
		}
		m, ok := d.node.Idle(now, signal.Origin{Edge: d.node.ID(), Boot: bootID, Stream: stream, Config: d.opt.Filter.Hash(), CompleteTo: now})
		d.spoke[stream] = now
		if ok {
			d.report.Idle += int64(egress.Packet(m.Topic, len(m.Payload)))
		}
	}
	return nil
}

func (d *departure) send(stream signal.Stream, b *signal.Batch, at signal.Micros) (err error) {
	d.seq++
	b.Origin = signal.Origin{Edge: d.node.ID(), Boot: bootID, Seq: d.seq, Stream: stream, N: d.n[stream], Config: d.opt.Filter.Hash(), CompleteTo: at}
	d.n[stream]++
	d.spoke[stream] = at
	d.msgs, err = d.node.Data(d.msgs[:0], at, b)
	if err != nil {
		return err
	}
	for i, m := range d.msgs {
		size := egress.Packet(m.Topic, len(m.Payload))
		if i < len(d.msgs)-1 {
			d.report.Births += int64(size)
			continue
		}
		// A message's bytes are shared out evenly.
		clear(d.shares)
		asset, class := stream.Split()
		for k := range b.Readings {
			name := vibrations
			if t := d.tracks[asset.Sensor(b.Readings[k].Sensor)]; t != nil && class != signal.Raw {
				name = t.class
			}
			d.shares[name]++
		}
		for name, n := range d.shares {
			d.class(name).Sent += int64(size * n / len(b.Readings))
		}
	}
	ack := sparkplug.AppendAck(nil, sparkplug.Ack{Boot: bootID, Ranges: []signal.Range{{From: d.seq, To: d.seq}}})
	d.report.Acks += int64(egress.Packet(d.ackTopic, len(ack)))
	b.Readings = b.Readings[:0]
	return nil
}

// judge holds what the far end has against what was measured.
func (d *departure) judge() {
	for _, path := range slices.Sorted(maps.Keys(d.tracks)) {
		t := d.tracks[path]
		if len(t.measured) == 0 {
			continue
		}
		c := d.class(t.class)
		values := make([]float64, len(t.measured))
		for i := range t.measured {
			values[i] = t.measured[i].value
		}
		low, high, ok := d.opt.Filter.Span(t.sensor, t.unit)
		if !ok {
			low, high = slices.Min(values), slices.Max(values)
		}
		if !(high > low) {
			high = low + 1
		}
		c.Raw += egress.RawBytes(values, low, high)
		linear := d.opt.Filter.Linear(t.sensor, t.unit)
		slices.SortStableFunc(t.sent, func(a, b point) int { return int(a.at - b.at) })
		k := 0
		for _, m := range t.measured {
			for k+1 < len(t.sent) && t.sent[k+1].at <= m.at {
				k++
			}
			shown := t.sent[k].value
			if linear && k+1 < len(t.sent) && m.at > t.sent[k].at {
				a, b := t.sent[k], t.sent[k+1]
				shown += (b.value - a.value) * float64(m.at-a.at) / float64(b.at-a.at)
			}
			off := math.Abs(m.value - shown)
			if off > t.band*(1+1e-9)+1e-9 {
				c.Missed++
			}
			percent := 100 * off / (high - low)
			c.MaxError = max(c.MaxError, percent)
			c.sum += percent
			c.count++
		}
	}
}
