package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
)

// Share lets several bridges of one Kafka share the edge nodes. Every bridge
// hears everything; each message is worked on by the one that owns its node.
//
// Ownership is a Kafka consumer group over the empty topic
// [record.TopicBridges]: a node belongs to the partition that murmur2 of its
// name leads to, and the partition to one member. The group notices a dead
// member within the session and gives its partitions to others. A bridge that
// was only slow may overlap with its successor: what both write has one
// identity and stands once in the tables.
type Share struct {
	Kafka kafkac.Config
	Group string // bridges of the same name share; "" is "headrace.bridges"
	// Session is how long a bridge may be silent; 0 is 6 s, the least that
	// Kafka takes by default.
	Session time.Duration
	// HoldFor and HoldBytes bound what is kept of nodes that another bridge
	// owns, in case it has died; 0 is 20 s and 16 MiB. What its successor takes
	// over begins with it, so nothing that the broker delivered is lost with
	// it; what the dead one had written already comes twice.
	HoldFor   time.Duration
	HoldBytes int64
}

// Defaults of [Share].
const (
	DefaultShareGroup   = "headrace.bridges"
	DefaultShareSession = 6 * time.Second
	DefaultHoldFor      = 20 * time.Second
	DefaultHoldBytes    = 16 << 20
)

// handOver bounds how long a bridge that gives nodes away waits for Kafka, so
// that its successor's records come after its own.
const handOver = 2 * time.Second

// shares is what a bridge knows of its share; b.receiving guards it.
type shares struct {
	Share
	slots int // partitions of the topic; 0 until they are known
	owned map[int32]bool

	held      []heldMessage // oldest first
	heldBytes int64
}

type heldMessage struct {
	name    string
	at      time.Time
	size    int64
	message mqttc.Message
}

func newShares(s Share) *shares {
	if s.Group == "" {
		s.Group = DefaultShareGroup
	}
	if s.Session <= 0 {
		s.Session = DefaultShareSession
	}
	if s.HoldFor <= 0 {
		s.HoldFor = DefaultHoldFor
	}
	if s.HoldBytes <= 0 {
		s.HoldBytes = DefaultHoldBytes
	}
	return &shares{Share: s, owned: make(map[int32]bool)}
}

// slot is the partition that an edge node, or a topic without one, belongs to.
func (s *shares) slot(name string) int32 {
	return int32(kafkac.Murmur2Positive([]byte(name)) % uint32(max(s.slots, 1)))
}

// ours tells whether this bridge works on a message. One of another's is held;
// b.receiving is held.
func (b *Bridge) ours(name string, m mqttc.Message) bool {
	s := b.shares
	if s == nil {
		return true
	}
	if s.owned[s.slot(name)] {
		return true
	}
	// The broker may forget it: the session ends with this process anyway, and
	// what waits for an acknowledgement would hold up what follows.
	m.Ack()
	m.Ack = func() {}
	now := time.Now()
	size := int64(len(m.Topic)+len(m.Payload)) + recordOverhead
	s.held = append(s.held, heldMessage{name, now, size, m})
	s.heldBytes += size
	overflows := int64(0)
	drop := 0
	for ; drop < len(s.held); drop++ {
		old := &s.held[drop]
		if now.Sub(old.at) <= s.HoldFor {
			if s.heldBytes <= s.HoldBytes {
				break
			}
			overflows++
		}
		s.heldBytes -= old.size
		*old = heldMessage{}
	}
	s.held = s.held[drop:]
	b.count(func(c *counts) { c.others++; c.heldOver += overflows })
	return false
}

// gain takes slots over, and works on what was held of them.
func (b *Bridge) gain(ctx context.Context, slots []int32) {
	b.receiving.Lock()
	defer b.receiving.Unlock()
	s := b.shares
	for _, slot := range slots {
		s.owned[slot] = true
	}
	held := s.held
	s.held, s.heldBytes = nil, 0
	now := time.Now()
	var taken int64
	for _, h := range held {
		switch {
		case !s.owned[s.slot(h.name)]:
			s.held = append(s.held, h)
			s.heldBytes += h.size
		case now.Sub(h.at) <= s.HoldFor:
			taken++
			b.work(ctx, h.message)
		}
	}
	b.count(func(c *counts) { c.owned = int64(len(s.owned)); c.takenOver += taken })
}

// lose gives slots away. It returns when Kafka has what came of them, or
// after a moment.
func (b *Bridge) lose(ctx context.Context, slots []int32) {
	b.receiving.Lock()
	s := b.shares
	for _, slot := range slots {
		delete(s.owned, slot)
	}
	for name := range b.nodes {
		if !s.owned[s.slot(name)] {
			delete(b.nodes, name) // a table that is not followed is a lie later
		}
	}
	b.count(func(c *counts) { c.owned = int64(len(s.owned)) })
	b.receiving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, handOver)
	defer cancel()
	b.awaitPending(ctx)
}

// shareOut is a member of the group until ctx ends.
func (b *Bridge) shareOut(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.member(ctx); err != nil && ctx.Err() == nil {
			b.warn("sharing the edge nodes with other bridges; trying again", "error", err, "after", maxBackoff)
			sleep(ctx, maxBackoff)
		}
	}
}

func (b *Bridge) member(ctx context.Context) error {
	s := b.shares
	admin, err := kafkac.NewAdmin(s.Kafka)
	if err != nil {
		return err
	}
	topics, err := admin.Topics(ctx, record.TopicBridges)
	admin.Close()
	if err != nil {
		return err
	}
	b.receiving.Lock()
	s.slots = topics[record.TopicBridges].Partitions
	b.receiving.Unlock()
	consumer, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
		Config: s.Kafka, Group: s.Group, Topics: []string{record.TopicBridges},
		SessionTimeout: s.Session, RebalanceTimeout: s.Session,
		OnAssigned: func(_ context.Context, ps []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			starts := make(map[kafkac.TopicPartition]int64, len(ps))
			for _, p := range ps {
				starts[p] = 0 // nothing is ever written there
			}
			b.gain(ctx, slotsOf(ps))
			return starts, nil
		},
		OnRevoked: func(revoked context.Context, ps []kafkac.TopicPartition, _ bool) { b.lose(revoked, slotsOf(ps)) },
	})
	if err != nil {
		return err
	}
	defer consumer.Close()
	for {
		fetched, err := consumer.Poll(ctx, 1)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("sharing by group %s: %w", s.Group, err)
		case len(fetched) > 0:
			return errors.New("topic " + record.TopicBridges + " holds records; it is for the group alone: make it anew")
		}
	}
}

func slotsOf(ps []kafkac.TopicPartition) []int32 {
	out := make([]int32, len(ps))
	for i, p := range ps {
		out[i] = p.Partition
	}
	return out
}
