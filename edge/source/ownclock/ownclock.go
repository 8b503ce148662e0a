// Package ownclock keeps readings whose time is the edge's own, since their
// source gives none, from getting a false one: while the machine's clock is not
// plausible, as after a boot without network, they wait on disk with the time
// since the boot, and get their own once the clock is right. Within one boot that
// outlives the process; what an earlier boot left can never be told its time, and
// goes to the dead letters.
//
// It also tells of steps of the clock. It sets no clock, and touches no time that
// a source gives.
package ownclock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// Kind names the source of dead letters.
const Kind = "clock"

// Sensor is the sensor of an edge that tells of steps of its clock, in seconds.
const Sensor = "clock_step"

// Defaults of [Options].
const (
	DefaultStep     = time.Second
	DefaultMaxBytes = 64 << 20
)

const (
	poll     = time.Second
	maxChunk = 500
	// maxLetter is what of readings without a time goes into one dead letter, and
	// letterPause keeps these from crowding out others.
	maxLetter   = 48 << 10
	letterPause = 150 * time.Millisecond
)

// Options say what is kept and when.
type Options struct {
	Open  source.Opener // the source
	File  string        // of what waits
	Clock Clock
	// NotBefore is the least time that is plausible.
	NotBefore time.Time
	// NeedSync holds readings until the machine says that its clock is kept right.
	NeedSync bool
	// Asset is told of steps.
	Asset signal.Asset
	// Step is the least difference to what the machine has counted that is a step.
	Step time.Duration
	// MaxBytes bounds what waits on disk; beyond it nothing more is taken of the
	// source.
	MaxBytes int64
}

// Opener wraps a source.
func Opener(o Options) source.Opener {
	return func(position []byte, log *slog.Logger) (source.Source, error) {
		if o.Open == nil || o.File == "" || o.Clock == nil || o.Asset == "" {
			return nil, errors.New("opening the clock's spool: source, file, clock and asset must be given")
		}
		if o.Step <= 0 {
			o.Step = DefaultStep
		}
		if o.MaxBytes <= 0 {
			o.MaxBytes = DefaultMaxBytes
		}
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		var p place
		if len(position) > 0 {
			if err := json.Unmarshal(position, &p); err != nil {
				return nil, fmt.Errorf("reading the position of the clock's spool: %w", err)
			}
		}
		spool, missing, err := openSpool(o.File, p.Written, p.Read)
		if err != nil {
			return nil, fmt.Errorf("opening the clock's spool %s: %w", o.File, err)
		}
		inner, err := o.Open(p.Inner, log)
		if err != nil {
			return nil, errors.Join(err, spool.f.Close())
		}
		k := &keeper{opt: o, log: log, inner: inner, spool: spool}
		k.live, _ = inner.(source.Confirmer)
		if missing > 0 {
			log.Error("readings that waited for the clock are not there any more", "file", o.File, "bytes", missing)
			k.lost = &source.Refusal{Source: Kind, From: o.File, Reason: fmt.Sprintf("%d bytes of readings that waited for a right clock are not there any more", missing)}
		}
		k.offset, k.boot = k.look()
		k.right = k.plausible()
		k.Take()
		if !k.right {
			k.log.Error("the machine's clock is not right; readings without a time of their own wait for it", "shows", o.Clock.Now(), "not_before", o.NotBefore)
		}
		return k, nil
	}
}

// place is a position.
type place struct {
	Inner   []byte `json:"inner,omitempty"`
	Written int64  `json:"written,omitempty"`
	Read    int64  `json:"read,omitempty"`
}

type keeper struct {
	opt   Options
	log   *slog.Logger
	inner source.Source
	live  source.Confirmer // inner, if it is one
	spool *spool

	boot   string
	offset time.Time // what the clock showed when the machine booted, by the clock of the last look
	right  bool
	// Readings stamped before the clock became right may still be on their way.
	changed struct {
		was  time.Time // offset before
		step time.Duration
		at   time.Time // by the new clock
	}
	steps   []source.Sample
	letter  time.Time // when the last one was delivered
	letters bool      // more are to be
	lost    *source.Refusal
	samples []source.Sample
	refused []source.Refusal
	chunk   bool // the chunk that Next returned is inner's
	taken   place

	mu     sync.Mutex
	counts struct{ steps, held, corrected, unknown int64 }
	shown  []signal.Counter // of an inner source that must be asked in turn
	now    struct{ held, right, full int64 }
	// durable is the spool's end that is delivered and committed.
	durable int64
	turn    int // of the spool: it was emptied so often
}

