package signal

import (
	"context"
	"time"
)

// Clock is the plant's clock: the time base of data times, ages, windows and
// alert delays. It is simulated under --replay and --speed. Resends,
// keep-alives, leases and group commit use the monotonic wall clock instead.
type Clock interface {
	// Now is the plant's present.
	Now() time.Time
	// WaitUntil blocks until Now is at or past t, or returns ctx's error. It
	// never moves the clock.
	WaitUntil(ctx context.Context, t time.Time) error
}

// WallClock is the plant's clock of a live plant: the machine's own.
type WallClock struct{}

// Now returns the machine's time in UTC.
func (WallClock) Now() time.Time { return time.Now().UTC() }

// WaitUntil sleeps until t.
func (WallClock) WaitUntil(ctx context.Context, t time.Time) error { return sleep(ctx, time.Until(t)) }

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Counter is one figure of a station, for the page and the metrics.
type Counter struct {
	Station string `json:"station"` // "edge", "broker", "bridge", "spine", "bronze", …
	Name    string `json:"name"`    // snake_case, a total unless it ends in _now
	Value   int64  `json:"value"`
}

// Reached is told when a process passes a named point of the way, before it
// goes on. Tests stop or kill the process there; it is nil otherwise.
type Reached func(point string)

// At reports a point; a nil Reached does nothing.
func (r Reached) At(point string) {
	if r != nil {
		r(point)
	}
}
