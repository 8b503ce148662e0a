package edge

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/vibration"
	"github.com/headrace/headrace/signal"
)

// quietDelay is how long readings wait to be committed of which nothing is
// sent; maxTaken bounds how many.
const (
	quietDelay = time.Second
	maxTaken   = 50_000
	// maxPackBytes keeps every record below what a Kafka takes by default, 1 MB.
	maxPackBytes = 600_000
	readingBytes = 64 // of a reading's numbers, at most
)

// intake goes from the source to the outbox until the source's end.
func (a *Agent) intake(ctx context.Context) (err error) {
	position, state, ended := a.outbox.Position()
	src, err := a.opt.Open(position, a.log)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	f, err := a.opt.Filter.Open(state)
	if err != nil {
		return err
	}
	if a.opt.Pace != nil {
		defer a.opt.Pace.End()
		if r, ok := src.(source.Resumer); ok {
			a.opt.Pace.Resume(r.Reached())
		}
	}
	w, err := a.openWaves(state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	local, err := a.openRules(state)
	if err != nil {
		return err
	}
	p := &packer{
		a: a, src: src, filter: f, waves: w, rules: local, streams: map[streamKey]int{}, known: map[sensorName]bool{}, ended: ended, evict: a.evicts(src),
	}
	a.setFigures(src)
	confirmer, ok := src.(source.Confirmer)
	if !ok {
		return p.run(ctx)
	}
	a.setLive(confirmer.Figures)
	p.confirms = make(chan confirmation, maxConfirms)
	gone := make(chan struct{})
	var confirming sync.WaitGroup
	confirming.Go(func() { confirm(p.confirms, gone) })
	err = p.run(ctx)
	close(p.confirms)
	// What the disk does not take now the source delivers again.
	farewell := time.AfterFunc(time.Second, func() { close(gone) })
	confirming.Wait()
	farewell.Stop()
	return err
}

// confirm tells the source of commits as they become durable, until none come or
// the agent is gone.
func confirm(confirms <-chan confirmation, gone <-chan struct{}) {
	for c := range confirms {
		select {
		case <-c.ticket.Done():
			if c.ticket.Err() == nil {
				c.committed()
			}
		case <-gone:
		}
	}
}

// confirmation is a commit whose source waits to hear of it; so many may be on
// their way to the disk.
type confirmation struct {
	ticket    *outbox.Ticket
	committed func()
}

const maxConfirms = 64

func (a *Agent) setKept(e filter.Error, kept ring.Stats, windows vibration.Counts) {
	a.mu.Lock()
	a.worst, a.kept, a.windows = e, kept, windows
	a.mu.Unlock()
}

// setLive has a source asked for its figures whenever the agent is.
func (a *Agent) setLive(figures func() []signal.Counter) {
	a.mu.Lock()
	a.live = figures
	a.mu.Unlock()
}

func (a *Agent) setFigures(src source.Source) {
	figures := src.Figures()
	a.mu.Lock()
	a.figures = figures
	a.mu.Unlock()
}

// evicts tells whether the source cannot wait for room in the outbox.
func (a *Agent) evicts(src source.Source) bool {
	if a.opt.WhenFull == "" {
		live, is := src.(source.Live)
		return is && live.Live()
	}
	return a.opt.WhenFull == Evict
}

// packer collects readings into messages and commits them.
type packer struct {
	a      *Agent
	src    source.Source
	filter *filter.Filter
	waves  *waves
	rules  *rules.Rules
	ended  bool // the outbox knows that the source has ended
	evict  bool // the source cannot wait for room
	known  map[sensorName]bool
	alarms []rules.At
	// refusedAt is when the log heard of a refusal last.
	refusedAt time.Time

	// The pack: messages of one commit, one per stream.
	messages []signal.Batch
	seen     []outbox.Progress
	streams  map[streamKey]int // place in messages and seen
	moved    bool              // the source went on: its position must be kept
	latest   streamKey         // what was looked up last, as samples of an asset come together
	place    int               // where that stands; good while streams is not empty
	taken    int               // readings
	derived  int               // of waveforms
	samples  uint64
	shipped  uint64 // samples
	sent     int
	bytes    int // of what is sent, roughly
	tally    filter.Tally
	out      []signal.Reading
	since    time.Time // of its first reading
	confirms chan confirmation
	// due ends when the pack must be committed.
	due  context.Context //nolint:containedctx // made once a pack, since source and clock are asked for each row
	stop context.CancelFunc
}

// streamKey is a stream that has not been put into words.
type streamKey struct {
	asset signal.Asset
	class signal.Class
}

func (p *packer) run(ctx context.Context) error {
	defer func() {
		if p.stop != nil {
			p.stop()
		}
	}()
	for {
		chunk, err := p.next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return p.end(ctx)
		case ctx.Err() != nil:
			return p.leave()
		case errors.Is(err, context.DeadlineExceeded):
			if err := p.commit(ctx); err != nil {
				return p.ending(ctx, err)
			}
			continue
		case err != nil:
			return errors.Join(err, p.leave())
		}
		for p.a.opt.Pace != nil {
			err := p.a.opt.Pace.WaitUntil(p.until(ctx), chunk.Time)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return p.leave()
			}
			if err := p.commit(ctx); err != nil {
				return p.ending(ctx, err)
			}
		}
		if err := p.add(chunk); err != nil {
			return errors.Join(err, p.leave())
		}
		p.src.Take()
		if p.full() {
			if err := p.commit(ctx); err != nil {
				return p.ending(ctx, err)
			}
		}
	}
}

