// Package sparkplugin is a source of an edge: readings of the Sparkplug B nodes
// and devices that speak to a plant's own MQTT broker, as one of their hosts.
//
// Sparkplug's data are of QoS 0: what is lost between a node and here is counted
// by its seq, not asked for. The package decides nothing about values; aliases,
// births and deaths are package sparkplug's.
package sparkplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// Kind names the source in configurations and dead letters.
const Kind = "sparkplug"

// Defaults of [Options].
const (
	DefaultReorderFor   = 2 * time.Second
	DefaultRebirthEvery = 5 * time.Second
	DefaultWaitFor      = 30 * time.Second
)

const (
	// maxQueued bounds the readings that wait for the edge, and maxReceived the
	// messages before them. Beyond it nothing more is read of the connection.
	maxQueued   = 16 << 10
	maxReceived = 1 << 10
	maxChunk    = 2048
	minPause    = 250 * time.Millisecond
	maxPause    = 15 * time.Second
	farewell    = time.Second
)

// Options say where the broker is and what is read there.
type Options struct {
	// MQTT says where and how to get in; client id, session, will and handler are
	// the source's.
	MQTT     mqttc.Config
	ClientID string
	Site     string   // the edge's; what belongs to another is refused
	Groups   []string // that are listened to; none is the site's own
	Rules    *Rules
	Clock    signal.Clock // the plant's; the time of what says none
	// HostID, if not "", has the source say by STATE that this host is online:
	// nodes may have it for their primary host.
	HostID string
	// ReorderFor is how long a message waits for those before it.
	ReorderFor time.Duration
	// RebirthEvery is the least time between two requests for a node's births.
	RebirthEvery time.Duration
	// WaitFor is how long data wait for the birth that they need.
	WaitFor time.Duration
	// SilentAfter is how long a connection may bring nothing before it is given
	// up; 0 leaves that to the keep-alive.
	SilentAfter time.Duration
}

// Opener opens the source; it has no position.
func Opener(o Options) source.Opener {
	return func(_ []byte, log *slog.Logger) (source.Source, error) {
		if o.Rules == nil || o.Clock == nil || o.ClientID == "" || o.Site == "" || len(o.MQTT.Addresses) == 0 {
			return nil, errors.New("opening the Sparkplug source: addresses, client id, site, rules and clock must be given")
		}
		if o.ReorderFor <= 0 {
			o.ReorderFor = DefaultReorderFor
		}
		if o.RebirthEvery <= 0 {
			o.RebirthEvery = DefaultRebirthEvery
		}
		if o.WaitFor <= 0 {
			o.WaitFor = DefaultWaitFor
		}
		if len(o.Groups) == 0 {
			o.Groups = []string{o.Site}
		}
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		ctx, stop := context.WithCancel(context.Background())
		s := &subscriber{
			opt: o, log: log, ctx: ctx, stop: stop, queue: make(chan item, maxQueued),
			nodes: map[string]*node{}, gapped: map[*node]struct{}{}, paths: map[signal.Path]string{},
		}
		s.running.Go(func() { s.run(ctx) })
		return s, nil
	}
}

// item is a reading, or what is none.
type item struct {
	sample  source.Sample
	refused *source.Refusal
}

type subscriber struct {
	opt     Options
	log     *slog.Logger
	ctx     context.Context //nolint:containedctx // the source's life, which every put ends with
	stop    context.CancelFunc
	running sync.WaitGroup
	queue   chan item

	// Of run's goroutine.
	nodes      map[string]*node
	gapped     map[*node]struct{}     // of which messages wait for others
	paths      map[signal.Path]string // whose each is
	remembered int
	payload    sparkplug.Payload
	waited     sparkplug.Payload   // of a message that waited for its turn
	commands   []sparkplug.Message // to be published
	stateAt    time.Time           // the timestamp of this session's STATE

	// Of the goroutine that calls Next.
	samples []source.Sample
	refused []source.Refusal

	mu     sync.Mutex
	counts counts
}

type counts struct {
	messages, refused, connects, connected int64
	births, deaths, rebirths               int64
	gaps, late, waiting, expired, skipped  int64
}

