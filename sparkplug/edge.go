package sparkplug

import (
	"fmt"
	"slices"

	"github.com/headrace/headrace/signal"
)

// Message is one MQTT message to publish, in the order in which it was given.
type Message struct {
	Topic    string
	QoS      byte
	Retained bool
	Payload  []byte
}

// The metrics of a node that are no sensors.
const (
	metricBdSeq   = "bdSeq"
	metricRebirth = "Node Control/Rebirth"
)

// NodeConfig names an edge node.
type NodeConfig struct {
	Group string // the site
	Edge  string
	// SessionBoot is the boot of this process. Births are numbered within it:
	// it must never be used by two EdgeNodes.
	SessionBoot string
}

// EdgeNode is the edge's side of Sparkplug: it turns births and batches into
// messages and keeps what births need: aliases, units, data types and the
// newest value of each sensor. It lives as long as its process, over many
// connections. It is not safe for concurrent use.
//
// For each connection: [EdgeNode.Connect], the MQTT connect with
// [EdgeNode.Will], subscriptions, then [EdgeNode.Birth], then
// [EdgeNode.Data]. Every message must be published, in order; one that cannot
// be ends the connection.
type EdgeNode struct {
	cfg     NodeConfig
	id      string
	bdSeq   uint8
	seq     uint8 // of the next message
	births  uint64
	aliases uint64
	born    bool
	devices map[signal.Asset]*edgeDevice
	order   []*edgeDevice // as first seen

	said    []Said
	body    Body
	payload Payload
	places  []int // each reading's sensor
}

type edgeDevice struct {
	asset   signal.Asset
	name    string
	topic   string // of its DDATA
	birth   uint64 // number of its newest DBIRTH
	places  map[string]int
	sensors []edgeSensor
}

type edgeSensor struct {
	alias    uint64
	unit     string
	datatype DataType
	// What the newest batch asks for; a difference needs a birth.
	wantUnit string
	wantType DataType
	known    bool // held is a value
	held     signal.Reading
}

// NewEdgeNode returns a node that is not connected.
func NewEdgeNode(cfg NodeConfig) (*EdgeNode, error) {
	if err := signal.CheckName(cfg.Group); err != nil {
		return nil, fmt.Errorf("naming edge node: group: %w", err)
	}
	if err := signal.CheckName(cfg.Edge); err != nil {
		return nil, fmt.Errorf("naming edge node: edge: %w", err)
	}
	if cfg.Group == string(StateT) {
		return nil, fmt.Errorf("naming edge node: group %q is taken by Sparkplug; choose another name for the site", cfg.Group)
	}
	if cfg.SessionBoot == "" || len(cfg.SessionBoot) > maxBootBytes {
		return nil, fmt.Errorf("naming edge node: session boot of %d bytes, want 1 to %d", len(cfg.SessionBoot), maxBootBytes)
	}
	return &EdgeNode{cfg: cfg, id: cfg.Group + "/" + cfg.Edge, devices: map[signal.Asset]*edgeDevice{}}, nil
}

// A boot is a UUID of 36 bytes. A reading or a sensor is at most four elements
// of a payload: itself and its properties.
const (
	maxBootBytes = 64
	maxReadings  = MaxElements / 4
	maxSensors   = MaxElements / 4
)

// NextBdSeq is the bdSeq of the connection after one with bdSeq b. The caller
// keeps it on disk before it connects.
func NextBdSeq(b uint8) uint8 { return b + 1 }

// ID is "group/edge".
func (n *EdgeNode) ID() string { return n.id }

// Connect begins a connection with a bdSeq of its own: see [NextBdSeq].
func (n *EdgeNode) Connect(bdSeq uint8) { n.bdSeq, n.seq, n.born = bdSeq, 0, false }

// Will is the NDEATH to leave with the broker at connect.
func (n *EdgeNode) Will(now signal.Micros) Message { return n.death(now) }

// Death is the NDEATH to publish before an intended disconnect.
func (n *EdgeNode) Death(now signal.Micros) Message {
	n.born = false
	return n.death(now)
}

