package bridge

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// maxNodes bounds the edge nodes that are followed.
const maxNodes = 20_000

// node is an edge node as the bridge follows it.
type node struct {
	group, edge string
	host        *sparkplug.HostSession

	// What foreign nodes have no names for: a boot drawn at each birth, and
	// the numbers within it.
	boot string
	seq  uint64
	n    map[signal.Stream]uint64
}

// identify gives a foreign batch an identity. Nothing can repeat it: a
// foreign node that sends a value twice is seen to by the tables.
func (n *node) identify(batch *signal.Batch) {
	if n.boot == "" {
		n.boot = uuid.Must(uuid.NewV7()).String()
		n.seq, n.n = 0, make(map[signal.Stream]uint64)
	}
	n.seq++
	batch.Boot, batch.Seq, batch.N = n.boot, n.seq, n.n[batch.Stream]
	n.n[batch.Stream]++
}

// receive takes one message of the connection, and leaves it to others if its
// node is theirs.
func (b *Bridge) receive(ctx context.Context, m mqttc.Message) {
	b.receiving.Lock()
	defer b.receiving.Unlock()
	if b.shares != nil {
		name := m.Topic
		topic, err := sparkplug.ParseTopic(m.Topic)
		if err == nil {
			name = topic.EdgeID()
		}
		if (err != nil || topic.Type != sparkplug.StateT) && !b.ours(name, m) {
			return
		}
	}
	b.work(ctx, m)
}

// work does what a message asks for; b.receiving is held. It does not block as
// long as the producer has room for MaxPending.
func (b *Bridge) work(ctx context.Context, m mqttc.Message) {
	b.mu.Lock()
	if !b.full && b.pending > b.opts.MaxPending {
		b.full = true
		b.counts.overflows++
		if conn := b.conn.Load(); conn != nil {
			conn.Abort()
		}
	}
	full := b.full
	if !full {
		b.counts.messages++
	}
	b.mu.Unlock()
	if full || ctx.Err() != nil {
		return // the edge has it
	}
	in := &inbound{ack: m.Ack}
	in.left.Store(1)
	defer in.release()
	b.handle(ctx, in, m)
}

// handle reads a message, wherever it came from; b.receiving is held.
func (b *Bridge) handle(ctx context.Context, in *inbound, m mqttc.Message) {
	topic, err := sparkplug.ParseTopic(m.Topic)
	switch {
	case err != nil:
		b.takePlain(ctx, in, m, err)
		return
	case topic.Type == sparkplug.StateT:
		b.receiveState(topic, m)
		return
	case topic.Type == sparkplug.NCmd || topic.Type == sparkplug.DCmd || m.Retained:
		// Sparkplug's data is never retained; what is comes from another time.
		b.count(func(c *counts) { c.ignored++ })
		return
	}
	if err := sparkplug.DecodePayload(m.Payload, &b.payload); err != nil {
		if topic.Type == sparkplug.NDeath {
			// A will is the broker's to send, and some change it.
			b.payload = sparkplug.Payload{}
		} else {
			b.deadLetter(ctx, in, m, topic, sparkplug.Result{Reason: err.Error()}, 0)
			return
		}
	}
	n, err := b.node(topic)
	if err != nil {
		b.deadLetter(ctx, in, m, topic, sparkplug.Result{Reason: err.Error()}, 0)
		return
	}
	b.take(ctx, in, m, topic, n)
}

func (b *Bridge) node(t sparkplug.Topic) (*node, error) {
	id := t.EdgeID()
	n := b.nodes[id]
	if n == nil {
		if len(b.nodes) >= maxNodes {
			return nil, fmt.Errorf("more than %d edge nodes", maxNodes)
		}
		n = &node{group: t.Group, edge: t.Edge, host: sparkplug.NewHostSession(sparkplug.HostConfig{
			Group: t.Group, Edge: t.Edge, RebirthEvery: b.opts.RebirthEvery,
		})}
		b.nodes[strings.Clone(id)] = n
	}
	return n, nil
}

// take does what the node's session makes of the message.
func (b *Bridge) take(ctx context.Context, in *inbound, m mqttc.Message, topic sparkplug.Topic, n *node) {
	now := signal.MicrosOf(b.opts.Clock.Now())
	r := n.host.Receive(now, time.Now(), topic, &b.payload)
	b.mu.Lock()
	b.counts.gaps += int64(r.Gap)
	b.counts.skipped += int64(r.Skipped)
	b.counts.expired += int64(r.Expired)
	switch r.Outcome {
	case sparkplug.Ignored:
		b.counts.ignored++
	case sparkplug.Idle:
		b.counts.idle++
	case sparkplug.Waiting:
		b.counts.waiting++
	case sparkplug.NeedsRebirth:
		b.counts.needsRebirth++
	}
	if r.Rebirth {
		b.counts.rebirths++
		b.outbox = append(b.outbox, sparkplug.RebirthCommand(n.group, n.edge, now))
		wake(b.toPublish)
	}
	b.mu.Unlock()

	switch r.Outcome {
	case sparkplug.Refused:
		b.deadLetter(ctx, in, m, topic, r, len(b.payload.Metrics))
		return
	case sparkplug.Accepted:
	default:
		return
	}
	if r.Event != nil {
		if r.Event.Kind == record.KindNBirth {
			n.boot = ""
		}
		b.produceEvent(ctx, in, r.Event)
	}
	for i := range r.Batches {
		batch := &r.Batches[i]
		if batch.Boot == "" {
			n.identify(batch)
			b.produceBatch(ctx, in, batch, nil, 0)
			continue
		}
		key := ackKey{n.group, n.edge, batch.Boot}
		if _, class := batch.Stream.Split(); class == signal.Refused {
			b.produceRefused(ctx, in, m, topic, batch, &key)
			continue
		}
		b.produceBatch(ctx, in, batch, &key, batch.Seq)
	}
}

// receiveState sees to it that the broker keeps this host online: a will of an
// earlier connection may come in after this one's state.
func (b *Bridge) receiveState(t sparkplug.Topic, m mqttc.Message) {
	if t.Host != b.opts.HostID {
		return
	}
	s, err := sparkplug.ParseState(m.Payload)
	if err != nil || s.Online {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// A state from the far future is nobody's will; edges ignore it too.
	latest := time.Now().Add(24 * time.Hour)
	if heard := time.UnixMilli(int64(min(s.Timestamp, uint64(latest.UnixMilli())+1))); heard.After(b.stateAt) && !heard.After(latest) {
		b.stateAt = heard
	}
	b.outbox = append(b.outbox, sparkplug.Message{
		Topic: sparkplug.StateTopic(b.opts.HostID), QoS: 1, Retained: true, Payload: b.state(true, b.stateAt),
	})
	wake(b.toPublish)
}
