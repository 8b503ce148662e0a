package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// FleetOptions say how large the fleet is.
type FleetOptions struct {
	Nodes, Sensors int     // edge nodes, and sensors of each
	Every          float64 // s between two messages of a node, each with all its sensors
	Seconds        float64 // of steady traffic before and after the broker is killed
	Say            func(format string, args ...any)
}

// fleetPatience bounds the wait for all nodes.
const fleetPatience = 3 * time.Minute

// Fleet measures many edge nodes at one broker and one bridge: how long until all
// have been heard of, what their traffic takes, and how long until all are back
// after the broker was killed.
func Fleet(ctx context.Context, o FleetOptions) (*Report, error) {
	r := &Report{Machine: machine(), Input: fmt.Sprintf("%d Sparkplug nodes of %d sensors, a message with all of them every %g s; broker in one process, bridge and Kafka in another, nodes in a third", o.Nodes, o.Sensors, o.Every)}
	dir, err := os.MkdirTemp("", "headrace-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	brokerAt := func(listen string) (*process, error) {
		return startRoles(ctx, filepath.Join(dir, "broker"), "", "run", "--roles", "broker", "--listen-mqtt", listen)
	}
	broker, err := brokerAt("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	stopBroker := func() { broker.stop() }
	defer func() { stopBroker() }()
	addr := broker.run.MQTT
	bridge, err := startRoles(ctx, filepath.Join(dir, "bridge"), "", "run", "--roles", "bridge,spine", "--listen-kafka", "127.0.0.1:0", "--mqtt", "tcp://"+addr)
	if err != nil {
		return nil, err
	}
	defer bridge.stop()

	running, end := context.WithCancel(ctx)
	defer end()
	nodes := make([]*fleetNode, o.Nodes)
	var living sync.WaitGroup
	defer living.Wait()
	defer end()
	begin := time.Now()
	for i := range nodes {
		if nodes[i], err = newFleetNode(i, o, "tcp://"+addr); err != nil {
			return nil, err
		}
		living.Go(func() { nodes[i].run(running, begin) })
	}
	first, err := awaitFleet(ctx, nodes, begin, o.Say, "heard of")
	if err != nil {
		return nil, err
	}
	cpuBroker, cpuBridge, acked := broker.cpu(), bridge.cpu(), fleetAcked(nodes)
	if !pause(ctx, o.Seconds) {
		return nil, ctx.Err()
	}
	messages := float64(fleetAcked(nodes) - acked)
	loadBroker, loadBridge := broker.cpu()-cpuBroker, bridge.cpu()-cpuBridge
	_, peakBroker := broker.rss()

	_ = broker.cmd.Process.Kill()
	<-broker.end
	killed := time.Now()
	if broker, err = brokerAt(addr); err != nil {
		return nil, err
	}
	back, err := awaitFleet(ctx, nodes, killed, o.Say, "back")
	if err != nil {
		return nil, err
	}
	if !pause(ctx, o.Seconds) {
		return nil, ctx.Err()
	}
	// What is under way when they fall silent is sent again until it is acknowledged.
	for _, n := range nodes {
		n.quiet.Store(true)
	}
	open := 0
	for deadline := time.Now().Add(fleetPatience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if open = fleetOpen(nodes); open == 0 {
			break
		}
	}
	_, peakBridge := bridge.rss()
	sensors := float64(o.Nodes * o.Sensors)
	r.add("sensors", sensors, "", higher)
	r.add("all heard of, last node", first[len(first)-1].Seconds(), "s", lower)
	r.add("messages", messages/o.Seconds, "/s", higher)
	r.add("readings", messages/o.Seconds*float64(o.Sensors), "/s", higher)
	r.add("CPU of the broker", 100*loadBroker.Seconds()/o.Seconds, "% of a core", lower)
	r.add("CPU of bridge and Kafka", 100*loadBridge.Seconds()/o.Seconds, "% of a core", lower)
	r.add("after a kill of the broker: half are back", percentile(back, 0.5).Seconds(), "s", lower)
	r.add("after a kill of the broker: all are back", back[len(back)-1].Seconds(), "s", lower)
	r.aim("messages lost", float64(open), "", lower, 0)
	r.add("memory of the broker, at most", peakBroker/(1<<20), "MiB", lower)
	r.add("memory of bridge and Kafka, at most", peakBridge/(1<<20), "MiB", lower)
	return r, nil
}

func pause(ctx context.Context, seconds float64) bool {
	select {
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitFleet waits until a message that each node sent after since is acknowledged,
// and returns how long each took, ascending.
func awaitFleet(ctx context.Context, nodes []*fleetNode, since time.Time, say func(string, ...any), what string) ([]time.Duration, error) {
	told := time.Now()
	for deadline := time.Now().Add(fleetPatience); ; {
		var took []time.Duration
		for _, n := range nodes {
			if at, ok := n.ackedSince(since); ok {
				took = append(took, at.Sub(since))
			}
		}
		if len(took) == len(nodes) {
			slices.Sort(took)
			return took, nil
		}
		if time.Since(told) > 2*time.Second && say != nil {
			told = time.Now()
			say("%d of %d nodes are %s", len(took), len(nodes), what)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d nodes are %s after %s", len(took), len(nodes), what, fleetPatience)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func fleetAcked(nodes []*fleetNode) (sum int64) {
	for _, n := range nodes {
		sum += n.acked.Load()
	}
	return sum
}

func fleetOpen(nodes []*fleetNode) (sum int) {
	for _, n := range nodes {
		n.mu.Lock()
		sum += len(n.open)
		n.mu.Unlock()
	}
	return sum
}

// fleetNode is an edge node that keeps what is not acknowledged and sends it again.
type fleetNode struct {
	i     int
	o     FleetOptions
	addr  string
	name  string
	boot  string
	node  *sparkplug.EdgeNode
	quiet atomic.Bool
	acked atomic.Int64

	mu    sync.Mutex
	open  map[uint64]openMessage
	since time.Time // the first acknowledgement of a message sent after mark
	mark  time.Time
	batch signal.Batch
}

type openMessage struct {
	n    uint64
	sent time.Time
	at   signal.Micros
}

func newFleetNode(i int, o FleetOptions, addr string) (*fleetNode, error) {
	n := &fleetNode{i: i, o: o, addr: addr, name: fmt.Sprint("node-", i), boot: uuid.Must(uuid.NewV7()).String(), open: map[uint64]openMessage{}}
	var err error
	if n.node, err = sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: "fleet", Edge: n.name, SessionBoot: n.boot}); err != nil {
		return nil, err
	}
	asset := signal.NewAsset("fleet", "line", n.name)
	n.batch = signal.Batch{Origin: signal.Origin{Edge: "fleet/" + n.name, Boot: n.boot, Stream: signal.NewStream(asset, signal.Telemetry), Config: "bench"}}
	for s := range o.Sensors {
		n.batch.Readings = append(n.batch.Readings, signal.Reading{Sensor: fmt.Sprint("s", s), Unit: "bar", Quality: signal.QualityGood, Value: signal.NumberValue(0)})
	}
	return n, nil
}

// ackedSince tells when a message sent after t was first acknowledged. The first
// call with a t begins the watch.
func (n *fleetNode) ackedSince(t time.Time) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.mark.Equal(t) {
		n.mark, n.since = t, time.Time{}
	}
	return n.since, !n.since.IsZero()
}

func (n *fleetNode) run(ctx context.Context, begin time.Time) {
	backoff := 250 * time.Millisecond
	for session := 0; ctx.Err() == nil; session++ {
		lasted := time.Now()
		n.session(ctx, begin, uint8(session))
		if time.Since(lasted) > 10*time.Second {
			backoff = 250 * time.Millisecond
		}
		// Nodes that were cut off together do not come back in one moment.
		if !pause(ctx, backoff.Seconds()*(0.5+float64(n.i%97)/97)) {
			return
		}
		backoff = min(2*backoff, 4*time.Second)
	}
}

func (n *fleetNode) session(ctx context.Context, begin time.Time, bdSeq uint8) {
	n.node.Connect(bdSeq)
	will := n.node.Will(1)
	reborn := make(chan struct{}, 1)
	conn, err := mqttc.Connect(ctx, mqttc.Config{
		Addresses: []string{n.addr}, ClientID: "fleet-" + n.name, CleanSession: true, ConnectTimeout: 30 * time.Second,
		Will: &mqttc.Will{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS},
		OnMessage: func(m mqttc.Message) {
			m.Ack()
			if m.Topic == sparkplug.CommandTopic("fleet", n.name) {
				select {
				case reborn <- struct{}{}:
				default:
				}
				return
			}
			n.heard(m.Payload)
		},
	})
	if err != nil {
		return
	}
	defer func() { conn.Abort(); <-conn.Done() }()
	if conn.Subscribe(ctx, map[string]byte{sparkplug.AckTopic("fleet", n.name): 0, sparkplug.CommandTopic("fleet", n.name): 1}) != nil {
		return
	}
	publish := func(msgs []sparkplug.Message) bool {
		for _, m := range msgs {
			if _, err := conn.PublishAsync(ctx, m.Topic, m.QoS, m.Retained, m.Payload); err != nil {
				return false
			}
		}
		return true
	}
	if !publish(n.node.Birth(signal.MicrosOf(time.Now()))) || !n.again(publish, 0) {
		return
	}
	every := time.Duration(n.o.Every * float64(time.Second))
	// Nodes send at moments of their own.
	next := time.NewTimer(time.Duration(n.i) * every / time.Duration(n.o.Nodes))
	defer next.Stop()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		ok := true
		select {
		case <-reborn:
			ok = publish(n.node.Birth(signal.MicrosOf(time.Now()))) && n.again(publish, 0)
		case <-again.C:
			ok = n.again(publish, 10*time.Second)
		case <-next.C:
			next.Reset(every)
			if n.quiet.Load() {
				continue
			}
			n.mu.Lock()
			n.batch.Seq++
			n.open[n.batch.Seq] = openMessage{n.batch.N, time.Now(), signal.MicrosOf(time.Now())}
			seq := n.batch.Seq
			n.batch.N++
			n.mu.Unlock()
			ok = n.deliver(publish, seq)
		case <-conn.Done():
			return
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// again sends what has been open for so long.
func (n *fleetNode) again(publish func([]sparkplug.Message) bool, after time.Duration) bool {
	n.mu.Lock()
	var due []uint64
	for seq, m := range n.open {
		if time.Since(m.sent) >= after {
			due = append(due, seq)
		}
	}
	n.mu.Unlock()
	slices.Sort(due)
	for _, seq := range due {
		if !n.deliver(publish, seq) {
			return false
		}
	}
	return true
}

func (n *fleetNode) deliver(publish func([]sparkplug.Message) bool, seq uint64) bool {
	n.mu.Lock()
	m, ok := n.open[seq]
	if ok {
		m.sent = time.Now()
		n.open[seq] = m
	}
	b := n.batch
	n.mu.Unlock()
	if !ok {
		return true
	}
	b.Seq, b.N = seq, m.n
	for i := range b.Readings {
		b.Readings[i].EventTime, b.Readings[i].AliveAt, b.Readings[i].Value.Number = m.at, m.at, float64(seq)+float64(i)
	}
	msgs, err := n.node.Data(nil, signal.MicrosOf(time.Now()), &b)
	return err == nil && publish(msgs)
}

// heard takes an acknowledgement.
func (n *fleetNode) heard(payload []byte) {
	a, err := sparkplug.ParseAck(payload)
	if err != nil || a.Boot != n.boot {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range a.Ranges {
		for seq := r.From; seq <= r.To && seq <= n.batch.Seq; seq++ {
			m, ok := n.open[seq]
			if !ok {
				continue
			}
			delete(n.open, seq)
			n.acked.Add(1)
			if n.since.IsZero() && m.sent.After(n.mark) {
				n.since = time.Now()
			}
		}
	}
}