func (n *EdgeNode) death(now signal.Micros) Message {
	p := Payload{Timestamp: millis(now), HasTimestamp: true, Metrics: []Metric{n.bdSeqMetric(now)}}
	return Message{Topic: n.topic(NDeath, ""), QoS: 1, Payload: AppendPayload(nil, &p)}
}

func (n *EdgeNode) bdSeqMetric(now signal.Micros) Metric {
	return Metric{Name: metricBdSeq, Datatype: TypeInt64, Timestamp: millis(now), HasTimestamp: true, Value: Long(uint64(n.bdSeq))}
}

// Said is what a node's birth says of the node itself.
type Said struct{ Name, Text string }

// Say sets what the births from now on say of the node.
func (n *EdgeNode) Say(said []Said) { n.said = said }

// Birth is the node's NBIRTH and the DBIRTH of every device known, with the
// values they hold. It is also the answer to a rebirth command.
func (n *EdgeNode) Birth(now signal.Micros) []Message {
	n.seq, n.born = 0, true
	n.births++
	p := n.begin(now)
	n.body = Body{SessionBoot: n.cfg.SessionBoot, Birth: n.births}
	p.Metrics = append(p.Metrics, n.bdSeqMetric(now), Metric{
		Name: metricRebirth, Datatype: TypeBoolean, Timestamp: millis(now), HasTimestamp: true, Value: Bool(false),
	})
	for _, s := range n.said {
		p.Metrics = append(p.Metrics, Metric{Name: s.Name, Datatype: TypeString, Timestamp: millis(now), HasTimestamp: true, Value: String(s.Text)})
	}
	out := make([]Message, 1, 1+len(n.order))
	out[0] = Message{Topic: n.topic(NBirth, ""), Payload: n.finish()}
	for _, d := range n.order {
		out = append(out, n.deviceBirth(now, d))
	}
	return out
}

// deviceBirth declares a device's sensors. Its number in the births is what
// the device's data refers to.
func (n *EdgeNode) deviceBirth(now signal.Micros, d *edgeDevice) Message {
	n.births++
	d.birth = n.births
	n.begin(now)
	n.body = Body{SessionBoot: n.cfg.SessionBoot, Birth: d.birth, SubMilli: n.body.SubMilli[:0], AliveAfter: n.body.AliveAfter[:0]}
	names := make([]string, len(d.sensors))
	for name, i := range d.places {
		names[i] = name
	}
	for i := range d.sensors {
		s := &d.sensors[i]
		r := s.held
		if !s.known {
			r = signal.Reading{EventTime: now, AliveAt: now, Quality: signal.QualityStale}
		}
		m := n.metric(&r)
		m.Name, m.Alias, m.HasAlias, m.Datatype = names[i], s.alias, true, s.datatype
		if r.Quality == signal.QualityGood {
			m.Properties = append(m.Properties, qualityProperty(r.Quality))
		}
		if s.unit != "" {
			m.Properties = append(m.Properties, textProperty(PropertyUnit, s.unit))
		}
		if r.Value.Kind != signal.Null && typeOf(r.Value.Kind) != s.datatype {
			// The newest value is of a type that the sensor no longer has.
			m.Null, m.Value = true, Value{}
		}
	}
	n.trimTimes()
	return Message{Topic: n.topic(DBirth, d.name), Payload: n.finish()}
}

