package plain

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headrace/headrace/signal"
)

// Config says which topics are read, and how.
type Config struct {
	// Prefix stands before site/line/asset/sensor; it may have several segments.
	Prefix string `yaml:"prefix" json:"prefix,omitempty"`
	// Rules are for foreign namespaces; the first whose topic fits counts, and
	// all come before the prefix.
	Rules []Rule `yaml:"rules" json:"rules,omitempty"`
}

// Rule maps the topics of a foreign namespace.
type Rule struct {
	// Topic has segments as they are, "+" for any one, "{name}" for one that Path
	// may use, and at the end "#" or "{name...}" for the rest.
	Topic string `yaml:"topic" json:"topic"`
	// Path is site/line/asset/sensor with the names of Topic: "lyon/{hall}/{pump}/{tag}".
	// What a name may not hold is written as %XX; of a rest the slashes become dots.
	Path string `yaml:"path" json:"path"`
	// Value, Time, Unit and Quality are JSON pointers (RFC 6901) into the payload.
	// Without Value the payload is a number or has the documented form.
	Value   string `yaml:"value" json:"value,omitempty"`
	Time    string `yaml:"time" json:"time,omitempty"`
	Unit    string `yaml:"unit" json:"unit,omitempty"`
	Quality string `yaml:"quality" json:"quality,omitempty"`
	// TimeFormat is rfc3339, unix, unix_ms, unix_us or unix_ns; "" takes RFC 3339
	// texts and Unix milliseconds.
	TimeFormat string `yaml:"time_format" json:"time_format,omitempty"`
	// UnitIs is the unit of what says none, UCUM.
	UnitIs string `yaml:"unit_is" json:"unit_is,omitempty"`
	// Class is telemetry (or "") or event.
	Class string `yaml:"class" json:"class,omitempty"`
}

// Set is a checked configuration.
type Set struct {
	cfg   Config
	rules []rule
	hash  string
}

type rule struct {
	Rule
	topic []segment
	path  [4][]segment
	class signal.Class
	time  timeFormat
}

// segment is a piece of a topic or of a path's name.
type segment struct {
	text string // as it is
	name string // or what it is called; "+" and "#" are unnamed
	rest bool
}

// New checks a configuration.
func New(c Config) (*Set, error) {
	s := &Set{cfg: c}
	if c.Prefix != "" {
		if err := checkTopic(c.Prefix); err != nil || strings.ContainsAny(c.Prefix, "{}+#") {
			return nil, fmt.Errorf("plain MQTT: prefix %q is no topic's beginning; write it like plant or acme/plant", c.Prefix)
		}
		if reserved(c.Prefix + "/") {
			return nil, fmt.Errorf("plain MQTT: prefix %q is Headrace's or Sparkplug's own; take another", c.Prefix)
		}
	}
	for i := range c.Rules {
		r, err := c.Rules[i].compile()
		if err != nil {
			return nil, fmt.Errorf("plain MQTT: rule %d: %w", i+1, err)
		}
		s.rules = append(s.rules, r)
	}
	// The fields in this order are the canonical form.
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("plain MQTT: %w", err)
	}
	sum := sha256.Sum256(b)
	s.hash = hex.EncodeToString(sum[:8])
	return s, nil
}

// Hash names the content: equal for equal configurations, 16 hex digits.
func (s *Set) Hash() string { return s.hash }

// reserved tells whether topics belong to Sparkplug or to Headrace's own talk.
func reserved(topic string) bool {
	return strings.HasPrefix(topic, "spBv1.0/") || strings.HasPrefix(topic, "headrace/") || strings.HasPrefix(topic, "$")
}

func checkTopic(t string) error {
	if t == "" || len(t) > 65535 || strings.HasPrefix(t, "/") || strings.HasSuffix(t, "/") || strings.Contains(t, "//") || strings.ContainsRune(t, 0) {
		return errors.New("it is no topic")
	}
	return nil
}

