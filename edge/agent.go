package edge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/edge/egress"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
)

// Defaults of [Options].
const (
	DefaultPackDelay      = 200 * time.Millisecond
	DefaultPackReadings   = 500
	DefaultLiveWindow     = 4 << 20
	DefaultHistoryWindow  = 2 << 20
	DefaultResendAfter    = 10 * time.Second
	DefaultMaxResendAfter = 5 * time.Minute
	DefaultHostGrace      = time.Minute
	DefaultIdleEvery      = 10 * time.Second
	DefaultMinReconnect   = 250 * time.Millisecond
	DefaultMaxReconnect   = 15 * time.Second
)

// Options are what an agent needs. Durations and sizes that are zero take
// their defaults; they are of wall time.
type Options struct {
	// Dir is the edge's own directory: D/edges/<group>/<node>.
	Dir string
	// Group is the site, and Node the Sparkplug edge node in it.
	Group, Node string

	Open   source.Opener
	Filter *filter.Set
	// Vibration says what is made of waveforms; nil makes nothing.
	Vibration *vibration.Set
	RingBytes int64         // of the ring of all that is measured
	RingAge   time.Duration // how long it keeps it, by the plant's clock; 0 is as long as there is room
	// Pace has the source deliver by the plant's clock; nil takes what comes.
	Pace *source.Member
	// Clock is the plant's.
	Clock signal.Clock
	// MQTT says where the brokers are and how to get in; client id, will,
	// session and handler are the agent's.
	MQTT    mqttc.Config
	Log     *slog.Logger
	Reached signal.Reached

	// Rules raise alarms at the edge; nil has none. They are shown on AlarmMQTT, the
	// plant's own broker, or without it on the one that readings go to.
	Rules     *rules.Set
	AlarmMQTT *mqttc.Config

	QuotaBytes int64 // of the outbox
	// WhenFull says what happens at the quota and on a full disk: [Wait], [Evict],
	// or "" for what the source can bear (see [source.Live]).
	WhenFull string
	// ConfigHash names the whole configuration; "" is that of filters and vibration.
	ConfigHash string
	// Remote is asked what a remote configuration is to change; nil refuses it.
	Remote Remote
	// A replay gets a share of the link's time, 0 to 1, and so many bytes a second
	// at most; 0 is no such bound.
	ReplayShare float64
	ReplayBytes int64

	FloorBytes uint64 // free disk space below which intake waits

	PackDelay      time.Duration // a reading waits so long for company
	PackReadings   int           // or until a stream has so many
	LiveWindow     int           // bytes sent and not acknowledged
	HistoryWindow  int           // the same for what is sent again
	ResendAfter    time.Duration // doubling with each try
	MaxResendAfter time.Duration
	HostGrace      time.Duration // how long a broker without an online host is kept
	IdleEvery      time.Duration // how often complete_to is repeated
	MinReconnect   time.Duration
	MaxReconnect   time.Duration
}

// What a full outbox means to its source.
const (
	Wait  = "wait"  // intake stops
	Evict = "evict" // the oldest telemetry is given up, events last
)

// OutboxDir is where the edge with the given directory has its outbox.
func OutboxDir(dir string) string { return filepath.Join(dir, "outbox") }

// Agent is one edge node.
type Agent struct {
	opt    Options
	log    *slog.Logger
	outbox *outbox.Outbox
	pub    *publisher
	meter  *egress.Meter
	board  *board

	refused atomic.Int64 // samples that could not be taken
	replay  *replays
	// refusals are what sources could not take.
	refusals refusals

	mu      sync.Mutex
	figures []signal.Counter        // the source's
	live    func() []signal.Counter // the same as they are now, if it can be asked
	worst   filter.Error
	kept    ring.Stats
	windows vibration.Counts

	ended   chan struct{} // closed when intake is at the source's end
	drained chan struct{}
}

// New opens the outbox. Every agent must be run, or closed.
func New(opt Options) (*Agent, error) {
	setDefaults(&opt)
	a := &Agent{opt: opt, log: opt.Log.With("edge", opt.Group+"/"+opt.Node), meter: egress.NewMeter(), board: newBoard(), ended: make(chan struct{}), drained: make(chan struct{})}
	if err := a.open(); err != nil {
		if opt.Pace != nil {
			opt.Pace.End()
		}
		return nil, fmt.Errorf("starting edge %s/%s: %w", opt.Group, opt.Node, err)
	}
	return a, nil
}

