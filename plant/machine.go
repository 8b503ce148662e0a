package plant

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/headrace/headrace/plant/truth"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// The acceleration channels: 16-bit counts of ±16 g.
const (
	rate    = 12_800
	window  = 4096
	channel = "de_acceleration"
	scale   = 16.0 / 32768
)

// windowTime is how long a window lasts: 320 ms to the microsecond.
const windowTime = window * time.Second / rate

// class is a kind of machine.
type class struct {
	name    string
	letter  string
	rpm     float64
	bearing signal.Bearing
	blades  float64 // of a pump's or fan's wheel
	teeth   float64 // of a gear's pinion
}

func classes() []class {
	return []class{
		{"pump", "p", 1480, signal.Bearing{Name: "6309", BPFO: 3.0530, BPFI: 4.9470, BSF2: 3.9960, FTF: 0.3816}, 6, 0},
		{"motor", "m", 1485, signal.Bearing{Name: "6205-2RS", BPFO: 3.5848, BPFI: 5.4152, BSF2: 4.7135, FTF: 0.3983}, 0, 0},
		{"fan", "f", 1190, signal.Bearing{Name: "22216", BPFO: 7.2090, BPFI: 9.7910, BSF2: 6.4530, FTF: 0.4240}, 8, 0},
		{"gearbox", "g", 1500, signal.Bearing{Name: "NU210", BPFO: 6.5610, BPFI: 9.4390, BSF2: 5.3850, FTF: 0.4100}, 0, 23},
	}
}

// quantity is a slow sensor: once a second, it follows the load.
type quantity struct {
	name, unit string
	base       float64
	swing      float64 // with the load
	noise      float64
	low, high  float64 // what it could possibly say
	lag        float64 // in seconds behind the load
	idle       float64 // what it says of a machine that stands
}

// quantities swing by some deadbands of the shipped filter, so that a live
// sensor moves every few seconds and most of its readings need not leave.
func quantities() []quantity {
	return []quantity{
		{"bearing_temperature", "Cel", 58, 1.1, 0.03, -40, 200, 12, 57},
		{"casing_temperature", "Cel", 47, 1.1, 0.03, -40, 200, 15, 46},
		{"oil_temperature", "Cel", 52, 1.2, 0.03, -40, 200, 20, 51},
		{"ambient_temperature", "Cel", 24, 1.0, 0.03, -40, 80, 40, 24},
		{"current", "A", 6.4, 0.35, 0.01, 0, 50, 0, 0.2},
		{"voltage", "V", 398, 11, 0.4, 0, 600, 3, 400},
		{"inlet_pressure", "bar", 2.1, 0.6, 0.02, -1, 25, 1, 1.5},
		{"outlet_pressure", "bar", 6.2, 0.7, 0.02, -1, 25, 1, 1.5},
		{"flow", "L/min", 118, 3, 0.08, -5, 500, 2, 0},
		{"load", "%", 62, 8, 0.1, -5, 150, 0, 0},
		{"valve_position", "%", 55, 5, 0.1, -5, 150, 4, 5},
		{"lube_pressure", "bar", 3.3, 0.6, 0.02, -1, 25, 6, 3.0},
	}
}

const speedSensor = "speed"

// machine is one asset.
type machine struct {
	asset signal.Asset
	class class
	key   uint64 // of its noise

	period, phase   float64 // of the load, s and rad
	period2, phase2 float64
	speedPeriod     float64
	amp             [3]float64 // of 1x, 2x, 3x, in g
	special         float64    // of blades or mesh, in g
	floor           float64    // of the noise, in g
	resonance       float64    // Hz
	defect          *truth.Defect
	order           float64
	faults          map[string]truth.Fault // by sensor
}

