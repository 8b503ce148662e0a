package outbox

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/headrace/headrace/signal"
)

// keptFrameBytes is how much memory an idle outbox keeps for its next frame.
const keptFrameBytes = 256 << 10

// write is the one goroutine that writes. It ends with Close or with an error
// of the disk that is not want of space.
func (o *Outbox) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if o.wanted() {
			if _, err := o.makeRoom(true); err != nil && !noSpace(err) {
				o.fail(fmt.Errorf("writing outbox %s: %w", o.opt.Dir, err))
				return
			}
		}
		wait, work := o.due()
		if work && wait <= 0 {
			if !o.commit() {
				return
			}
			continue
		}
		if !work && o.isClosing() {
			return
		}
		timer.Reset(wait)
		select {
		case <-o.wake:
		case <-timer.C:
		}
	}
}

func (o *Outbox) isClosing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

// due tells whether there is anything to write and how long it may wait.
func (o *Outbox) due() (wait time.Duration, work bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait = time.Hour
	if len(o.queue) > 0 {
		work = true
		wait = o.opt.CommitDelay - time.Since(o.oldest)
		if o.urgent || o.queued >= o.opt.CommitBytes {
			wait = 0
		}
	}
	if !o.lazy.IsZero() {
		work = true
		wait = min(wait, o.opt.AckDelay-time.Since(o.lazy))
	}
	if work && o.closing {
		wait = 0
	}
	return wait, work
}

// commit writes one frame with everything that waits. While the disk is full
// it tries again; it returns false when the writer must end.
func (o *Outbox) commit() bool {
	o.mu.Lock()
	take := slices.Clone(o.queue)
	o.urgent = false
	reapable := o.beginAcks()
	o.mu.Unlock()
	evict := slices.ContainsFunc(take, func(p *pending) bool { return p.commit.Evict })
	for {
		where, payloadAt, err := o.writeFrame(take, nil)
		if err == nil {
			o.committed(take, nil, where, payloadAt)
			o.reap(reapable)
			return true
		}
		if !noSpace(err) {
			o.fail(fmt.Errorf("writing outbox %s: %w", o.opt.Dir, err))
			return false
		}
		o.mu.Lock()
		if o.stalled == nil {
			o.log.Error("outbox waits for disk space; intake stops", "dir", o.opt.Dir, "error", err)
		}
		o.stalled = err
		// What is acknowledged may go without a record of it: it makes room.
		reapable = append(reapable, o.beginAcks()...)
		o.broadcast()
		o.mu.Unlock()
		o.reap(reapable)
		reapable = nil
		if evict {
			// Events are not given up for a disk that others may have filled.
			did, err := o.makeRoom(false)
			if err != nil && !noSpace(err) {
				o.fail(fmt.Errorf("writing outbox %s: %w", o.opt.Dir, err))
				return false
			}
			if did {
				continue
			}
		}
		select {
		case <-time.After(o.opt.RetryEvery):
		case <-o.stop:
			return false
		}
	}
}

// beginAcks moves what acknowledgements are not written yet into the frame
// that is being built, and returns the segments that nobody needs once they
// are; o.mu is held.
func (o *Outbox) beginAcks() (reapable []uint32) {
	for b, set := range o.index.unwritten {
		if o.writing[b] == nil {
			o.writing[b] = &signal.Intervals{}
		}
		for _, r := range set.Ranges() {
			o.writing[b].AddRange(r)
		}
		delete(o.index.unwritten, b)
	}
	o.lazy = time.Time{}
	o.writeState = o.writeState || o.stateDirty
	o.stateDirty = false
	for i, s := range o.index.segments {
		last := len(o.index.segments) - 1
		// The state stands in the newest segment; the one before is kept until
		// it stands there twice.
		if s.waiting == 0 && (i < last-1 || i == last-1 && o.index.segments[last].states > 1) {
			reapable = append(reapable, s.number)
		}
	}
	return reapable
}