func (a *Agent) open() error {
	o := &a.opt
	if o.Open == nil || o.Filter == nil || o.Clock == nil || len(o.MQTT.Addresses) == 0 {
		return errors.New("source, filter, clock and MQTT address must be given")
	}
	if o.WhenFull != "" && o.WhenFull != Wait && o.WhenFull != Evict {
		return fmt.Errorf("when_full %q is not known; take %s or %s", o.WhenFull, Wait, Evict)
	}
	box, err := outbox.Open(outbox.Options{
		Dir: OutboxDir(o.Dir), Edge: o.Group + "/" + o.Node, Log: a.log,
		QuotaBytes: o.QuotaBytes, FloorBytes: o.FloorBytes, CommitDelay: o.PackDelay, Reached: o.Reached,
	})
	if err != nil {
		return err
	}
	a.outbox = box
	a.pub, err = newPublisher(a)
	if err == nil {
		a.replay, err = a.newReplays()
	}
	if err != nil {
		return errors.Join(err, box.Close())
	}
	return nil
}

func setDefaults(o *Options) {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	number := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.PackDelay, DefaultPackDelay)
	if !(o.ReplayShare > 0 && o.ReplayShare <= 1) {
		o.ReplayShare = DefaultReplayShare
	}
	number(&o.PackReadings, DefaultPackReadings)
	number(&o.LiveWindow, DefaultLiveWindow)
	number(&o.HistoryWindow, DefaultHistoryWindow)
	def(&o.ResendAfter, DefaultResendAfter)
	def(&o.MaxResendAfter, DefaultMaxResendAfter)
	def(&o.HostGrace, DefaultHostGrace)
	def(&o.IdleEvery, DefaultIdleEvery)
	def(&o.MinReconnect, DefaultMinReconnect)
	def(&o.MaxReconnect, DefaultMaxReconnect)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Vibration == nil {
		o.Vibration = vibration.None()
	}
	if o.Rules == nil {
		o.Rules = rules.None()
	}
}

// config is the content hash of all that decides what leaves.
func (o *Options) config() string {
	if o.ConfigHash != "" {
		return o.ConfigHash
	}
	if o.Vibration.Hash() == "" {
		return o.Filter.Hash()
	}
	sum := sha256.Sum256([]byte(o.Filter.Hash() + "/" + o.Vibration.Hash()))
	return hex.EncodeToString(sum[:8])
}

// derived tells whether a sensor's name is of something made of a waveform.
func (o *Options) derived(asset signal.Asset, sensor string) bool {
	channel, _, dotted := strings.Cut(sensor, ".")
	return dotted && o.Vibration.Matches(asset, channel)
}

// Egress is what was sent since the start, against what raw data would be.
func (a *Agent) Egress() egress.Report { return a.meter.Report() }

// Worst is the largest difference, since the start, between a value and what the
// far end makes of those that were sent.
func (a *Agent) Worst() filter.Error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.worst
}

// Run works until ctx ends, which is no error, or until the source or the disk
// fails. It says goodbye to the broker, makes durable what was taken from the
// source, and leaves nothing running.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var intake error
	running.Go(func() {
		if intake = a.intake(ctx); intake != nil {
			cancel()
		}
	})
	running.Go(func() { a.pub.run(ctx) })
	if a.opt.AlarmMQTT != nil {
		running.Go(func() { a.showAlarms(ctx) })
	}
	running.Go(func() { a.replay.run(ctx) })
	running.Go(func() {
		if !a.watch(ctx) {
			cancel()
		}
	})
	running.Wait()
	if err := errors.Join(intake, a.Close()); err != nil {
		return fmt.Errorf("running edge %s/%s: %w", a.opt.Group, a.opt.Node, err)
	}
	return nil
}

// Close releases an agent that is not run.
func (a *Agent) Close() error {
	if a.opt.Pace != nil {
		a.opt.Pace.End()
	}
	return a.outbox.Close()
}

