package edge

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A replay has its share of a link's time and no more bytes a second than it may.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		share     float64
		perSecond int64
		link      float64 // bytes/s
		want      float64 // bytes/s, at most
	}{
		"a quarter of a slow link": {0.25, 0, 100_000, 25_000},
		"a half of a fast link":    {0.5, 0, 10e6, 5e6},
		"bytes a second":           {1, 20_000, 10e6, 20_000},
		"the smaller of both":      {0.25, 50_000, 100_000, 25_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPace(c.share, c.perSecond)
				began, sent := time.Now(), 0
				for time.Since(began) < 10*time.Minute {
					n := p.piece
					took := time.Duration(float64(n) / c.link * float64(time.Second))
					time.Sleep(took)
					sent += n
					if wait := p.after(n, took); !pause(context.Background(), wait) {
						t.Fatal("the pause was cut short")
					}
					if took > 2*longPiece && p.piece > minPiece && p.piece >= n {
						t.Fatalf("pieces that took %s do not become smaller than %d bytes", took, n)
					}
				}
				if got := float64(sent) / time.Since(began).Seconds(); got > c.want*1.01 || got < c.want*0.9 {
					t.Errorf("%.0f bytes/s, want %.0f", got, c.want)
				}
			})
		})
	}
}

// An outage is no measure of the link.
func TestPaceAfterAnOutage(t *testing.T) {
	p := newPace(0.25)
	if wait := p.after(1000, 6*time.Hour); wait > maxPause {
		t.Errorf("after an outage it waits %s", wait)
	}
}
