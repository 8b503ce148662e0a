package plant

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/headrace/headrace/signal"
)

// Dial opens a connection.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Network is an edge's way to its broker. The zero value is always there.
type Network struct{ from, to time.Time }

// ErrNoNetwork is what dialling yields during an outage.
var ErrNoNetwork = errors.New("the simulated network is down")

// Over returns dial as it is over this network: refused during the outage, by
// the plant's clock, and cut where it begins.
func (n Network) Over(clock signal.Clock, dial Dial) Dial {
	if n.from.IsZero() {
		return dial
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		now := clock.Now()
		if !now.Before(n.from) && now.Before(n.to) {
			return nil, ErrNoNetwork
		}
		c, err := dial(ctx, network, addr)
		if err != nil || !now.Before(n.from) {
			return c, err
		}
		return cutAt(clock, n.from, c), nil
	}
}

// conn is a connection that ends at a time of the plant's clock.
type conn struct {
	net.Conn
	stop    context.CancelFunc
	watcher sync.WaitGroup
}

func cutAt(clock signal.Clock, at time.Time, inner net.Conn) *conn {
	ctx, stop := context.WithCancel(context.Background())
	c := &conn{Conn: inner, stop: stop}
	c.watcher.Go(func() {
		if clock.WaitUntil(ctx, at) == nil {
			_ = inner.Close() // whoever reads or writes is told
		}
	})
	return c
}

// Close ends the connection and its watcher.
func (c *conn) Close() error {
	c.stop()
	c.watcher.Wait()
	if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
