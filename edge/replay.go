package edge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/ring"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

const (
	// maxJobs are remembered, so that a request that comes again is known.
	maxJobs = 32
	// maxOpen wait or run; they run one after the other.
	maxOpen = 8
	// A slice of the range is read at once: so much of it at most, and never longer.
	maxSliceBytes = 2 << 20
	maxSlice      = signal.Micros(time.Hour / time.Microsecond)
	firstSlice    = signal.Micros(10 * time.Second / time.Microsecond)
	progressEvery = time.Second
)

var errSliceFull = errors.New("the slice is full")

// replays sends ranges of the ring that were asked for. The jobs lie in the outbox
// and are committed with the messages that they have made.
type replays struct {
	a     *Agent
	inbox chan command.Request

	mu      sync.Mutex
	jobs    []command.Job
	answers []command.Answer // for the session
	audit   string
	told    time.Time
}

func (a *Agent) newReplays() (*replays, error) {
	r := &replays{a: a, inbox: make(chan command.Request, maxOpen)}
	if b := a.outbox.Replays(); len(b) > 0 {
		if err := json.Unmarshal(b, &r.jobs); err != nil {
			return nil, fmt.Errorf("reading the replays that were asked for: %w", err)
		}
	}
	return r, nil
}

// run takes requests and carries them out until ctx ends. Without a disk to commit
// to it ends; that is the agent's to report.
func (r *replays) run(ctx context.Context) {
	for ctx.Err() == nil {
		if i := r.open(); i >= 0 {
			if err := r.replay(ctx, i); err != nil && ctx.Err() == nil {
				r.a.log.Error("replay failed", "id", r.jobs[i].ID, "cause", err)
				j := r.jobs[i]
				j.State, j.Reason = command.Failed, err.Error()
				if r.commit(ctx, i, j, outbox.Commit{}) != nil {
					return
				}
				r.say(i, true)
			}
			continue
		}
		r.jobs = r.jobs[max(0, len(r.jobs)-maxJobs):] // none of them is open
		select {
		case q := <-r.inbox:
			r.take(ctx, q)
		case <-ctx.Done():
			return
		}
	}
}

// open is the first job that is not done, -1 without.
func (r *replays) open() int {
	return slices.IndexFunc(r.jobs, func(j command.Job) bool { return j.State == command.Running })
}

// receive is called by the session and may not block.
func (r *replays) receive(q command.Request) {
	select {
	case r.inbox <- q:
	default:
		r.answer(command.Answer{ID: q.ID, State: command.Refused, Reason: "too many requests wait; ask again later"})
	}
}

func (r *replays) answer(a command.Answer) {
	a.Version, a.Edge = command.Version, r.a.opt.Group+"/"+r.a.opt.Node
	r.mu.Lock()
	if len(r.answers) < maxJobs {
		r.answers = append(r.answers, a)
	}
	r.mu.Unlock()
	r.a.pub.wake()
}

// setAudit has the next birth say who asked last, for what and why.
func (r *replays) setAudit(q command.Request) {
	b, err := json.Marshal(struct {
		ID    string    `json:"id"`
		Verb  string    `json:"verb"`
		Who   string    `json:"who"`
		Why   string    `json:"why"`
		Asset string    `json:"asset,omitempty"`
		From  time.Time `json:"from,omitzero"`
		To    time.Time `json:"to,omitzero"`
	}{q.ID, q.Verb, q.Who, q.Why, q.Asset, q.From, q.To})
	if err != nil {
		return
	}
	r.mu.Lock()
	r.audit = string(b)
	r.mu.Unlock()
	r.a.pub.wake()
}

// lastAudit is what the births are to say.
func (r *replays) lastAudit() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.audit
}

// takeAnswers hands the session what it is to publish.
func (r *replays) takeAnswers() []command.Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.answers
	r.answers = nil
	return out
}

