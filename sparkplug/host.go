package sparkplug

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/signal"
)

// HostConfig names the edge node that a [HostSession] follows. Zero values
// mean the defaults.
type HostConfig struct {
	Group string
	Edge  string
	// RebirthEvery is the least time between two requests for a rebirth (2 s).
	RebirthEvery time.Duration
	// WaitFor and WaitBytes bound foreign data that waits for a birth, in wall
	// time and in wire bytes (30 s, 256 KiB).
	WaitFor   time.Duration
	WaitBytes int
	// Asset and Sensor name what foreign nodes send ([ForeignAsset],
	// [ForeignSensor]).
	Asset  func(Topic) (signal.Asset, error)
	Sensor func(metric string) (string, error)
}

// maxDevices bounds the devices of one node.
const maxDevices = 4096

// Outcome says what became of a message.
type Outcome uint8

// The outcomes.
const (
	// Ignored: nothing to do; Reason says why.
	Ignored Outcome = iota
	// Accepted: Batches or Event, or both.
	Accepted
	// Idle: Batches has the stream's origin with a new CompleteTo, or nothing.
	// It is no record and gets no acknowledgement.
	Idle
	// Waiting: foreign data whose birth has not been seen is kept, bounded;
	// its batches come with the birth.
	Waiting
	// NeedsRebirth: a Headrace message whose aliases belong to a birth that was
	// not seen. It must not be acknowledged: the edge sends it again.
	NeedsRebirth
	// Refused: a message that will never fit, for Reason. If Origin has a boot,
	// acknowledge it once the dead-letter topic has it, or it comes again.
	Refused
)

func (o Outcome) String() string {
	return [...]string{"ignored", "accepted", "idle", "waiting", "needs rebirth", "refused"}[o]
}

// Result is what a message amounts to. Its slices are valid until the next
// call of [HostSession.Receive].
type Result struct {
	Outcome Outcome
	Reason  string
	Batches []signal.Batch
	Event   *Event
	// Origin is that of a Headrace data message whose body could be read.
	Origin signal.Origin
	// Rebirth asks the caller to publish [RebirthCommand].
	Rebirth bool
	// Gap is how many messages of a foreign node are missing before this one,
	// modulo 256.
	Gap int
	// Skipped counts metrics of a foreign node that gave no reading: controls,
	// transient ones, names that fit no path, aliases that nothing declares.
	Skipped int
	// Expired counts messages that waited in vain and were given up.
	Expired int
}

// Event is a birth or a death.
type Event struct {
	Edge   string
	Device string       // "" for the node
	Asset  signal.Asset // of the device; "" for a node or a device that maps to none
	Kind   string       // nbirth, dbirth, ndeath, ddeath
	Time   signal.Micros
	BdSeq  uint64
	Seq    uint64
	Held   []signal.Reading // the values that a birth repeats; not readings
}

// HostSession is a host's view of one edge node: it resolves aliases, turns
// data into batches and says when a birth is needed. It is not safe for
// concurrent use.
type HostSession struct {
	cfg     HostConfig
	id      string
	bdSeq   uint64
	hasBd   bool
	next    uint8 // seq that a foreign node sends next
	hasNext bool
	asked   time.Time // when a rebirth was last asked for
	devices map[string]*hostDevice
	defs    int // of all devices

	waiting      []waitingData
	waitingBytes int

	body  Body
	batch [1]signal.Batch
}

// hostDevice is the alias table of a device, or of the node ("").
type hostDevice struct {
	asset       signal.Asset
	refused     error  // why it has no asset
	sessionBoot string // "" for foreign devices
	birth       uint64
	byAlias     map[uint64]int
	byName      map[string]int
	defs        []hostMetric
}

type hostMetric struct {
	sensor   string // "" gives no reading
	unit     string
	datatype DataType
}

// NewHostSession returns a session that has seen nothing.
func NewHostSession(cfg HostConfig) *HostSession {
	if cfg.RebirthEvery == 0 {
		cfg.RebirthEvery = 2 * time.Second
	}
	if cfg.WaitFor == 0 {
		cfg.WaitFor = 30 * time.Second
	}
	if cfg.WaitBytes == 0 {
		cfg.WaitBytes = 256 << 10
	}
	if cfg.Asset == nil {
		cfg.Asset = ForeignAsset
	}
	if cfg.Sensor == nil {
		cfg.Sensor = ForeignSensor
	}
	return &HostSession{cfg: cfg, id: cfg.Group + "/" + cfg.Edge, devices: map[string]*hostDevice{}}
}

// RebirthCommand is the NCMD that asks an edge node for its births.
func RebirthCommand(group, edge string, now signal.Micros) Message {
	p := Payload{Timestamp: millis(now), HasTimestamp: true, Metrics: []Metric{{
		Name: metricRebirth, Datatype: TypeBoolean, Timestamp: millis(now), HasTimestamp: true, Value: Bool(true),
	}}}
	return Message{Topic: CommandTopic(group, edge), Payload: AppendPayload(nil, &p)}
}

