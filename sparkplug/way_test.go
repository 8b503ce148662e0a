package sparkplug

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

const (
	testBoot = "0199aa00-0000-7000-8000-000000000001"
	testNow  = signal.Micros(1_700_000_000_123_456)
)

var testWall = time.Unix(1_800_000_000, 0)

func newNode(t rapid.TB, boot string) *EdgeNode {
	t.Helper()
	n, err := NewEdgeNode(NodeConfig{Group: "works 1", Edge: "cell%7", SessionBoot: boot})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newHost() *HostSession { return NewHostSession(HostConfig{Group: "works 1", Edge: "cell%7"}) }

// hear decodes a message as a bridge would and gives it to the host.
func hear(t rapid.TB, h *HostSession, wall time.Time, m Message) Result {
	t.Helper()
	topic, err := ParseTopic(m.Topic)
	if err != nil {
		t.Fatalf("topic of our own: %v", err)
	}
	var p Payload
	if err := DecodePayload(m.Payload, &p); err != nil {
		t.Fatalf("payload of our own: %v", err)
	}
	return h.Receive(testNow, wall, topic, &p)
}

func drawReading(t *rapid.T, sensors []string) signal.Reading {
	r := signal.Reading{
		Sensor:     rapid.SampledFrom(sensors).Draw(t, "sensor"),
		EventTime:  signal.Micros(rapid.OneOf(rapid.Int64Range(1_600_000_000_000_000, 1_600_000_000_010_000), rapid.Int64()).Draw(t, "time")),
		Unit:       rapid.SampledFrom([]string{"", "bar", "Cel", "m/s2"}).Draw(t, "unit"),
		Quality:    rapid.OneOf(rapid.SampledFrom([]signal.Quality{192, 192, 0, 500}), rapid.Custom(func(t *rapid.T) signal.Quality { return signal.Quality(rapid.Uint16().Draw(t, "q")) })).Draw(t, "quality"),
		Historical: rapid.Bool().Draw(t, "historical"),
		Rescued:    rapid.SampledFrom([]string{"", "", `{"x":1}`}).Draw(t, "rescued"),
	}
	r.AliveAt = r.EventTime
	if rapid.Bool().Draw(t, "held") {
		r.AliveAt = signal.Micros(rapid.Int64().Draw(t, "alive"))
	}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 1:
		r.Value = signal.NumberValue(rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Copysign(0, -1)})).Draw(t, "number"))
	case 2:
		r.Value = signal.BoolValue(rapid.Bool().Draw(t, "bool"))
	case 3:
		r.Value = signal.TextValue(rapid.String().Draw(t, "text"))
	case 4:
		r.Value = signal.WaveValue(string(rapid.SliceOf(rapid.Byte()).Draw(t, "block")))
	}
	return r
}

func drawBatch(t *rapid.T, assets []signal.Asset) signal.Batch {
	asset := rapid.SampledFrom(assets).Draw(t, "asset")
	class := rapid.SampledFrom([]signal.Class{signal.Telemetry, signal.Event, signal.Raw}).Draw(t, "class")
	return signal.Batch{
		Origin: signal.Origin{
			Edge: "works 1/cell%7", Boot: rapid.SampledFrom([]string{testBoot, "earlier"}).Draw(t, "boot"),
			Seq: rapid.Uint64().Draw(t, "seq"), Stream: signal.NewStream(asset, class), N: rapid.Uint64().Draw(t, "n"),
			Config: rapid.SampledFrom([]string{"", "f00d"}).Draw(t, "config"), CompleteTo: signal.Micros(rapid.Int64().Draw(t, "complete")),
		},
		Readings: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) signal.Reading {
			return drawReading(t, []string{"p", "bdSeq", "de_acceleration.rms", "tür 1"})
		}), 0, 6).Draw(t, "readings"),
	}
}

var nanEqual = cmp.Comparer(func(a, b signal.Value) bool {
	return a.Equal(b) && math.Signbit(a.Number) == math.Signbit(b.Number)
})

func diffReadings(want, got []signal.Reading) string {
	if len(want) == 0 && len(got) == 0 {
		return ""
	}
	return cmp.Diff(want, got, nanEqual)
}

// What an edge is given is what a host gives back: over rebirths,
// reconnections of either side, lost messages and restarts of the process,
// every message is either the same batch or asked for again.
func TestWayKeepsBatches(t *testing.T) {
	assets := []signal.Asset{"works 1/a/x", "works 1/a/y", "works 1/b b/x"}
	rapid.Check(t, func(t *rapid.T) {
		boots := 1
		node := newNode(t, "boot 1")
		host, wall := newHost(), testWall
		var bd uint8
		lossy := rapid.Bool().Draw(t, "lossy")
		send := func(m Message) (r Result, arrived bool) {
			if lossy && rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
				return r, false
			}
			wall = wall.Add(3 * time.Second)
			return hear(t, host, wall, m), true
		}
		births := func() {
			for _, m := range node.Birth(testNow) {
				if r, ok := send(m); ok && r.Outcome != Accepted {
					t.Fatalf("birth was %v: %s", r.Outcome, r.Reason)
				}
			}
		}
		node.Connect(bd)
		births()
		accepted := 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				births()
			case 1:
				bd = NextBdSeq(bd)
				if m := node.Will(testNow); rapid.Bool().Draw(t, "will") {
					send(m)
				}
				node.Connect(bd)
				births()
			case 2:
				host.Reconnected()
			case 3:
				host = newHost()
			case 4:
				boots++
				node = newNode(t, fmt.Sprint("boot ", boots))
				node.Connect(bd)
				births()
			case 5:
				if m, ok := node.DeviceDeath(testNow, assets[0]); ok {
					send(m)
				}
			case 6:
				if m, ok := node.Held(testNow, assets[0]); ok {
					if r, ok := send(m); ok && (r.Outcome != Idle || len(r.Batches) != 0) {
						t.Fatalf("held values were %v: %s", r.Outcome, r.Reason)
					}
				}
			default:
				b := drawBatch(t, assets)
				for try := 0; ; try++ {
					out, err := node.Data(nil, testNow, &b)
					if err != nil {
						t.Fatal(err)
					}
					for _, m := range out[:len(out)-1] {
						send(m)
					}
					r, ok := send(out[len(out)-1])
					if ok && r.Outcome == Accepted {
						if len(r.Batches) != 1 || r.Batches[0].Origin != b.Origin || r.Origin != b.Origin {
							t.Fatalf("origin: want %+v, got %+v", b.Origin, r)
						}
						if d := diffReadings(b.Readings, r.Batches[0].Readings); d != "" {
							t.Fatalf("readings (-want +got):\n%s", d)
						}
						accepted++
						break
					}
					if ok && r.Outcome != NeedsRebirth {
						t.Fatalf("data was %v: %s", r.Outcome, r.Reason)
					}
					if ok && r.Rebirth {
						births()
					}
					if try > 40 {
						t.Fatal("never accepted")
					}
				}
			}
		}
	})
}