func (r Rule) compile() (out rule, err error) {
	out = rule{Rule: r, class: signal.Telemetry}
	if err := checkTopic(r.Topic); err != nil {
		return out, fmt.Errorf("topic %q: %w", r.Topic, err)
	}
	if reserved(r.Topic) {
		return out, fmt.Errorf("topic %q is Headrace's or Sparkplug's own", r.Topic)
	}
	var names []string
	parts := strings.Split(r.Topic, "/")
	for i, p := range parts {
		seg := segment{text: p}
		last := i == len(parts)-1
		name, braced := strings.CutPrefix(p, "{")
		switch {
		case p == "+":
			seg = segment{name: "+"}
		case p == "#" && last:
			seg = segment{name: "#", rest: true}
		case braced && strings.HasSuffix(name, "...}") && last:
			seg = segment{name: strings.TrimSuffix(name, "...}"), rest: true}
		case braced && strings.HasSuffix(name, "}"):
			seg = segment{name: strings.TrimSuffix(name, "}")}
		case strings.ContainsAny(p, "+#{}"):
			return out, fmt.Errorf("topic %q: segment %q is neither a text nor +, {name}, # or {name...} at the end", r.Topic, p)
		}
		if seg.text == "" && seg.name != "+" && seg.name != "#" {
			if seg.name == "" || slices.Contains(names, seg.name) {
				return out, fmt.Errorf("topic %q: the name in %q is empty or stands twice", r.Topic, p)
			}
			names = append(names, seg.name)
		}
		out.topic = append(out.topic, seg)
	}
	if err := out.compilePath(names); err != nil {
		return out, fmt.Errorf("path %q: %w", r.Path, err)
	}
	switch r.Class {
	case "", string(signal.Telemetry):
	case string(signal.Event):
		out.class = signal.Event
	default:
		return out, fmt.Errorf("class %q is neither telemetry nor event", r.Class)
	}
	if out.time, err = parseTimeFormat(r.TimeFormat); err != nil {
		return out, err
	}
	for name, p := range map[string]string{"value": r.Value, "time": r.Time, "unit": r.Unit, "quality": r.Quality} {
		if p != "" && !strings.HasPrefix(p, "/") {
			return out, fmt.Errorf("%s %q is no JSON pointer; write it like /data/value", name, p)
		}
	}
	if r.Value == "" && (r.Time != "" || r.Unit != "" || r.Quality != "") {
		return out, errors.New("time, unit and quality need a value; without one the payload has the documented form")
	}
	return out, nil
}

// compilePath splits the path's four names into texts and names of the topic.
func (r *rule) compilePath(names []string) error {
	parts := strings.Split(r.Path, "/")
	if len(parts) != len(r.path) {
		return fmt.Errorf("it has %d names, want site/line/asset/sensor", len(parts))
	}
	for i, part := range parts {
		for part != "" {
			text, rest, braced := strings.Cut(part, "{")
			if text != "" {
				if err := signal.CheckName(text); err != nil {
					return err
				}
				r.path[i] = append(r.path[i], segment{text: text})
			}
			if !braced {
				break
			}
			name, after, closed := strings.Cut(rest, "}")
			if !closed || !slices.Contains(names, name) {
				return fmt.Errorf("{%s} is not a name of the topic; there are %s", name, strings.Join(names, ", "))
			}
			r.path[i] = append(r.path[i], segment{name: name})
			part = after
		}
		if len(r.path[i]) == 0 {
			return errors.New("a name is empty")
		}
	}
	return nil
}

// Filters are what must be subscribed to, ascending.
func (s *Set) Filters() []string {
	var out []string
	if s.cfg.Prefix != "" {
		out = append(out, s.cfg.Prefix+"/+/+/+/+")
	}
	for i := range s.rules {
		var parts []string
		for _, seg := range s.rules[i].topic {
			switch {
			case seg.rest:
				parts = append(parts, "#")
			case seg.name != "":
				parts = append(parts, "+")
			default:
				parts = append(parts, seg.text)
			}
		}
		out = append(out, strings.Join(parts, "/"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
