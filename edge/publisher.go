package edge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/internal/wholefile"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

const (
	// goodbye bounds the farewell to a broker.
	goodbye = 2 * time.Second
	// A broker that asked for a birth has dropped what came before it: what is
	// unacknowledged is sent again when acknowledgements had time to arrive.
	afterBirth = 500 * time.Millisecond
	// A session shorter than this counts as a failed try to connect.
	settled = 5 * time.Second

	bdSeqName = "bdseq"
)

// publisher goes from the outbox to the broker. What it keeps over the
// sessions is what has been sent; all of it belongs to run's goroutine.
type publisher struct {
	a    *Agent
	box  *outbox.Outbox
	node *sparkplug.EdgeNode
	log  logger

	bdSeq  uint8 // of the next connection
	flight *flight

	liveAfter uint64    // seq of this boot's message sent last as live
	older     []backlog // what is still to be sent as history, oldest first
	liveAt    time.Time // when messages could be sent last

	toldTo map[signal.Stream]told
	idleAt time.Time // when that was looked at last
	// Assets of which history was sent: other hosts need their newest values.
	refresh   map[signal.Asset]bool
	refreshAt time.Time

	batch signal.Batch
	out   []sparkplug.Message

	connected, online atomic.Bool
	allTold           atomic.Bool
	toldSignal        chan struct{}
	woken             chan struct{} // what is to be said has changed

	sessions, births, published, sentReadings, refusedMessages atomic.Int64
}

// backlog are messages of one boot that waited through an outage, or were left by
// an earlier run. They go beside the live ones, which do not wait for them.
type backlog struct {
	boot      string
	after, to uint64 // the last one sent, and the last one of it
}

// told is what the hosts heard last of a stream.
type told struct {
	completeTo signal.Micros
	at         time.Time
}

type logger interface {
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

func newPublisher(a *Agent) (*publisher, error) {
	node, err := sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: a.opt.Group, Edge: a.opt.Node, SessionBoot: a.outbox.Boot()})
	if err != nil {
		return nil, err
	}
	bdSeq, err := firstBdSeq(a.opt.Dir)
	if err != nil {
		return nil, err
	}
	p := &publisher{
		bdSeq: bdSeq, refresh: map[signal.Asset]bool{},
		a: a, box: a.outbox, node: node, log: a.log,
		flight: newFlight(a.opt.LiveWindow, a.opt.HistoryWindow), liveAt: time.Now(),
		toldTo: map[signal.Stream]told{}, toldSignal: make(chan struct{}, 1), woken: make(chan struct{}, 1),
	}
	for _, boot := range a.outbox.Boots() {
		if boot != a.outbox.Boot() {
			p.older = append(p.older, backlog{boot, 0, math.MaxUint64})
		}
	}
	// What earlier runs left acknowledged, they have told.
	for _, s := range a.outbox.Streams() {
		if s.Idle {
			p.toldTo[s.Stream] = told{completeTo: s.CompleteTo, at: time.Now()}
		}
	}
	return p, nil
}

// run keeps a session with one of the brokers until ctx ends.
func (p *publisher) run(ctx context.Context) {
	next := 0
	wait := p.a.opt.MinReconnect
	for ctx.Err() == nil {
		began := time.Now()
		address := p.a.opt.MQTT.Addresses[next%len(p.a.opt.MQTT.Addresses)]
		err := p.session(ctx, address)
		if ctx.Err() != nil {
			return
		}
		p.log.Warn("session with the MQTT broker ended", "broker", address, "error", err)
		next++
		if time.Since(began) >= settled {
			wait = p.a.opt.MinReconnect
		}
		// Jitter keeps the edges of a plant from coming back all at once.
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return
		}
		wait = min(2*wait, p.a.opt.MaxReconnect)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// firstBdSeq is the bdSeq of the first connection of this run.
func firstBdSeq(dir string) (uint8, error) {
	b, err := os.ReadFile(filepath.Join(dir, bdSeqName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading bdSeq: %w", err)
	}
	last, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 8)
	if err != nil {
		return 0, fmt.Errorf("reading bdSeq: %s: %w; remove the file", filepath.Join(dir, bdSeqName), err)
	}
	return sparkplug.NextBdSeq(uint8(last)), nil
}

// nextBdSeq draws the number of the next connection and keeps it on disk: a
// late will of an older connection must not end a newer one. A disk that
// cannot keep it does not stop the outbox from being emptied.
func (p *publisher) nextBdSeq() uint8 {
	bd := p.bdSeq
	p.bdSeq = sparkplug.NextBdSeq(bd)
	if err := wholefile.Replace(filepath.Join(p.a.opt.Dir, bdSeqName), fmt.Appendf(nil, "%d\n", bd), 0o644); err != nil {
		p.log.Warn("bdSeq could not be kept", "error", err)
	}
	return bd
}

// clientID is stable, so that a broker ends a session that we have given up.
// Not every broker takes every character.
func clientID(group, node string) string {
	id := "headrace-" + group + "-" + node
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if len(id) <= 64 && strings.IndexFunc(id, func(r rune) bool { return !plain(r) }) < 0 {
		return id
	}
	sum := sha256.Sum256([]byte(group + "/" + node))
	return "headrace-" + hex.EncodeToString(sum[:12])
}

func (p *publisher) counters() []signal.Counter {
	now := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	return []signal.Counter{
		{Station: "edge", Name: "sessions", Value: p.sessions.Load()},
		{Station: "edge", Name: "births", Value: p.births.Load()},
		{Station: "edge", Name: "messages_sent", Value: p.published.Load()},
		{Station: "edge", Name: "readings_sent", Value: p.sentReadings.Load()},
		{Station: "edge", Name: "unsendable_messages", Value: p.refusedMessages.Load()},
		{Station: "edge", Name: "connected_now", Value: now(p.connected.Load())},
		{Station: "edge", Name: "host_online_now", Value: now(p.online.Load())},
	}
}
