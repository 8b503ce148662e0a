package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/source/files"
	"github.com/headrace/headrace/edge/source/ownclock"
	"github.com/headrace/headrace/edge/source/sparkplugin"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
)

// Sparkplug is a source: Sparkplug B nodes at a plant's broker.
type Sparkplug struct {
	MQTT Broker `yaml:"mqtt" json:"mqtt"`
	// ClientID names the edge at the broker; "" is made of the edge's names.
	ClientID string `yaml:"client_id" json:"client_id,omitempty"`
	// Groups are those that are listened to; none is the edge's own group.
	Groups []string `yaml:"groups" json:"groups,omitempty"`
	// HostID, if given, is published as a host's STATE: nodes may have it for their
	// primary host.
	HostID string `yaml:"host_id" json:"host_id,omitempty"`
	// Rules map group/node/device/metric to a path.
	Rules []plain.Rule `yaml:"rules" json:"rules,omitempty"`
	// ReorderSeconds is how long a message waits for those before it, and
	// RebirthSeconds the least time between two requests for a node's births; 0 is
	// the default.
	ReorderSeconds     float64 `yaml:"reorder_seconds" json:"reorder_seconds,omitempty"`
	RebirthSeconds     float64 `yaml:"rebirth_seconds" json:"rebirth_seconds,omitempty"`
	SilentAfterSeconds float64 `yaml:"silent_after_seconds" json:"silent_after_seconds,omitempty"`

	rules *sparkplugin.Rules
}

// plain tells whether the source is a plant's MQTT broker with plain topics.
func (s *Source) plain() bool { return s.Sparkplug == nil && s.Files == nil }

// checkOthers checks the kinds that stand instead of plain MQTT.
func (s *Source) checkOthers(edge Names) error {
	if s.plain() {
		return nil
	}
	if s.Sparkplug != nil && s.Files != nil || len(s.MQTT.Addresses) > 0 {
		return errors.New("source has more than one of mqtt, sparkplug and files; give each an edge of its own")
	}
	if s.ClientID != "" || s.SilentAfterSeconds != 0 || s.Map.Prefix != "" || len(s.Map.Rules) > 0 {
		return errors.New("source.client_id, silent_after_seconds and map belong to source.mqtt; put them where the source is")
	}
	if s.Sparkplug != nil {
		if err := s.Sparkplug.check(edge); err != nil {
			return fmt.Errorf("source.sparkplug: %w", err)
		}
		return nil
	}
	if err := s.Files.check(); err != nil {
		return fmt.Errorf("source.files: %w", err)
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (s *Sparkplug) check(edge Names) (err error) {
	if len(s.MQTT.Addresses) == 0 {
		return errors.New("mqtt.addresses is empty; name the plant's broker, like tcp://127.0.0.1:1883")
	}
	if s.ClientID == "" {
		s.ClientID = "headrace-sparkplug-" + edge.Group + "-" + edge.Node
	}
	if len(s.Groups) == 0 {
		s.Groups = []string{edge.Group}
	}
	for _, n := range []struct {
		key   string
		value *float64
		byDef time.Duration
	}{
		{"reorder_seconds", &s.ReorderSeconds, sparkplugin.DefaultReorderFor},
		{"rebirth_seconds", &s.RebirthSeconds, sparkplugin.DefaultRebirthEvery},
		{"silent_after_seconds", &s.SilentAfterSeconds, 0},
	} {
		if !(*n.value >= 0 && *n.value <= 1e6) {
			return fmt.Errorf("%s is %v; want 0 to a million", n.key, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.byDef.Seconds()
		}
	}
	s.rules, err = sparkplugin.NewRules(s.Rules)
	return err
}

func (s *Sparkplug) opener(edge Names, clock signal.Clock, getenv func(string) string) (source.Opener, error) {
	broker, err := s.MQTT.client(VariableSource, getenv)
	if err != nil {
		return nil, err
	}
	return sparkplugin.Opener(sparkplugin.Options{
		MQTT: broker, ClientID: s.ClientID, Site: edge.Group, Groups: s.Groups, Rules: s.rules, Clock: clock, HostID: s.HostID,
		ReorderFor: seconds(s.ReorderSeconds), RebirthEvery: seconds(s.RebirthSeconds), SilentAfter: seconds(s.SilentAfterSeconds),
	}), nil
}

// Files is a source: files that other programs write into a folder.
type Files struct {
	files.Config `yaml:",inline"`

	set *files.Set
}

func (f *Files) check() (err error) {
	if f.set, err = files.New(f.Config); err == nil {
		f.Config = f.set.Config // its defaults are part of the content
	}
	return err
}

func (f *Files) opener(edge Names, clock signal.Clock) source.Opener {
	return files.Opener(files.Options{Set: f.set, Site: edge.Group, Clock: clock})
}

// OwnClock says when the machine's clock is right. Until then readings to which
// their source gives no time wait for it.
type OwnClock struct {
	// NotBefore is the least plausible date, like 2026-01-31; "" is the day on which
	// this program was built.
	NotBefore string `yaml:"not_before" json:"not_before,omitempty"`
	// NeedSync waits until the system says that its clock is kept right (by NTP, PTP
	// or the like).
	NeedSync bool `yaml:"need_sync" json:"need_sync,omitempty"`
	// MegaBytes bounds what waits; 0 is 64.
	MegaBytes int64 `yaml:"mega_bytes" json:"mega_bytes,omitempty"`
}

func (c *OwnClock) notBefore() (time.Time, error) {
	if c.NotBefore == "" {
		return ownclock.Built(), nil
	}
	t, err := time.Parse(time.DateOnly, c.NotBefore)
	if err != nil {
		return t, fmt.Errorf("not_before %q is no date like 2026-01-31", c.NotBefore)
	}
	return t, nil
}

func (c *OwnClock) check() error {
	if c.MegaBytes < 0 || c.MegaBytes > 1<<20 {
		return fmt.Errorf("mega_bytes is %d; want 0 to a million", c.MegaBytes)
	}
	_, err := c.notBefore()
	return err
}

// over wraps a source so that no reading leaves with a time of a clock that is not
// right.
func (c *OwnClock) over(open source.Opener, edge Names, dir string) (source.Opener, error) {
	notBefore, err := c.notBefore()
	if err != nil {
		return nil, err
	}
	return ownclock.Opener(ownclock.Options{
		Open: open, File: filepath.Join(dir, "clock"), Clock: ownclock.NewMachine(), NotBefore: notBefore, NeedSync: c.NeedSync,
		Asset: signal.NewAsset(edge.Group, "edge", edge.Node), MaxBytes: c.MegaBytes << 20,
	}), nil
}
