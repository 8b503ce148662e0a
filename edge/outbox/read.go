package outbox

import (
	"fmt"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Info describes a message that waits for its acknowledgement.
type Info struct {
	Boot     string
	Seq      uint64
	Stream   signal.Stream
	Readings int
	Bytes    int // of its record
}

// Boots lists the boots that have unacknowledged messages, oldest first.
func (o *Outbox) Boots() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, b := range o.index.boots {
		if _, _, ok := b.next(0); ok {
			out = append(out, b.name)
		}
	}
	return out
}

// Next returns the first durable, unacknowledged message of a boot whose seq
// is greater than after.
func (o *Outbox) Next(boot string, after uint64) (Info, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.index.findBoot(boot)
	if b == nil {
		return Info{}, false
	}
	seq, p, ok := b.next(after)
	if !ok {
		return Info{}, false
	}
	return Info{boot, seq, o.index.streams[p.stream].name, int(p.readings), int(p.size)}, true
}

// Read reads a message back from the disk into a batch, whose memory it uses
// again. [ErrGone] and [ErrLost] say why there is none.
func (o *Outbox) Read(boot string, seq uint64, into *signal.Batch) error {
	o.mu.Lock()
	b := o.index.findBoot(boot)
	var p place
	var file File
	waits := false
	if b != nil {
		p, waits = b.get(seq)
	}
	if waits {
		file = o.index.segment(p.segment).file
	}
	o.mu.Unlock()
	if !waits {
		return ErrGone
	}
	body := make([]byte, p.size)
	_, err := file.ReadAt(body, int64(p.at))
	if err == nil && checksum(body) != p.sum {
		err = fmt.Errorf("checksum does not match")
	}
	if err == nil {
		err = record.Decode(body, into)
	}
	if err == nil {
		into.Edge, into.Boot = o.opt.Edge, boot
		return nil
	}
	return o.giveUp(b, seq, err)
}

// giveUp counts a message that cannot be read back.
func (o *Outbox) giveUp(b *bootIndex, seq uint64, cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, waits := b.get(seq); !waits {
		return ErrGone // acknowledged, and its file deleted, while we read
	}
	if o.closing {
		return ErrClosed
	}
	o.log.Error("outbox message is damaged on disk and lost", "dir", o.opt.Dir, "boot", b.name, "seq", seq, "error", cause)
	_, readings := o.index.acknowledge(b, signal.Range{From: seq, To: seq})
	o.st.counters.Lost += readings
	o.found.lostMessages++
	o.stateDirty = true
	o.later()
	o.broadcast()
	return ErrLost
}

// Ack takes out what Kafka has. Numbers that are not waiting are passed over.
// It reports how many messages were taken out and how many readings they had.
func (o *Outbox) Ack(boot string, ranges []signal.Range) (messages int, readings uint64) {
	o.mu.Lock()
	b := o.index.findBoot(boot)
	if b != nil {
		for _, r := range ranges {
			m, n := o.index.acknowledge(b, r)
			messages += m
			readings += n
		}
	}
	if messages > 0 {
		o.later()
		o.broadcast()
	}
	o.mu.Unlock()
	if messages > 0 {
		o.opt.Reached.At("edge.acked")
	}
	return messages, readings
}

// Retried counts readings that are sent again.
func (o *Outbox) Retried(readings int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.st.counters.Retried += uint64(readings)
	o.stateDirty = true
	o.later()
}
