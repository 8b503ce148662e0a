// Package config is the configuration of one edge: one YAML file of what the
// packages of the edge own, checked as a whole, with a content hash.
//
// It runs nothing; package edge does.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/source/mqttin"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/internal/credentials"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
)

// File is what the YAML says.
type File struct {
	Edge      Names            `yaml:"edge" json:"edge"`
	MQTT      Broker           `yaml:"mqtt" json:"mqtt"`
	Source    Source           `yaml:"source" json:"source"`
	Clock     OwnClock         `yaml:"clock" json:"clock,omitzero"`
	Filters   filter.Config    `yaml:"filters" json:"filters"`
	Vibration vibration.Config `yaml:"vibration" json:"vibration"`
	Ring      Ring             `yaml:"ring" json:"ring"`
	Outbox    Outbox           `yaml:"outbox" json:"outbox"`
	Alarms    rules.Config     `yaml:"alarms" json:"alarms,omitzero"`
	Replay    Replay           `yaml:"replay" json:"replay"`
}

// Names are the edge's in Sparkplug: the site, and the edge node in it.
type Names struct {
	Group string `yaml:"group" json:"group"`
	Node  string `yaml:"node" json:"node"`
}

// Broker is a broker and how to get in.
type Broker struct {
	Addresses    []string `yaml:"addresses" json:"addresses"` // tcp://host:port or ssl://host:port, tried in order
	CA           string   `yaml:"ca" json:"ca,omitempty"`
	Cert         string   `yaml:"cert" json:"cert,omitempty"`
	Key          string   `yaml:"key" json:"key,omitempty"`
	User         string   `yaml:"user" json:"user,omitempty"`
	PasswordFile string   `yaml:"password_file" json:"password_file,omitempty"`
}

// Source is where readings come from: a plant's MQTT broker, or instead Sparkplug
// nodes at one, or files.
type Source struct {
	Sparkplug *Sparkplug `yaml:"sparkplug" json:"sparkplug,omitempty"`
	Files     *Files     `yaml:"files" json:"files,omitempty"`

	MQTT Broker `yaml:"mqtt" json:"mqtt"`
	// ClientID names the session that the plant's broker keeps for the edge; "" is
	// made of the edge's names.
	ClientID string `yaml:"client_id" json:"client_id,omitempty"`
	// SilentAfterSeconds is how long the plant's broker may bring nothing before the
	// connection is given up; 0 leaves that to MQTT's keep-alive.
	SilentAfterSeconds float64      `yaml:"silent_after_seconds" json:"silent_after_seconds,omitempty"`
	Map                plain.Config `yaml:"map" json:"map"`
}

// Ring bounds what is kept of all that is measured; 0 is the default.
type Ring struct {
	MegaBytes int64   `yaml:"mega_bytes" json:"mega_bytes,omitempty"`
	Hours     float64 `yaml:"hours" json:"hours,omitempty"`
}

// Outbox bounds what waits for Kafka; 0 is the default.
type Outbox struct {
	MegaBytes int64 `yaml:"mega_bytes" json:"mega_bytes,omitempty"`
	// WhenFull is [edge.Wait], [edge.Evict], or "" for what the source can bear.
	WhenFull string `yaml:"when_full" json:"when_full,omitempty"`
}

// Replay bounds what is sent from the ring because it was asked for; 0 is the default.
type Replay struct {
	Share          float64 `yaml:"share" json:"share,omitempty"`                       // of the link's time
	BytesPerSecond int64   `yaml:"bytes_per_second" json:"bytes_per_second,omitempty"` // at most; 0 is no bound
}

// Config is a checked file.
type Config struct {
	File
	Filter *filter.Set
	Waves  *vibration.Set
	Map    *plain.Set
	Local  *rules.Set
	hash   string
}

// The variables from which passwords are taken if no file is named.
const (
	VariableMQTT   = "HEADRACE_MQTT_PASSWORD"
	VariableSource = "HEADRACE_SOURCE_PASSWORD"
)

// Read reads and checks a file.
func Read(name string) (*Config, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the edge's configuration: %w", err)
	}
	return Parse(name, b)
}