// say answers with a job's state, at most once a second unless it must.
func (r *replays) say(i int, must bool) {
	if now := time.Now(); must || now.Sub(r.told) >= progressEvery {
		r.told = now
		j := r.jobs[i]
		r.answer(command.Answer{ID: j.ID, State: j.State, Reason: j.Reason, Replay: &j})
	}
}

// plan tells what a configuration would change.
func (r *replays) plan(q command.Request) {
	a := command.Answer{ID: q.ID, State: command.Refused}
	if remote := r.a.opt.Remote; remote == nil {
		a.Reason = noConfig
	} else if sensors, err := r.sensors(); err != nil {
		a.Reason = err.Error()
	} else if change, err := remote.Plan(q.Config, sensors); err != nil {
		a.Reason = err.Error()
	} else {
		a.State, a.Plan = command.Done, &change
	}
	r.answer(a)
}

// lately is how far back sensors are looked for.
const lately = signal.Micros(15 * time.Minute / time.Microsecond)

// sensors are the slow ones that the ring has newest samples of, with their units.
func (r *replays) sensors() (map[signal.Path]string, error) {
	reader, err := ring.OpenReader(RingDir(r.a.opt.Dir))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	extents, err := reader.Extents()
	if err != nil || len(extents) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(extents, func(a, b ring.Extent) int { return cmp.Compare(a.To, b.To) }).To
	out := map[signal.Path]string{}
	err = reader.Read("", newest-lately, newest+1, func(s *ring.Sample) error {
		if s.Class != signal.Raw {
			out[s.Asset.Sensor(s.Reading.Sensor)] = s.Reading.Unit
		}
		return nil
	})
	return out, err
}

// take begins a replay, or says why not.
func (r *replays) take(ctx context.Context, q command.Request) {
	if q.Verb == command.Plan {
		r.plan(q)
		return
	}
	if i := slices.IndexFunc(r.jobs, func(j command.Job) bool { return j.ID == q.ID }); i >= 0 {
		r.say(i, true)
		return
	}
	job, err := r.job(q)
	if err == nil {
		open := 0
		for i := range r.jobs {
			if r.jobs[i].State == command.Running {
				open++
			}
		}
		if open >= maxOpen {
			err = fmt.Errorf("%d replays are under way; ask again when one is done", open)
		}
	}
	if err != nil {
		r.answer(command.Answer{ID: q.ID, State: command.Refused, Reason: err.Error()})
		return
	}
	r.jobs = append(r.jobs, job)
	i := len(r.jobs) - 1
	if err := r.commit(ctx, i, job, outbox.Commit{}); err != nil {
		r.jobs = r.jobs[:i]
		return // nothing was promised; the request comes again
	}
	r.a.log.Info("replay asked for", "id", job.ID, "who", job.Who, "why", job.Why, "asset", job.Asset)
	r.setAudit(q)
	r.say(i, true)
}

// job checks a request against what the ring has.
func (r *replays) job(q command.Request) (j command.Job, err error) {
	if err := q.Check(); err != nil {
		return j, err
	}
	reader, err := ring.OpenReader(RingDir(r.a.opt.Dir))
	if err != nil {
		return j, err
	}
	defer reader.Close()
	extents, err := reader.Extents()
	if err != nil {
		return j, err
	}
	at := slices.IndexFunc(extents, func(e ring.Extent) bool { return string(e.Asset) == q.Asset })
	if at < 0 {
		return j, fmt.Errorf("the ring has nothing of asset %s; it has %s", q.Asset, names(extents))
	}
	e := extents[at]
	from, to := signal.MicrosOf(q.From), signal.MicrosOf(q.To)
	left := fmt.Sprintf("the ring has %s from %s to %s", q.Asset, utc(e.From), utc(e.To))
	if to <= e.From || from > e.To {
		return j, errors.New("nothing of the range is in the ring any more, or yet; " + left)
	}
	j = command.Job{
		ID: q.ID, Who: q.Who, Why: q.Why, Asset: e.Asset, From: max(from, e.From), To: min(to, e.To+1),
		BytesPerSecond: q.BytesPerSecond, State: command.Running,
	}
	if from < e.From || to > e.To+1 {
		j.Left = left
	}
	j.At = j.From
	return j, nil
}

