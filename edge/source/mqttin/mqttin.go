// Package mqttin is a source of an edge: readings that a plant's own MQTT broker
// has, by plain topics or by mapping rules (package plain).
//
// A message of QoS 1 is acknowledged to the broker when the edge's outbox has it,
// so the broker keeps what the edge has not. It decides nothing about values.
package mqttin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
)

// maxQueued bounds the messages that wait for the edge. Beyond it nothing more is
// read of the connection, and the broker keeps what it may.
const maxQueued = 4 << 10

// maxChunk is how many messages are handed on at once.
const maxChunk = 512

const (
	minPause = 250 * time.Millisecond
	maxPause = 15 * time.Second
	farewell = time.Second
)

// Options say where the broker is and what is read there.
type Options struct {
	// MQTT says where and how to get in; client id, session and handler are the
	// source's.
	MQTT mqttc.Config
	// ClientID names the session that the broker keeps for the edge.
	ClientID string
	Site     string // the edge's; what belongs to another is refused
	Map      *plain.Set
	Clock    signal.Clock // the plant's; the time of what says none
	// SilentAfter is how long a connection may bring nothing before it is given
	// up; 0 leaves that to the keep-alive.
	SilentAfter time.Duration
}

// Opener opens the source; it has no position, the broker keeps it.
func Opener(o Options) source.Opener {
	return func(_ []byte, log *slog.Logger) (source.Source, error) {
		if o.Map == nil || o.Clock == nil || o.ClientID == "" || len(o.MQTT.Addresses) == 0 {
			return nil, errors.New("opening the MQTT source: addresses, client id, rules and clock must be given")
		}
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		ctx, stop := context.WithCancel(context.Background())
		s := &subscriber{opt: o, log: log, stop: stop, queue: make(chan item, maxQueued)}
		s.running.Go(func() { s.run(ctx) })
		return s, nil
	}
}

// item is a message that the edge has not committed.
type item struct {
	message plain.Message
	refused *source.Refusal // it is no reading
	ack     func()
}

type subscriber struct {
	opt     Options
	log     *slog.Logger
	stop    context.CancelFunc
	running sync.WaitGroup
	queue   chan item

	// Of the goroutine that calls Next.
	samples []source.Sample
	refused []source.Refusal
	read    []func() // acknowledgements of the chunk that Next returned
	taken   []func() // of those that were taken since the last Mark

	mu     sync.Mutex
	counts struct{ messages, refused, connects, connected int64 }
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
		s.log.Warn("the MQTT source has no broker; it is tried again", "brokers", s.opt.MQTT.Addresses, "cause", err, "after", pause)
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
	outer := ctx
	ctx, stop := context.WithCancel(outer)
	defer stop()
	heard := make(chan struct{}, 1)
	cfg := s.opt.MQTT
	cfg.ClientID, cfg.CleanSession = s.opt.ClientID, false
	reader := s.opt.Map.Reader() // of this connection's goroutine
	cfg.OnMessage = func(m mqttc.Message) {
		select {
		case heard <- struct{}{}:
		default:
		}
		s.receive(ctx, reader, m)
	}
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() {
		stop()
		if outer.Err() != nil {
			// Acknowledgements that wait for the socket go out.
			ctx, cancel := context.WithTimeout(context.Background(), farewell)
			defer cancel()
			_ = conn.Close(ctx)
		} else {
			conn.Abort()
			<-conn.Done()
		}
		s.count(func() { s.counts.connected = 0 })
	}()
	filters := map[string]byte{}
	for _, f := range s.opt.Map.Filters() {
		filters[f] = 1
	}
	if err := conn.Subscribe(ctx, filters); err != nil {
		return false, err
	}
	s.count(func() { s.counts.connects++; s.counts.connected = 1 })
	silent := time.NewTimer(s.opt.SilentAfter)
	defer silent.Stop()
	if s.opt.SilentAfter <= 0 {
		silent.Stop()
	}
	for {
		select {
		case <-heard:
			if s.opt.SilentAfter > 0 {
				silent.Reset(s.opt.SilentAfter)
			}
		case <-silent.C:
			return true, fmt.Errorf("nothing came for %s", s.opt.SilentAfter)
		case <-conn.Done():
			return true, conn.Err()
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// receive queues a message, and waits for room until the session ends.
func (s *subscriber) receive(ctx context.Context, reader *plain.Reader, m mqttc.Message) {
	if m.Retained {
		m.Ack()
		return // it comes from another time, which it may not tell
	}
	msg, err := reader.Read(m.Topic, m.Payload, signal.MicrosOf(s.opt.Clock.Now()))
	if err == nil {
		if site, _, _ := msg.Asset.Split(); site != s.opt.Site {
			err = fmt.Errorf("it is of site %s; this edge is of %s", site, s.opt.Site)
		}
	}
	it := item{message: msg, ack: m.Ack}
	if err != nil {
		s.log.Warn("a message of the MQTT source is refused", "topic", m.Topic, "cause", err)
		it = item{ack: m.Ack, refused: &source.Refusal{Source: "mqtt", From: m.Topic, Reason: err.Error(), Bytes: m.Payload}}
	}
	select {
	case s.queue <- it:
		s.count(func() {
			s.counts.messages++
			if err != nil {
				s.counts.refused++
			}
		})
	case <-ctx.Done():
	}
}

// Next returns what has come.
func (s *subscriber) Next(ctx context.Context) (source.Chunk, error) {
	s.Take()
	s.samples, s.refused = s.samples[:0], s.refused[:0]
	select {
	case it := <-s.queue:
		s.put(it)
	case <-ctx.Done():
		return source.Chunk{}, ctx.Err()
	}
	for len(s.samples)+len(s.refused) < maxChunk {
		select {
		case it := <-s.queue:
			s.put(it)
			continue
		default:
		}
		break
	}
	return source.Chunk{Time: s.opt.Clock.Now(), Samples: s.samples, Refused: s.refused}, nil
}

func (s *subscriber) put(it item) {
	if it.refused != nil {
		s.refused = append(s.refused, *it.refused)
	} else {
		m := &it.message
		s.samples = append(s.samples, source.Sample{Asset: m.Asset, Class: m.Class, Reading: m.Reading, Arrived: m.Arrived})
	}
	s.read = append(s.read, it.ack)
}

// Take says that the chunk is taken.
func (s *subscriber) Take() {
	s.taken = append(s.taken, s.read...)
	s.read = s.read[:0]
}

// Mark is what was taken since the last one; the returned function says that the
// outbox has it.
func (s *subscriber) Mark() (committed func()) {
	acks := s.taken
	s.taken = nil
	return func() {
		for _, ack := range acks {
			ack()
		}
	}
}

// Position is the broker's to keep.
func (s *subscriber) Position() []byte { return nil }

// Figures are of this opening.
func (s *subscriber) Figures() []signal.Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []signal.Counter{
		{Station: "edge", Name: "source_messages", Value: s.counts.messages},
		{Station: "edge", Name: "source_refused", Value: s.counts.refused},
		{Station: "edge", Name: "source_connects", Value: s.counts.connects},
		{Station: "edge", Name: "source_connected_now", Value: s.counts.connected},
	}
}

// Close leaves the broker, which keeps the session.
func (s *subscriber) Close() error {
	s.stop()
	s.running.Wait()
	return nil
}
