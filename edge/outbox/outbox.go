package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// Defaults of [Options].
const (
	DefaultSegmentBytes = 16 << 20
	DefaultQuotaBytes   = 1 << 30
	DefaultFloorBytes   = 32 << 20
	DefaultCommitDelay  = 200 * time.Millisecond
	DefaultCommitBytes  = 1 << 20
	DefaultAckDelay     = time.Second
	DefaultRetryEvery   = time.Second
)

// maxCommitBytes bounds the messages of one commit as encoded, maxStateBytes
// its position and filter state; maxGap the numbers that may be
// missing between two frames before that is taken for damage.
const (
	maxCommitBytes = 16 << 20
	maxStateBytes  = 8 << 20
	maxGap         = 1 << 22
)

// The ends of an outbox.
var (
	ErrClosed = errors.New("the outbox is closed")
	// ErrGone is what reading a message yields that was acknowledged meanwhile.
	ErrGone = errors.New("the message is acknowledged")
	// ErrLost is what reading a message yields that the disk gave back damaged.
	// It is counted as lost and not asked for again.
	ErrLost = errors.New("the message is damaged on disk")
	// ErrWiped is the end of an outbox whose files were removed under it.
	ErrWiped = errors.New("its files were removed while it was open: what waited in them is lost; open it anew, which begins a new boot")
)

// Options say where the outbox is and how it commits. Zero values are the
// defaults.
type Options struct {
	Dir  string
	Edge string // "group/edge node"
	Log  *slog.Logger

	SegmentBytes int64
	QuotaBytes   int64         // of disk; at it, Append waits for acknowledgements
	FloorBytes   uint64        // free space of the disk below which Append waits
	CommitDelay  time.Duration // telemetry waits so long for company in its fsync
	CommitBytes  int           // or until there is so much
	AckDelay     time.Duration // acknowledgements wait so long for theirs
	RetryEvery   time.Duration // how often a full disk is tried again

	Reached signal.Reached
	FS      FS // nil: the machine's
}

// Commit is what becomes durable as one: all of it or nothing.
type Commit struct {
	// Messages have their Stream, Config and Readings set; the outbox gives
	// them the rest of their Origin.
	Messages []signal.Batch
	// Position of the source and state of the filter after the messages.
	Position, FilterState []byte
	// Seen says how far streams were taken from the source.
	Seen []Progress
	// SourceEnded: the source has nothing more after Position.
	SourceEnded bool
	// Evict: the source cannot wait. While there is no room, the oldest messages
	// are given up for it, those of class event last.
	Evict bool
	// Told are holes of which the messages tell.
	Told []Told
	// What was counted since the commit before, in readings.
	Emitted, Derived, Held, Filtered uint64
	// The same of waveforms, in samples: taken, and in the messages of class raw.
	Samples, SamplesShipped uint64

	// Aside is a commit of what is sent afterwards: it leaves the source's position
	// and the filter's state, and holds back no stream's complete_to. Replays is
	// what it keeps for a restart, and what of its messages is counted as replayed.
	Aside                     bool
	Replays                   []byte
	Replayed, SamplesReplayed uint64
}

// Told is a stream's [Hole] as it was told.
type Told struct {
	Stream signal.Stream
	Hole
}

// Ticket is the fate of one commit.
type Ticket struct {
	done chan struct{}
	err  error
	last uint64
}

// Done is closed when the commit is durable or cannot become so.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Last is the seq of the commit's last message, 0 without one.
func (t *Ticket) Last() uint64 { return t.last }

// Err is valid after Done; nil means durable.
func (t *Ticket) Err() error { return t.err }

// pending is a commit on its way to the disk.
type pending struct {
	ticket   *Ticket
	buf      []byte // its messages as they stand in the frame
	messages []pendingMessage
	commit   *Commit
	readings uint64
}

type pendingMessage struct {
	seq      uint64
	at, size int // of the record in buf
	readings uint32
	stream   uint32
	from     signal.Micros
}

// Outbox is an open outbox. Its methods may be called from several goroutines,
// but the order of commits is that of the calls.
type Outbox struct {
	opt  Options
	fs   FS
	log  *slog.Logger
	boot *bootIndex

	wake    chan struct{}
	running sync.WaitGroup
	stop    chan struct{} // closed by Close: a full disk is not waited for any more

	mu         sync.Mutex
	index      *index
	st         state
	found      found
	nextSeq    uint64
	queue      []*pending
	queued     int // bytes
	oldest     time.Time
	urgent     bool
	lazy       time.Time // since when acknowledgements or counters wait to be written; zero: none
	stateDirty bool
	stalled    error
	failed     error
	closing    bool
	wantRoom   bool          // somebody waits who may have older messages given up
	holes      int           // streams that have one
	changed    chan struct{} // closed and replaced whenever something did

	// The writer's own.
	active     *segment
	writing    map[*bootIndex]*signal.Intervals
	writeState bool
	newHoles   []Progress // of what was given up since the last frame
	frame      []byte
}

