package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/mqttc"
)

// askEvery is how often a request is repeated until it is answered, or for as long
// as its answers stay away; settled how long a broker is listened to for what it has
// retained.
const (
	askEvery = 5 * time.Second
	settled  = 700 * time.Millisecond
)

// Client asks edges by way of a broker. Its methods are not for concurrent use.
type Client struct {
	conn *mqttc.Conn

	mu      sync.Mutex
	reports map[string]Report
	answers []Answer
	heard   time.Time // when the last report came in
	news    chan struct{}
}

// Dial connects to a broker and listens to what edges say.
func Dial(ctx context.Context, cfg mqttc.Config) (*Client, error) {
	c := &Client{reports: map[string]Report{}, news: make(chan struct{}, 1)}
	cfg.ClientID, cfg.CleanSession, cfg.OnMessage = "headrace-ask-"+uuid.NewString(), true, c.receive
	conn, err := mqttc.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	if err := conn.Subscribe(ctx, map[string]byte{"headrace/state/+/+": 1, "headrace/answer/+/+": 1}); err != nil {
		c.Close()
		return nil, fmt.Errorf("listening to edges: %w; the user needs the right to subscribe headrace/state/# and headrace/answer/#", err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() {
	c.conn.Abort()
	<-c.conn.Done()
}

func (c *Client) receive(m mqttc.Message) {
	m.Ack()
	c.mu.Lock()
	if strings.HasPrefix(m.Topic, "headrace/state/") {
		if r, err := ParseReport(m.Payload); err == nil && r.Edge != "" {
			c.reports[r.Edge], c.heard = r, time.Now()
		}
	} else if a, err := ParseAnswer(m.Payload); err == nil {
		c.answers = append(c.answers, a)
	}
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// next waits for news, or for so long.
func (c *Client) next(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.news:
	case <-timer.C:
	case <-c.conn.Done():
		return c.conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Reports are what all edges said last, by name.
func (c *Client) Reports(ctx context.Context) ([]Report, error) {
	began := time.Now()
	for {
		c.mu.Lock()
		last := c.heard
		c.mu.Unlock()
		if last.Before(began) {
			last = began
		}
		wait := settled - time.Since(last)
		if wait <= 0 || time.Since(began) > 10*settled {
			break
		}
		if err := c.next(ctx, wait); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Report, 0, len(c.reports))
	for _, r := range c.reports {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Report) int { return cmp.Compare(a.Edge, b.Edge) })
	return out, nil
}

// AbsentError is an edge that does not answer.
type AbsentError struct {
	Edge string
	Seen time.Time // by the edge's clock; zero is never
}

func (e *AbsentError) Error() string {
	if e.Seen.IsZero() {
		return fmt.Sprintf("edge %s does not answer, and this broker has never heard of it; `headrace edge list` shows who is there", e.Edge)
	}
	return fmt.Sprintf("edge %s does not answer; it was seen last at %s", e.Edge, e.Seen.Format(time.RFC3339))
}

// Ask asks an edge and calls told with each answer until one is the last. Without
// an answer within wait it ends with an [AbsentError]; one that has answered before
// is waited for until ctx ends, since it goes on when it is back.
func (c *Client) Ask(ctx context.Context, edge string, q Request, wait time.Duration, told func(Answer)) (Answer, error) {
	group, node, _ := strings.Cut(edge, "/")
	q.Version = Version
	b, err := json.Marshal(q)
	if err != nil {
		return Answer{}, err
	}
	began, heard := time.Now(), false
	var asked time.Time
	for {
		c.mu.Lock()
		answers := c.answers
		c.answers = nil
		c.mu.Unlock()
		for _, a := range answers {
			if a.ID != q.ID || a.Edge != edge {
				continue
			}
			heard, asked = true, time.Now()
			if told != nil {
				told(a)
			}
			if a.State != Running {
				return a, nil
			}
		}
		if !heard && time.Since(began) >= wait {
			c.mu.Lock()
			defer c.mu.Unlock()
			return Answer{}, &AbsentError{edge, c.reports[edge].Time}
		}
		if time.Since(asked) >= askEvery {
			asked = time.Now()
			if err := c.conn.Publish(ctx, RequestTopic(group, node), 1, false, b); err != nil {
				return Answer{}, fmt.Errorf("asking edge %s: %w", edge, err)
			}
		}
		left := askEvery
		if !heard {
			left = min(left, max(wait-time.Since(began), time.Millisecond))
		}
		if err := c.next(ctx, left); err != nil {
			return Answer{}, fmt.Errorf("waiting for edge %s: %w", edge, err)
		}
	}
}

// Apply lays a configuration on the edge's topic and waits until the edge says what
// became of it. After wait without that it returns false: the edge takes it when it
// is back.
func (c *Client) Apply(ctx context.Context, edge string, d Desired, wait time.Duration, told func(Report)) (r Report, decided bool, err error) {
	group, node, _ := strings.Cut(edge, "/")
	d.Version = Version
	b, err := json.Marshal(d)
	if err != nil {
		return r, false, err
	}
	if len(b) > MaxBytes {
		return r, false, fmt.Errorf("the configuration of edge %s is longer than %d bytes", edge, MaxBytes)
	}
	if err := c.conn.Publish(ctx, ConfigTopic(group, node), 1, true, b); err != nil {
		return r, false, fmt.Errorf("configuring edge %s: %w", edge, err)
	}
	began, last := time.Now(), ""
	for {
		c.mu.Lock()
		r = c.reports[edge]
		c.mu.Unlock()
		if r.Request == d.ID {
			if told != nil && r.State != last {
				last = r.State
				told(r)
			}
			if r.State != Applying {
				return r, true, nil
			}
		}
		left := wait - time.Since(began)
		if left <= 0 {
			return r, false, nil
		}
		if err := c.next(ctx, left); err != nil {
			return r, false, fmt.Errorf("waiting for edge %s: %w", edge, err)
		}
	}
}