func (k *keeper) count(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// look tells what the clock would have shown at boot.
func (k *keeper) look() (offset time.Time, boot string) {
	boot, since := k.opt.Clock.Since()
	return k.opt.Clock.Now().Round(0).Add(-since), boot
}

func (k *keeper) plausible() bool {
	return !k.opt.Clock.Now().Before(k.opt.NotBefore) && (!k.opt.NeedSync || k.opt.Clock.Synced())
}

// watch follows the clock.
func (k *keeper) watch() {
	offset, boot := k.look()
	was := k.offset
	step := offset.Sub(was)
	k.offset, k.boot = offset, boot
	right := k.plausible()
	if step.Abs() > k.opt.Step {
		k.count(func() { k.counts.steps++ })
		k.log.Warn("the machine's clock was set", "by", step, "shows", k.opt.Clock.Now())
		if right {
			now := signal.MicrosOf(k.opt.Clock.Now())
			k.steps = append(k.steps, source.Sample{Asset: k.opt.Asset, Class: signal.Event, Reading: signal.Reading{
				Sensor: Sensor, EventTime: now, AliveAt: now, Value: signal.NumberValue(step.Seconds()), Unit: "s", Quality: signal.QualityGood,
			}})
		}
	}
	if right && !k.right {
		k.changed.was, k.changed.step, k.changed.at = was, step, k.opt.Clock.Now()
		k.log.Info("the machine's clock is right; readings that waited go on", "readings", k.spool.lines)
	}
	if !right && k.right {
		k.log.Error("the machine's clock is not right any more; readings without a time of their own wait for it", "shows", k.opt.Clock.Now())
	}
	k.right = right
	k.count(func() {
		k.now.held, k.now.right, k.now.full = k.spool.lines, 0, 0
		if right {
			k.now.right = 1
		}
		if !k.room() {
			k.now.full = 1
		}
	})
}

func (k *keeper) room() bool { return k.spool.written < k.opt.MaxBytes }

// Next returns what the source has, with times that are right.
func (k *keeper) Next(ctx context.Context) (source.Chunk, error) {
	k.Take()
	for {
		if err := ctx.Err(); err != nil {
			return source.Chunk{}, err
		}
		k.watch()
		if err := k.tidy(); err != nil {
			return source.Chunk{}, err
		}
		k.samples, k.refused = k.samples[:0], k.refused[:0]
		if err := k.release(); err != nil {
			return source.Chunk{}, err
		}
		if len(k.samples)+len(k.refused) > 0 {
			k.chunk = false
			return source.Chunk{Time: k.opt.Clock.Now(), Samples: k.samples, Refused: k.refused}, nil
		}
		wait := poll
		if k.letters {
			wait = letterPause
		}
		waiting, cancel := context.WithTimeout(ctx, wait)
		if !k.right && !k.room() {
			<-waiting.Done()
			cancel()
			continue
		}
		chunk, err := k.inner.Next(waiting)
		timedOut := waiting.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && timedOut && errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			return chunk, err
		}
		k.watch() // the clock may have been set while nothing came
		return k.hold(chunk)
	}
}

// release takes of what waits what can go on.
func (k *keeper) release() error {
	if k.lost != nil {
		k.refused = append(k.refused, *k.lost)
		k.lost = nil
	}
	k.samples = append(k.samples, k.steps...)
	k.steps = k.steps[:0]
	k.letters = false
	if k.spool.lines == 0 {
		return nil
	}
	var letter bytes.Buffer
	var unknown, corrected int64
	mayLetter := time.Since(k.letter) >= letterPause
	err := k.spool.next(maxChunk, func(w *waiting, line []byte) bool {
		if w != nil && w.Boot == k.boot {
			if !k.right || unknown > 0 {
				return false
			}
			k.samples = append(k.samples, w.sample(k.offset))
			corrected++
			return true
		}
		k.letters = true
		if !mayLetter || letter.Len() > 0 && letter.Len()+len(line) >= maxLetter {
			return false
		}
		letter.Write(line)
		letter.WriteByte('\n')
		unknown++
		return true
	})
	if err != nil {
		return fmt.Errorf("reading the clock's spool %s: %w", k.spool.name, err)
	}
	if unknown > 0 {
		k.letter = time.Now()
		k.refused = append(k.refused, source.Refusal{
			Source: Kind, From: k.spool.name, Bytes: letter.Bytes(),
			Reason: fmt.Sprintf("%d readings came while the clock was not right, and the machine was started anew before it was: their time cannot be known", unknown),
		})
		k.log.Error("readings whose time can never be known go to the dead letters", "readings", unknown)
	}
	k.count(func() { k.counts.corrected += corrected; k.counts.unknown += unknown })
	return nil
}

