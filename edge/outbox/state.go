package outbox

import (
	"time"

	"github.com/headrace/headrace/signal"
)

// later has the writer write what may wait; o.mu is held.
func (o *Outbox) later() {
	if o.lazy.IsZero() {
		o.lazy = time.Now()
		o.kick()
	}
}

// Changed is closed at the next change: a commit, an acknowledgement, space.
func (o *Outbox) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// StreamStatus says how far a stream has come.
type StreamStatus struct {
	Stream signal.Stream
	// CompleteTo: nothing of the stream before it is unacknowledged.
	CompleteTo signal.Micros
	// Idle: nothing of it waits, on disk or on its way there.
	Idle bool
}

// Streams lists every stream that the outbox has carried.
func (o *Outbox) Streams() []StreamStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]StreamStatus, 0, len(o.index.streams))
	for _, s := range o.index.streams {
		out = append(out, StreamStatus{s.name, s.completeTo(), s.idle()})
	}
	return out
}

// Position returns where the source and the filter stood at the last commit,
// and whether the source had ended there.
func (o *Outbox) Position() (position, filterState []byte, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.st.position, o.st.filter, o.st.sourceEnded
}

// Stats are the figures of an open outbox.
type Stats struct {
	Counters
	WaitingMessages int
	WaitingReadings uint64
	Bytes           int64 // of all segments
	Segments        int
	CorruptFrames   int
	TornBytes       int64
	LostMessages    uint64
	Stalled         error // why intake waits: a [SpaceError], or nil
}

// Stats returns the figures of now.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{
		Counters: o.st.counters, WaitingMessages: o.index.messages, WaitingReadings: o.index.readings,
		Bytes: o.bytes(), Segments: len(o.index.segments),
		CorruptFrames: o.found.corruptFrames, TornBytes: o.found.tornBytes, LostMessages: o.found.lostMessages,
		Stalled: o.stalled,
	}
}

// Drained tells whether the source has ended and every message of it is
// acknowledged.
func (o *Outbox) Drained() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.st.sourceEnded && len(o.queue) == 0 && o.index.messages == 0
}

// Err is why the outbox has ended: an error of the disk that is not want of
// space. It is nil while it works and after Close.
func (o *Outbox) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// Durable is the last seq of this boot that is on disk; 0 if none is.
func (o *Outbox) Durable() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.queue {
		if len(p.messages) > 0 {
			return p.messages[0].seq - 1
		}
	}
	return o.nextSeq - 1
}

// Replays is what the last commit aside has kept for a restart.
func (o *Outbox) Replays() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.st.replays
}

// Waits tells whether a message of this boot is without its acknowledgement.
func (o *Outbox) Waits(seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.boot.acked.Contains(seq) {
		return false
	}
	_, kept := o.boot.findKept(seq)
	return kept || o.boot.findRun(seq) != nil
}