// writeFrame writes and syncs one frame and returns where its payload lies.
func (o *Outbox) writeFrame(take []*pending, carry []carry) (*segment, int64, error) {
	size := int64(headerBytes)
	for _, p := range take {
		size += int64(len(p.buf))
	}
	for i := range carry {
		size += int64(len(carry[i].record)) + carryHead
	}
	fresh := o.active == nil || o.active.sealed || o.active.size > 0 && o.active.size+size > o.opt.SegmentBytes
	o.build(take, carry, fresh)
	if len(take) > 0 {
		free, err := o.fs.Free(o.opt.Dir)
		if err != nil {
			return nil, 0, err
		}
		if free < o.opt.FloorBytes || free-o.opt.FloorBytes < uint64(len(o.frame)) {
			return nil, 0, &SpaceError{Dir: o.opt.Dir, Free: free, Floor: o.opt.FloorBytes}
		}
	}
	if fresh {
		return o.writeFirst()
	}
	at := o.active.size
	if held, err := o.fs.Holds(segmentName(o.opt.Dir, o.active.number), o.active.file); err != nil || !held {
		return nil, 0, errors.Join(err, ErrWiped)
	}
	err := writeSynced(o.active.file, o.frame, at)
	if err != nil {
		// The file's end is not known now: nothing is written behind it again.
		o.active.sealed = true
		if terr := o.active.file.Truncate(at); terr != nil && !noSpace(err) {
			err = errors.Join(err, terr)
		}
		return nil, 0, o.spaceError(err)
	}
	return o.active, at + headerBytes, nil
}

// writeFirst begins a new segment with the frame.
func (o *Outbox) writeFirst() (*segment, int64, error) {
	number := uint32(1)
	if o.active != nil {
		number = o.active.number + 1
	}
	if number == math.MaxUint32 {
		return nil, 0, errors.New("the segment numbers are used up; drain the outbox and remove its directory")
	}
	name := segmentName(o.opt.Dir, number)
	file, err := o.fs.Create(name)
	if err != nil {
		return nil, 0, o.spaceError(err)
	}
	err = writeSynced(file, o.frame, 0)
	if err == nil {
		err = o.fs.SyncDir(o.opt.Dir)
	}
	if err != nil {
		_ = file.Close()
		// A rest would be in the way of the next try.
		if rerr := o.fs.Remove(name); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return nil, 0, o.spaceError(err)
	}
	s := &segment{number: number, file: file, hot: true}
	o.mu.Lock()
	o.index.segments = append(o.index.segments, s)
	o.index.cool(s)
	o.mu.Unlock()
	o.active = s
	return s, headerBytes, nil
}

func writeSynced(f File, b []byte, at int64) error {
	if _, err := f.WriteAt(b, at); err != nil {
		return err
	}
	return f.Sync()
}

// spaceError makes want of space recognisable and leaves other errors alone.
func (o *Outbox) spaceError(err error) error {
	if !noSpace(err) {
		return err
	}
	free, _ := o.fs.Free(o.opt.Dir)
	return &SpaceError{Dir: o.opt.Dir, Free: free, Floor: o.opt.FloorBytes, Cause: err}
}

// build fills o.frame: the messages of take, then the state after them. The
// first frame of a segment repeats all that the older ones are needed for
// beside their messages.
func (o *Outbox) build(take []*pending, carry []carry, fresh bool) {
	f := append(o.frame[:0], make([]byte, headerBytes)...)
	for _, p := range take {
		f = append(f, p.buf...)
	}
	for i := range carry {
		c := &carry[i]
		f = appendMessageHead(f, &c.frozen, len(c.record))
		c.at = int64(len(f) - headerBytes)
		f = append(f, c.record...)
	}
	g := &group{boot: o.boot.name}
	o.mu.Lock()
	if len(take) > 0 || fresh || o.writeState {
		st := o.after(take)
		g.state = &st
		g.state.streams = append(g.state.streams, o.newHoles...)
	}
	for b, set := range o.writing {
		if !fresh {
			g.acks = append(g.acks, ack{b.name, set.Ranges()})
		}
	}
	if fresh {
		g.format, g.edge = format, o.opt.Edge
		g.state.streams = o.progress(take, g.state.streams)
		for _, b := range o.index.boots {
			if r := b.acked.Ranges(); len(r) > 0 && o.index.onDisk(b) {
				g.acks = append(g.acks, ack{b.name, slices.Clone(r)})
			}
		}
	}
	o.mu.Unlock()
	f = appendGroup(f, g)
	putHeader(f)
	o.frame = f
}

