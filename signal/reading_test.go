package signal

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestQualityGood(t *testing.T) {
	for q, want := range map[Quality]bool{
		QualityBad: false, QualityGood: true, QualityStale: false,
		0x40: false, // uncertain
		0x80: false,
		0xBF: false,
		0xD8: true, // good, local override
		0xFF: true,
		// The high byte is the vendor's.
		0x01C0: true,
		0x0140: false,
	} {
		if q.Good() != want {
			t.Errorf("quality %d: good is %v", q, q.Good())
		}
	}
}

func TestMicros(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Micros(rapid.Int64Range(int64(MinTime), int64(MaxTime)).Draw(t, "µs"))
		beyond := time.Duration(rapid.Int64Range(0, 999).Draw(t, "ns"))
		if got := MicrosOf(m.Time().Add(beyond)); got != m {
			t.Fatalf("%d µs and %d ns became %d µs", m, beyond, got)
		}
		if m.Time().Location() != time.UTC {
			t.Fatal("not UTC")
		}
	})
	if s := MinTime.Time().Format(time.RFC3339); s != "0001-01-01T00:00:00Z" {
		t.Errorf("the first time is %s", s)
	}
	if s := MaxTime.Time().Format(time.RFC3339); s != "9999-12-31T00:00:00Z" {
		t.Errorf("the last time is %s", s)
	}
}

func TestValueEqual(t *testing.T) {
	nan := NumberValue(math.NaN())
	for _, c := range []struct {
		a, b Value
		want bool
	}{
		{Value{}, Value{}, true},
		{nan, nan, true},
		{nan, NumberValue(0), false},
		{NumberValue(1), NumberValue(1), true},
		{NumberValue(0), NumberValue(math.Copysign(0, -1)), true},
		{NumberValue(1), BoolValue(true), false},
		{NumberValue(0), Value{}, false},
		{BoolValue(false), Value{}, false},
		{BoolValue(true), BoolValue(true), true},
		{TextValue("a"), TextValue("a"), true},
		{TextValue("a"), TextValue("b"), false},
		{TextValue(""), Value{}, false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%v and %v: equal is %v", c.a, c.b, !c.want)
		}
	}
}

func TestReadingHeld(t *testing.T) {
	if (Reading{EventTime: 5, AliveAt: 5}).Held() || !(Reading{EventTime: 5, AliveAt: 6}).Held() {
		t.Error("held is what was proven alive after it was measured")
	}
}

func TestWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock WallClock
		start := clock.Now()
		if start.Location() != time.UTC {
			t.Error("not UTC")
		}
		if err := clock.WaitUntil(t.Context(), start.Add(time.Hour)); err != nil || clock.Now().Sub(start) != time.Hour {
			t.Errorf("waited %v, %v", clock.Now().Sub(start), err)
		}
		if err := clock.WaitUntil(t.Context(), start); err != nil || clock.Now().Sub(start) != time.Hour {
			t.Errorf("waited for the past until %v, %v", clock.Now().Sub(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := clock.WaitUntil(ctx, clock.Now().Add(time.Hour)); !errors.Is(err, context.DeadlineExceeded) || clock.Now().Sub(start) != 61*time.Minute {
			t.Errorf("cut short after %v, %v", clock.Now().Sub(start), err)
		}
		if err := clock.WaitUntil(ctx, start); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the past, too late: %v", err)
		}
	})
}

func TestReached(t *testing.T) {
	Reached(nil).At("nowhere")
	var got []string
	r := Reached(func(p string) { got = append(got, p) })
	r.At("edge.outbox_committed")
	if len(got) != 1 || got[0] != "edge.outbox_committed" {
		t.Errorf("got %v", got)
	}
}