// Reconnected tells the session that the host itself was away: what a foreign
// node declared before may have changed since. Headrace's own births are named
// by every message and stay good.
func (h *HostSession) Reconnected() {
	h.hasBd, h.hasNext = false, false
	for name, d := range h.devices {
		if d.sessionBoot == "" {
			h.forget(name)
		}
	}
}

// Receive takes a message of the node. plant is the plant's clock, for what
// carries no time; wall is the wall clock, for waiting and asking.
func (h *HostSession) Receive(plant signal.Micros, wall time.Time, t Topic, p *Payload) Result {
	if t.Group != h.cfg.Group || t.Edge != h.cfg.Edge {
		return Result{Reason: "message of another edge node"}
	}
	expired := h.expire(wall)
	ours := p.UUID == HeadraceUUID
	if ours {
		if err := DecodeBody(p.Body, &h.body); err != nil {
			return Result{Outcome: Refused, Reason: err.Error(), Expired: expired}
		}
	}
	var r Result
	switch {
	case t.Type == NDeath:
		r = h.nodeDeath(plant, p)
	case t.Type == DDeath:
		r = h.deviceDeath(plant, wall, t, p)
	case t.Type == NBirth || t.Type == DBirth:
		r = h.birthOf(plant, wall, t, p, ours)
	case (t.Type == NData || t.Type == DData) && ours:
		r = h.data(wall, t, p)
	case t.Type == NData || t.Type == DData:
		r = h.foreignData(plant, wall, t, p)
	default:
		r = Result{Reason: "not from an edge node"}
	}
	r.Expired = expired
	return r
}

func (h *HostSession) nodeDeath(plant signal.Micros, p *Payload) Result {
	bd, has := bdSeqOf(p)
	if has && h.hasBd && bd != h.bdSeq {
		return Result{Reason: "death of an older session"}
	}
	// Headrace's births stay: messages on their way name them exactly.
	h.Reconnected()
	return Result{Outcome: Accepted, Event: &Event{Edge: h.id, Kind: kind(NDeath), Time: plant, BdSeq: bd}}
}

func (h *HostSession) deviceDeath(plant signal.Micros, wall time.Time, t Topic, p *Payload) Result {
	e := h.event(plant, t, p)
	r := Result{Outcome: Accepted, Event: e}
	d := h.devices[t.Device]
	if d == nil || d.sessionBoot == "" {
		h.order(wall, p, &r)
	}
	if d != nil {
		e.Asset = d.asset
		h.forget(t.Device)
	}
	return r
}

// event begins the event of a birth or a device's death.
func (h *HostSession) event(plant signal.Micros, t Topic, p *Payload) *Event {
	at := plant
	if ms, ok := timeOf(p.Timestamp); ok && p.HasTimestamp {
		at = ms
	}
	return &Event{Edge: h.id, Device: t.Device, Kind: kind(t.Type), Time: at, BdSeq: h.bdSeq, Seq: p.Seq}
}

// birthOf takes an NBIRTH or a DBIRTH.
func (h *HostSession) birthOf(plant signal.Micros, wall time.Time, t Topic, p *Payload, ours bool) Result {
	r := Result{Outcome: Accepted}
	if t.Type == NBirth {
		clear(h.devices)
		h.defs = 0
		h.bdSeq, h.hasBd = bdSeqOf(p)
		h.hasNext = false
	}
	if !ours {
		h.order(wall, p, &r)
	}
	d, err := h.declare(t, p, ours)
	if err != nil {
		r.Outcome, r.Reason = Refused, err.Error()
		return r
	}
	r.Event = h.event(plant, t, p)
	r.Event.Asset = d.asset
	if t.Type == NBirth {
		r.Event.Asset = ""
	}
	for i := range p.Metrics {
		m := &p.Metrics[i]
		def := d.defs[i]
		if def.sensor == "" {
			if ours && t.Type == NBirth && m.Datatype == TypeString && m.Value.Field == FieldString {
				r.Event.Held = append(r.Event.Held, signal.Reading{
					Sensor: m.Name, EventTime: r.Event.Time, AliveAt: r.Event.Time, Value: signal.TextValue(m.Value.Text), Quality: signal.QualityGood,
				})
			}
			continue
		}
		var held signal.Reading
		if ours {
			if held, err = h.reading(i, m, def); err != nil {
				r.Outcome, r.Reason, r.Event = Refused, err.Error(), nil
				h.forget(t.Device)
				return r
			}
		} else {
			held = h.foreignReading(r.Event.Time, m, def)
		}
		r.Event.Held = append(r.Event.Held, held)
	}
	if !ours {
		if !h.hasNode() {
			r.Rebirth = h.ask(wall) || r.Rebirth
		}
		h.release(plant, t, d, &r)
	}
	return r
}

