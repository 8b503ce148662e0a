package sparkplug

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/headrace/headrace/signal"
)

// waitingData is foreign data that came before its birth.
type waitingData struct {
	device  string
	since   time.Time
	payload Payload
}

// bytes is what it counts for; an empty message is not for nothing.
func (w *waitingData) bytes() int { return w.payload.WireBytes + 256 }

// ForeignAsset is where a foreign device stands unless a mapping says
// otherwise: "line:asset" is group/line/asset, any other device
// group/edge/device, and the node itself group/edge/edge.
func ForeignAsset(t Topic) (signal.Asset, error) {
	if line, asset, ok := strings.Cut(t.Device, ":"); ok && signal.CheckName(line) == nil && signal.CheckName(asset) == nil {
		return signal.ParseAsset(t.Group + "/" + line + "/" + asset)
	}
	device := t.Device
	if device == "" {
		device = t.Edge
	}
	return signal.ParseAsset(fixName(t.Group) + "/" + fixName(t.Edge) + "/" + fixName(device))
}

// ForeignSensor is the sensor of a foreign metric's name unless a mapping says
// otherwise: its folders are joined by dots.
func ForeignSensor(metric string) (string, error) {
	s := fixName(strings.ReplaceAll(metric, "/", "."))
	return s, signal.CheckName(s)
}