// Parse checks a configuration; name stands in errors.
func Parse(name string, b []byte) (*Config, error) {
	c := &Config{}
	if err := strictyaml.Decode(name, b, &c.File); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c *Config) check() (err error) {
	f := &c.File
	for _, n := range []struct{ key, value string }{{"edge.group", f.Edge.Group}, {"edge.node", f.Edge.Node}} {
		if err := signal.CheckName(n.value); err != nil {
			return fmt.Errorf("%s: %w", n.key, err)
		}
	}
	if len(f.MQTT.Addresses) == 0 {
		return errors.New("mqtt.addresses is empty; name a broker like tcp://127.0.0.1:1883")
	}
	if err := f.Clock.check(); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	if err := f.Source.checkOthers(f.Edge); err != nil {
		return err
	}
	if f.Source.plain() && len(f.Source.MQTT.Addresses) == 0 {
		return errors.New("source.mqtt.addresses is empty; name the plant's broker, like tcp://127.0.0.1:1883")
	}
	if f.Source.plain() && f.Source.ClientID == "" {
		f.Source.ClientID = "headrace-source-" + f.Edge.Group + "-" + f.Edge.Node
	}
	for _, n := range []struct {
		key   string
		value float64
	}{{"source.silent_after_seconds", f.Source.SilentAfterSeconds}, {"ring.hours", f.Ring.Hours}, {"ring.mega_bytes", float64(f.Ring.MegaBytes)}, {"outbox.mega_bytes", float64(f.Outbox.MegaBytes)}} {
		if !(n.value >= 0 && n.value <= 1e8) {
			return fmt.Errorf("%s is %v; want 0 to 100 million", n.key, n.value)
		}
	}
	if !(f.Replay.Share >= 0 && f.Replay.Share <= 1) {
		return fmt.Errorf("replay.share is %v; want 0 to 1", f.Replay.Share)
	}
	if f.Replay.BytesPerSecond < 0 {
		return fmt.Errorf("replay.bytes_per_second is %d; want 0 or more", f.Replay.BytesPerSecond)
	}
	if f.Replay.Share == 0 {
		f.Replay.Share = edge.DefaultReplayShare
	}
	if f.Ring.MegaBytes == 0 {
		f.Ring.MegaBytes = ring.DefaultMaxBytes >> 20
	}
	if f.Outbox.MegaBytes == 0 {
		f.Outbox.MegaBytes = outbox.DefaultQuotaBytes >> 20
	}
	if c.Map, err = plain.New(f.Source.Map); err != nil {
		return fmt.Errorf("source.map: %w", err)
	}
	if f.Source.plain() && len(c.Map.Filters()) == 0 {
		return errors.New("source.map reads nothing; give a prefix or rules")
	}
	if c.Filter, err = filter.New(f.Filters); err != nil {
		return fmt.Errorf("filters: %w", err)
	}
	if c.Waves, err = vibration.New(f.Vibration); err != nil {
		return fmt.Errorf("vibration: %w", err)
	}
	if c.Local, err = rules.New(f.Alarms); err != nil {
		return fmt.Errorf("alarms: %w", err)
	}
	if w := f.Outbox.WhenFull; w != "" && w != edge.Wait && w != edge.Evict {
		return fmt.Errorf("outbox.when_full is %q; want %s or %s", w, edge.Wait, edge.Evict)
	}
	// The fields in their order, and for the sets their hashes, are the canonical
	// form: neither the order of keys nor a default written out changes it.
	rest := c.File
	rest.Filters, rest.Vibration, rest.Source.Map = filter.Config{}, vibration.Config{}, plain.Config{}
	canonical, err := json.Marshal(struct {
		File
		Filter, Waves, Map string
	}{rest, c.Filter.Hash(), c.Waves.Hash(), c.Map.Hash()})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(canonical)
	c.hash = hex.EncodeToString(sum[:8])
	return nil
}

// Hash names the content: equal for equal configurations, 16 hex digits.
func (c *Config) Hash() string { return c.hash }

func (b *Broker) client(variable string, getenv func(string) string) (cfg mqttc.Config, err error) {
	cfg.Addresses = b.Addresses
	files := credentials.Files{CA: b.CA, Cert: b.Cert, Key: b.Key}
	if files.Set() {
		if cfg.TLS, err = files.Client(); err != nil {
			return cfg, err
		}
	}
	login, err := credentials.ReadLogin(b.User, b.PasswordFile, variable, getenv)
	cfg.Username, cfg.Password = login.User, login.Password.Reveal()
	return cfg, err
}

// floorBytes is the free space below which intake stops.
const floorBytes = 32 << 20

// opener opens the source; its credentials are read now.
func (c *Config) opener(clock signal.Clock, getenv func(string) string) (source.Opener, error) {
	switch s := &c.Source; {
	case s.Sparkplug != nil:
		open, err := s.Sparkplug.opener(c.Edge, clock, getenv)
		if err != nil {
			return nil, fmt.Errorf("source.sparkplug.mqtt: %w", err)
		}
		return open, nil
	case s.Files != nil:
		return s.Files.opener(c.Edge, clock), nil
	}
	down, err := c.Source.MQTT.client(VariableSource, getenv)
	if err != nil {
		return nil, fmt.Errorf("source.mqtt: %w", err)
	}
	return mqttin.Opener(mqttin.Options{
		MQTT: down, ClientID: c.Source.ClientID, Site: c.Edge.Group, Map: c.Map, Clock: clock, SilentAfter: seconds(c.Source.SilentAfterSeconds),
	}), nil
}

// broker is the plant's own, nil if the source has none.
func (s *Source) broker(getenv func(string) string) (*mqttc.Config, error) {
	b := &s.MQTT
	switch {
	case s.Sparkplug != nil:
		b = &s.Sparkplug.MQTT
	case s.Files != nil:
		return nil, nil
	}
	cfg, err := b.client(VariableSource, getenv)
	if err != nil {
		return nil, fmt.Errorf("source's broker: %w", err)
	}
	return &cfg, nil
}

// Options are those of the edge's agent in a directory of its own. Credentials are
// read now.
func (c *Config) Options(dir string, clock signal.Clock, getenv func(string) string, log *slog.Logger) (o edge.Options, err error) {
	up, err := c.MQTT.client(VariableMQTT, getenv)
	if err != nil {
		return o, fmt.Errorf("mqtt: %w", err)
	}
	open, err := c.opener(clock, getenv)
	if err != nil {
		return o, err
	}
	if open, err = c.Clock.over(open, c.Edge, dir); err != nil {
		return o, fmt.Errorf("clock: %w", err)
	}
	alarms, err := c.Source.broker(getenv)
	if err != nil {
		return o, err
	}
	return edge.Options{
		Dir: dir, Group: c.Edge.Group, Node: c.Edge.Node, Open: open, Filter: c.Filter, Vibration: c.Waves, Clock: clock, MQTT: up, Log: log,
		RingBytes: c.Ring.MegaBytes << 20, RingAge: time.Duration(c.Ring.Hours * float64(time.Hour)), QuotaBytes: c.Outbox.MegaBytes << 20,
		FloorBytes: floorBytes, WhenFull: c.Outbox.WhenFull, Rules: c.Local, AlarmMQTT: alarms,
		ConfigHash: c.Hash(), ReplayShare: c.Replay.Share, ReplayBytes: c.Replay.BytesPerSecond,
	}, nil
}