func (p *packer) next(ctx context.Context) (source.Chunk, error) {
	chunk, err := p.src.Next(p.until(ctx))
	if err != nil && ctx.Err() == nil && p.due != nil && p.due.Err() != nil {
		err = context.DeadlineExceeded
	}
	return chunk, err
}

// until is ctx, ended when the pack is due.
func (p *packer) until(ctx context.Context) context.Context {
	if p.empty() {
		return ctx
	}
	if p.due == nil {
		delay := p.a.opt.PackDelay
		if p.sent == 0 && p.confirms == nil {
			delay = max(delay, quietDelay)
		}
		p.due, p.stop = context.WithDeadline(ctx, p.since.Add(delay))
	}
	return p.due
}

func (p *packer) empty() bool { return !p.moved }

// add takes a chunk into the pack.
func (p *packer) add(chunk source.Chunk) error {
	if p.empty() {
		p.since = time.Now()
	}
	p.moved = true
	before := p.sent
	for i := range chunk.Samples {
		s := &chunk.Samples[i]
		if err := p.check(s); err != nil {
			p.refuse(s, err)
			continue
		}
		if s.Class == signal.Raw {
			if err := p.addWave(s); err != nil {
				return err
			}
			continue
		}
		if err := p.addReading(s); err != nil {
			return err
		}
	}
	p.addRefused(chunk.Refused)
	if before == 0 && p.sent > 0 && p.due != nil {
		p.stop() // what is sent may not wait as long as what is not
		p.due = nil
	}
	return nil
}

// addReading keeps a reading, and filters it into the pack.
func (p *packer) addReading(s *source.Sample) error {
	if err := p.waves.ring.AppendSample(s.Asset, s.Class, &s.Reading); err != nil {
		return err
	}
	k := p.message(s.Asset, s.Class)
	p.seen[k].SeenTo = max(p.seen[k].SeenTo, s.Reading.EventTime, s.Reading.AliveAt)
	p.taken++
	p.waves.stage.Reading(s.Asset, &s.Reading)
	var verdict filter.Verdict
	p.out, verdict = p.filter.Apply(p.out[:0], s.Asset, s.Reading, &p.tally)
	p.a.meter.Taken(s.Asset, s.Class, &s.Reading, verdict.Band)
	p.put(k, p.out)
	return p.judge(s.Asset, &s.Reading)
}