// watch reports when everything has been delivered, and returns false when the
// outbox cannot go on.
func (a *Agent) watch(ctx context.Context) bool {
	ended := a.ended
	done := false
	for {
		changed := a.outbox.Changed()
		if a.outbox.Err() != nil {
			return false
		}
		if !done && a.Drained() {
			done = true
			close(a.drained)
		}
		select {
		case <-changed:
		case <-a.pub.toldSignal:
		case <-ended:
			ended = nil
		case <-ctx.Done():
			return true
		}
	}
}

// Drained tells whether the source has ended, Kafka has every message, and the
// hosts were told how far each stream is complete.
func (a *Agent) Drained() bool {
	return a.hasEnded() && a.outbox.Drained() && a.pub.allTold.Load()
}

func (a *Agent) hasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// DrainedC is closed when the agent is first [Agent.Drained].
func (a *Agent) DrainedC() <-chan struct{} { return a.drained }

// Status is an agent's state in words.
type Status struct {
	Edge      string // "group/node"
	Connected bool   // to a broker
	Online    bool   // a host is online there
	Ended     bool   // the source has nothing more
	Stalled   error  // why intake waits for disk space, or nil
}

// Status is how things stand now.
func (a *Agent) Status() Status {
	s := a.outbox.Stats()
	if quota := cmp.Or(a.opt.QuotaBytes, outbox.DefaultQuotaBytes); s.Stalled == nil && s.Bytes >= quota {
		s.Stalled = fmt.Errorf("the outbox has %d bytes of the %d that it may have", s.Bytes, quota)
	}
	return Status{
		Edge: a.opt.Group + "/" + a.opt.Node, Connected: a.pub.connected.Load(), Online: a.pub.online.Load(),
		Ended: a.hasEnded(), Stalled: s.Stalled,
	}
}

// Counters are the agent's figures. Those in readings add up:
// emitted + derived + held + replayed = filtered + shipped + evicted.
func (a *Agent) Counters() []signal.Counter {
	s := a.outbox.Stats()
	var out []signal.Counter
	add := func(name string, v int64) { out = append(out, signal.Counter{Station: "edge", Name: name, Value: v}) }
	add("emitted", int64(s.Emitted))
	add("derived", int64(s.Derived))
	add("held", int64(s.Held))
	add("filtered", int64(s.Filtered))
	add("shipped", int64(s.Shipped))
	add("evicted", int64(s.Evicted))
	add("evicted_events", int64(s.EvictedEvents))
	add("samples_evicted", int64(s.SamplesEvicted))
	add("samples_refused", a.refused.Load())
	add("alarms_now", int64(len(a.board.list())))
	add("samples", int64(s.Samples))
	add("samples_shipped", int64(s.SamplesShipped))
	add("replayed", int64(s.Replayed))
	add("samples_replayed", int64(s.SamplesReplayed))
	add("retried", int64(s.Retried))
	add("lost", int64(s.Lost))
	add("in_flight_now", int64(s.WaitingReadings))
	add("outbox_messages_now", int64(s.WaitingMessages))
	add("outbox_bytes_now", s.Bytes)
	add("corrupt_frames", int64(s.CorruptFrames))
	stalled := int64(0)
	if s.Stalled != nil {
		stalled = 1
	}
	add("disk_full_now", stalled)
	add("refused", a.refusals.refused.Load())
	add("refused_carried", a.refusals.carried.Load())
	out = append(out, a.pub.counters()...)
	a.mu.Lock()
	defer a.mu.Unlock()
	add("ring_samples", a.kept.Samples)
	add("ring_blocks", a.kept.Blocks)
	add("ring_refused", a.kept.Refused)
	add("ring_damaged", a.kept.Damaged)
	add("ring_unpinned", a.kept.Unpinned)
	add("ring_bytes_now", a.kept.Bytes)
	add("ring_pinned_now", a.kept.Pinned)
	add("vibration_windows", a.windows.Windows)
	add("vibration_outside_speed", a.windows.OutsideSpeed)
	add("vibration_outside_load", a.windows.OutsideLoad)
	add("vibration_outside_state", a.windows.OutsideState)
	add("vibration_outside_unknown", a.windows.OutsideUnknown)
	add("vibration_broken", a.windows.Broken)
	add("vibration_gaps", a.windows.Gaps)
	add("vibration_no_velocity", a.windows.NoVelocity)
	if a.live != nil {
		return append(out, a.live()...)
	}
	return append(out, a.figures...)
}