// after is the state once take is committed; o.mu is held.
func (o *Outbox) after(take []*pending) state {
	st := o.st
	st.streams = nil
	for _, p := range take {
		c := p.commit
		if c.Aside {
			st.replays = c.Replays
		} else {
			st.position, st.filter, st.sourceEnded = c.Position, c.FilterState, c.SourceEnded
		}
		st.counters.Replayed += c.Replayed
		st.counters.SamplesReplayed += c.SamplesReplayed
		st.counters.Emitted += c.Emitted
		st.counters.Derived += c.Derived
		st.counters.Held += c.Held
		st.counters.Filtered += c.Filtered
		st.counters.Shipped += p.readings
		st.counters.Samples += c.Samples
		st.counters.SamplesShipped += c.SamplesShipped
		st.streams = append(st.streams, c.Seen...)
	}
	for stream, h := range o.untold(take) {
		st.streams = append(st.streams, Progress{Stream: stream, hole: &h})
	}
	return st
}

// progress is how far all streams were taken once the given ones are; o.mu is held.
func (o *Outbox) progress(take []*pending, newer []Progress) []Progress {
	var all []Progress
	for _, s := range o.index.streams {
		if s.seenTo == 0 && s.hole == (Hole{}) {
			continue
		}
		p := Progress{Stream: s.name, SeenTo: s.seenTo}
		if h := s.hole; h != (Hole{}) {
			p.hole = &h
		}
		all = append(all, p)
	}
	return append(all, newer...)
}

// committed makes a durable frame known.
func (o *Outbox) committed(take []*pending, carry []carry, s *segment, payloadAt int64) {
	messages := false
	for _, p := range take {
		messages = messages || len(p.messages) > 0
	}
	if messages {
		o.opt.Reached.At("edge.outbox_committed")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stalled != nil {
		o.log.Info("outbox has disk space again; intake goes on", "dir", o.opt.Dir)
		o.stalled = nil
	}
	s.size = payloadAt - headerBytes + int64(len(o.frame))
	if len(take) > 0 || o.writeState || s.states == 0 {
		s.states++
	}
	o.writeState = false
	o.newHoles = nil
	clear(o.writing)
	o.st = o.after(take)
	o.st.streams = nil
	for stream, h := range o.untold(take) {
		o.index.streams[o.index.stream(stream)].hole = h
		if h == (Hole{}) {
			o.holes--
		}
	}
	o.carried(carry, s, payloadAt)
	at := payloadAt
	for _, p := range take {
		for _, m := range p.messages {
			body := p.buf[m.at : m.at+m.size]
			o.index.append(o.boot, m.seq, s, place{
				at: uint32(at) + uint32(m.at), size: uint32(m.size),
				sum: checksum(body), readings: m.readings, stream: m.stream,
			})
		}
		at += int64(len(p.buf))
		for _, pr := range p.commit.Seen {
			st := o.index.streams[o.index.stream(pr.Stream)]
			st.seenTo = max(st.seenTo, pr.SeenTo)
		}
		o.queued -= len(p.buf)
		close(p.ticket.done)
	}
	o.queue = slices.Delete(o.queue, 0, len(take))
	if len(o.queue) > 0 {
		o.oldest = time.Now()
	} else if cap(o.frame) > keptFrameBytes {
		o.frame = nil
	}
	o.broadcast()
}

// reap deletes segments.
func (o *Outbox) reap(numbers []uint32) {
	if len(numbers) == 0 {
		return
	}
	for _, n := range numbers {
		o.mu.Lock()
		s := o.index.drop(n)
		var file File
		if s != nil {
			file, s.file = s.file, nil
		}
		o.mu.Unlock()
		if s == nil {
			continue
		}
		var err error
		if file != nil {
			err = file.Close()
		}
		if err := errors.Join(err, o.fs.Remove(segmentName(o.opt.Dir, n))); err != nil {
			o.log.Warn("outbox could not delete an acknowledged segment", "file", segmentName(o.opt.Dir, n), "error", err)
		}
	}
	if err := o.fs.SyncDir(o.opt.Dir); err != nil {
		o.log.Warn("outbox could not sync its directory", "dir", o.opt.Dir, "error", err)
	}
	o.mu.Lock()
	o.index.forget(o.boot)
	o.broadcast()
	o.mu.Unlock()
}

// fail ends the outbox: what waits is told why.
func (o *Outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
	for _, p := range o.queue {
		p.ticket.err = err
		close(p.ticket.done)
	}
	o.queue = nil
	o.broadcast()
}
