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
		if b.waiting > 0 {
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
	seq, p, ok := o.index.next(b, after)
	if !ok {
		return Info{}, false
	}
	return Info{boot, seq, o.index.streams[p.stream].name, int(p.readings), int(p.size)}, true
}

// Read reads a message back from the disk into a batch, whose memory it uses
// again. [ErrGone] and [ErrLost] say why there is none.
func (o *Outbox) Read(boot string, seq uint64, into *signal.Batch) error {
	for {
		o.mu.Lock()
		b := o.index.findBoot(boot)
		if b == nil {
			o.mu.Unlock()
			return ErrGone
		}
		segment, p, waits := o.index.get(b, seq)
		if !waits {
			o.mu.Unlock()
			return ErrGone
		}
		file := segment.file
		o.mu.Unlock()
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
		if moved, err := o.giveUp(b, seq, file, err); !moved {
			return err
		}
	}
}

// giveUp counts a message that cannot be read back, unless it lies elsewhere by
// now or its file was closed meanwhile.
func (o *Outbox) giveUp(b *bootIndex, seq uint64, file File, cause error) (moved bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	segment, p, waits := o.index.get(b, seq)
	switch {
	case !waits:
		return false, ErrGone // acknowledged, and its file deleted, while we read
	case o.closing:
		return false, ErrClosed
	case segment.file != file:
		return true, nil
	}
	o.log.Error("outbox message is damaged on disk and lost", "dir", o.opt.Dir, "boot", b.name, "seq", seq, "error", cause)
	o.index.take(b, seq, segment, p)
	o.countLost(1, uint64(p.readings), nil)
	return false, ErrLost
}

// countLost counts messages that the disk did not give back; o.mu is held.
func (o *Outbox) countLost(messages int, readings uint64, cause error) {
	if cause != nil {
		o.log.Error("outbox messages are not on disk any more and lost", "dir", o.opt.Dir, "messages", messages, "error", cause)
	}
	o.st.counters.Lost += readings
	o.found.lostMessages += uint64(messages)
	o.stateDirty = true
	o.later()
	o.broadcast()
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
