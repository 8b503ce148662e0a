// Package bridge carries Sparkplug messages from an MQTT broker to Kafka: each
// Headrace message becomes exactly one record, and the edge that sent it hears
// of it only when Kafka has it.
//
// It keeps no acknowledgement state on disk and decides nothing about values:
// what it did not bring to Kafka the edges send again, and repeats are told
// apart by the tables. What fits nothing goes to the dead-letter topic with
// its reason and its bytes.
package bridge

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// Defaults of [Options].
const (
	DefaultHostID       = "headrace"
	DefaultMaxPending   = 64 << 20
	DefaultAckEvery     = 50 * time.Millisecond
	DefaultRebirthEvery = 5 * time.Second
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	// farewell is how long an ending bridge waits for Kafka, so that what
	// arrives still is acknowledged.
	farewell = time.Second
)

// Producer is what the bridge needs of [kafkac.Producer].
type Producer interface {
	Produce(ctx context.Context, r kafkac.Record, done func(partition int32, offset int64, err error)) error
}

// Routes tell which topic a stream has. The bridge claims one for a stream that
// has none, and [Bridge.Routed] is then told of it.
type Routes interface {
	Topic(signal.Stream) (topic string, known bool)
	Claim(signal.Stream)
	Headers(signal.Stream) []record.Header
}

// Options set a bridge up.
type Options struct {
	// MQTT says which broker; ClientID, CleanSession, Will and OnMessage are
	// the bridge's.
	MQTT mqttc.Config
	// ClientID names the session that the broker keeps for this bridge, so that what
	// others publish with QoS 1 while the bridge is away, or had not brought to Kafka,
	// comes then; each bridge has its own. "" is a session that ends with the
	// connection.
	ClientID string
	Producer Producer
	Clock    signal.Clock // the plant's: the time of the records
	HostID   string
	// MaxPending bounds the bytes that wait for Kafka. Beyond it the bridge
	// leaves the broker until they are written, and the edges keep what they
	// have. It must be below the producer's own bound.
	MaxPending int64
	// AckEvery is the least time between two acknowledgements of an edge.
	AckEvery time.Duration
	// RebirthEvery is the least time between two requests for a rebirth of an
	// edge node.
	RebirthEvery time.Duration
	// Plain reads what is no Sparkplug; nil reads none of it.
	Plain *plain.Set
	// Routes give streams topics of their own; nil gives each class its topic.
	Routes Routes
	// Share lets this bridge share the edge nodes with others; nil owns all.
	Share *Share
	Log   *slog.Logger // warnings; nil is silent
	// Reached is told of "bridge.kafka_acked", before the edge is, and of
	// "bridge.edge_acked".
	Reached signal.Reached
}

// Bridge is a bridge between one broker and one Kafka.
type Bridge struct {
	opts     Options
	clientID string

	// receiving guards what one message after another needs.
	receiving sync.Mutex
	payload   sparkplug.Payload
	nodes     map[string]*node
	sites     map[string]*node         // of plain messages
	shares    *shares                  // nil owns all
	unrouted  map[signal.Stream][]*job // wait for their stream's topic
	conn      atomic.Pointer[mqttc.Conn]

	mu      sync.Mutex
	pending int64 // bytes that wait for Kafka
	drained chan struct{}
	acks    map[ackKey]*signal.Intervals
	outbox  []sparkplug.Message // rebirth commands and states to publish
	stateAt time.Time           // the timestamp of this session's state
	again   []*job              // records that Kafka refused
	full    bool                // left the broker because of MaxPending
	counts  counts

	toPublish chan struct{} // acks or outbox has something
	toRetry   chan struct{} // again has something
}

