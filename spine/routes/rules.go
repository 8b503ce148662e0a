// Package routes gives streams Kafka topics of their own: by rules for a site, a
// line, an asset or a class, and for good. Which topic a stream has stands in the
// compacted topic headrace.routes, where the first who writes wins; a rule applies
// only to streams that are not there yet, so that no change of rules ever splits a
// stream.
//
// It moves no readings; the bridge does.
package routes

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Config are rules; the first that fits a stream counts. A stream that none fits
// has the topic of its class.
type Config struct {
	Routes []Rule `yaml:"routes" json:"routes"`
}

// Rule is for the streams that it fits. Names are globs, "" fits all.
type Rule struct {
	Site  string `yaml:"site" json:"site,omitempty"`
	Line  string `yaml:"line" json:"line,omitempty"`
	Asset string `yaml:"asset" json:"asset,omitempty"` // the asset's last name
	// Class is telemetry, event or raw. "" is telemetry and event: raw goes to
	// another table, and a topic feeds one.
	Class string `yaml:"class" json:"class,omitempty"`
	// Topic may hold {site}, {line}, {asset} and {class}; what Kafka does not take
	// of a name becomes "_".
	Topic string `yaml:"topic" json:"topic"`
	// Headers go with each record beside those that every record has.
	Headers map[string]string `yaml:"headers" json:"headers,omitempty"`
}

// Set is a checked configuration.
type Set struct{ rules []Rule }

var (
	legalTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	illegal    = regexp.MustCompile(`[^a-zA-Z0-9._-]`)
	holes      = regexp.MustCompile(`\{[^}]*\}`)
)

// own are the headers that a rule may not set.
func own() []string {
	return []string{record.HeaderEdge, record.HeaderBoot, record.HeaderStream, record.HeaderN, record.HeaderConfig, record.HeaderKind, record.HeaderReason, record.HeaderTopic}
}

func builtin() []string {
	return []string{record.TopicReadings, record.TopicEvents, record.TopicRaw, record.TopicDeadletter, record.TopicBridges, record.TopicRoutes}
}

// New checks a configuration.
func New(c Config) (*Set, error) {
	tables := map[string]bool{} // topic as written: is it of raw
	for i, r := range c.Routes {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("route %d: "+format, append([]any{i + 1}, args...)...)
		}
		for _, glob := range []string{r.Site, r.Line, r.Asset} {
			if _, err := path.Match(glob, "x"); err != nil {
				return nil, fail("%q is no glob", glob)
			}
		}
		switch signal.Class(r.Class) {
		case "", signal.Telemetry, signal.Event, signal.Raw:
		default:
			return nil, fail("class %q is not known; write telemetry, event or raw", r.Class)
		}
		for _, hole := range holes.FindAllString(r.Topic, -1) {
			if !slices.Contains([]string{"{site}", "{line}", "{asset}", "{class}"}, hole) {
				return nil, fail("%s in topic %q is not known; there are {site}, {line}, {asset} and {class}", hole, r.Topic)
			}
		}
		bare := holes.ReplaceAllString(r.Topic, "x")
		if !legalTopic.MatchString(bare) || bare == "." || bare == ".." {
			return nil, fail("topic %q is none that Kafka takes: letters, digits, dot, underscore and hyphen, at most 249", r.Topic)
		}
		if slices.Contains(builtin(), r.Topic) {
			return nil, fail("topic %s is Headrace's own; what no rule fits goes there", r.Topic)
		}
		raw := signal.Class(r.Class) == signal.Raw
		if was, known := tables[r.Topic]; known && was != raw && !strings.Contains(r.Topic, "{class}") {
			return nil, fail("topic %s would hold waveforms and readings, which go to different tables; give them a topic each", r.Topic)
		}
		tables[r.Topic] = raw
		for h := range r.Headers {
			if h == "" || slices.Contains(own(), h) {
				return nil, fail("header %q is Headrace's own", h)
			}
		}
	}
	return &Set{rules: slices.Clone(c.Routes)}, nil
}

// Topic is where a new stream goes.
func (s *Set) Topic(stream signal.Stream) string {
	_, class := stream.Split()
	r := s.rule(stream)
	if r == nil {
		return record.Topic(class)
	}
	asset, _ := stream.Split()
	site, line, name := asset.Split()
	topic := strings.NewReplacer("{site}", legal(site), "{line}", legal(line), "{asset}", legal(name), "{class}", string(class)).Replace(r.Topic)
	if !legalTopic.MatchString(topic) || slices.Contains(builtin(), topic) {
		return record.Topic(class) // too long, once the names are in
	}
	return topic
}

// Headers are those that a stream's records have by its rule, in order.
func (s *Set) Headers(stream signal.Stream) []record.Header {
	r := s.rule(stream)
	if r == nil {
		return nil
	}
	var out []record.Header
	for _, k := range slices.Sorted(maps.Keys(r.Headers)) {
		out = append(out, record.Header{Key: k, Value: []byte(r.Headers[k])})
	}
	return out
}

func (s *Set) rule(stream signal.Stream) *Rule {
	asset, class := stream.Split()
	site, line, name := asset.Split()
	fits := func(glob, s string) bool {
		ok, err := path.Match(glob, s)
		return glob == "" || ok && err == nil
	}
	for i := range s.rules {
		r := &s.rules[i]
		ofClass := r.Class == string(class) || r.Class == "" && class != signal.Raw
		if ofClass && fits(r.Site, site) && fits(r.Line, line) && fits(r.Asset, name) {
			return r
		}
	}
	return nil
}

func legal(name string) string { return illegal.ReplaceAllString(name, "_") }
