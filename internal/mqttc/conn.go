package mqttc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const (
	// maxQueuedBytes and maxQueued bound what waits for the socket.
	maxQueuedBytes = 256 << 10
	maxQueued      = 1024
	// maxInFlight bounds publications and subscriptions without an answer.
	maxInFlight = 4096
)

// Conn is one session. Its methods may be called from several goroutines.
type Conn struct {
	cfg            Config
	address        string
	sessionPresent bool
	socket         net.Conn
	in             *bufio.Reader
	onMessage      func(Message)

	began        time.Time
	lastSent     atomic.Int64 // time.Duration since began
	lastReceived atomic.Int64

	closing chan struct{} // closed with the first reason to end
	done    chan struct{} // closed when every goroutine has returned
	kick    chan struct{} // tells the writer that there is something
	running sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	err     error
	queue   []outgoing
	queued  int // bytes
	acks    []uint16
	ping    bool
	leaving bool          // a DISCONNECT follows the queue
	left    bool          // it is being written: what the peer does now is its answer
	space   chan struct{} // closed when the queue was taken; nil if nobody waits
	pending map[uint16]*Delivery
	nextID  uint16
	// received are the identifiers of QoS 1 messages that were delivered and have no
	// acknowledgement yet, a bit each.
	received [1 << 16 / 64]uint64
}

type outgoing struct {
	packet   packets.ControlPacket
	delivery *Delivery // completed by the write; nil if an answer completes it
}

// Delivery is the fate of one publication.
type Delivery struct {
	done  chan struct{}
	err   error
	codes []byte // SUBACK's
}

// Done is closed when the message was written (QoS 0) or acknowledged by the
// broker (QoS 1), or cannot be any more.
func (d *Delivery) Done() <-chan struct{} { return d.done }

// Err is valid after Done.
func (d *Delivery) Err() error { return d.err }

func (d *Delivery) complete(err error) {
	d.err = err
	close(d.done)
}

func start(cfg Config, address string, socket net.Conn, in *bufio.Reader, sessionPresent bool) *Conn {
	c := &Conn{
		// Some brokers take the identifiers of both sides for one: theirs begin at 1.
		nextID: 1 << 15,
		cfg:    cfg, address: address, sessionPresent: sessionPresent,
		socket: socket, in: in, onMessage: cfg.OnMessage,
		began:   time.Now(),
		closing: make(chan struct{}), done: make(chan struct{}), kick: make(chan struct{}, 1),
		pending: make(map[uint16]*Delivery),
	}
	c.running.Go(c.read)
	c.running.Go(c.write)
	c.running.Go(c.keepAlive)
	go func() {
		c.running.Wait()
		close(c.done)
	}()
	return c
}

// Address is the configured address that took the connection.
func (c *Conn) Address() string { return c.address }

// SessionPresent tells whether the broker went on with an older session.
func (c *Conn) SessionPresent() bool { return c.sessionPresent }

// Done is closed when the connection is over and nothing of it runs any more.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended: nil while it lives and after Close.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.err, ErrClosed) {
		return nil
	}
	return c.err
}

// Abort drops the socket, so that the broker publishes the will. It does not
// wait; Done tells when all is released.
func (c *Conn) Abort() { c.end(ErrAborted) }

// Close sends what is queued and a DISCONNECT and waits until all is released.
// If ctx ends first the socket is dropped.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.wake()
	select {
	case <-c.done:
	case <-ctx.Done():
		c.end(fmt.Errorf("closing the MQTT connection: %w", ctx.Err()))
		<-c.done
	}
	return c.Err()
}

// end ends the connection once; the first reason counts.
func (c *Conn) end(reason error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended, c.err = true, reason
	queue, pending := c.queue, c.pending
	c.queue, c.pending, c.acks = nil, nil, nil
	c.mu.Unlock()
	close(c.closing)
	_ = c.socket.Close()
	for _, o := range queue {
		if o.delivery != nil {
			o.delivery.complete(reason)
		}
	}
	for _, d := range pending {
		d.complete(reason)
	}
}

