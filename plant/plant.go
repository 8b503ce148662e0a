package plant

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/plant/truth"
	"github.com/headrace/headrace/signal"
)

// Site is the plant's site.
const Site = "demo"

const (
	lines   = 3
	perKind = 2 // machines of a class on a line
)

// What is wrong with a sensor.
const (
	kindStuck      = "stuck"
	kindDead       = "dead"
	kindImpossible = "impossible"
)

// healthyFrom is when the healthy period begins that an engineer would name.
const healthyFrom = 10 * time.Second

// healthyTo is when it ends: after two minutes, or after as many windows as a
// model needs.
func (c Config) healthyTo() time.Duration { return max(120*time.Second, 20*c.Duty) }

// Plant is a simulated plant.
type Plant struct {
	cfg      Config
	start    time.Time
	machines []*machine // by line and name
	truth    truth.Truth
}

// Open builds a plant and writes its truth to dir. The same configuration is
// the same plant, which goes on where its edges stand.
func Open(cfg Config, dir string) (*Plant, error) {
	p := build(cfg)
	if err := truth.Write(dir, p.truth); err != nil {
		return nil, fmt.Errorf("opening plant %s: %w", cfg, err)
	}
	return p, nil
}

func build(cfg Config) *Plant {
	p := &Plant{cfg: cfg, start: time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)}
	for line := 1; line <= lines; line++ {
		for _, c := range classes() {
			for i := 1; i <= perKind; i++ {
				asset := signal.NewAsset(Site, fmt.Sprintf("line-%d", line), c.machineName(line, i))
				p.machines = append(p.machines, newMachine(cfg.Seed, asset, c))
			}
		}
	}
	p.truth = truth.Truth{Spec: cfg.String(), Start: p.start}
	if cfg.Duration > 0 {
		p.truth.End = p.start.Add(cfg.Duration)
	}
	p.spoil()
	return p
}

// spoil draws what goes wrong.
func (p *Plant) spoil() {
	draw := func(i uint64) float64 { return unit(hash(p.cfg.Seed, i, 10)) }
	at := func(i uint64, from, to float64) time.Time {
		// Nothing goes wrong before the healthy period is over.
		later := p.cfg.healthyTo() - 120*time.Second
		return p.start.Add(later + time.Duration(from+draw(i)*(to-from))*time.Second)
	}
	// Four machines, in an order that the seed draws.
	order := make([]int, len(p.machines))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(i, j int) bool {
		return hash(p.cfg.Seed, uint64(order[i]), 11) < hash(p.cfg.Seed, uint64(order[j]), 11)
	})
	if p.cfg.Faults {
		m := p.machines[order[0]]
		parts := []string{"outer_race", "inner_race", "ball"}
		k := int(draw(1) * float64(len(parts)))
		m.defect = &truth.Defect{Asset: m.asset, Part: parts[k], Begins: at(2, 150, 200), Fails: at(3, 580, 640)}
		m.order = []float64{m.class.bearing.BPFO, m.class.bearing.BPFI, m.class.bearing.BSF2}[k]
		p.truth.Defect = m.defect
		for i, kind := range []string{kindStuck, kindDead, kindImpossible} {
			m := p.machines[order[i+1]]
			q := quantities()[int(draw(uint64(10+i))*float64(len(quantities())))]
			f := truth.Fault{Path: m.asset.Sensor(q.name), Kind: kind, Begins: at(uint64(20+i), 130, 250)}
			m.faults[q.name] = f
			p.truth.Faults = append(p.truth.Faults, f)
		}
	}
	if p.cfg.Outage {
		_, line, _ := p.machines[order[4]].asset.Split()
		from := at(30, 200, 330)
		p.truth.Outage = &truth.Outage{Edge: line, From: from, To: from.Add(70 * time.Second)}
	}
}

// Site is the name of the plant's site.
func (p *Plant) Site() string { return Site }

// Start is the plant's first moment.
func (p *Plant) Start() time.Time { return p.start }