// Data appends the messages that carry b: its DDATA, and before it a DBIRTH if
// b has a sensor that the device's birth does not declare, or declares with
// another unit or type than b's newest live value. An error is the batch's, not
// the connection's; what was appended is to be published even so.
func (n *EdgeNode) Data(out []Message, now signal.Micros, b *signal.Batch) ([]Message, error) {
	if err := n.check(b); err != nil {
		return out, fmt.Errorf("sending message %s/%d of %s: %w", b.Boot, b.Seq, b.Stream, err)
	}
	asset, _ := b.Stream.Split()
	d, needed := n.place(asset, b)
	if needed {
		out = append(out, n.deviceBirth(now, d))
	}
	p := n.begin(now)
	n.body = Body{
		SessionBoot: n.cfg.SessionBoot, Birth: d.birth,
		Boot: b.Boot, Seq: b.Seq, Stream: string(b.Stream), N: b.N, Config: b.Config, CompleteTo: b.CompleteTo,
		SubMilli: n.body.SubMilli[:0], AliveAfter: n.body.AliveAfter[:0],
	}
	p.Metrics = slices.Grow(p.Metrics, len(b.Readings))
	for i := range b.Readings {
		r := &b.Readings[i]
		s := &d.sensors[n.places[i]]
		m := n.metric(r)
		m.Alias, m.HasAlias, m.Historical = s.alias, true, r.Historical
		if r.Unit != s.unit {
			m.Properties = append(m.Properties, textProperty(PropertyUnit, r.Unit))
		}
		if r.Rescued != "" {
			m.Properties = append(m.Properties, textProperty(PropertyRescued, r.Rescued))
		}
		if r.Value.Kind != signal.Null && typeOf(r.Value.Kind) != s.datatype {
			m.Datatype = typeOf(r.Value.Kind)
		}
		if !s.known || r.EventTime >= s.held.EventTime {
			s.known, s.held = true, *r
			if r.Value.Kind == signal.Wave {
				s.held.Value = signal.Value{} // a birth declares a channel and repeats no samples
			}
		}
	}
	n.trimTimes()
	data := n.finish()
	if len(data) > MaxPayloadBytes {
		n.seq-- // it will not be sent; the birth before it still must
		return out, fmt.Errorf("sending message %s/%d of %s: %d bytes are more than %d", b.Boot, b.Seq, b.Stream, len(data), MaxPayloadBytes)
	}
	return append(out, Message{Topic: d.topic, Payload: data}), nil
}

// Idle is a DDATA that repeats o.CompleteTo for o.Stream and carries nothing.
// It is not acknowledged. It needs a birth of the stream's asset: without one
// there is nothing to say, and ok is false.
func (n *EdgeNode) Idle(now signal.Micros, o signal.Origin) (m Message, ok bool) {
	asset, _ := o.Stream.Split()
	d := n.devices[asset]
	if d == nil || !n.born {
		return Message{}, false
	}
	n.begin(now)
	n.body = Body{
		SessionBoot: n.cfg.SessionBoot, Birth: d.birth, Idle: true,
		Boot: o.Boot, Stream: string(o.Stream), Config: o.Config, CompleteTo: o.CompleteTo,
	}
	return Message{Topic: d.topic, Payload: n.finish()}, true
}

// Held is a DDATA with the newest value of each of an asset's sensors, for
// other hosts that resent, historical values left stale. Headrace reads it as
// idle.
func (n *EdgeNode) Held(now signal.Micros, asset signal.Asset) (m Message, ok bool) {
	d := n.devices[asset]
	if d == nil || !n.born {
		return Message{}, false
	}
	p := n.begin(now)
	n.body = Body{SessionBoot: n.cfg.SessionBoot, Birth: d.birth, Idle: true, SubMilli: n.body.SubMilli[:0], AliveAfter: n.body.AliveAfter[:0]}
	for i := range d.sensors {
		s := &d.sensors[i]
		if !s.known || s.datatype == TypeBytes || s.held.Value.Kind != signal.Null && typeOf(s.held.Value.Kind) != s.datatype {
			continue
		}
		m := n.metric(&s.held)
		m.Alias, m.HasAlias = s.alias, true
	}
	if len(p.Metrics) == 0 {
		return Message{}, false
	}
	n.trimTimes()
	return Message{Topic: d.topic, Payload: n.finish()}, true
}

