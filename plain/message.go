package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/headrace/headrace/signal"
)

// MaxPayload bounds what is read of a message.
const MaxPayload = 1 << 20

// Message is a reading and where it belongs.
type Message struct {
	Asset   signal.Asset
	Class   signal.Class
	Reading signal.Reading
	// Arrived says that the payload gave no time: the reading's is its arrival.
	Arrived bool
}

// ErrNoRule says that nothing maps a topic.
var ErrNoRule = errors.New("no prefix or rule fits the topic")

// Read makes a reading of a message. What says no time was measured when it
// arrived, and cannot be told from its repeat. A value that no column takes is in
// Rescued, with the fields that are not known; an error tells what fits nothing.
func (s *Set) Read(topic string, payload []byte, arrived signal.Micros) (m Message, err error) {
	if err := checkSize(payload); err != nil {
		return m, err
	}
	p, err := s.place(topic)
	if err != nil {
		return m, err
	}
	return p.read(payload, arrived)
}

func checkSize(payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("the payload has %d bytes, more than %d", len(payload), MaxPayload)
	}
	return nil
}

// place is what a topic says, whatever its payload.
type place struct {
	rule   *rule // nil for the documented topics
	asset  signal.Asset
	sensor string
	class  signal.Class
	unit   string // of what says none
	said   string // the unit that the payload before has said
}

func (s *Set) place(topic string) (place, error) {
	for i := range s.rules {
		r := &s.rules[i]
		names, ok := r.match(topic)
		if !ok {
			continue
		}
		path, err := r.build(names)
		if err != nil {
			return place{}, err
		}
		return place{rule: r, asset: path.Asset(), sensor: path.Sensor(), class: r.class, unit: r.UnitIs}, nil
	}
	rest, ok := strings.CutPrefix(topic, s.cfg.Prefix+"/")
	if s.cfg.Prefix == "" || !ok {
		return place{}, ErrNoRule
	}
	path, err := signal.ParsePath(rest)
	if err != nil {
		return place{}, err
	}
	return place{asset: path.Asset(), sensor: path.Sensor(), class: signal.Telemetry}, nil
}

func (p *place) read(payload []byte, arrived signal.Micros) (Message, error) {
	m := Message{Asset: p.asset, Class: p.class, Reading: signal.Reading{Sensor: p.sensor, Unit: p.unit, Quality: signal.QualityGood}}
	format := anyTime
	if p.rule != nil {
		format = p.rule.time
	}
	var err error
	switch {
	case p.rule != nil && p.rule.Value != "":
		err = p.rule.pick(&m.Reading, payload)
	case quick(&m.Reading, payload, format, p.said):
		p.said = m.Reading.Unit
	default:
		err = document(&m.Reading, payload, format)
	}
	return m, finish(&m, arrived, err)
}

// Place is where the rules put what comes under a topic.
type Place struct {
	Path  signal.Path
	Class signal.Class
	Unit  string // of what says none
}

// Place maps a topic by the rules alone, without prefix and payload; [ErrNoRule]
// says that none fits.
func (s *Set) Place(topic string) (p Place, err error) {
	for i := range s.rules {
		r := &s.rules[i]
		if names, ok := r.match(topic); ok {
			p.Path, err = r.build(names)
			p.Class, p.Unit = r.class, r.UnitIs
			return p, err
		}
	}
	return p, ErrNoRule
}

func finish(m *Message, arrived signal.Micros, err error) error {
	r := &m.Reading
	if r.EventTime == 0 {
		r.EventTime, m.Arrived = arrived, true
	}
	r.AliveAt = r.EventTime
	return err
}

// match tells whether a topic fits, and what the names stand for.
func (r *rule) match(topic string) (names map[string]string, ok bool) {
	names = map[string]string{}
	rest, more := topic, true
	for _, seg := range r.topic {
		if !more {
			return nil, false
		}
		if seg.rest {
			names[seg.name] = rest
			return names, rest != ""
		}
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if seg.name == "" && part != seg.text || part == "" {
			return nil, false
		}
		if seg.name != "" {
			names[seg.name] = part
		}
	}
	return names, !more
}