// New returns a bridge that does nothing until Run.
func New(opts Options) (*Bridge, error) {
	if opts.Producer == nil || opts.Clock == nil {
		return nil, errors.New("starting the bridge: it needs a producer and a clock")
	}
	if opts.HostID == "" {
		opts.HostID = DefaultHostID
	}
	if opts.MaxPending <= 0 {
		opts.MaxPending = DefaultMaxPending
	}
	if opts.AckEvery <= 0 {
		opts.AckEvery = DefaultAckEvery
	}
	if opts.RebirthEvery <= 0 {
		opts.RebirthEvery = DefaultRebirthEvery
	}
	b := &Bridge{
		opts:     opts,
		clientID: cmp.Or(opts.ClientID, "headrace-bridge-"+uuid.NewString()[:8]),
		nodes:    make(map[string]*node), sites: make(map[string]*node), unrouted: make(map[signal.Stream][]*job), acks: make(map[ackKey]*signal.Intervals),
		toPublish: make(chan struct{}, 1), toRetry: make(chan struct{}, 1),
	}
	if opts.Share != nil {
		b.shares = newShares(*opts.Share)
	}
	return b, nil
}

// Run bridges until ctx ends, over all losses of the broker and of Kafka.
func (b *Bridge) Run(ctx context.Context) error {
	var retrying sync.WaitGroup
	retrying.Go(func() { b.retry(ctx) })
	if b.shares != nil {
		retrying.Go(func() { b.shareOut(ctx) })
	}
	defer retrying.Wait()
	backoff := minBackoff
	for ctx.Err() == nil {
		if !b.awaitDrained(ctx) {
			break
		}
		connected, err := b.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if connected {
			backoff = minBackoff
		}
		if err != nil {
			b.warn("the connection to the broker is lost; trying again", "error", err, "after", backoff)
		}
		if !sleep(ctx, backoff) {
			break
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// session is one connection, from CONNECT to its end.
func (b *Bridge) session(ctx context.Context) (connected bool, err error) {
	cfg := b.opts.MQTT
	cfg.ClientID, cfg.CleanSession = b.clientID, b.opts.ClientID == ""
	// The timestamp tells this connection's will from those before it; it
	// must grow over restarts, which the plant's clock need not.
	began := time.Now()
	cfg.Will = &mqttc.Will{Topic: sparkplug.StateTopic(b.opts.HostID), Payload: b.state(false, began), QoS: 1, Retained: true}
	b.mu.Lock()
	b.stateAt = began
	b.mu.Unlock()
	cfg.OnMessage = func(m mqttc.Message) { b.receive(ctx, m) }
	b.receiving.Lock()
	for _, n := range b.nodes {
		n.host.Reconnected()
	}
	b.receiving.Unlock()
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return false, err
	}
	b.conn.Store(conn)
	defer b.conn.Store(nil)
	b.count(func(c *counts) { c.connects++; c.connected = 1 })
	defer b.count(func(c *counts) { c.connected = 0 })

	if err := b.hello(ctx, conn); err != nil {
		conn.Abort()
		<-conn.Done()
		return false, err
	}
	err = b.publish(ctx, conn)
	if ctx.Err() != nil {
		b.leave(conn)
		return true, nil
	}
	conn.Abort()
	<-conn.Done()
	if b.leftFull() {
		b.warn("left the broker: Kafka does not take what arrives", "pending_mib", b.opts.MaxPending>>20)
		return true, nil
	}
	if err == nil {
		err = conn.Err()
	}
	return true, err
}

// hello subscribes first, so that nothing that an edge sends upon the state is
// missed.
func (b *Bridge) hello(ctx context.Context, conn *mqttc.Conn) error {
	if err := conn.Subscribe(ctx, map[string]byte{sparkplug.Namespace + "/#": 1}); err != nil {
		return err
	}
	if b.opts.Plain != nil {
		for _, f := range b.opts.Plain.Filters() {
			err := conn.Subscribe(ctx, map[string]byte{f: 1})
			if errors.Is(err, mqttc.ErrNotSubscribed) {
				// Who speaks Sparkplug alone need not give the right to more.
				b.warn("plain messages of these topics are not read", "filter", f, "cause", err)
				continue
			}
			if err != nil {
				return err
			}
		}
	}
	return b.sayOnline(ctx, conn)
}

// sayOnline publishes that this host is there; again and again with one
// timestamp, so that nobody takes it for a new session.
func (b *Bridge) sayOnline(ctx context.Context, conn *mqttc.Conn) error {
	b.mu.Lock()
	at := b.stateAt
	b.mu.Unlock()
	return conn.Publish(ctx, sparkplug.StateTopic(b.opts.HostID), 1, true, b.state(true, at))
}

// stateAgain is when the state is repeated, counted from the one before; the
// last pause stays. A broker may store a retained message only after it has
// delivered it: who subscribes in between would not see this host.
func stateAgain() []time.Duration {
	return []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 30 * time.Second}
}

// leave gives Kafka a moment for what is on its way, passes the
// acknowledgements on and goes offline.
func (b *Bridge) leave(conn *mqttc.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*farewell)
	defer cancel()
	waiting, stop := context.WithTimeout(ctx, farewell)
	b.awaitPending(waiting)
	stop()
	b.flush(ctx, conn)
	if err := conn.Publish(ctx, sparkplug.StateTopic(b.opts.HostID), 1, true, b.state(false, time.Now())); err != nil {
		b.warn("going offline", "error", err)
	}
	_ = conn.Close(ctx)
}