// Open opens the outbox in opt.Dir, or makes it, and draws a new boot.
func Open(opt Options) (*Outbox, error) {
	setDefaults(&opt)
	if opt.Dir == "" || opt.Edge == "" {
		return nil, errors.New("opening outbox: directory and edge must be given")
	}
	boot, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("opening outbox %s: drawing a boot: %w", opt.Dir, err)
	}
	if err := opt.FS.MkdirAll(opt.Dir); err != nil {
		return nil, fmt.Errorf("opening outbox %s: %w", opt.Dir, err)
	}
	l, err := load(opt.FS, opt.Dir, opt.Edge, true)
	if err != nil {
		return nil, fmt.Errorf("opening outbox %s: %w", opt.Dir, err)
	}
	o := &Outbox{
		opt: opt, fs: opt.FS, log: opt.Log,
		index: l.index, st: l.state, found: l.found, nextSeq: 1,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), changed: make(chan struct{}),
		writing: make(map[*bootIndex]*signal.Intervals),
	}
	if n := len(l.index.segments); n > 0 {
		o.active = l.index.segments[n-1]
	}
	o.boot = o.index.boot(boot.String())
	o.index.lost = o.countLost
	for _, s := range o.index.streams {
		if s.hole != (Hole{}) {
			o.holes++
		}
	}
	if l.lostMessages > 0 || l.corruptFrames > 0 {
		o.log.Error("outbox was damaged; what could be read goes on", "dir", opt.Dir,
			"corrupt_frames", l.corruptFrames, "lost_messages", l.lostMessages)
	}
	if len(l.index.unwritten) > 0 || l.lostMessages > 0 {
		o.lazy, o.stateDirty = time.Now(), true
	}
	o.running.Go(o.write)
	return o, nil
}