func newMachine(seed uint64, asset signal.Asset, c class) *machine {
	m := &machine{asset: asset, class: c, key: hash(seed, text(string(asset)), 1), faults: map[string]truth.Fault{}}
	draw := func(i uint64, low, high float64) float64 { return low + (high-low)*unit(hash(m.key, i, 2)) }
	m.period, m.phase = draw(1, 70, 110), draw(2, 0, 2*math.Pi)
	m.period2, m.phase2 = draw(3, 23, 37), draw(4, 0, 2*math.Pi)
	m.speedPeriod = draw(5, 80, 120)
	m.amp = [3]float64{draw(6, 0.06, 0.12), draw(7, 0.03, 0.06), draw(8, 0.01, 0.03)}
	m.special = draw(9, 0.03, 0.06)
	m.floor = draw(10, 0.08, 0.12)
	m.resonance = draw(11, 2900, 3700)
	return m
}

// load is that of a machine in use, about -1.4 to 1.4, at a time in seconds.
func (m *machine) load(t float64) float64 {
	return math.Sin(2*math.Pi*t/m.period+m.phase) + 0.4*math.Sin(2*math.Pi*t/m.period2+m.phase2)
}

// speedSwing is the part by which the speed changes.
const speedSwing = 0.03

func (m *machine) rpm(t float64) float64 {
	return m.class.rpm * (1 + speedSwing*math.Sin(2*math.Pi*t/m.speedPeriod+m.phase2))
}

// turns is the integral of rpm/60 from 0 to t.
func (m *machine) turns(t float64) float64 {
	w := 2 * math.Pi / m.speedPeriod
	return m.class.rpm / 60 * (t + speedSwing/w*(math.Cos(m.phase2)-math.Cos(w*t+m.phase2)))
}

// The states that a machine's control says.
const (
	running  = "running"
	idle     = "idle"
	starting = "starting"
)

const (
	idleSlot     = 600 // s, in which a machine stands at most once
	idleFirst    = 300 // s, before which none stands
	idleChance   = 0.15
	startSeconds = 5
)

// state is what the control says at a second.
func (m *machine) state(second int64) string {
	if second < idleFirst {
		return running
	}
	slot := second / idleSlot
	h := hash(m.key, uint64(slot), 3)
	if unit(h) >= idleChance {
		return running
	}
	from := slot*idleSlot + int64(unit(hash(h, 1, 3))*(idleSlot-60))
	from = max(from, idleFirst)
	to := from + 12 + int64(unit(hash(h, 2, 3))*14)
	switch {
	case second >= from && second < to-startSeconds:
		return idle
	case second >= to-startSeconds && second < to:
		return starting
	}
	return running
}

// severity is how far the bearing's defect has grown, 0 to 1 at the functional
// failure.
func (m *machine) severity(at time.Time) float64 {
	d := m.defect
	if d == nil || !at.After(d.Begins) {
		return 0
	}
	part := float64(at.Sub(d.Begins)) / float64(d.Fails.Sub(d.Begins))
	return math.Pow(min(part, 1), 1.5)
}

// slow is what a sensor says at a second, and whether it says anything.
func (m *machine) slow(q *quantity, start time.Time, second int64) (v float64, ok bool) {
	at := start.Add(time.Duration(second) * time.Second)
	if f, lies := m.faults[q.name]; lies && !at.Before(f.Begins) {
		switch f.Kind {
		case kindDead:
			return 0, false
		case kindStuck:
			second = int64(f.Begins.Sub(start) / time.Second)
		case kindImpossible:
			return 9999 + float64(second%7), true
		}
	}
	k := hash(m.key, text(q.name), 4)
	noise := q.noise * gauss(hash(k, uint64(second), 5))
	if m.state(second) == idle {
		return round(q.idle+noise, q.noise), true
	}
	v = q.base + q.swing*m.load(float64(second)-q.lag) + noise
	if q.name == "bearing_temperature" {
		v += 14 * math.Pow(m.severity(at), 2)
	}
	return round(v, q.noise), true
}

// round is what a converter's resolution leaves of a value.
func round(v, noise float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(noise)))
	return math.Round(v/step) * step
}

// speed is what the speed sensor says at a second.
func (m *machine) speed(second int64) float64 {
	if m.state(second) == idle {
		return 0
	}
	return math.Round((m.rpm(float64(second))+gauss(hash(m.key, uint64(second), 6)))*10) / 10
}