func utc(m signal.Micros) string { return m.Time().UTC().Format(time.RFC3339Nano) }

// names lists some assets.
func names(extents []ring.Extent) string {
	const some = 10
	var out []string
	for _, e := range extents[:min(some, len(extents))] {
		out = append(out, string(e.Asset))
	}
	switch {
	case len(out) == 0:
		return "nothing"
	case len(extents) > some:
		return fmt.Sprintf("%s and %d more", strings.Join(out, ", "), len(extents)-some)
	}
	return strings.Join(out, ", ")
}

// commit makes a job's next state durable together with its messages.
func (r *replays) commit(ctx context.Context, i int, j command.Job, c outbox.Commit) error {
	next := slices.Clone(r.jobs)
	next[i] = j
	var err error
	if c.Replays, err = json.Marshal(next); err != nil {
		return err
	}
	c.Aside = true
	ticket, err := r.a.outbox.Begin(ctx, c)
	if err != nil {
		return err
	}
	_ = r.a.outbox.Flush(ctx) // the ticket knows
	select {
	case <-ticket.Done():
	case <-ctx.Done(): // it may become durable yet; the next start reads what did
		return ctx.Err()
	}
	if err := ticket.Err(); err != nil {
		return err
	}
	r.jobs = next
	if len(c.Messages) == 0 && ticket.Last() == 0 {
		return nil
	}
	return r.acknowledged(ctx, ticket.Last())
}

