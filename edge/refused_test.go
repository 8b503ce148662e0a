package edge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// refusing is a source that refuses a burst at once and then one each second.
type refusing struct {
	burst, more int
	at, read    int
}

func (c *refusing) Next(ctx context.Context) (source.Chunk, error) {
	c.Take()
	if c.at > c.more {
		return source.Chunk{}, io.EOF
	}
	n := c.burst
	if c.at > 0 {
		n = 1
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return source.Chunk{}, ctx.Err()
		}
	}
	chunk := source.Chunk{Time: time.Now()}
	for i := range n {
		long := strings.Repeat("x", (i%2)*100<<10)
		chunk.Refused = append(chunk.Refused, source.Refusal{Source: "test", From: fmt.Sprintf("row %d.%d", c.at, i), Reason: "torn", Bytes: []byte("\xff\x00" + long)})
	}
	c.read = c.at + 1
	return chunk, nil
}
func (c *refusing) Take()                     { c.at = c.read }
func (c *refusing) Figures() []signal.Counter { return nil }
func (c *refusing) Close() error              { return nil }
func (c *refusing) Position() []byte          { return fmt.Append(nil, c.at) }

// What a source refuses survives an outage; beyond a rate it is counted alone,
// and the next letter says how many those were. The outbox's sum holds.
func TestRefusedGoesOutBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		src := &refusing{burst: 350, more: 20}
		opt := options(t.TempDir(), nil, l)
		opt.Open = func([]byte, *slog.Logger) (source.Source, error) { return src, nil }
		l.cut(true)
		a, stop := start(t, opt)
		time.Sleep(30 * time.Second) // nobody is there
		l.cut(false)
		b.up(l.Dial)
		drained(t, a, 5*time.Minute)
		letters, uncarried, cut := map[string]bool{}, int64(0), 0
		b.set(func() {
			for i := range b.got {
				r, err := record.ParseRefusal(&b.got[i])
				if err != nil || !strings.HasPrefix(string(r.Bytes), "\xff\x00") || r.Reason != "torn" || r.Source != "test" {
					t.Errorf("%+v, %v", r, err)
				}
				if _, class := b.got[i].Stream.Split(); class != signal.Refused {
					t.Errorf("stream %s", b.got[i].Stream)
				}
				if !letters[r.From] { // a resend is the same letter
					uncarried += r.Uncarried
					if r.Cut > 0 {
						cut++
					}
				}
				letters[r.From] = true
			}
		})
		c := counters(a)
		if len(letters) != 120 || uncarried != 250 || cut != 50 {
			t.Errorf("%d letters, %d only counted, %d cut; want 120, 250, 50", len(letters), uncarried, cut)
		}
		if c["refused"] != 370 || c["refused_carried"] != 120 || c["emitted"] != 120 || c["shipped"] != 120 {
			t.Errorf("%v", c)
		}
		stop()
		b.away()
	})
}