// wave writes the samples of the window that begins at sample first.
func (m *machine) wave(start time.Time, first uint64, dst []byte) []byte {
	t0 := float64(first) / rate
	t1 := float64(first+window) / rate
	from, to := m.turns(t0), m.turns(t1)
	used := 1.0
	if m.state(int64(t0)) == idle || m.state(int64(t1)) == idle {
		used = 0.02
	}
	load := 1 + 0.06*m.load(t0)
	x := make([]float64, window)
	// Harmonics by rotation: within a window the speed is taken as constant.
	step := (to - from) / window
	tone := func(order, amp, phase float64) {
		_, part := math.Modf(from * order)
		sin, cos := math.Sincos(2*math.Pi*part + phase)
		ws, wc := math.Sincos(2 * math.Pi * step * order)
		for i := range x {
			x[i] += amp * sin
			sin, cos = sin*wc+cos*ws, cos*wc-sin*ws
		}
	}
	for h, amp := range m.amp {
		tone(float64(h+1), used*load*amp, float64(h))
	}
	if b := m.class.blades; b > 0 {
		tone(b, used*load*m.special, 0.3)
	}
	if z := m.class.teeth; z > 0 {
		tone(z, used*load*m.special, 0.4)
		tone(z-1, used*load*m.special*0.3, 0.5)
		tone(z+1, used*load*m.special*0.3, 0.6)
	}
	m.impacts(x, from, to, used*m.severity(start.Add(time.Duration(t0*float64(time.Second)))))
	sigma := m.floor * (0.2 + 0.8*used) * load
	dst = dst[:0]
	for i := range x {
		v := x[i] + sigma*gauss(hash(m.key, first+uint64(i), 7))
		count := max(min(math.Round(v/scale), math.MaxInt16), math.MinInt16)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(int16(count)))
	}
	return dst
}

// worst is the height of an impact at the functional failure, in g.
const worst = 4.0

// impacts adds what the damaged part strikes between two counts of turns.
func (m *machine) impacts(x []float64, from, to, severity float64) {
	if severity == 0 {
		return
	}
	const (
		decay  = 0.0011 // s
		length = 112    // samples, eight times as long
	)
	perTurn := float64(len(x)) / (to - from)
	// Strikes before the window still ring in it.
	first := int64(math.Floor((from - float64(length)/perTurn) * m.order))
	for k := first; float64(k)/m.order < to; k++ {
		h := hash(m.key, uint64(k), 8)
		turn := (float64(k) + 0.03*(unit(h)-0.5)) / m.order // slip
		height := worst * severity * (0.85 + 0.3*unit(hash(h, 1, 8)))
		if m.defect.Part == "inner_race" {
			height *= (1 + 0.5*math.Cos(2*math.Pi*turn)) / 1.5 // through the load zone once a turn
		}
		at := (turn - from) * perTurn
		for i := max(int(math.Ceil(at)), 0); i < min(len(x), int(at)+length); i++ {
			dt := (float64(i) - at) / rate
			x[i] += height * math.Exp(-dt/decay) * math.Sin(2*math.Pi*m.resonance*dt)
		}
	}
}

// waveform is the window's block.
func (m *machine) waveform(start time.Time, first uint64, buf []byte) record.Waveform {
	return record.Waveform{First: first, Rate: rate, Format: record.FormatI16, Scale: scale, Samples: m.wave(start, first, buf)}
}

// hash mixes three numbers (SplitMix64's finaliser).
func hash(a, b, c uint64) uint64 {
	z := a + b*0x9e3779b97f4a7c15 + c*0xd1b54a32d192ed03
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func text(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// unit is in [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// gauss is nearly normal, with mean 0 and deviation 1: the sum of eight
// uniform numbers (its kurtosis is 2.85).
func gauss(h uint64) float64 {
	g := hash(h, 1, 9)
	sum := 0.0
	for range 4 {
		sum += float64(h&0xffff) + float64(g&0xffff)
		h, g = h>>16, g>>16
	}
	return (sum/65536 - 4) * 1.224744871391589
}

// name of the i-th machine of a kind on a line: p-101.
func (c class) machineName(line, i int) string { return fmt.Sprintf("%s-%d%02d", c.letter, line, i) }