// DeviceDeath is the DDEATH of an asset that has gone; its next data has it
// born again. ok is false if it was not known.
func (n *EdgeNode) DeviceDeath(now signal.Micros, asset signal.Asset) (m Message, ok bool) {
	d := n.devices[asset]
	if d == nil || !n.born {
		return Message{}, false
	}
	delete(n.devices, asset)
	n.order = slices.DeleteFunc(n.order, func(e *edgeDevice) bool { return e == d })
	p := Payload{Timestamp: millis(now), HasTimestamp: true, Seq: uint64(n.seq), HasSeq: true}
	n.seq++
	return Message{Topic: n.topic(DDeath, d.name), Payload: AppendPayload(nil, &p)}, true
}

// Rebirth tells whether a payload that came in on the node's [CommandTopic]
// asks for a rebirth: answer with [EdgeNode.Birth] before any other data.
func (n *EdgeNode) Rebirth(command *Payload) bool {
	for i := range command.Metrics {
		if m := &command.Metrics[i]; m.Name == metricRebirth && !m.Null && m.Value.Bits != 0 &&
			(m.Value.Field == FieldBool || m.Value.Field == FieldInt || m.Value.Field == FieldLong) {
			return true
		}
	}
	return false
}

// check refuses what a host could not give back as it was.
func (n *EdgeNode) check(b *signal.Batch) error {
	switch {
	case !n.born:
		return fmt.Errorf("the node has no birth on this connection")
	case b.Edge != n.id:
		return fmt.Errorf("it belongs to edge %q, this is %q", b.Edge, n.id)
	case b.Boot == "" || len(b.Boot) > maxBootBytes:
		return fmt.Errorf("boot of %d bytes, want 1 to %d", len(b.Boot), maxBootBytes)
	case len(b.Readings) > maxReadings:
		return fmt.Errorf("%d readings are more than %d", len(b.Readings), maxReadings)
	}
	if _, err := signal.ParseStream(string(b.Stream)); err != nil {
		return err
	}
	asset, _ := b.Stream.Split()
	if site, _, _ := asset.Split(); site != n.cfg.Group {
		return fmt.Errorf("site %q is not the node's group %q", site, n.cfg.Group)
	}
	d := n.devices[asset]
	if d == nil && len(n.devices) >= maxDevices {
		return fmt.Errorf("the node has more than %d assets", maxDevices)
	}
	sensors := n.aliases
	for i := range b.Readings {
		name := b.Readings[i].Sensor
		if d != nil {
			if _, known := d.places[name]; known {
				continue
			}
		}
		if err := signal.CheckName(name); err != nil {
			return fmt.Errorf("reading %d: %w", i, err)
		}
		if sensors++; sensors > maxSensors {
			return fmt.Errorf("the node has more than %d sensors", maxSensors)
		}
	}
	return nil
}

// place finds the sensor of each reading, declares new ones, and tells whether
// that needs a birth.
func (n *EdgeNode) place(asset signal.Asset, b *signal.Batch) (d *edgeDevice, needed bool) {
	d = n.devices[asset]
	if d == nil {
		name := DeviceOf(asset)
		d = &edgeDevice{asset: asset, name: name, topic: n.topic(DData, name), places: map[string]int{}}
		n.devices[asset] = d
		n.order = append(n.order, d)
		needed = true
	}
	n.places = n.places[:0]
	for i := range b.Readings {
		r := &b.Readings[i]
		k, known := d.places[r.Sensor]
		if !known {
			k = len(d.sensors)
			n.aliases++
			d.places[r.Sensor] = k
			d.sensors = append(d.sensors, edgeSensor{alias: n.aliases, unit: r.Unit, datatype: typeOf(r.Value.Kind), wantUnit: r.Unit, wantType: typeOf(r.Value.Kind)})
			needed = true
		}
		n.places = append(n.places, k)
		if s := &d.sensors[k]; !r.Historical {
			s.wantUnit = r.Unit
			if r.Value.Kind != signal.Null {
				s.wantType = typeOf(r.Value.Kind)
			}
		}
	}
	for _, k := range n.places {
		if s := &d.sensors[k]; s.unit != s.wantUnit || s.datatype != s.wantType {
			s.unit, s.datatype = s.wantUnit, s.wantType
			needed = true
		}
	}
	return d, needed
}