// message is the place of a stream's message in the pack.
func (p *packer) message(asset signal.Asset, class signal.Class) int {
	key := streamKey{asset, class}
	if len(p.streams) > 0 && key == p.latest && class != signal.Raw {
		return p.place
	}
	k, ok := p.streams[key]
	if !ok {
		k = len(p.messages)
		p.streams[key] = k
		stream := signal.NewStream(asset, class)
		p.messages = append(p.messages, signal.Batch{Origin: signal.Origin{Stream: stream, Config: p.a.opt.config()}})
		p.seen = append(p.seen, outbox.Progress{Stream: stream})
	}
	p.latest, p.place = key, k
	return k
}

// put adds readings to a message.
func (p *packer) put(k int, readings []signal.Reading) {
	p.messages[k].Readings = append(p.messages[k].Readings, readings...)
	p.sent += len(readings)
	for i := range readings {
		r := &readings[i]
		p.bytes += readingBytes + len(r.Sensor) + len(r.Value.Text) + len(r.Rescued)
	}
}

func (p *packer) full() bool {
	if p.taken >= maxTaken || p.bytes >= maxPackBytes {
		return true
	}
	for i := range p.messages {
		if len(p.messages[i].Readings) >= p.a.opt.PackReadings {
			return true
		}
		// Events are not kept waiting.
		if _, class := p.messages[i].Stream.Split(); class == signal.Event && len(p.messages[i].Readings) > 0 {
			return true
		}
	}
	return false
}

// commit hands the pack to the outbox, waiting while that has no room.
func (p *packer) commit(ctx context.Context) error { return p.commitAs(ctx, false) }

func (p *packer) commitAs(ctx context.Context, ended bool) error {
	if p.stop != nil {
		p.stop()
		p.due, p.stop = nil, nil
	}
	if p.empty() && ended == p.ended {
		return nil
	}
	// What is frozen may name blocks of the ring, so they are durable first.
	if err := p.waves.sync(); err != nil {
		return err
	}
	if p.samples > 0 {
		p.a.opt.Reached.At("edge.ring_synced")
	}
	told, err := p.tellHoles()
	if err != nil {
		return err
	}
	c := outbox.Commit{
		Position: p.src.Position(), FilterState: freezeRules(p.rules, p.waves.freeze(p.filter.State())), SourceEnded: ended, Evict: p.evict, Told: told,
		Seen: p.seen, Emitted: uint64(p.taken), Derived: uint64(p.derived), Held: p.tally.Held, Filtered: p.tally.Filtered,
		Samples: p.samples, SamplesShipped: p.shipped,
	}
	for _, m := range p.messages {
		if len(m.Readings) > 0 {
			c.Messages = append(c.Messages, m)
		}
	}
	ticket, err := p.a.outbox.Begin(ctx, c)
	if err != nil {
		return err
	}
	if src, ok := p.src.(source.Confirmer); ok {
		select {
		case p.confirms <- confirmation{ticket, src.Mark()}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.ended = ended
	p.messages, p.seen, p.taken, p.sent, p.bytes, p.tally = nil, nil, 0, 0, 0, filter.Tally{}
	p.moved, p.derived, p.samples, p.shipped = false, 0, 0, 0
	clear(p.streams)
	p.a.setFigures(p.src)
	p.a.setKept(p.filter.Worst(), p.waves.ring.Stats(), p.waves.stage.Counts())
	return nil
}

// end commits the rest at the source's end.
func (p *packer) end(ctx context.Context) error {
	if err := p.commitAs(ctx, true); err != nil {
		return p.ending(ctx, err)
	}
	if err := p.a.outbox.Flush(ctx); err != nil {
		return p.ending(ctx, err)
	}
	close(p.a.ended)
	return nil
}

// leave commits what was taken when the agent is stopped. Without room for it,
// it is taken again after the next start.
func (p *packer) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.ending(ctx, p.commit(ctx))
}

// ending makes an error of a wait that was called off none.
func (p *packer) ending(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