// build writes the path of what the names stand for.
func (r *rule) build(names map[string]string) (signal.Path, error) {
	var b strings.Builder
	for i, parts := range r.path {
		if i > 0 {
			b.WriteByte('/')
		}
		for _, p := range parts {
			if p.name == "" {
				b.WriteString(p.text)
				continue
			}
			writeName(&b, strings.ReplaceAll(names[p.name], "/", "."))
		}
	}
	return signal.ParsePath(b.String())
}

// writeName writes what a name may not hold as %XX.
func writeName(b *strings.Builder, s string) {
	for _, c := range s {
		if !strings.ContainsRune("/+#:%", c) && !unicode.IsControl(c) && c != utf8.RuneError {
			b.WriteRune(c)
			continue
		}
		for _, x := range []byte(string(c)) {
			fmt.Fprintf(b, "%%%02X", x)
		}
	}
}

// document reads the documented form: a number, or an object with ts, value, unit
// and quality.
func document(r *signal.Reading, payload []byte, format timeFormat) error {
	payload = bytes.TrimSpace(payload)
	if v, ok := number(payload); ok {
		r.Value = signal.NumberValue(v)
		return nil
	}
	if len(payload) == 0 || payload[0] != '{' {
		return fmt.Errorf("the payload %.40q is neither a number nor a JSON object", payload)
	}
	var fields map[string]json.RawMessage
	if err := decode(payload, &fields); err != nil {
		return err
	}
	rescued := map[string]json.RawMessage{}
	_, hasValue := fields["value"]
	for name, raw := range fields {
		var ok bool
		switch name {
		case "value":
			ok = setValue(r, raw)
		case "ts":
			ok = setTime(r, raw, format)
		case "unit":
			ok = setUnit(r, raw)
		case "quality":
			ok = setQuality(r, raw)
		default:
			ok = false
		}
		if !ok {
			rescued[name] = raw
		}
	}
	return rescue(r, rescued, fields["value"], hasValue)
}

// pick reads what a rule points at.
func (r *rule) pick(v *signal.Reading, payload []byte) error {
	var doc any
	if err := decode(payload, &doc); err != nil {
		return err
	}
	rescued := map[string]json.RawMessage{}
	take := func(name, pointer string, set func(json.RawMessage) bool) (found bool) {
		if pointer == "" {
			return false
		}
		at, found := lookup(doc, pointer)
		if !found {
			return false
		}
		raw, err := json.Marshal(at)
		if err != nil || !set(raw) {
			rescued[name] = raw
		}
		return true
	}
	var value json.RawMessage
	hasValue := take("value", r.Value, func(raw json.RawMessage) bool { value = raw; return setValue(v, raw) })
	take("ts", r.Time, func(raw json.RawMessage) bool { return setTime(v, raw, r.time) })
	take("unit", r.Unit, func(raw json.RawMessage) bool { return setUnit(v, raw) })
	take("quality", r.Quality, func(raw json.RawMessage) bool { return setQuality(v, raw) })
	if !hasValue {
		return fmt.Errorf("the payload has nothing at %s", r.Value)
	}
	return rescue(v, rescued, value, hasValue)
}

// rescue keeps what no field takes, and refuses a payload without a value. A value
// whose time cannot be read is no reading: the tables set it aside.
func rescue(r *signal.Reading, rescued map[string]json.RawMessage, value json.RawMessage, hasValue bool) error {
	if !hasValue {
		return errors.New("the payload has no value")
	}
	if len(rescued) == 0 {
		return nil
	}
	if _, bad := rescued["ts"]; bad {
		rescued["value"], r.Value = value, signal.Value{}
	}
	if _, bad := rescued["quality"]; bad {
		r.Quality = signal.QualityBad
	}
	b, err := json.Marshal(rescued)
	if err != nil {
		return fmt.Errorf("keeping what is not known of a payload: %w", err)
	}
	r.Rescued = string(b)
	return nil
}

