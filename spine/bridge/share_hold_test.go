package bridge

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
)

// keeper is a Kafka that takes everything at once.
type keeper struct{ values []string }

func (k *keeper) Produce(_ context.Context, r kafkac.Record, done func(int32, int64, error)) error {
	k.values = append(k.values, string(r.Value))
	done(0, 0, nil)
	return nil
}

// sharing is a bridge that owns nothing yet. What it works on becomes a dead
// letter, so that the order shows.
func sharing(t *testing.T, s Share) (*Bridge, *keeper) {
	t.Helper()
	k := new(keeper)
	b, err := New(Options{Producer: k, Clock: signal.WallClock{}, Share: &s})
	if err != nil {
		t.Fatal(err)
	}
	b.shares.slots = 4
	return b, k
}

func (b *Bridge) hear(t *testing.T, topic, value string, acks *int) {
	t.Helper()
	b.receive(t.Context(), mqttc.Message{Topic: topic, Payload: []byte(value), QoS: 1, Ack: func() { *acks++ }})
}

// topicOf is a topic that no Sparkplug message has, of the given share.
func topicOf(b *Bridge, slot int32) string {
	for i := 0; ; i++ {
		if topic := fmt.Sprintf("spBv1.0/%d", i); b.shares.slot(topic) == slot {
			return topic
		}
	}
}

func (b *Bridge) figure(name string) int64 {
	for _, c := range b.Counters() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

func TestWhatIsHeldIsTakenOverInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, k := sharing(t, Share{HoldFor: 10 * time.Second})
		mine, theirs := topicOf(b, 1), topicOf(b, 2)
		acks := 0
		b.gain(t.Context(), []int32{1})
		b.hear(t, theirs, "too old", &acks)
		time.Sleep(11 * time.Second)
		for i := range 3 {
			b.hear(t, mine, fmt.Sprint("mine ", i), &acks)
			b.hear(t, theirs, fmt.Sprint("theirs ", i), &acks)
			time.Sleep(time.Second)
		}
		if diff := cmp.Diff([]string{"mine 0", "mine 1", "mine 2"}, k.values); diff != "" {
			t.Errorf("before the other bridge fails (-want +got):\n%s", diff)
		}
		b.gain(t.Context(), []int32{2, 3})
		b.hear(t, theirs, "theirs 3", &acks)
		if diff := cmp.Diff([]string{"mine 0", "mine 1", "mine 2", "theirs 0", "theirs 1", "theirs 2", "theirs 3"}, k.values); diff != "" {
			t.Errorf("after it (-want +got):\n%s", diff)
		}
		if acks != 8 { // one for each, not two for what was held
			t.Errorf("%d acknowledgements of 8 messages", acks)
		}
		b.lose(t.Context(), []int32{1})
		b.hear(t, mine, "mine 3", &acks)
		if len(k.values) != 7 {
			t.Errorf("a share that was given away is worked on: %v", k.values)
		}
		for name, want := range map[string]int64{"others": 5, "taken_over": 3, "held_overflows": 0, "shares_now": 2} {
			if got := b.figure(name); got != want {
				t.Errorf("%s is %d, want %d", name, got, want)
			}
		}
	})
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	const each = 1000
	b, k := sharing(t, Share{HoldBytes: 10 * each})
	topic, acks := topicOf(b, 0), 0
	value := make([]byte, each-recordOverhead-len(topic))
	for range 25 {
		b.hear(t, topic, string(value), &acks)
	}
	if b.shares.heldBytes != 10*each || len(b.shares.held) != 10 || b.figure("held_overflows") != 15 {
		t.Errorf("%d messages of %d bytes are held, %d overflowed", len(b.shares.held), b.shares.heldBytes, b.figure("held_overflows"))
	}
	b.gain(t.Context(), []int32{0})
	if len(k.values) != 10 || b.shares.heldBytes != 0 || len(b.shares.held) != 0 {
		t.Errorf("%d taken over, %d bytes left", len(k.values), b.shares.heldBytes)
	}
}