// declare replaces a device's alias table by what its birth says.
func (h *HostSession) declare(t Topic, p *Payload, ours bool) (*hostDevice, error) {
	d := &hostDevice{
		byAlias: make(map[uint64]int, len(p.Metrics)),
		byName:  make(map[string]int, len(p.Metrics)),
		defs:    make([]hostMetric, len(p.Metrics)),
	}
	if ours {
		if h.body.SessionBoot == "" || len(h.body.SessionBoot) > maxBootBytes {
			return nil, fmt.Errorf("birth with a session boot of %d bytes, want 1 to %d", len(h.body.SessionBoot), maxBootBytes)
		}
		if err := h.checkTimes(p); err != nil {
			return nil, err
		}
		d.sessionBoot, d.birth = h.body.SessionBoot, h.body.Birth
		if t.Type == DBirth {
			var err error
			if d.asset, err = AssetOf(t.Group, t.Device); err != nil {
				return nil, err
			}
		}
	} else {
		// What maps to no asset is refused with its data, not with its birth.
		d.asset, d.refused = h.cfg.Asset(t)
	}
	old := h.devices[t.Device]
	if old == nil && len(h.devices) >= maxDevices {
		return nil, fmt.Errorf("node has more than %d devices", maxDevices)
	}
	sensors := make(map[string]struct{}, len(p.Metrics))
	for i := range p.Metrics {
		m := &p.Metrics[i]
		d.defs[i] = hostMetric{datatype: m.Datatype, unit: unitOf(m)}
		switch {
		case ours && t.Type == NBirth:
		case ours:
			if err := signal.CheckName(m.Name); err != nil {
				return nil, fmt.Errorf("metric %d: %w", i, err)
			}
			if !m.HasAlias {
				return nil, fmt.Errorf("metric %d, %q, has no alias", i, m.Name)
			}
			d.defs[i].sensor = m.Name
		case isControl(m.Name):
		default:
			// Two metrics that fall on one sensor must not be mixed: the first
			// has it.
			if s, err := h.cfg.Sensor(m.Name); err == nil && d.refused == nil {
				if _, taken := sensors[s]; !taken {
					d.defs[i].sensor = s
				}
				sensors[s] = struct{}{}
			}
		}
		if m.HasAlias {
			if _, twice := d.byAlias[m.Alias]; twice && ours {
				return nil, fmt.Errorf("metric %d: alias %d is declared twice", i, m.Alias)
			}
			d.byAlias[m.Alias] = i
		}
		if m.Name != "" {
			d.byName[m.Name] = i
		}
	}
	h.forget(t.Device)
	if h.defs+len(d.defs) > MaxElements {
		return nil, fmt.Errorf("node declares more than %d metrics", MaxElements)
	}
	h.devices[t.Device] = d
	h.defs += len(d.defs)
	return d, nil
}

func (h *HostSession) forget(device string) {
	if d := h.devices[device]; d != nil {
		h.defs -= len(d.defs)
		delete(h.devices, device)
	}
}

// data takes a message with a Headrace body.
func (h *HostSession) data(wall time.Time, t Topic, p *Payload) Result {
	b := &h.body
	r := Result{Origin: signal.Origin{
		Edge: h.id, Boot: b.Boot, Seq: b.Seq, Stream: signal.Stream(b.Stream), N: b.N, Config: b.Config, CompleteTo: b.CompleteTo,
	}}
	refuse := func(err error) Result {
		r.Outcome, r.Reason = Refused, err.Error()
		if len(b.Boot) > maxBootBytes {
			r.Origin.Boot = ""
		}
		return r
	}
	out := &h.batch[0]
	if b.Idle && b.Stream == "" {
		r.Outcome = Idle
		return r
	}
	d := h.devices[t.Device]
	var asset signal.Asset
	var err error
	if d != nil && d.sessionBoot != "" && d.asset != "" {
		asset = d.asset
	} else if asset, err = AssetOf(t.Group, t.Device); err != nil {
		return refuse(err)
	}
	stream, err := signal.ParseStream(b.Stream)
	if err != nil {
		return refuse(err)
	}
	if of, _ := stream.Split(); of != asset {
		return refuse(fmt.Errorf("stream %s came with the device of %s", stream, asset))
	}
	if b.Boot == "" || len(b.Boot) > maxBootBytes {
		return refuse(fmt.Errorf("boot of %d bytes, want 1 to %d", len(b.Boot), maxBootBytes))
	}
	if b.Idle {
		out.Origin, out.Readings = r.Origin, out.Readings[:0]
		r.Outcome, r.Batches = Idle, h.batch[:]
		return r
	}
	if err := h.checkTimes(p); err != nil {
		return refuse(err)
	}
	if d == nil || d.sessionBoot != b.SessionBoot || d.birth != b.Birth {
		r.Outcome, r.Reason = NeedsRebirth, fmt.Sprintf("birth %d of session %s has not been seen", b.Birth, b.SessionBoot)
		// What an older birth of the same session names is late, not lost: the
		// edge sends it again under the present one.
		if d == nil || d.sessionBoot != b.SessionBoot || d.birth < b.Birth {
			r.Rebirth = h.ask(wall)
		}
		return r
	}
	out.Origin = r.Origin
	out.Readings = slices.Grow(out.Readings[:0], len(p.Metrics))
	for i := range p.Metrics {
		m := &p.Metrics[i]
		k, known := d.byAlias[m.Alias]
		if !known || !m.HasAlias {
			r.Outcome, r.Reason = NeedsRebirth, fmt.Sprintf("metric %d: alias %d is not declared", i, m.Alias)
			r.Rebirth = h.ask(wall)
			return r
		}
		reading, err := h.reading(i, m, d.defs[k])
		if err != nil {
			return refuse(err)
		}
		out.Readings = append(out.Readings, reading)
	}
	r.Outcome, r.Batches = Accepted, h.batch[:]
	return r
}