func decode(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the payload is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the payload is more than one JSON value")
	}
	return nil
}

// lookup follows a JSON pointer.
func lookup(doc any, pointer string) (any, bool) {
	for part := range strings.SplitSeq(pointer[1:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		switch at := doc.(type) {
		case map[string]any:
			next, ok := at[part]
			if !ok {
				return nil, false
			}
			doc = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false
			}
			doc = at[i]
		default:
			return nil, false
		}
	}
	return doc, true
}

// number reads a number that stands alone: JSON's, and what senders write of those
// that it lacks.
func number(b []byte) (float64, bool) {
	if len(b) == 0 || len(b) > 64 {
		return 0, false
	}
	switch string(b) {
	case "NaN", "nan", "null":
		return math.NaN(), string(b) != "null"
	}
	if c := b[0]; c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') || bytes.ContainsAny(b, "xX_pP") {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil || errors.Is(err, strconv.ErrRange)
}

func setValue(r *signal.Reading, raw json.RawMessage) bool {
	switch raw[0] {
	case 't', 'f':
		r.Value = signal.BoolValue(raw[0] == 't')
	case 'n':
		r.Value = signal.Value{}
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return false
		}
		r.Value = signal.TextValue(s)
	case '[', '{':
		return false
	default:
		v, ok := number(raw)
		if !ok {
			return false
		}
		r.Value = signal.NumberValue(v)
	}
	return true
}

func setUnit(r *signal.Reading, raw json.RawMessage) bool {
	var s string
	if json.Unmarshal(raw, &s) != nil || len(s) > 64 {
		return false
	}
	r.Unit = s
	return true
}

func setQuality(r *signal.Reading, raw json.RawMessage) bool {
	q, err := strconv.ParseUint(string(raw), 10, 16)
	if err != nil {
		return false
	}
	r.Quality = signal.Quality(q)
	return true
}

// timeFormat is how a time is written.
type timeFormat int

const (
	anyTime timeFormat = iota // RFC 3339, or Unix milliseconds
	rfc3339
	unixSeconds
	unixMilli
	unixMicro
	unixNano
)

// micros is how many microseconds a count has.
func (f timeFormat) micros() float64 {
	switch f {
	case unixSeconds:
		return 1e6
	case unixMicro:
		return 1
	case unixNano:
		return 1e-3
	default:
		return 1e3
	}
}

func parseTimeFormat(s string) (timeFormat, error) {
	switch s {
	case "":
		return anyTime, nil
	case "rfc3339":
		return rfc3339, nil
	case "unix":
		return unixSeconds, nil
	case "unix_ms":
		return unixMilli, nil
	case "unix_us":
		return unixMicro, nil
	case "unix_ns":
		return unixNano, nil
	}
	return 0, fmt.Errorf("time_format %q is not known; take rfc3339, unix, unix_ms, unix_us or unix_ns", s)
}

func setTime(r *signal.Reading, raw json.RawMessage, format timeFormat) bool {
	if raw[0] == '"' {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return false
		}
		if format == anyTime || format == rfc3339 {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return false
			}
			return put(r, t)
		}
		raw = json.RawMessage(s) // a number in quotes
	}
	if format == rfc3339 {
		return false
	}
	v, ok := number(raw)
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		return false
	}
	unit := format.micros()
	if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil && unit >= 1 && math.Abs(v)*unit < 1<<62 {
		return put(r, time.UnixMicro(i*int64(unit)))
	}
	us := v * unit
	return math.Abs(us) < 1<<62 && put(r, time.UnixMicro(int64(math.Round(us))))
}

// put takes a time that tables can hold.
func put(r *signal.Reading, t time.Time) bool {
	at := signal.MicrosOf(t)
	if t.Year() < 1 || t.Year() > 9999 || at == 0 {
		return false
	}
	r.EventTime = at
	return true
}
