package mqttc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Publish sends a message and waits until it is written (QoS 0) or the broker
// has acknowledged it (QoS 1). If ctx ends first, the message may still go
// out.
func (c *Conn) Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error {
	d, err := c.PublishAsync(ctx, topic, qos, retained, payload)
	if err == nil {
		err = d.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", topic, err)
	}
	return nil
}

// PublishAsync queues a message; it waits only while the queue to the socket
// is full. The payload must not be changed before the delivery is done.
func (c *Conn) PublishAsync(ctx context.Context, topic string, qos byte, retained bool, payload []byte) (*Delivery, error) {
	if err := checkTopic(topic); err != nil {
		return nil, err
	}
	if qos > 1 {
		return nil, fmt.Errorf("QoS %d is not supported; use 0 or 1", qos)
	}
	size := len(topic) + len(payload) + 9
	if size > c.cfg.MaxPacketBytes {
		return nil, fmt.Errorf("message of %d bytes is larger than the limit of %d", size, c.cfg.MaxPacketBytes)
	}
	return c.enqueue(ctx, size, func(id uint16) packets.ControlPacket {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload = topic, payload
		p.Qos, p.Retain, p.MessageID = qos, retained, id
		return p
	}, qos > 0)
}

// Subscribe asks for the filters, each with its greatest QoS (0 or 1), and
// waits for the broker's consent.
func (c *Conn) Subscribe(ctx context.Context, filters map[string]byte) error {
	if c.onMessage == nil {
		return errors.New("subscribing: the connection was made without OnMessage")
	}
	names := make([]string, 0, len(filters))
	size := 0
	for f, qos := range filters {
		if f == "" || len(f) > 65535 || qos > 1 {
			return fmt.Errorf("subscribing: filter %q with QoS %d is not valid", f, qos)
		}
		names = append(names, f)
		size += len(f) + 3
	}
	slices.Sort(names)
	d, err := c.enqueue(ctx, size, func(id uint16) packets.ControlPacket {
		p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		p.MessageID = id
		for _, n := range names {
			p.Topics = append(p.Topics, n)
			p.Qoss = append(p.Qoss, filters[n])
		}
		return p
	}, true)
	if err == nil {
		err = d.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", strings.Join(names, ", "), err)
	}
	if len(d.codes) != len(names) {
		return fmt.Errorf("subscribing to %s: the broker answered %d filters", strings.Join(names, ", "), len(d.codes))
	}
	for i, code := range d.codes {
		if code > 1 {
			return fmt.Errorf("subscribing to %s: %w (0x%02x)", names[i], ErrNotSubscribed, code)
		}
	}
	return nil
}

func (d *Delivery) wait(ctx context.Context) error {
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func checkTopic(topic string) error {
	switch {
	case topic == "" || len(topic) > 65535:
		return fmt.Errorf("topic of %d bytes is not valid", len(topic))
	case !utf8.ValidString(topic) || strings.ContainsAny(topic, "+#\x00"):
		return fmt.Errorf("topic %q holds a wildcard, NUL or bytes that are not UTF-8", topic)
	}
	return nil
}

// write is the writer: it takes the whole queue, writes it in one go and
// completes what the write completes.
func (c *Conn) write() {
	out := bufio.NewWriterSize(c.socket, 16<<10)
	var batch []outgoing
	var acks []uint16
	for {
		select {
		case <-c.kick:
		case <-c.closing:
			return
		}
		c.mu.Lock()
		batch, c.queue = c.queue, batch[:0]
		acks, c.acks = c.acks, acks[:0]
		ping, leaving := c.ping, c.leaving
		c.queued, c.ping, c.left = 0, false, leaving
		c.freeSpace()
		c.mu.Unlock()

		err := c.writeAll(out, acks, batch, ping, leaving)
		if err != nil {
			err = fmt.Errorf("writing to MQTT broker %s: %w", c.address, err)
		}
		for i := range batch {
			if d := batch[i].delivery; d != nil {
				d.complete(err)
			}
			batch[i] = outgoing{}
		}
		switch {
		case err != nil:
			c.end(err)
			return
		case leaving:
			c.end(ErrClosed)
			return
		}
		c.lastSent.Store(int64(time.Since(c.began)))
	}
}

func (c *Conn) writeAll(out *bufio.Writer, acks []uint16, batch []outgoing, ping, leaving bool) error {
	if err := c.socket.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout)); err != nil {
		return err
	}
	for _, id := range acks {
		// PUBACK is two fixed bytes and the identifier.
		if _, err := out.Write([]byte{packets.Puback << 4, 2, byte(id >> 8), byte(id)}); err != nil {
			return err
		}
	}
	for _, o := range batch {
		if err := o.packet.Write(out); err != nil {
			return err
		}
	}
	if ping {
		if err := packets.NewControlPacket(packets.Pingreq).Write(out); err != nil {
			return err
		}
	}
	if leaving {
		if err := packets.NewControlPacket(packets.Disconnect).Write(out); err != nil {
			return err
		}
	}
	return out.Flush()
}

// readPacket reads one packet and refuses one above limit before any memory
// is taken for it.
func readPacket(in *bufio.Reader, limit int) (packets.ControlPacket, error) {
	length, used := 0, 0
	for i := range 4 {
		head, err := in.Peek(i + 2)
		if err != nil {
			return nil, err
		}
		length |= int(head[i+1]&0x7f) << (7 * i)
		if head[i+1]&0x80 == 0 {
			used = i + 2
			break
		}
	}
	if used == 0 {
		return nil, errors.New("the packet's length is malformed")
	}
	if length > limit {
		return nil, fmt.Errorf("packet of %d bytes is larger than the limit of %d", length, limit)
	}
	if length <= in.Size()-used {
		// Small packets are checked as a whole, so that a peer that stalls
		// within one holds no memory.
		if _, err := in.Peek(used + length); err != nil {
			return nil, err
		}
	}
	return packets.ReadPacket(in)
}
