package workorder

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/headrace/headrace/predict/alert"
	"github.com/headrace/headrace/signal"
)

// Outbox is where requests wait; [alert.Store] is one.
type Outbox interface {
	Waiting(ctx context.Context) ([]alert.Kept, error)
	Delivered(ctx context.Context, episode, order string) error
}

// Orders is an order book as the courier needs it; [Book] is one. Create is
// idempotent by key.
type Orders interface {
	Find(ctx context.Context, key string) (Order, bool, error)
	Create(ctx context.Context, r Request) (Order, bool, error)
}

// Courier carries requests from the outbox into the order book, each once: it
// looks the key up before it writes, so that an answer it did not hear, or did
// not live to note, makes no second order.
type Courier struct {
	Outbox  Outbox
	Orders  Orders
	Log     *slog.Logger
	Reached signal.Reached
	Every   time.Duration // how often it looks; 0 is 500 ms
}

// Run delivers until ctx ends. What fails is tried again with pauses.
func (c *Courier) Run(ctx context.Context) error {
	every := c.Every
	if every == 0 {
		every = 500 * time.Millisecond
	}
	pause := every
	for {
		if _, err := c.Deliver(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("work orders wait; they are tried again", "error", err)
			pause = min(2*pause, time.Minute)
		} else {
			pause = every
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// Deliver carries what waits, and tells how many it was.
func (c *Courier) Deliver(ctx context.Context) (n int, err error) {
	waiting, err := c.Outbox.Waiting(ctx)
	if err != nil {
		return 0, err
	}
	for i := range waiting {
		e := &waiting[i].Episode
		o, found, err := c.Orders.Find(ctx, e.ID)
		if err == nil && !found {
			o, _, err = c.Orders.Create(ctx, RequestOf(e))
		}
		if err != nil {
			return n, fmt.Errorf("delivering episode %s of %s: %w", e.ID, e.Asset, err)
		}
		c.Reached.At("workorder.sent")
		if err := c.Outbox.Delivered(ctx, e.ID, o.ID); err != nil {
			return n, err
		}
		c.Reached.At("workorder.recorded")
		n++
	}
	return n, nil
}

// RequestOf is what an episode asks of a maintenance planner.
func RequestOf(e *alert.Episode) Request {
	_, _, machine := e.Asset.Split()
	what := map[string]string{
		alert.OuterRace: "Bearing, outer race", alert.InnerRace: "Bearing, inner race", alert.Ball: "Bearing, rolling element",
	}[e.Defect]
	title := fmt.Sprintf("%s: %s damaged; plan a replacement", machine, what)
	if what == "" {
		title = fmt.Sprintf("%s: vibration unlike its healthy state; inspect", machine)
	}
	priority := "scheduled"
	if e.Peak >= urgentScore {
		priority = "urgent"
	}
	window := Window{Sensor: e.Sensor, End: e.PeakAt}
	for _, a := range e.Alarms {
		if a.Severity == "high" || a.Severity == "critical" {
			priority = "urgent"
		}
		if e.Model == "" {
			title = fmt.Sprintf("%s: %s of %s passed %.6g %s (alarm %s); inspect", machine, a.Of, a.Sensor, a.Level, a.Unit, a.Rule)
			window = Window{}
		}
	}
	r := Request{
		Key: e.ID, Asset: e.Asset, Title: title, Defect: e.Defect, FailureMode: e.FailureMode, Priority: priority,
		Confidence: e.Confidence, Sure: Sure(e.Confidence), Started: e.Started, Raised: e.Raised, Score: e.Peak,
		T2: e.T2, T2Limit: e.T2Limit, Q: e.Q, QLimit: e.QLimit, Model: e.Model, Window: window,
	}
	for _, v := range e.Evidence {
		r.Evidence = append(r.Evidence, EvidenceOf(v.Feature, v.Value, v.Healthy, v.Z, v.Share))
	}
	return r
}

// urgentScore is how far beyond the limit an order does not wait for its turn.
const urgentScore = 10

// Sure is a confidence in words.
func Sure(confidence float64) string {
	switch {
	case confidence >= 0.75:
		return "very likely"
	case confidence >= 0.5:
		return "likely"
	}
	return "uncertain"
}

// EvidenceOf puts a feature into the words and units of a planner: logarithms
// become what they are of.
func EvidenceOf(feature string, value, healthy, z, share float64) Evidence {
	out := Evidence{Feature: feature, Unit: "1", Value: value, Healthy: healthy, Z: z, Share: share}
	plain := func(name, unit string, f func(float64) float64) {
		out.Feature, out.Unit, out.Value, out.Healthy = name, unit, f(value), f(healthy)
	}
	energy := func(v float64) float64 { return 100 * math.Exp(4*v) }
	percent := func(v float64) float64 { return 100 * v }
	switch feature {
	case "log_rms":
		plain("RMS", "[g]", math.Exp)
	case "log_crest":
		plain("crest factor", "1", math.Exp)
	case "kurtosis":
		plain("kurtosis", "1", func(v float64) float64 { return v })
	case "share_1x":
		plain("energy at the shaft's speed", "%", percent)
	case "share_low":
		plain("energy from 10 to 1,000 Hz", "%", percent)
	case "share_mid":
		plain("energy from 1 to 3 kHz", "%", percent)
	case "share_high":
		plain("energy above 3 kHz", "%", percent)
	case "env_bpfo":
		plain("envelope at the outer race's order", "%", energy)
	case "env_bpfi":
		plain("envelope at the inner race's order", "%", energy)
	case "env_bsf":
		plain("envelope at the ball's order", "%", energy)
	case "env_ftf":
		plain("envelope at the cage's order", "%", energy)
	}
	return out
}
