package sparkplugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// Rules map what Sparkplug nodes send. Without a rule that fits, the group is the
// site, a device "line:asset" is what it says, any other stands in a line named
// after its node, and a metric's folders are joined by dots.
type Rules struct{ set *plain.Set }

// NewRules checks rules. Their topic is group/node/device/metric, where a node's
// own metrics have the node's name for a device; a metric's name may have several
// segments: {metric...}.
func NewRules(rules []plain.Rule) (*Rules, error) {
	for i := range rules {
		r := &rules[i]
		if r.Value != "" || r.Time != "" || r.Unit != "" || r.Quality != "" || r.TimeFormat != "" {
			return nil, fmt.Errorf("rule %d: value, time, time_format, unit and quality are for JSON; a Sparkplug metric has its own. Leave topic, path, unit_is and class", i+1)
		}
		if parts := strings.Split(r.Topic, "/"); len(parts) < 4 && !strings.HasSuffix(r.Topic, "...}") && !strings.HasSuffix(r.Topic, "#") {
			return nil, fmt.Errorf("rule %d: topic %q has %d segments; write group/node/device/metric, like {site}/{node}/{device}/{metric...}", i+1, r.Topic, len(parts))
		}
	}
	set, err := plain.New(plain.Config{Rules: rules})
	if err != nil {
		return nil, fmt.Errorf("mapping Sparkplug: %w", err)
	}
	return &Rules{set}, nil
}

// Hash names the content.
func (r *Rules) Hash() string { return r.set.Hash() }

// place is where a metric of a node's or a device's goes.
func (r *Rules) place(t sparkplug.Topic, metric string) (plain.Place, error) {
	device := t.Device
	if device == "" {
		device = t.Edge
	}
	p, err := r.set.Place(t.Group + "/" + t.Edge + "/" + device + "/" + metric)
	if err == nil || !errors.Is(err, plain.ErrNoRule) {
		return p, err
	}
	asset, err := sparkplug.ForeignAsset(t)
	if err != nil {
		return p, err
	}
	sensor, err := sparkplug.ForeignSensor(metric)
	return plain.Place{Path: asset.Sensor(sensor), Class: signal.Telemetry}, err
}