func (b *Bridge) state(online bool, at time.Time) []byte {
	return sparkplug.AppendState(nil, sparkplug.State{Online: online, Timestamp: uint64(at.UnixMilli())})
}

// publish sends acknowledgements and commands until the connection or ctx
// ends.
func (b *Bridge) publish(ctx context.Context, conn *mqttc.Conn) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pauses := stateAgain()
	again := time.NewTimer(pauses[0])
	defer again.Stop()
	for {
		select {
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			if err := b.sayOnline(ctx, conn); err != nil {
				return err
			}
			if len(pauses) > 1 {
				pauses = pauses[1:]
			}
			again.Reset(pauses[0])
		case <-b.toPublish:
		}
		if err := b.flush(ctx, conn); err != nil {
			return err
		}
		timer.Reset(b.opts.AckEvery)
		select {
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// flush publishes what there is. What could not be sent is kept.
func (b *Bridge) flush(ctx context.Context, conn *mqttc.Conn) error {
	b.mu.Lock()
	acks, outbox := b.acks, b.outbox
	b.acks, b.outbox = make(map[ackKey]*signal.Intervals), nil
	b.mu.Unlock()
	for _, m := range outbox {
		if err := conn.Publish(ctx, m.Topic, m.QoS, m.Retained, m.Payload); err != nil {
			b.keepAcks(acks)
			return err
		}
	}
	for key, set := range acks {
		if err := b.publishAck(ctx, conn, key, set.Ranges()); err != nil {
			b.keepAcks(acks)
			return err
		}
		delete(acks, key)
	}
	return nil
}

// maxRanges keeps an acknowledgement far below what an edge takes.
const maxRanges = 10_000

func (b *Bridge) publishAck(ctx context.Context, conn *mqttc.Conn, key ackKey, ranges []signal.Range) error {
	for len(ranges) > 0 {
		n := min(len(ranges), maxRanges)
		payload := sparkplug.AppendAck(nil, sparkplug.Ack{Boot: key.boot, Ranges: ranges[:n]})
		if err := conn.Publish(ctx, sparkplug.AckTopic(key.group, key.edge), 0, false, payload); err != nil {
			return err
		}
		b.count(func(c *counts) { c.acks++ })
		b.opts.Reached.At("bridge.edge_acked")
		ranges = ranges[n:]
	}
	return nil
}

// keepAcks puts acknowledgements back that were not published.
func (b *Bridge) keepAcks(acks map[ackKey]*signal.Intervals) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, set := range acks {
		for _, r := range set.Ranges() {
			b.acknowledge(key, r)
		}
	}
}

// acknowledge notes that Kafka has the messages; b.mu is held.
func (b *Bridge) acknowledge(key ackKey, r signal.Range) {
	set := b.acks[key]
	if set == nil {
		set = new(signal.Intervals)
		b.acks[key] = set
	}
	set.AddRange(r)
	wake(b.toPublish)
}

// leftFull tells whether the connection ended because too much was pending.
func (b *Bridge) leftFull() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.full
}