func setDefaults(o *Options) {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.CommitDelay, DefaultCommitDelay)
	def(&o.AckDelay, DefaultAckDelay)
	def(&o.RetryEvery, DefaultRetryEvery)
	if o.QuotaBytes <= 0 {
		o.QuotaBytes = DefaultQuotaBytes
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	// The newest two segments are never deleted: the quota must hold several.
	o.SegmentBytes = min(o.SegmentBytes, o.QuotaBytes/8, math.MaxUint32/2)
	if o.FloorBytes == 0 {
		o.FloorBytes = DefaultFloorBytes
	}
	if o.CommitBytes <= 0 {
		o.CommitBytes = DefaultCommitBytes
	}
	o.CommitBytes = min(o.CommitBytes, maxCommitBytes)
	if o.FS == nil {
		o.FS = osFS{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Boot is the boot that this opening drew.
func (o *Outbox) Boot() string { return o.boot.name }

// Append makes c durable and returns then. If ctx ends first, c may still
// become durable. While the outbox is at its quota or the disk is full it
// waits, unless c may have others given up; see [SpaceError].
func (o *Outbox) Append(ctx context.Context, c Commit) error {
	t, err := o.Begin(ctx, c)
	if err != nil {
		return err
	}
	select {
	case <-t.Done():
		return t.Err()
	case <-ctx.Done():
		o.mu.Lock()
		stalled := o.stalled
		o.mu.Unlock()
		return errors.Join(ctx.Err(), stalled)
	}
}

// Begin freezes c and hands it to the writer; the ticket tells when it is
// durable. It waits while there is no room. What c holds belongs to the
// outbox from then on.
func (o *Outbox) Begin(ctx context.Context, c Commit) (*Ticket, error) {
	p := &pending{ticket: &Ticket{done: make(chan struct{})}, commit: &c}
	for i := range c.Messages {
		m := &c.Messages[i]
		if len(m.Readings) == 0 || m.Stream == "" {
			return nil, fmt.Errorf("appending to outbox %s: message %d has no stream or no readings", o.opt.Dir, i)
		}
		p.readings += readingsOf(m)
	}
	if in, out := c.Emitted+c.Derived+c.Held+c.Replayed, c.Filtered+p.readings; in != out {
		return nil, fmt.Errorf("appending to outbox %s: emitted %d + derived %d + held %d + replayed %d is not filtered %d + shipped %d",
			o.opt.Dir, c.Emitted, c.Derived, c.Held, c.Replayed, c.Filtered, p.readings)
	}
	if n := len(c.Position) + len(c.FilterState) + len(c.Replays); n > maxStateBytes {
		return nil, fmt.Errorf("appending to outbox %s: position and filter state of %d bytes are larger than %d", o.opt.Dir, n, maxStateBytes)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if err := o.unusable(); err != nil {
			return nil, err
		}
		if len(o.queue) == 0 && o.bytes() < o.opt.QuotaBytes ||
			o.queued < 2*o.opt.CommitBytes && o.bytes()+int64(o.queued) < o.opt.QuotaBytes {
			break
		}
		if c.Evict && o.bytes()+int64(o.queued) >= o.opt.QuotaBytes {
			o.wantRoom = true
			o.kick()
		}
		changed, stalled := o.changed, o.stalled
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			o.mu.Lock()
			return nil, errors.Join(ctx.Err(), stalled)
		}
		o.mu.Lock()
	}
	if err := o.freeze(p); err != nil {
		return nil, err
	}
	if len(o.queue) == 0 {
		o.oldest = time.Now()
	}
	o.queue = append(o.queue, p)
	o.queued += len(p.buf)
	o.kick()
	return p.ticket, nil
}

// freeze gives the messages their origin and encodes them; o.mu is held.
func (o *Outbox) freeze(p *pending) error {
	type undo struct {
		s *streamIndex
		n uint64
	}
	seq := o.nextSeq
	var begun []undo
	var body []byte
	for i := range p.commit.Messages {
		m := &p.commit.Messages[i]
		number := o.index.stream(m.Stream)
		s := o.index.streams[number]
		begun = append(begun, undo{s, s.n})
		f := frozen{stream: m.Stream, seq: seq, readings: readingsOf(m), from: earliest(m.Readings)}
		if p.commit.Aside && s.seenTo != 0 {
			// What was complete stays so: the rest comes late, as it was asked for late.
			f.from = s.seenTo
		}
		// Edge and boot stand once in the frame and the segment.
		m.Edge, m.Boot, m.Seq, m.N = "", "", seq, s.n
		m.CompleteTo = f.from
		if !s.idle() {
			m.CompleteTo = min(s.completeTo(), f.from)
		}
		for j := range i {
			if p.messages[j].stream == number {
				m.CompleteTo = min(m.CompleteTo, p.messages[j].from)
			}
		}
		body = record.Append(body[:0], m)
		if len(body) > record.MaxValueBytes || len(p.buf)+len(body) > maxCommitBytes {
			for _, u := range begun {
				u.s.n = u.n
			}
			return fmt.Errorf("appending to outbox %s: message %d of %d bytes is too large; send fewer readings in one", o.opt.Dir, i, len(body))
		}
		p.buf = appendMessageHead(p.buf, &f, len(body))
		p.messages = append(p.messages, pendingMessage{
			seq: seq, at: len(p.buf), size: len(body), readings: uint32(f.readings), stream: number, from: f.from,
		})
		p.buf = append(p.buf, body...)
		s.n++
		seq++
		if _, class := m.Stream.Split(); class == signal.Event {
			o.urgent = true
		}
	}
	for _, m := range p.messages {
		o.index.streams[m.stream].push(unacked{m.from, o.boot, m.seq})
	}
	o.nextSeq = seq
	if len(p.messages) > 0 {
		p.ticket.last = seq - 1
	}
	p.commit.Messages = nil
	return nil
}

// readingsOf is how many readings a message counts for: waveforms are counted
// in samples.
func readingsOf(m *signal.Batch) uint64 {
	if _, class := m.Stream.Split(); class == signal.Raw {
		return 0
	}
	return uint64(len(m.Readings))
}

// earliest is the time from which a message speaks: its earliest proof of
// life. A heartbeat changes nothing before it.
func earliest(readings []signal.Reading) signal.Micros {
	from := signal.Micros(math.MaxInt64)
	for i := range readings {
		from = min(from, max(readings[i].EventTime, readings[i].AliveAt))
	}
	return from
}

// Flush makes everything begun so far durable at once.
func (o *Outbox) Flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) > 0 {
		o.urgent = true
		o.kick()
	}
	for len(o.queue) > 0 {
		if o.failed != nil {
			return o.failed
		}
		last := o.queue[len(o.queue)-1].ticket
		stalled := o.stalled
		o.mu.Unlock()
		var err error
		select {
		case <-last.done:
			err = last.err
		case <-ctx.Done():
			err = errors.Join(ctx.Err(), stalled)
		}
		o.mu.Lock()
		if err != nil {
			return err
		}
	}
	return o.failed
}

// Close makes durable what was begun, unless the disk is full, and releases
// the files.
func (o *Outbox) Close() error {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		o.running.Wait()
		return nil
	}
	o.closing = true
	o.kick()
	o.mu.Unlock()
	close(o.stop)
	o.running.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.failed
	for _, p := range o.queue {
		p.ticket.err = errors.Join(ErrClosed, o.stalled)
		close(p.ticket.done)
		err = errors.Join(err, o.stalled)
	}
	o.queue = nil
	err = errors.Join(err, closeAll(o.index))
	o.broadcast()
	if err != nil {
		return fmt.Errorf("closing outbox %s: %w", o.opt.Dir, err)
	}
	return nil
}

func (o *Outbox) unusable() error {
	switch {
	case o.failed != nil:
		return o.failed
	case o.closing:
		return ErrClosed
	}
	return nil
}

func (o *Outbox) kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// broadcast wakes everybody who waits for a change; o.mu is held.
func (o *Outbox) broadcast() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// bytes is the size of all segments; o.mu is held.
func (o *Outbox) bytes() int64 {
	var n int64
	for _, s := range o.index.segments {
		n += s.size
	}
	return n
}