// begin empties the payload that is built next.
func (n *EdgeNode) begin(now signal.Micros) *Payload {
	n.payload = Payload{Timestamp: millis(now), HasTimestamp: true, HasSeq: true, UUID: HeadraceUUID, Metrics: n.payload.Metrics[:0], Body: n.payload.Body[:0]}
	return &n.payload
}

// finish numbers and encodes it.
func (n *EdgeNode) finish() []byte {
	p := &n.payload
	p.Seq = uint64(n.seq)
	n.seq++
	p.Body = AppendBody(p.Body, &n.body)
	size := 64 + len(p.Body)
	for i := range p.Metrics {
		m := &p.Metrics[i]
		size += 32 + len(m.Name) + len(m.Value.Text)
		for j := range m.Properties {
			size += 16 + len(m.Properties[j].Key) + len(m.Properties[j].Value.Text)
		}
	}
	return AppendPayload(make([]byte, 0, size), p)
}

// metric appends the metric of a reading to the payload and its times to the
// body. The caller names it; its properties are the quality, if not good.
func (n *EdgeNode) metric(r *signal.Reading) *Metric {
	p := &n.payload
	k := len(p.Metrics)
	p.Metrics = slices.Grow(p.Metrics, 1)[:k+1]
	m := &p.Metrics[k]
	ms, sub := split(r.EventTime)
	*m = Metric{Timestamp: uint64(ms), HasTimestamp: true, Properties: m.Properties[:0]}
	n.body.SubMilli = append(n.body.SubMilli, sub)
	n.body.AliveAfter = append(n.body.AliveAfter, uint64(r.AliveAt)-uint64(r.EventTime))
	switch r.Value.Kind {
	case signal.Number:
		m.Value = Double(r.Value.Number)
	case signal.Bool:
		m.Value = Bool(r.Value.Number != 0)
	case signal.Text:
		m.Value = String(r.Value.Text)
	case signal.Wave:
		m.Value = Value{Field: FieldBytes, Text: r.Value.Text}
	default:
		m.Null = true
	}
	if r.Quality != signal.QualityGood {
		m.Properties = append(m.Properties, qualityProperty(r.Quality))
	}
	return m
}

// trimTimes leaves out lists that hold only zeros.
func (n *EdgeNode) trimTimes() {
	if !slices.ContainsFunc(n.body.SubMilli, func(v uint32) bool { return v != 0 }) {
		n.body.SubMilli = n.body.SubMilli[:0]
	}
	if !slices.ContainsFunc(n.body.AliveAfter, func(v uint64) bool { return v != 0 }) {
		n.body.AliveAfter = n.body.AliveAfter[:0]
	}
}

func (n *EdgeNode) topic(t MessageType, device string) string {
	return Topic{Type: t, Group: n.cfg.Group, Edge: n.cfg.Edge, Device: device}.String()
}

// typeOf is the data type by which a kind is declared; a sensor that has only
// been null is taken for a number.
func typeOf(k signal.Kind) DataType {
	switch k {
	case signal.Bool:
		return TypeBoolean
	case signal.Text:
		return TypeString
	case signal.Wave:
		return TypeBytes
	}
	return TypeDouble
}

func qualityProperty(q signal.Quality) Property {
	return Property{Key: PropertyQuality, Type: TypeInt32, Value: Int(uint32(q))}
}

func textProperty(key, s string) Property {
	return Property{Key: key, Type: TypeString, Value: String(s)}
}

// split parts a time into milliseconds, rounded down, and the µs beyond.
func split(t signal.Micros) (ms int64, sub uint32) {
	ms, rest := int64(t)/1000, int64(t)%1000
	if rest < 0 {
		ms, rest = ms-1, rest+1000
	}
	return ms, uint32(rest)
}

// join undoes split.
func join(ms int64, sub uint32) signal.Micros { return signal.Micros(ms*1000 + int64(sub)) }

func millis(t signal.Micros) uint64 {
	ms, _ := split(t)
	return uint64(max(ms, 0))
}