// acknowledged waits until Kafka has a message: no more than one commit of a replay
// is ever before what is measured now.
func (r *replays) acknowledged(ctx context.Context, seq uint64) error {
	for {
		changed := r.a.outbox.Changed()
		if !r.a.outbox.Waits(seq) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replay carries a job on from where it is.
func (r *replays) replay(ctx context.Context, i int) error {
	reader, err := ring.OpenReader(RingDir(r.a.opt.Dir))
	if err != nil {
		return err
	}
	defer reader.Close()
	pace := newPace(r.a.opt.ReplayShare, r.a.opt.ReplayBytes, r.jobs[i].BytesPerSecond)
	slice := firstSlice
	at := r.jobs[i].At
	for at < r.jobs[i].To {
		r.hear(ctx)
		end := min(at+slice, r.jobs[i].To)
		samples, size, err := gather(reader, r.jobs[i].Asset, at, end)
		if errors.Is(err, errSliceFull) && slice > 1 {
			slice /= 2
			continue
		}
		if err != nil {
			return err
		}
		if at == r.jobs[i].At {
			samples = samples[r.done(i, samples):]
		}
		if err := r.ship(ctx, i, samples, pace); err != nil {
			return err
		}
		at = end
		if size < maxSliceBytes/4 {
			slice = min(2*slice, maxSlice)
		}
	}
	j := r.jobs[i]
	j.At, j.Same, j.State, j.Rate = j.To, 0, command.Done, 0
	if err := r.commit(ctx, i, j, outbox.Commit{}); err != nil {
		return err
	}
	r.a.log.Info("replay done", "id", j.ID, "readings", j.Readings, "samples", j.Samples)
	r.say(i, true)
	return nil
}

// hear takes what was asked for meanwhile.
func (r *replays) hear(ctx context.Context) {
	for {
		select {
		case q := <-r.inbox:
			r.take(ctx, q)
		default:
			return
		}
	}
}

// done is how many of the first samples were committed before.
func (r *replays) done(i int, samples []ring.Sample) int {
	n, j := 0, &r.jobs[i]
	for n < len(samples) && n < j.Same && samples[n].Reading.EventTime == j.At {
		n++
	}
	return n
}

// gather reads what the ring has of a slice, in an order that is the same each time.
func gather(reader *ring.Reader, asset signal.Asset, from, to signal.Micros) (out []ring.Sample, size int, err error) {
	err = reader.Read(asset, from, to, func(s *ring.Sample) error {
		size += sampleBytes(s)
		if size > maxSliceBytes && len(out) > 0 && to-from > 1 {
			return errSliceFull
		}
		c := *s
		c.Reading.Historical = true
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, size, err
	}
	slices.SortFunc(out, compare)
	return slices.CompactFunc(out, func(a, b ring.Sample) bool { return compare(a, b) == 0 }), size, nil
}

func sampleBytes(s *ring.Sample) int {
	return readingBytes + len(s.Reading.Sensor) + len(s.Reading.Value.Text) + len(s.Reading.Rescued)
}

func compare(a, b ring.Sample) int {
	x, y := &a.Reading, &b.Reading
	return cmp.Or(cmp.Compare(x.EventTime, y.EventTime), cmp.Compare(a.Class, b.Class), cmp.Compare(x.Sensor, y.Sensor), cmp.Compare(x.AliveAt, y.AliveAt),
		cmp.Compare(x.Value.Kind, y.Value.Kind), cmp.Compare(x.Value.Number, y.Value.Number), cmp.Compare(x.Value.Text, y.Value.Text),
		cmp.Compare(x.Quality, y.Quality), cmp.Compare(x.Unit, y.Unit), cmp.Compare(x.Rescued, y.Rescued))
}

// ship commits samples, a piece at a time.
func (r *replays) ship(ctx context.Context, i int, samples []ring.Sample, pace *pace) error {
	for len(samples) > 0 {
		n, size := 0, 0
		for n < len(samples) && n < maxPieceReadings && (n == 0 || size+sampleBytes(&samples[n]) <= pace.piece) {
			size += sampleBytes(&samples[n])
			n++
		}
		j := r.jobs[i]
		c, err := r.piece(&j, samples[:n])
		if err != nil {
			return err
		}
		j.Bytes += uint64(size)
		began := time.Now()
		if err := r.commit(ctx, i, j, c); err != nil {
			return err
		}
		took := time.Since(began)
		wait := pace.after(size, took)
		r.jobs[i].Rate = int64(float64(size) / max((took+wait).Seconds(), 1e-6))
		r.say(i, false)
		if !pause(ctx, wait) {
			return ctx.Err()
		}
		samples = samples[n:]
	}
	return nil
}

// maxPieceReadings bounds the readings of a message.
const maxPieceReadings = 500

// piece makes a commit of samples and moves the job behind them.
func (r *replays) piece(j *command.Job, samples []ring.Sample) (c outbox.Commit, err error) {
	places := map[signal.Class]int{}
	var wave record.Waveform
	for i := range samples {
		s := &samples[i]
		k, ok := places[s.Class]
		if !ok {
			k = len(c.Messages)
			places[s.Class] = k
			c.Messages = append(c.Messages, signal.Batch{Origin: signal.Origin{Stream: signal.NewStream(s.Asset, s.Class), Config: r.a.opt.config()}})
		}
		c.Messages[k].Readings = append(c.Messages[k].Readings, s.Reading)
		if s.Class == signal.Raw {
			if err := record.DecodeWaveform([]byte(s.Reading.Value.Text), &wave); err != nil {
				return c, fmt.Errorf("reading %s from the ring: %w", s.Asset.Sensor(s.Reading.Sensor), err)
			}
			c.SamplesReplayed += uint64(wave.Len())
		} else {
			c.Replayed++
		}
		if s.Reading.EventTime != j.At {
			j.At, j.Same = s.Reading.EventTime, 0
		}
		j.Same++
	}
	c.SamplesShipped = c.SamplesReplayed
	j.Readings += c.Replayed
	j.Samples += c.SamplesReplayed
	return c, nil
}
