package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// The goals of the edge, per core with everything on.
const (
	goalSlow      = 2e6
	goalWave      = 40e6
	goalSlowBytes = 0.5
	goalWaveBytes = 1.3
	goalAllocs    = 0
)

// EdgeOptions say how much the edge is given to do; zero is the default.
type EdgeOptions struct {
	Dir         string // for its files; a new temporary folder without
	Slow        int    // slow samples; 4 million
	Waves       int    // vibration samples; 40 million
	ProfilePath string // of the CPU profile, kept if a goal is missed; "" keeps none
}

// load is the input of one run: a source that has its packets made before.
type load struct {
	decode  *plain.Reader
	packets []packet
	block   []byte // of vibration, encoded
	wave    int    // samples in block
	total   int
	step    signal.Micros
	done    int
	turn    signal.Micros
	out     []source.Sample
	buf     []byte
	// Allocations are counted from here: what is made once a sensor is made.
	steadyFrom    int
	steadyMallocs uint64
	dry           bool // only write the packets, which is the generator's part
}

type packet struct {
	topic string
	base  float64
}

const (
	slowSensors = 1000
	channels    = 16
	perAsset    = 20
	windowLen   = 4096
	waveRate    = 12_000
	epoch       = signal.Micros(1_790_000_000_000_000)
)

func slowLoad(total int) (*load, error) {
	set, err := plain.New(plain.Config{Prefix: "in"})
	if err != nil {
		return nil, err
	}
	l := &load{decode: set.Reader(), total: total, step: 1_000_000}
	for i := range slowSensors {
		l.packets = append(l.packets, packet{fmt.Sprintf("in/bench/line/m%03d/temperature%02d", i/perAsset, i%perAsset), 40 + float64(i%17)})
	}
	return l, nil
}

// waveLoad is a healthy machine's acceleration on a 16-bit converter: a shaft's
// line, its harmonic and noise, at a tenth of the range.
func waveLoad(total int) *load {
	l := &load{total: total, wave: windowLen, step: windowLen * 1_000_000 / waveRate}
	l.buf = make([]byte, 2*windowLen)
	seed := uint64(1)
	for i := range windowLen {
		seed = seed*6364136223846793005 + 1442695040888963407
		noise := float64(int8(seed>>56)) / 2
		t := float64(i) / waveRate
		v := int16(120*math.Sin(2*math.Pi*29.95*t) + 50*math.Sin(2*math.Pi*59.9*t) + noise)
		l.buf[2*i], l.buf[2*i+1] = byte(v), byte(uint16(v)>>8)
	}
	return l
}

func (l *load) Next(ctx context.Context) (source.Chunk, error) {
	if ctx.Err() != nil {
		return source.Chunk{}, ctx.Err()
	}
	if l.done >= l.total {
		return source.Chunk{}, io.EOF
	}
	if l.steadyFrom == 0 && l.done >= l.total/2 {
		l.steadyFrom, l.steadyMallocs = l.done, mallocs()
	}
	at := epoch + l.turn*l.step
	l.out = l.out[:0]
	if l.wave > 0 {
		for c := range channels {
			l.block = record.AppendWaveform(l.block[:0], &record.Waveform{First: uint64(l.turn) * windowLen, Rate: waveRate, Format: record.FormatI16, Scale: 0.001, Samples: l.buf})
			value := signal.WaveValue(string(l.block))
			l.out = append(l.out, source.Sample{
				Asset: signal.Asset("bench/line/w" + strconv.Itoa(c)), Class: signal.Raw,
				Reading: signal.Reading{Sensor: "acceleration", EventTime: at, AliveAt: at, Value: value, Unit: "[g]", Quality: signal.QualityGood},
			})
		}
		l.done += channels * l.wave
	} else {
		for i := range l.packets {
			p := &l.packets[i]
			// Slow drift with the last digit of the instrument moving.
			v := p.base + 3*math.Sin(float64(l.turn)/300) + 0.01*float64((int(l.turn)*7+i)%3)
			l.buf = append(strconv.AppendInt(append(l.buf[:0], `{"ts":`...), int64(at/1000), 10), `,"value":`...)
			l.buf = append(strconv.AppendFloat(l.buf, v, 'f', 2, 64), `,"unit":"Cel"}`...)
			if l.dry {
				continue
			}
			m, err := l.decode.Read(p.topic, l.buf, at)
			if err != nil {
				return source.Chunk{}, err
			}
			l.out = append(l.out, source.Sample{Asset: m.Asset, Class: m.Class, Reading: m.Reading})
		}
		l.done += len(l.packets)
	}
	l.turn++
	return source.Chunk{Time: at.Time(), Samples: l.out}, nil
}

func (l *load) Take()                     {}
func (l *load) Position() []byte          { return strconv.AppendInt(nil, int64(l.turn), 10) }
func (l *load) Figures() []signal.Counter { return nil }
func (l *load) Close() error              { return nil }

// presentClock is the machine's.
type presentClock struct{}

func (presentClock) Now() time.Time { return time.Now() }
func (presentClock) WaitUntil(ctx context.Context, _ time.Time) error {
	return ctx.Err()
}

// cost is what a run has used.
type cost struct {
	cpu, wall time.Duration
	allocs    float64 // a sample, in the steady state
	samples   int
	ringBytes int64
}