func (c *Conn) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// enqueue waits for room and hands the packet to the writer. If needsID, the
// packet takes part in the answer bookkeeping under an identifier of its own.
func (c *Conn) enqueue(ctx context.Context, size int, build func(id uint16) packets.ControlPacket, needsID bool) (*Delivery, error) {
	d := &Delivery{done: make(chan struct{})}
	for {
		c.mu.Lock()
		if c.ended || c.leaving {
			err := c.err
			c.mu.Unlock()
			if err == nil {
				err = ErrClosed
			}
			return nil, err
		}
		room := len(c.queue) == 0 || (c.queued+size <= maxQueuedBytes && len(c.queue) < maxQueued)
		if room && (!needsID || len(c.pending) < maxInFlight) {
			o := outgoing{delivery: d}
			if needsID {
				o.packet, o.delivery = build(c.takeID(d)), nil
			} else {
				o.packet = build(0)
			}
			c.queue = append(c.queue, o)
			c.queued += size
			c.mu.Unlock()
			c.wake()
			return d, nil
		}
		if c.space == nil {
			c.space = make(chan struct{})
		}
		space := c.space
		c.mu.Unlock()
		select {
		case <-space:
		case <-c.closing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// takeID registers d under the next free identifier; c.mu is held, and there
// is a free one because pending is bounded.
func (c *Conn) takeID(d *Delivery) uint16 {
	for {
		c.nextID++
		if c.nextID == 0 {
			continue
		}
		if _, taken := c.pending[c.nextID]; !taken {
			c.pending[c.nextID] = d
			return c.nextID
		}
	}
}

// answered completes the delivery with the given identifier, if there is one.
func (c *Conn) answered(id uint16, codes []byte) {
	c.mu.Lock()
	d := c.pending[id]
	delete(c.pending, id)
	c.freeSpace()
	c.mu.Unlock()
	if d != nil {
		d.codes = slices.Clone(codes)
		d.complete(nil)
	}
}

// freeSpace wakes who waits for room; c.mu is held.
func (c *Conn) freeSpace() {
	if c.space != nil {
		close(c.space)
		c.space = nil
	}
}

func (c *Conn) acknowledge(id uint16) {
	c.mu.Lock()
	c.received[id/64] &^= 1 << (id % 64)
	if !c.ended {
		c.acks = append(c.acks, id)
	}
	c.mu.Unlock()
	c.wake()
}

// repeated notes a QoS 1 message, and tells whether it is a copy of one that is
// being worked on: a broker may send again what it has waited long for.
func (c *Conn) repeated(p *packets.PublishPacket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	bit := uint64(1) << (p.MessageID % 64)
	was := c.received[p.MessageID/64]&bit != 0
	c.received[p.MessageID/64] |= bit
	return was && p.Dup
}

func (c *Conn) read() {
	for {
		p, err := readPacket(c.in, c.cfg.MaxPacketBytes)
		if err != nil {
			c.mu.Lock()
			left := c.left
			c.mu.Unlock()
			if left {
				c.end(ErrClosed)
				return
			}
			c.end(fmt.Errorf("reading from MQTT broker %s: %w", c.address, err))
			return
		}
		c.lastReceived.Store(int64(time.Since(c.began)))
		switch p := p.(type) {
		case *packets.PublishPacket:
			if p.Qos > 1 {
				c.end(fmt.Errorf("reading from MQTT broker %s: message on %q came with QoS %d, which was not asked for", c.address, p.TopicName, p.Qos))
				return
			}
			c.deliver(p)
		case *packets.PubackPacket:
			c.answered(p.MessageID, nil)
		case *packets.SubackPacket:
			c.answered(p.MessageID, p.ReturnCodes)
		case *packets.PingrespPacket:
		default:
			c.end(fmt.Errorf("reading from MQTT broker %s: unexpected %T", c.address, p))
			return
		}
	}
}

func (c *Conn) deliver(p *packets.PublishPacket) {
	if c.onMessage == nil {
		return
	}
	ack := func() {}
	if p.Qos == 1 {
		if c.repeated(p) {
			return
		}
		id := p.MessageID
		ack = func() { c.acknowledge(id) }
	}
	c.onMessage(Message{
		Topic: p.TopicName, Payload: p.Payload, QoS: p.Qos,
		Retained: p.Retain, Duplicate: p.Dup, Ack: ack,
	})
}

// keepAlive pings when nothing went out or came in for the interval, and ends
// the connection when the broker does not answer.
func (c *Conn) keepAlive() {
	interval := c.cfg.KeepAlive
	patience := min(interval, 10*time.Second)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-c.closing:
			return
		case <-timer.C:
		}
		idle := min(c.lastSent.Load(), c.lastReceived.Load())
		if left := time.Duration(idle) + interval - time.Since(c.began); left > 0 {
			timer.Reset(left)
			continue
		}
		asked := int64(time.Since(c.began))
		c.mu.Lock()
		c.ping = true
		c.mu.Unlock()
		c.wake()
		timer.Reset(patience)
		select {
		case <-c.closing:
			return
		case <-timer.C:
		}
		if c.lastReceived.Load() < asked {
			c.end(fmt.Errorf("MQTT broker %s did not answer a ping within %s", c.address, patience))
			return
		}
		timer.Reset(max(interval-patience, time.Millisecond))
	}
}