func (s *subscriber) count(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// run connects again and again until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		connected, err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if connected {
			pause = minPause
		}
		s.log.Warn("the Sparkplug source has no broker; it is tried again", "brokers", s.opt.MQTT.Addresses, "cause", err, "after", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

func (s *subscriber) session(ctx context.Context) (connected bool, err error) {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	received := make(chan mqttc.Message, maxReceived)
	cfg := s.opt.MQTT
	cfg.ClientID, cfg.CleanSession = s.opt.ClientID, true
	cfg.OnMessage = func(m mqttc.Message) {
		m.Ack()
		select {
		case received <- m:
		case <-inner.Done():
		}
	}
	s.stateAt = time.Now()
	if s.opt.HostID != "" {
		cfg.Will = &mqttc.Will{Topic: sparkplug.StateTopic(s.opt.HostID), Payload: s.stateOf(false), QoS: 1, Retained: true}
	}
	// What the nodes declared before may have changed since.
	for _, n := range s.nodes {
		s.giveUpAll(n, time.Now())
		n.host.Reconnected()
		n.order.forget()
		n.born = false
	}
	conn, err := mqttc.Connect(inner, cfg)
	if err != nil {
		return false, err
	}
	defer func() {
		if ctx.Err() != nil {
			s.leave(conn)
		}
		stop()
		conn.Abort()
		<-conn.Done()
		s.count(func() { s.counts.connected = 0 })
	}()
	filters := map[string]byte{}
	for _, group := range s.opt.Groups {
		filters[sparkplug.GroupFilter(group)] = 1
	}
	if s.opt.HostID != "" {
		filters[sparkplug.StateTopic(s.opt.HostID)] = 1
	}
	if err := conn.Subscribe(ctx, filters); err != nil {
		return false, err
	}
	if err := s.sayOnline(ctx, conn); err != nil {
		return false, err
	}
	s.count(func() { s.counts.connects++; s.counts.connected = 1 })
	return true, s.listen(ctx, conn, received)
}

// listen works on what comes until the connection or ctx ends.
func (s *subscriber) listen(ctx context.Context, conn *mqttc.Conn, received <-chan mqttc.Message) error {
	silent := time.NewTimer(s.opt.SilentAfter)
	defer silent.Stop()
	if s.opt.SilentAfter <= 0 {
		silent.Stop()
	}
	reorder := time.NewTimer(time.Hour)
	defer reorder.Stop()
	for {
		select {
		case m := <-received:
			if s.opt.SilentAfter > 0 {
				silent.Reset(s.opt.SilentAfter)
			}
			s.message(m)
		case <-reorder.C:
		case <-silent.C:
			return fmt.Errorf("nothing came for %s", s.opt.SilentAfter)
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
		reorder.Reset(s.expired(time.Now()))
		for _, m := range s.commands {
			if _, err := conn.PublishAsync(ctx, m.Topic, m.QoS, m.Retained, m.Payload); err != nil {
				return err
			}
		}
		s.commands = s.commands[:0]
	}
}

func (s *subscriber) stateOf(online bool) []byte {
	return sparkplug.AppendState(nil, sparkplug.State{Online: online, Timestamp: uint64(s.stateAt.UnixMilli())})
}

func (s *subscriber) sayOnline(ctx context.Context, conn *mqttc.Conn) error {
	if s.opt.HostID == "" {
		return nil
	}
	return conn.Publish(ctx, sparkplug.StateTopic(s.opt.HostID), 1, true, s.stateOf(true))
}

// state sees to it that the broker keeps this host online: the will of an earlier
// connection may come in after this one's state.
func (s *subscriber) state(t sparkplug.Topic, m mqttc.Message) {
	if t.Host != s.opt.HostID {
		return
	}
	heard, err := sparkplug.ParseState(m.Payload)
	if err != nil || heard.Online {
		return
	}
	// A state from the far future is nobody's will; nodes ignore it too.
	latest := time.Now().Add(24 * time.Hour)
	if at := time.UnixMilli(int64(min(heard.Timestamp, uint64(latest.UnixMilli())+1))); at.After(s.stateAt) && !at.After(latest) {
		s.stateAt = at
	}
	s.commands = append(s.commands, sparkplug.Message{Topic: sparkplug.StateTopic(s.opt.HostID), QoS: 1, Retained: true, Payload: s.stateOf(true)})
}

// leave says that the host goes, as its will would.
func (s *subscriber) leave(conn *mqttc.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if s.opt.HostID != "" {
		s.stateAt = time.Now()
		if err := conn.Publish(ctx, sparkplug.StateTopic(s.opt.HostID), 1, true, s.stateOf(false)); err != nil {
			return // the will says it
		}
	}
	_ = conn.Close(ctx)
}

// put queues an item, and waits for room until the source is closed.
func (s *subscriber) put(it item) {
	select {
	case s.queue <- it:
	case <-s.ctx.Done():
	}
}

// Next returns what has come.
func (s *subscriber) Next(ctx context.Context) (source.Chunk, error) {
	s.samples, s.refused = s.samples[:0], s.refused[:0]
	select {
	case it := <-s.queue:
		s.chunk(it)
	case <-ctx.Done():
		return source.Chunk{}, ctx.Err()
	}
	for len(s.samples)+len(s.refused) < maxChunk {
		select {
		case it := <-s.queue:
			s.chunk(it)
			continue
		default:
		}
		break
	}
	return source.Chunk{Time: s.opt.Clock.Now(), Samples: s.samples, Refused: s.refused}, nil
}

func (s *subscriber) chunk(it item) {
	if it.refused != nil {
		s.refused = append(s.refused, *it.refused)
		return
	}
	s.samples = append(s.samples, it.sample)
}

// Take has nothing to keep: what was not taken is gone with QoS 0.
func (s *subscriber) Take() {}

// Position is nowhere.
func (s *subscriber) Position() []byte { return nil }

// Mark has nothing to let go of; the source is a Confirmer so that its figures may
// be asked for while nothing comes.
func (s *subscriber) Mark() (committed func()) { return func() {} }

// Figures are of this opening.
func (s *subscriber) Figures() []signal.Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.counts
	var out []signal.Counter
	for _, c := range []struct {
		name  string
		value int64
	}{
		{"source_messages", n.messages},
		{"source_refused", n.refused},
		{"source_connects", n.connects},
		{"source_connected_now", n.connected},
		{"source_births", n.births},
		{"source_deaths", n.deaths},
		{"source_rebirths_asked", n.rebirths},
		{"source_gaps", n.gaps},
		{"source_late", n.late},
		{"source_waiting", n.waiting},
		{"source_expired", n.expired},
		{"source_skipped", n.skipped},
	} {
		out = append(out, signal.Counter{Station: "edge", Name: c.name, Value: c.value})
	}
	return out
}

// Close leaves the broker.
func (s *subscriber) Close() error {
	s.stop()
	s.running.Wait()
	return nil
}
