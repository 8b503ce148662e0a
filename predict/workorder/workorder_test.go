package workorder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/predict/alert"
	"github.com/headrace/headrace/predict/model"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

type still struct{ now time.Time }

func (c still) Now() time.Time                                   { return c.now }
func (c still) WaitUntil(ctx context.Context, _ time.Time) error { return ctx.Err() }

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

func book(t *testing.T) *Book {
	t.Helper()
	b, err := Open(t.Context(), filepath.Join(t.TempDir(), "orders.db"), Options{Clock: still{noon}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// episodes fills a store with one episode for each of n machines.
func episodes(t *testing.T, n int) *alert.Store {
	t.Helper()
	s, err := alert.Open(t.Context(), filepath.Join(t.TempDir(), "alerts.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var all []model.Prediction
	for m := range n {
		for i := range 6 {
			all = append(all, model.Prediction{
				Asset: signal.Asset(fmt.Sprintf("s/l/m%d", m)), Sensor: "de", Event: signal.Micros(i + 1), Status: model.Scored, Score: 3, Model: "x",
				Contributions: []model.Contribution{{Feature: "env_bpfo", Value: math.Log(0.5) / 4, Share: 1, Z: 4}, {Feature: "log_rms", Value: math.Log(0.2)}},
			})
		}
	}
	if begun, err := s.Observe(t.Context(), all, func(signal.Asset, string) bool { return false }); err != nil || begun != n {
		t.Fatalf("%d episodes, %v", begun, err)
	}
	return s
}

// flaky fails before or after it has done what it was asked to.
type flaky struct {
	*Book
	rng *rand.Rand
}

var errLine = errors.New("the line broke")

func (f *flaky) Create(ctx context.Context, r Request) (Order, bool, error) {
	if f.rng.IntN(3) == 0 {
		return Order{}, false, errLine
	}
	o, created, err := f.Book.Create(ctx, r)
	if f.rng.IntN(3) == 0 {
		return Order{}, false, errLine
	}
	return o, created, err
}

// However often the line to the book breaks or the courier is killed between
// two steps, each episode is one order.
func TestEachEpisodeIsOneOrder(t *testing.T) {
	const n = 300
	s, b := episodes(t, n), book(t)
	rng := rand.New(rand.NewPCG(7, 8))
	killed := errors.New("killed")
	for tries := 0; ; tries++ {
		if tries > 100*n {
			t.Fatal("it does not end")
		}
		c := &Courier{Outbox: s, Orders: &flaky{b, rng}, Log: slog.New(slog.DiscardHandler), Reached: func(string) {
			if rng.IntN(20) == 0 {
				panic(killed)
			}
		}}
		func() {
			defer func() {
				if r := recover(); r != nil && r != any(killed) {
					panic(r)
				}
			}()
			_, _ = c.Deliver(t.Context())
		}()
		waiting, err := s.Waiting(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(waiting) == 0 {
			break
		}
	}
	orders, err := b.List(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[signal.Asset]int{}
	for _, o := range orders {
		seen[o.Asset]++
		if o.Again != 0 || o.Defect != alert.OuterRace || o.State != StateOpen {
			t.Errorf("%+v", o)
		}
	}
	if len(orders) != n || len(seen) != n {
		t.Errorf("%d orders of %d machines, want %d of each", len(orders), len(seen), n)
	}
}

func TestClosing(t *testing.T) {
	b := book(t)
	r := Request{Key: "k1", Asset: "s/l/a", Title: "t", FailureMode: "VIB"}
	o, created, err := b.Create(t.Context(), r)
	if err != nil || !created || o.ID != "WO-000001" {
		t.Fatalf("%+v %v %v", o, created, err)
	}
	r.Key = "k2" // a second episode while the order is open
	if again, created, err := b.Create(t.Context(), r); err != nil || created || again.ID != o.ID || again.Again != 1 {
		t.Fatalf("%+v %v %v", again, created, err)
	}
	done := signal.MicrosOf(noon.Add(-time.Hour))
	for name, c := range map[string]Closing{
		"code":    {Code: "broken", Verdict: Confirmed, FinishedAt: done},
		"verdict": {Code: CodeRepair, Verdict: "maybe", FinishedAt: done},
		"time":    {Code: CodeRepair, Verdict: Confirmed},
		"ahead":   {Code: CodeRepair, Verdict: Confirmed, FinishedAt: signal.MicrosOf(noon.Add(time.Hour))},
	} {
		var invalid *InvalidError
		if _, err := b.CloseOrder(t.Context(), o.ID, c); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	repair := Closing{Code: CodeRepair, Verdict: Confirmed, FinishedAt: done, By: "me"}
	for range 2 {
		if o, err = b.CloseOrder(t.Context(), o.ID, repair); err != nil || o.State != StateClosed {
			t.Fatalf("%+v %v", o, err)
		}
	}
	other := repair
	other.Verdict = NotConfirmed
	if _, err := b.CloseOrder(t.Context(), o.ID, other); !errors.Is(err, ErrClosed) {
		t.Errorf("closing otherwise: %v", err)
	}
	if _, err := b.CloseOrder(t.Context(), "WO-000009", repair); !errors.Is(err, ErrNoOrder) {
		t.Errorf("an order that is not there: %v", err)
	}
	// A closed order is no longer in the way, and an inspection resets nothing.
	r.Key = "k3"
	second, created, err := b.Create(t.Context(), r)
	if err != nil || !created {
		t.Fatal(err)
	}
	if _, err := b.CloseOrder(t.Context(), second.ID, Closing{Code: CodeInspect, Verdict: NotConfirmed, FinishedAt: done}); err != nil {
		t.Fatal(err)
	}
	services, err := b.Services(t.Context(), "s/l/a")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Service{{Order: "WO-000001", Code: CodeRepair, FinishedAt: done, RecordedAt: signal.MicrosOf(noon)}}, services); d != "" {
		t.Error(d)
	}
	if first, ok, err := b.Find(t.Context(), "k2"); err != nil || !ok || first.ID != o.ID {
		t.Errorf("%+v %v %v", first, ok, err)
	}
}

// The picture of impacts at the outer race peaks where the outer race is marked.
func TestSpectrum(t *testing.T) {
	w := record.Waveform{Rate: 12_000, Format: record.FormatF32, Scale: 1}
	b := signal.Bearing{BPFO: 3.5848, BPFI: 5.4152, BSF2: 4.7135}
	x := make([]float64, 4096)
	period := 12_000 / (b.BPFO * 1797 / 60)
	for at := 0.0; at < 4096; at += period {
		for i := int(at) + 1; i < min(4096, int(at)+80); i++ {
			x[i] += math.Exp(-(float64(i)-at)/12) * math.Sin(1.7*(float64(i)-at))
		}
	}
	for _, v := range x {
		w.Samples = binary.LittleEndian.AppendUint32(w.Samples, math.Float32bits(float32(v)))
	}
	lines := envelopeSpectrum(x, 12_000)
	best := 1
	for k := 5; k < 100; k++ {
		if lines[k] > lines[best] {
			best = k
		}
	}
	if at := float64(best) * 12_000 / 4096 / (1797.0 / 60); math.Abs(at-b.BPFO) > 0.1 {
		t.Errorf("the peak is at %.2f, want %.2f", at, b.BPFO)
	}
	svg, err := Spectrum(&w, 1797, b, `m "<1>"`)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(svg); !strings.HasPrefix(s, "<svg") || strings.Contains(s, "<script") || strings.Contains(s, `"<1>"`) || len(s) > 40_000 {
		t.Errorf("%d bytes: %.200s", len(s), s)
	}
	if _, err := Spectrum(&w, 0, b, ""); err == nil {
		t.Error("a spectrum over an unknown speed")
	}
}
