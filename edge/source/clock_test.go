package source

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

var _ signal.Clock = (*ReplayClock)(nil)

var t0 = time.Date(2020, 3, 9, 10, 0, 0, 0, time.UTC)

func TestFullSpeedMergesByEventTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(rt, "members")
		var plans [][]int
		for range n {
			steps := rapid.SliceOfN(rapid.IntRange(0, 1000), 0, 30).Draw(rt, "times")
			slices.Sort(steps)
			plans = append(plans, steps)
		}
		c := NewReplayClock(ReplayOptions{Start: t0.Add(-time.Hour), MaxStall: time.Hour})
		var mu sync.Mutex
		var got []int
		var wg sync.WaitGroup
		members := make([]*Member, n)
		for i := range members {
			members[i] = c.Join()
		}
		for i, plan := range plans {
			wg.Go(func() {
				defer members[i].End()
				for _, s := range plan {
					if err := members[i].WaitUntil(context.Background(), t0.Add(time.Duration(s)*time.Second)); err != nil {
						t.Error(err)
					}
					mu.Lock()
					got = append(got, s)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if !slices.IsSorted(got) {
			rt.Errorf("not in order: %v", got)
		}
		if len(got) > 0 && c.Now().Before(t0.Add(time.Duration(got[len(got)-1])*time.Second)) {
			rt.Errorf("the clock shows %s", c.Now())
		}
	})
}

func TestClockAfterTheEndAndAcrossRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewReplayClock(ReplayOptions{Start: t0})
		a, b := c.Join(), c.Join()
		if got := c.Now(); !got.Equal(t0) {
			t.Errorf("before anything: %s", got)
		}
		a.Resume(t0.Add(5 * time.Minute))
		b.End()
		if err := a.WaitUntil(t.Context(), t0.Add(6*time.Minute)); err != nil {
			t.Error(err)
		}
		late := t0.Add(10 * time.Minute)
		done := make(chan error, 1)
		go func() { done <- c.WaitUntil(t.Context(), late) }()
		time.Sleep(time.Hour) // nothing happens in the plant
		synctest.Wait()
		if got := c.Now(); !got.Equal(t0.Add(6 * time.Minute)) {
			t.Errorf("while a member is busy: %s", got)
		}
		a.End()
		a.End()
		time.Sleep(4 * time.Minute)
		if err := <-done; err != nil || c.Now().Sub(late).Abs() > time.Microsecond {
			t.Errorf("after the end: %s, %v", c.Now(), err)
		}
	})
}

func TestClockOfADrainedReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewReplayClock(ReplayOptions{Start: t0, Speed: 10})
		a, b := c.Join(), c.Join()
		a.Resume(t0.Add(time.Hour))
		a.End()
		b.Resume(t0.Add(2 * time.Hour))
		b.End()
		time.Sleep(time.Second)
		if got, want := c.Now(), t0.Add(2*time.Hour+time.Second); !got.Equal(want) {
			t.Errorf("shows %s, want %s", got, want)
		}
	})
}

func TestGivenSpeedAndGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewReplayClock(ReplayOptions{Start: t0.Add(-time.Hour), Speed: 10, MaxGap: time.Hour})
		m := c.Join()
		began := time.Now()
		for _, step := range []struct {
			at   time.Duration
			wall time.Duration
		}{{0, 0}, {10 * time.Second, time.Second}, {5 * time.Second, time.Second}, {time.Minute, 6 * time.Second}, {30 * 24 * time.Hour, 6 * time.Second}} {
			if err := m.WaitUntil(t.Context(), t0.Add(step.at)); err != nil {
				t.Fatal(err)
			}
			if wall := time.Since(began); wall.Round(time.Millisecond) != step.wall {
				t.Errorf("reached %s after %s, want %s", step.at, wall, step.wall)
			}
		}
		m.End()
		now := c.Now()
		time.Sleep(time.Second)
		if d := c.Now().Sub(now); d != time.Second {
			t.Errorf("after the end the clock runs %s a second", d)
		}
	})
}

func TestAHeldMemberDoesNotHoldTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewReplayClock(ReplayOptions{Start: t0, MaxStall: time.Second})
		held, free := c.Join(), c.Join()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer held.End()
			if err := held.WaitUntil(t.Context(), t0); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute) // a full outbox
			if err := held.WaitUntil(t.Context(), t0.Add(time.Second)); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		for i := range 100 {
			if err := free.WaitUntil(t.Context(), t0.Add(time.Duration(i)*time.Second)); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("held for %s", d)
		}
		free.End()
		wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.WaitUntil(ctx, t0.AddDate(1, 0, 0)); err == nil {
			t.Error("a cancelled wait returned nil")
		}
	})
}

func BenchmarkMember(b *testing.B) {
	c := NewReplayClock(ReplayOptions{Start: t0})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	m := c.Join()
	for range 12 {
		other := c.Join()
		wg.Go(func() { _ = other.WaitUntil(ctx, t0.AddDate(100, 0, 0)) })
	}
	at := t0
	for b.Loop() {
		at = at.Add(time.Second)
		if err := m.WaitUntil(ctx, at); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
}
