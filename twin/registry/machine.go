package registry

import (
	"cmp"
	"fmt"
	"math"

	"github.com/headrace/headrace/signal"
)

type assetMeta struct{ signal.AssetMeta }

// machine fills in what an asset is as a machine; what it leaves out its
// template says.
func (m *assetMeta) machine(a assetSpec, base template) error {
	m.Mounting = cmp.Or(a.Mounting, base.Mounting)
	m.RPM = cmp.Or(a.RPM, base.RPM)
	if b := cmp.Or(a.Bearing, base.Bearing); b != nil {
		m.Bearing = signal.Bearing(*b)
	}
	h := cmp.Or(a.Healthy, base.Healthy)
	if h == nil {
		return nil
	}
	var err error
	if m.Healthy.From, err = parseTime("healthy: from", h.From); err != nil {
		return err
	}
	if m.Healthy.To, err = parseTime("healthy: to", h.To); err != nil {
		return err
	}
	if m.Healthy.To == 0 {
		return fmt.Errorf("healthy: give from and to")
	}
	m.Healthy.Asset = signal.Asset(h.Asset)
	return nil
}

// checkMachine finds what cannot be of a machine.
func checkMachine(m signal.AssetMeta) error {
	for name, v := range map[string]float64{"rpm": m.RPM, "bpfo": m.Bearing.BPFO, "bpfi": m.Bearing.BPFI, "bsf2": m.Bearing.BSF2, "ftf": m.Bearing.FTF} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v; want 0 (unknown) or more", name, v)
		}
	}
	h := m.Healthy
	if h == (signal.Healthy{}) {
		return nil
	}
	if h.From >= h.To {
		return fmt.Errorf("the healthy period %s is empty", interval(h.From, h.To))
	}
	if h.Asset == "" {
		return nil
	}
	_, err := signal.ParseAsset(string(h.Asset))
	return err
}

// checkHealthy refuses, of the assets that a change is about, a healthy period of
// a machine that does not compare: of another class or mounting. One that is not
// registered (yet) is taken.
func checkHealthy(all []signal.AssetMeta, changed []signal.AssetMeta) error {
	about := map[signal.Asset]bool{}
	for _, m := range changed {
		about[m.Asset] = true
	}
	for _, m := range all { // as they are now: some of the change may not have been taken
		if !about[m.Asset] || m.Healthy.Asset == "" || m.Healthy.Asset == m.Asset {
			continue
		}
		for _, o := range all {
			if o.Asset != m.Healthy.Asset || o.ValidTo <= m.Healthy.From || o.ValidFrom >= m.Healthy.To {
				continue
			}
			if o.Class != m.Class || o.Mounting != m.Mounting {
				return fmt.Errorf("asset %s: the healthy period is that of %s, which is %q mounted %q and not %q mounted %q; take one of the same class and mounting",
					m.Asset, o.Asset, o.Class, o.Mounting, m.Class, m.Mounting)
			}
		}
	}
	return nil
}

// vibrationSpecs are the sensors that an edge makes of a channel; see
// docs/formats/vibration.md. Their limits are what no sensor could say.
func vibrationSpecs(channel string) map[string]sensorSpec {
	zero, most, ratio := 0.0, 1e6, 1e7
	acceleration := sensorSpec{Unit: "[g]", Kind: "number", Min: &zero, Max: &most, MaxHold: "300s"}
	plain := sensorSpec{Unit: "1", Kind: "number", Min: &zero, Max: &ratio, MaxHold: "300s"}
	out := map[string]sensorSpec{}
	for _, name := range []string{
		".rms", ".peak", ".band.1x", ".band.2x", ".band.low", ".band.mid", ".band.high",
		".env.total", ".env.bpfo", ".env.bpfi", ".env.bsf", ".env.ftf",
	} {
		out[channel+name] = acceleration
	}
	out[channel+".crest"], out[channel+".kurtosis"] = plain, plain
	return out
}