// awaitDrained waits, after the bridge left the broker because Kafka did not
// take what arrived, until it has taken all of it.
func (b *Bridge) awaitDrained(ctx context.Context) bool {
	if !b.leftFull() {
		return true
	}
	if !b.awaitPending(ctx) {
		return false
	}
	b.mu.Lock()
	b.full = false
	b.mu.Unlock()
	b.warn("Kafka has taken all that was pending; going back to the broker")
	return true
}

// awaitPending waits until nothing waits for Kafka.
func (b *Bridge) awaitPending(ctx context.Context) bool {
	for {
		b.mu.Lock()
		if b.pending == 0 {
			b.mu.Unlock()
			return true
		}
		if b.drained == nil {
			b.drained = make(chan struct{})
		}
		drained := b.drained
		b.mu.Unlock()
		select {
		case <-drained:
		case <-ctx.Done():
			return false
		}
	}
}

func (b *Bridge) warn(msg string, args ...any) {
	if b.opts.Log != nil {
		b.opts.Log.Warn("bridge: "+msg, args...)
	}
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// counts are the bridge's figures; see Counters.
type counts struct {
	connects, connected, overflows       int64
	messages, ignored, idle              int64
	records, readings, events, dead      int64
	needsRebirth, waiting, rebirths      int64
	gaps, skipped, expired, acks, repeat int64
	others, takenOver, heldOver, owned   int64
	plain, foreign, foreignGaps          int64
}

func (b *Bridge) count(add func(*counts)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	add(&b.counts)
}

// Counters returns the bridge's figures.
func (b *Bridge) Counters() []signal.Counter {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := &b.counts
	var out []signal.Counter
	for _, c := range []struct {
		name  string
		value int64
	}{
		{"connects", n.connects},
		{"connected_now", n.connected},
		{"overflows", n.overflows}, // times it left the broker because of MaxPending
		{"messages", n.messages},
		{"records", n.records}, // that Kafka has, of readings, events and raw alike
		{"readings", n.readings},
		{"events", n.events}, // births and deaths that Kafka has
		{"deadletters", n.dead},
		{"idle", n.idle},
		{"ignored", n.ignored},
		{"needs_rebirth", n.needsRebirth}, // messages that were left to the edge to send again
		{"waiting", n.waiting},            // foreign messages that waited for a birth
		{"expired", n.expired},            // of those, given up
		{"gaps", n.gaps},                  // foreign messages that never came
		{"skipped", n.skipped},            // foreign metrics that are no reading
		{"rebirths_asked", n.rebirths},
		{"acks", n.acks},
		{"retries", n.repeat}, // records that Kafka refused and that were produced again
		{"pending_bytes_now", b.pending},
		{"plain", n.plain},              // messages that are no Sparkplug and were read
		{"foreign", n.foreign},          // records read of topics that others fill
		{"foreign_gaps", n.foreignGaps}, // times such a topic no longer held what comes next
		{"others", n.others},            // messages of nodes that another bridge owns
		{"taken_over", n.takenOver},     // of those, worked on because its owner was gone
		{"held_overflows", n.heldOver},  // of those, given up before their time for want of room
		{"shares_now", n.owned},
	} {
		out = append(out, signal.Counter{Station: "bridge", Name: c.name, Value: c.value})
	}
	return out
}

// ackKey is what an acknowledgement is about.
type ackKey struct{ group, edge, boot string }
