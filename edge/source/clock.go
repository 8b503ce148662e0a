package source

import (
	"context"
	"math"
	"sync"
	"time"
)

// DefaultMaxStall is the default of [ReplayOptions].MaxStall.
const DefaultMaxStall = time.Second

// ReplayOptions say how fast a replay runs.
type ReplayOptions struct {
	// Start is what the clock shows until every member has said where it begins.
	Start time.Time
	// Speed is plant time per wall time; 0 is as fast as the members go.
	Speed float64
	// MaxGap, if not 0, is the longest time without any event that is waited
	// through; a longer one is jumped over.
	MaxGap time.Duration
	// MaxStall is how long the others wait for a member that neither waits nor
	// ends, because something holds it back.
	MaxStall time.Duration
}

// ReplayClock is the plant's clock of a replay, and merges its sources: what
// [Member.WaitUntil] lets through comes in order of event time.
//
// At a given speed the clock runs from the earliest event on. Without one it
// follows the events: it shows the least time that any member waits for, so
// that all advance together. A member that is held back (by its outbox, which
// is full, say) holds the others for at most MaxStall; then they go on without
// it, and what it delivers later is late. Nothing but the order of arrival
// depends on that. While it holds them, they keep nothing in memory but the
// row that waits.
//
// After the last member's end the clock goes on at the wall's rate, so that
// ages grow. It never runs backwards.
type ReplayClock struct {
	opt ReplayOptions

	mu      sync.Mutex
	members []*Member
	began   bool      // every member has said where it begins
	now     time.Time // at the wall's since
	since   time.Time
	rate    float64   // plant time per wall time since then
	floor   time.Time // the clock has shown this in an earlier run
	waiters map[*waiter]struct{}
}

type waiter struct {
	t  time.Time
	ch chan struct{} // closed when the clock may have reached t
}

// Member is one source's part in the clock.
type Member struct {
	c       *ReplayClock
	t       time.Time // what it waits for, or has been let through with last
	said    bool
	waiting bool
	stalled bool
	ended   bool
	busy    time.Time // since when it does not wait
}

// NewReplayClock returns a clock without members.
func NewReplayClock(opt ReplayOptions) *ReplayClock {
	if opt.MaxStall <= 0 {
		opt.MaxStall = DefaultMaxStall
	}
	return &ReplayClock{opt: opt, now: opt.Start.UTC(), since: time.Now(), waiters: map[*waiter]struct{}{}}
}

// Join adds a source. All must join before the first waits.
func (c *ReplayClock) Join() *Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &Member{c: c, busy: time.Now()}
	c.members = append(c.members, m)
	return m
}

// Now is the plant's present.
func (c *ReplayClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.present()
}

// present is Now; c.mu is held.
func (c *ReplayClock) present() time.Time {
	if c.rate == 0 {
		return c.now
	}
	passed := float64(time.Since(c.since)) * c.rate
	return c.now.Add(time.Duration(min(passed, math.MaxInt64/2)))
}

// set moves the clock; c.mu is held. It does not run backwards.
func (c *ReplayClock) set(t time.Time, rate float64) {
	if now := c.present(); now.After(t) {
		t = now
	}
	c.now, c.since, c.rate = t, time.Now(), rate
}

// WaitUntil blocks until the clock shows t.
func (c *ReplayClock) WaitUntil(ctx context.Context, t time.Time) error { return c.wait(ctx, t, nil) }

// Resume tells that the source has been at t in an earlier run: the clock does
// not begin before it.
func (m *Member) Resume(t time.Time) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if t.After(m.c.floor) {
		m.c.floor = t
	}
}

// WaitUntil announces the source's next event time and blocks until the clock
// shows it.
func (m *Member) WaitUntil(ctx context.Context, t time.Time) error {
	c := m.c
	c.mu.Lock()
	m.t, m.said, m.waiting, m.stalled = t, true, true, false
	c.advance()
	c.mu.Unlock()
	err := c.wait(ctx, t, m)
	c.mu.Lock()
	m.waiting, m.busy = false, time.Now()
	c.mu.Unlock()
	return err
}

// End takes the source out: nothing more comes from it. It may be called again.
func (m *Member) End() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if !m.ended {
		m.ended, m.said = true, true
		m.c.advance()
	}
}

// advance moves the clock to where the members allow; c.mu is held.
func (c *ReplayClock) advance() {
	var least time.Time
	active, free := 0, true
	for _, m := range c.members {
		if !m.said && !m.stalled {
			return // not all have said where they begin
		}
		if m.ended {
			continue
		}
		active++
		if m.stalled {
			continue
		}
		free = free && m.waiting
		if least.IsZero() || m.t.Before(least) {
			least = m.t
		}
	}
	if !c.began && !least.IsZero() {
		c.began = true
		start := least
		if c.floor.After(start) {
			start = c.floor
		}
		c.set(start, c.opt.Speed)
	}
	switch {
	case active == 0 && c.rate != 1:
		if c.floor.After(c.now) {
			c.now = c.floor
		}
		c.set(c.present(), 1)
	case least.IsZero():
	case c.opt.Speed == 0:
		c.set(least, 0)
	case free && c.opt.MaxGap > 0 && least.Sub(c.present()) > c.opt.MaxGap:
		c.set(least, c.opt.Speed)
	}
	now := c.present()
	for w := range c.waiters {
		// With a rate, who waits must reckon anew.
		if c.rate != 0 || !w.t.After(now) {
			close(w.ch)
			delete(c.waiters, w)
		}
	}
}

// wait blocks until the clock shows t; as is the member that waits, or nil.
func (c *ReplayClock) wait(ctx context.Context, t time.Time, as *Member) error {
	var timer *time.Timer
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.mu.Lock()
		now := c.present()
		if !now.Before(t) {
			c.mu.Unlock()
			return nil
		}
		pause := time.Hour
		if c.rate != 0 {
			pause = time.Duration(min(float64(t.Sub(now))/c.rate+1, float64(time.Hour)))
		}
		if as != nil {
			pause = min(pause, c.opt.MaxStall)
		}
		w := &waiter{t, make(chan struct{})}
		c.waiters[w] = struct{}{}
		c.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(pause)
			defer timer.Stop()
		} else {
			timer.Reset(pause)
		}
		timedOut := false
		select {
		case <-w.ch:
		case <-timer.C:
			timedOut = true
		case <-ctx.Done():
		}
		c.mu.Lock()
		delete(c.waiters, w)
		if timedOut && as != nil {
			c.dropStalled()
		}
		c.mu.Unlock()
	}
}

// dropStalled goes on without the members that have been busy for too long;
// c.mu is held.
func (c *ReplayClock) dropStalled() {
	dropped := false
	for _, m := range c.members {
		if !m.ended && !m.waiting && !m.stalled && time.Since(m.busy) >= c.opt.MaxStall {
			m.stalled, dropped = true, true
		}
	}
	if dropped {
		c.advance()
	}
}