// checkTimes compares the body's lists with the metrics.
func (h *HostSession) checkTimes(p *Payload) error {
	if n := len(h.body.SubMilli); n != 0 && n != len(p.Metrics) {
		return fmt.Errorf("body has %d sub_milli for %d metrics", n, len(p.Metrics))
	}
	if n := len(h.body.AliveAfter); n != 0 && n != len(p.Metrics) {
		return fmt.Errorf("body has %d alive_after for %d metrics", n, len(p.Metrics))
	}
	return nil
}

// reading gives back the reading that an [EdgeNode] made metric i of.
func (h *HostSession) reading(i int, m *Metric, def hostMetric) (signal.Reading, error) {
	r := signal.Reading{Sensor: def.sensor, Unit: def.unit, Quality: signal.QualityGood, Historical: m.Historical}
	var sub uint32
	if len(h.body.SubMilli) > 0 {
		sub = h.body.SubMilli[i]
	}
	r.EventTime = join(int64(m.Timestamp), sub)
	r.AliveAt = r.EventTime
	if len(h.body.AliveAfter) > 0 {
		r.AliveAt = signal.Micros(uint64(r.EventTime) + h.body.AliveAfter[i])
	}
	if !m.Null {
		t := m.Datatype
		if t == TypeUnknown {
			t = def.datatype
		}
		v, _, ok := scalar(t, m.Value)
		if t == TypeBytes && m.Value.Field == FieldBytes {
			v, ok = signal.WaveValue(m.Value.Text), true
		}
		if !ok {
			return r, fmt.Errorf("metric %d: %s has no value of type %d", i, def.sensor, t)
		}
		r.Value = v
	}
	for j := range m.Properties {
		switch p := &m.Properties[j]; p.Key {
		case PropertyQuality:
			q := p.Value.Bits
			if q > math.MaxUint16 || p.Value.Field != FieldInt && p.Value.Field != FieldLong {
				return r, fmt.Errorf("metric %d: %s has a quality that is none", i, def.sensor)
			}
			r.Quality = signal.Quality(q)
		case PropertyUnit:
			r.Unit = clean(p.Value.Text)
		case PropertyRescued:
			r.Rescued = clean(p.Value.Text)
		}
	}
	return r, nil
}

// ask tells whether it is time to ask for a rebirth.
func (h *HostSession) ask(wall time.Time) bool {
	if !h.asked.IsZero() && wall.Sub(h.asked) < h.cfg.RebirthEvery {
		return false
	}
	h.asked = wall
	return true
}

// bdSeqOf reads the bdSeq of an NBIRTH or NDEATH.
func bdSeqOf(p *Payload) (uint64, bool) {
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if m.Name == metricBdSeq && (m.Value.Field == FieldInt || m.Value.Field == FieldLong) {
			return m.Value.Bits, true
		}
	}
	return 0, false
}

func unitOf(m *Metric) string {
	for i := range m.Properties {
		if m.Properties[i].Key == PropertyUnit {
			return clean(m.Properties[i].Value.Text)
		}
	}
	return ""
}

func isControl(name string) bool {
	return name == metricBdSeq || strings.HasPrefix(name, "Node Control/") || strings.HasPrefix(name, "Device Control/")
}

func kind(t MessageType) string { return strings.ToLower(string(t)) }

// timeOf converts Unix ms, if they are before the year 10000.
func timeOf(ms uint64) (signal.Micros, bool) {
	const last = 253_402_300_799_999
	if ms > last {
		return 0, false
	}
	return signal.Micros(ms * 1000), true
}

// clean mends what is not UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