// hold writes down what has no time yet, and lets the rest pass.
func (k *keeper) hold(chunk source.Chunk) (source.Chunk, error) {
	k.chunk = true
	var held []waiting
	for i := range chunk.Samples {
		s := chunk.Samples[i]
		if !s.Arrived {
			k.samples = append(k.samples, s)
			continue
		}
		stamp := s.Reading.EventTime.Time()
		switch {
		case !k.right:
			held = append(held, newWaiting(&s, k.boot, stamp.Sub(k.offset)))
			continue
		case k.early(stamp):
			// It was stamped before the clock was right, and waited in memory.
			w := newWaiting(&s, k.boot, stamp.Sub(k.changed.was))
			s = w.sample(k.offset)
			k.count(func() { k.counts.corrected++ })
		}
		k.samples = append(k.samples, s)
	}
	if len(held) > 0 {
		if err := k.spool.append(held); err != nil {
			k.chunk = false
			return source.Chunk{}, fmt.Errorf("keeping readings until the clock is right in %s: %w", k.spool.name, err)
		}
		k.count(func() { k.counts.held += int64(len(held)); k.now.held = k.spool.lines })
	}
	return source.Chunk{Time: chunk.Time, Samples: k.samples, Refused: chunk.Refused}, nil
}

// early tells whether a time was stamped by the clock as it was before it became
// right.
func (k *keeper) early(stamp time.Time) bool {
	switch {
	case k.changed.at.IsZero() || k.changed.step.Abs() <= k.opt.Step:
		return false
	case stamp.Before(k.opt.NotBefore):
		return true
	case k.changed.step > 0:
		return stamp.Before(k.changed.at.Add(-poll))
	}
	return stamp.After(k.opt.Clock.Now().Add(poll))
}

// Take says that the chunk is taken.
func (k *keeper) Take() {
	if k.chunk {
		k.inner.Take()
		k.chunk = false
	}
	k.taken = place{Written: k.spool.written, Read: k.spool.read}
	if k.live == nil {
		figures := k.inner.Figures()
		k.count(func() { k.shown = figures })
	}
}

// Position is JSON.
func (k *keeper) Position() []byte {
	p := k.taken
	p.Inner = k.inner.Position()
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // bytes and numbers cannot fail to be JSON
	}
	return b
}

// Mark passes on what is durable.
func (k *keeper) Mark() (committed func()) {
	inner := func() {}
	if k.live != nil {
		inner = k.live.Mark()
	}
	read, turn := k.taken.Read, k.turn
	return func() {
		k.count(func() {
			if turn == k.turn {
				k.durable = read
			}
		})
		inner()
	}
}

// tidy empties the spool when all of it is delivered and that is durable.
func (k *keeper) tidy() error {
	k.mu.Lock()
	durable := k.durable
	k.mu.Unlock()
	if k.spool.written == 0 || k.spool.read < k.spool.written || durable < k.spool.written {
		return nil
	}
	if err := k.spool.empty(); err != nil {
		return fmt.Errorf("emptying the clock's spool %s: %w", k.spool.name, err)
	}
	k.taken.Written, k.taken.Read = 0, 0
	k.count(func() { k.durable = 0; k.turn++ })
	return nil
}

// Figures are the source's and the clock's, of this opening.
func (k *keeper) Figures() []signal.Counter {
	var out []signal.Counter
	if k.live != nil {
		out = append(out, k.live.Figures()...)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	out = append(out, k.shown...)
	for _, c := range []struct {
		name  string
		value int64
	}{
		{"clock_right_now", k.now.right},
		{"clock_steps", k.counts.steps},
		{"clock_held", k.counts.held},
		{"clock_held_now", k.now.held},
		{"clock_full_now", k.now.full},
		{"clock_corrected", k.counts.corrected},
		{"clock_unknown", k.counts.unknown},
	} {
		out = append(out, signal.Counter{Station: "edge", Name: c.name, Value: c.value})
	}
	return out
}

// Close closes the source.
func (k *keeper) Close() error { return errors.Join(k.inner.Close(), k.spool.f.Close()) }