// fixName writes what a name may not hold as %XX.
func fixName(s string) string {
	s = clean(s)
	bad := func(r rune) bool { return strings.ContainsRune("/+#:", r) || unicode.IsControl(r) }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		if bad(r) {
			for _, b := range []byte(string(r)) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// order follows a foreign node's seq and asks for a rebirth over a gap. A
// reorder time would hold messages here before it gives a gap up.
func (h *HostSession) order(wall time.Time, p *Payload, r *Result) {
	if !p.HasSeq {
		return
	}
	seq := uint8(p.Seq)
	missing := seq - h.next
	if h.hasNext && missing == 255 {
		return // the last one again
	}
	if h.hasNext && missing != 0 {
		r.Gap = int(missing)
		r.Rebirth = h.ask(wall)
	}
	h.next, h.hasNext = seq+1, true
}

func (h *HostSession) foreignData(plant signal.Micros, wall time.Time, t Topic, p *Payload) Result {
	var r Result
	h.order(wall, p, &r)
	d := h.devices[t.Device]
	if d == nil || d.sessionBoot != "" || !h.hasNode() || !d.resolves(p) {
		r.Rebirth = h.ask(wall) || r.Rebirth
		w := waitingData{device: t.Device, since: wall, payload: Payload{WireBytes: p.WireBytes}}
		if h.waitingBytes+w.bytes() > h.cfg.WaitBytes {
			r.Outcome, r.Reason = Refused, fmt.Sprintf("no birth, and more than %d bytes wait for one", h.cfg.WaitBytes)
			return r
		}
		w.payload = keep(p)
		h.waitingBytes += w.bytes()
		h.waiting = append(h.waiting, w)
		r.Outcome, r.Reason = Waiting, "no birth declares it"
		return r
	}
	if d.refused != nil {
		r.Outcome, r.Reason = Refused, d.refused.Error()
		return r
	}
	b := h.foreignBatch(plant, d, p, &r, h.batch[0].Readings[:0])
	h.batch[0] = b
	r.Outcome = Accepted
	if len(b.Readings) == 0 {
		r.Outcome, r.Reason = Ignored, "no metric gave a reading"
		return r
	}
	r.Batches = h.batch[:]
	return r
}

// hasNode tells whether the node's own birth has been seen since it, or the
// host, was last away.
func (h *HostSession) hasNode() bool { d := h.devices[""]; return d != nil && d.sessionBoot == "" }

// resolves tells whether every metric is declared or says its own name.
func (d *hostDevice) resolves(p *Payload) bool {
	for i := range p.Metrics {
		if _, ok := d.find(&p.Metrics[i]); !ok && p.Metrics[i].Name == "" {
			return false
		}
	}
	return true
}

func (d *hostDevice) find(m *Metric) (k int, ok bool) {
	if m.Name != "" {
		k, ok = d.byName[m.Name]
		return k, ok
	}
	if m.HasAlias {
		k, ok = d.byAlias[m.Alias]
	}
	return k, ok
}

// foreignBatch maps data whose device has been born. It has no identity of its
// own: no boot, no numbers.
func (h *HostSession) foreignBatch(plant signal.Micros, d *hostDevice, p *Payload, r *Result, readings []signal.Reading) signal.Batch {
	b := signal.Batch{Readings: readings}
	b.Edge, b.Stream = h.id, signal.NewStream(d.asset, signal.Telemetry)
	at := plant
	if ms, ok := timeOf(p.Timestamp); ok && p.HasTimestamp {
		at = ms
	}
	for i := range p.Metrics {
		m := &p.Metrics[i]
		var def hostMetric
		if k, ok := d.find(m); ok {
			def = d.defs[k]
		} else if s, err := h.cfg.Sensor(m.Name); err == nil && !isControl(m.Name) {
			def.sensor = s
		}
		if def.sensor == "" || m.Transient {
			r.Skipped++
			continue
		}
		b.Readings = append(b.Readings, h.foreignReading(at, m, def))
	}
	return b
}

// foreignReading maps one metric; at is for one without a time.
func (h *HostSession) foreignReading(at signal.Micros, m *Metric, def hostMetric) signal.Reading {
	r := signal.Reading{Sensor: def.sensor, EventTime: at, Unit: def.unit, Quality: signal.QualityGood, Historical: m.Historical}
	var rest rescue
	if m.HasTimestamp {
		if ms, ok := timeOf(m.Timestamp); ok {
			r.EventTime = ms
		} else {
			rest.put("timestamp", m.Timestamp)
		}
	}
	r.AliveAt = r.EventTime
	t := m.Datatype
	if t == TypeUnknown {
		t = def.datatype
	}
	if !m.Null {
		v, exact, ok := scalar(t, m.Value)
		r.Value = v
		switch {
		case !ok:
			rest.put("datatype", uint32(t))
			rest.put("value", plain(m))
		case exact != "":
			rest.put("exact", exact)
		}
	}
	if m.MetaData != nil {
		rest.put("metadata", m.MetaData)
	}
	for i := range m.Properties {
		p := &m.Properties[i]
		switch {
		case p.Key == PropertyQuality && (p.Value.Field == FieldInt || p.Value.Field == FieldLong):
			if p.Value.Bits > 0xFFFF {
				r.Quality = signal.QualityBad
				rest.property(p)
				continue
			}
			r.Quality = signal.Quality(p.Value.Bits)
		case p.Key == PropertyUnit && p.Value.Field == FieldString:
			r.Unit = clean(p.Value.Text)
		default:
			rest.property(p)
		}
	}
	r.Rescued = rest.json()
	return r
}

// release maps what waited for the birth of a device.
func (h *HostSession) release(plant signal.Micros, t Topic, d *hostDevice, r *Result) {
	if !h.hasNode() {
		return
	}
	rest := h.waiting[:0]
	for _, w := range h.waiting {
		if w.device != t.Device {
			rest = append(rest, w)
			continue
		}
		h.waitingBytes -= w.bytes()
		if d.refused != nil {
			r.Expired++
			continue
		}
		if b := h.foreignBatch(plant, d, &w.payload, r, nil); len(b.Readings) > 0 {
			r.Batches = append(r.Batches, b)
		}
	}
	clear(h.waiting[len(rest):])
	h.waiting = rest
}

// expire gives up what has waited too long.
func (h *HostSession) expire(wall time.Time) (n int) {
	for n < len(h.waiting) && wall.Sub(h.waiting[n].since) > h.cfg.WaitFor {
		h.waitingBytes -= h.waiting[n].bytes()
		n++
	}
	h.waiting = slices.Delete(h.waiting, 0, n)
	return n
}

// keep copies what the next decoding would write over.
func keep(p *Payload) Payload {
	out := *p
	out.Body = nil
	out.Metrics = slices.Clone(p.Metrics)
	for i := range out.Metrics {
		out.Metrics[i].Properties = slices.Clone(out.Metrics[i].Properties)
	}
	return out
}