// Edge runs an edge agent with everything on, decoding, ring, filter or
// features, packing and the outbox with its syncs; the broker is away, so that
// publishing is not part of it. What writing the packets of slow samples costs
// is measured alone and taken off; encoding blocks of waveforms is the edge's.
func Edge(ctx context.Context, opt EdgeOptions) (report Report, err error) {
	if opt.Slow <= 0 {
		opt.Slow = 4_000_000
	}
	if opt.Waves <= 0 {
		opt.Waves = 40_000_000
	}
	if opt.Dir == "" {
		if opt.Dir, err = os.MkdirTemp("", "headrace-bench-"); err != nil {
			return report, fmt.Errorf("bench edge: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(opt.Dir)) }()
	}
	report = Report{Machine: machine(), Input: fmt.Sprintf(
		"%d slow samples of %d sensors as JSON over plain MQTT topics, decoded, %d vibration samples of %d channels in windows of %d, 16 bit, the same window again and again", opt.Slow, slowSensors, opt.Waves, channels, windowLen)}
	if opt.ProfilePath != "" {
		f, err := os.Create(opt.ProfilePath)
		if err != nil {
			return report, fmt.Errorf("bench edge: making the profile: %w", err)
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, f.Close())
			if err != nil || report.Met() {
				_ = os.Remove(opt.ProfilePath)
				return
			}
			report.Profile = opt.ProfilePath
		}()
		if err := pprof.StartCPUProfile(f); err != nil {
			return report, fmt.Errorf("bench edge: %w", err)
		}
	}
	slow, err := runEdge(ctx, filepath.Join(opt.Dir, "slow"), func() (*load, error) { return slowLoad(opt.Slow) })
	if err != nil {
		return report, fmt.Errorf("bench edge: slow samples: %w", err)
	}
	wave, err := runEdge(ctx, filepath.Join(opt.Dir, "wave"), func() (*load, error) { return waveLoad(opt.Waves), nil })
	if err != nil {
		return report, fmt.Errorf("bench edge: vibration: %w", err)
	}
	per := func(c cost) float64 { return float64(c.samples) / c.cpu.Seconds() }
	report.aim("slow_samples_per_core", per(slow), "1/s", higher, goalSlow)
	report.aim("vibration_samples_per_core", per(wave), "1/s", higher, goalWave)
	report.aim("ring_bytes_per_slow_sample", float64(slow.ringBytes)/float64(slow.samples), "By", lower, goalSlowBytes)
	report.aim("ring_bytes_per_vibration_sample", float64(wave.ringBytes)/float64(wave.samples), "By", lower, goalWaveBytes)
	report.aim("allocations_per_slow_sample", slow.allocs, "1", lower, goalAllocs)
	report.aim("allocations_per_vibration_sample", wave.allocs, "1", lower, goalAllocs)
	report.add("slow_samples_per_second", float64(slow.samples)/slow.wall.Seconds(), "1/s", higher)
	report.add("vibration_samples_per_second", float64(wave.samples)/wave.wall.Seconds(), "1/s", higher)
	return report, nil
}

func runEdge(ctx context.Context, dir string, open func() (*load, error)) (c cost, err error) {
	vib, err := vibration.New(vibration.Config{Name: "bench", Rules: []vibration.Rule{{
		Sensor: "acceleration", Window: windowLen, RPM: 1797, Bearing: vibration.Orders{BPFO: 3.5848, BPFI: 5.4152, BSF2: 4.7135, FTF: 0.39828},
	}}})
	if err != nil {
		return c, err
	}
	var l *load
	a, err := edge.New(edge.Options{
		Dir: dir, Group: "bench", Node: "edge", Filter: filter.Default(), Vibration: vib, Clock: presentClock{}, RingBytes: 4 << 30,
		Open: func([]byte, *slog.Logger) (source.Source, error) {
			l, err = open()
			return l, err
		},
		MQTT: mqttc.Config{Addresses: []string{"tcp://away:1883"}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
	})
	if err != nil {
		return c, err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	runtime.GC()
	cpu, err := cpuTime()
	if err != nil {
		return c, errors.Join(err, a.Close())
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(run) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !a.Status().Ended {
		select {
		case err := <-ended:
			return c, errors.Join(err, ctx.Err(), errors.New("the edge ended before its source"))
		case <-tick.C:
		}
	}
	c.wall = time.Since(began)
	cancel()
	if err := <-ended; err != nil {
		return c, err
	}
	used, err := cpuTime()
	if err != nil {
		return c, err
	}
	c.samples, c.cpu = l.done, used-cpu
	c.allocs = float64(mallocs()-l.steadyMallocs) / float64(max(l.done-l.steadyFrom, 1))
	if l.wave == 0 {
		generating, err := generatorCost(ctx, open)
		if err != nil {
			return c, err
		}
		c.cpu -= generating
	}
	if c.ringBytes, err = treeBytes(edge.RingDir(dir)); err != nil {
		return c, err
	}
	return c, nil
}

// generatorCost is what writing the packets of slow samples takes alone.
func generatorCost(ctx context.Context, open func() (*load, error)) (time.Duration, error) {
	l, err := open()
	if err != nil {
		return 0, err
	}
	l.dry = true
	before, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for !errors.Is(err, io.EOF) {
		if _, err = l.Next(ctx); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
	after, err := cpuTime()
	return after - before, err
}

// mallocs is how many objects this process has allocated.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func treeBytes(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n += info.Size()
		return nil
	})
	return n, err
}