// Edge is one edge of the plant: a line.
type Edge struct {
	Node      string
	Assets    []signal.Asset
	Open      source.Opener
	Vibration *vibration.Set
	// Network is the edge's way to its broker.
	Network Network
}

// Edges are the plant's edges.
func (p *Plant) Edges() ([]Edge, error) {
	set, err := p.vibration()
	if err != nil {
		return nil, err
	}
	var out []Edge
	for line := 1; line <= lines; line++ {
		node := fmt.Sprintf("line-%d", line)
		var machines []*machine
		e := Edge{Node: node, Vibration: set}
		for _, m := range p.machines {
			if _, l, _ := m.asset.Split(); l == node {
				machines = append(machines, m)
				e.Assets = append(e.Assets, m.asset)
			}
		}
		e.Open = p.opener(machines)
		if o := p.truth.Outage; o != nil && o.Edge == node {
			e.Network = Network{from: o.From, to: o.To}
		}
		out = append(out, e)
	}
	return out, nil
}

// lookEvery is how far apart the windows are that an edge looks at.
const lookEvery = 5 * time.Second

// vibration is what an engineer sets up for the plant's machines.
func (p *Plant) vibration() (*vibration.Set, error) {
	every := lookEvery.Seconds()
	if p.cfg.Duty >= lookEvery {
		every = 0
	}
	cfg := vibration.Config{Name: "demo"}
	for _, c := range classes() {
		b := c.bearing
		cfg.Rules = append(cfg.Rules, vibration.Rule{
			Asset: c.letter + "-*", Sensor: channel, Window: window, EverySeconds: every, RPM: c.rpm, SpeedSensor: speedSensor,
			Bearing: vibration.Orders{BPFO: b.BPFO, BPFI: b.BPFI, BSF2: b.BSF2, FTF: b.FTF},
			Trigger: vibration.Trigger{Kurtosis: 4.5, EnvelopeShare: 0.5, PreWindows: 1, PostWindows: 1, MaxWindows: 4, RearmSeconds: 60},
		})
	}
	return vibration.New(cfg)
}

// Registry is the plant's file of assets, as an engineer would write it.
func (p *Plant) Registry() []byte {
	var b strings.Builder
	b.WriteString("# The simulated plant. Limits are what an instrument could possibly say, not what is healthy.\ntemplates:\n")
	for _, c := range classes() {
		o := c.bearing
		fmt.Fprintf(&b, "  %s:\n    class: %s\n    description: %s of the demo plant\n    owner: Rotating equipment\n    mounting: bedplate, %s\n    rpm: %g\n", c.name, c.name, c.name, c.name, c.rpm)
		fmt.Fprintf(&b, "    bearing: {name: %s, bpfo: %g, bpfi: %g, bsf2: %g, ftf: %g}\n", o.Name, o.BPFO, o.BPFI, o.BSF2, o.FTF)
		fmt.Fprintf(&b, "    healthy: {from: %q, to: %q}\n", p.start.Add(healthyFrom).Format(time.RFC3339), p.start.Add(p.cfg.healthyTo()).Format(time.RFC3339))
		fmt.Fprintf(&b, "    vibration: [%s]\n    sensors:\n", channel)
		b.WriteString("      state: {kind: text, max_hold: 24h}\n")
		fmt.Fprintf(&b, "      %s: {unit: /min, kind: number, min: -10, max: 6000, max_hold: 90s, stuck_after: 120s}\n", speedSensor)
		for _, q := range quantities() {
			fmt.Fprintf(&b, "      %s: {unit: %q, kind: number, min: %g, max: %g, max_hold: 90s, stuck_after: 120s}\n", q.name, q.unit, q.low, q.high)
		}
	}
	b.WriteString("assets:\n")
	for _, m := range p.machines {
		fmt.Fprintf(&b, "  - {asset: %s, template: %s}\n", m.asset, m.class.name)
	}
	return []byte(b.String())
}
