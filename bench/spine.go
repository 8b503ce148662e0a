package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// SpineOptions say what is measured.
type SpineOptions struct {
	Seconds    float64
	Publishers int
	// MQTT and Kafka, if given, are outside ones that stand in for the embedded.
	MQTT  []string
	Kafka []string
	// Profile is the folder for a profile of what misses a goal.
	Profile string
	Say     func(format string, args ...any) // progress
}

// The goals.
const (
	goalMessages = 20_000.0
	goalReadings = 400_000.0
	goalLatency  = 50.0 // ms, p99 at half the messages
	perMessage   = 20   // readings packed into one
)

const (
	benchTopic = "bench.loop"
	plainTopic = "plant/bench/line/a%d/v"
	inFlight   = 20_000           // messages published and not seen in Kafka
	drainLimit = 45 * time.Second // longer than an embedded broker waits before it sends again
)

// Spine measures the way from a publisher through broker and bridge to what Kafka
// holds: messages of QoS 1 as any client sends them, and readings packed as an edge
// sends them; beside it Mosquitto with the shortest loop that can be written.
func Spine(ctx context.Context, o SpineOptions) (*Report, error) {
	r := &Report{Machine: machine(), Input: fmt.Sprintf("%d publishers on loopback, %g s a figure; what is embedded in one process, the load in another", o.Publishers, o.Seconds)}
	if len(o.MQTT)+len(o.Kafka) > 0 {
		r.Input += fmt.Sprintf("; outside: %s", strings.Join(append(slices.Clone(o.MQTT), o.Kafka...), ", "))
	}
	dir, err := os.MkdirTemp("", "headrace-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	profile := filepath.Join(dir, "cpu.pprof")
	roles := "broker,bridge,spine"
	args := []string{"run", "--listen-mqtt", "127.0.0.1:0", "--listen-kafka", "127.0.0.1:0"}
	if len(o.MQTT) > 0 {
		roles = "bridge,spine"
		args = append(args, "--mqtt", strings.Join(o.MQTT, ","))
	}
	if len(o.Kafka) > 0 {
		roles = roles[:len(roles)-len(",spine")]
		args = append(args, "--kafka", strings.Join(o.Kafka, ","))
	}
	p, err := startRoles(ctx, filepath.Join(dir, "data"), profile, append(args, "--roles", roles)...)
	if err != nil {
		return nil, err
	}
	stop := sync.OnceFunc(p.stop)
	defer stop()
	l := &lane{o: o, topic: record.TopicReadings, mqtt: o.MQTT, kafka: kafkac.Config{Brokers: o.Kafka}, measured: []*process{p}}
	if len(o.MQTT) == 0 {
		l.mqtt = []string{"tcp://" + p.run.MQTT}
	}
	if len(o.Kafka) == 0 {
		l.kafka.Brokers = []string{p.run.Kafka}
	}
	full, err := l.messages(ctx, 0)
	if err != nil {
		return nil, err
	}
	half, err := l.messages(ctx, goalMessages/2)
	if err != nil {
		return nil, err
	}
	packed, err := l.packed(ctx)
	if err != nil {
		return nil, err
	}
	_, peak := p.rss()
	stop()

	r.aim("QoS 1 messages", full.rate, "/s", higher, goalMessages)
	r.aim("QoS 1 messages lost", float64(full.lost+half.lost), "", lower, 0)
	r.add("last QoS 1 message, behind the end", full.slowest, "s", lower)
	r.add("CPU per QoS 1 message", full.cpu, "µs", lower)
	r.add("p50 at 10,000/s", half.p50, "ms", lower)
	r.aim("p99 at 10,000/s", half.p99, "ms", lower, goalLatency)
	r.add("messages at 10,000/s", half.rate, "/s", higher)
	r.aim("readings, 20 to a message", packed.rate*perMessage, "/s", higher, goalReadings)
	r.aim("readings lost", float64(packed.lost)*perMessage, "", lower, 0)
	r.add("CPU per packed message", packed.cpu, "µs", lower)
	r.add("memory of broker, bridge and Kafka, at most", peak/(1<<20), "MiB", lower)
	if len(o.MQTT) == 0 && len(o.Kafka) == 0 {
		if err := rival(ctx, o, filepath.Join(dir, "rival"), r); err != nil {
			return nil, err
		}
	}
	if !r.Met() && o.Profile != "" {
		kept := filepath.Join(o.Profile, "headrace-bench-spine.pprof")
		if b, err := os.ReadFile(profile); err == nil && os.WriteFile(kept, b, 0o600) == nil { //nolint:gosec // named by whoever runs it
			r.Profile = kept
		}
	}
	return r, nil
}

// rival measures Mosquitto with a bare loop, if it is installed.
func rival(ctx context.Context, o SpineOptions, dir string, r *Report) error {
	mosquitto, err := exec.LookPath("mosquitto")
	if err != nil {
		r.Input += "; no rival: mosquitto is not installed"
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := probe.Addr().String()
	_ = probe.Close()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	text := "listener " + port + " 127.0.0.1\nallow_anonymous true\nlog_dest none\nmax_queued_messages 0\nmax_inflight_messages 0\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	broker, err := start(ctx, "", mosquitto, "-c", conf)
	if err != nil {
		return err
	}
	defer broker.stop()
	kafka, err := startRoles(ctx, filepath.Join(dir, "data"), "", "run", "--roles", "spine", "--listen-kafka", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer kafka.stop()
	loop, err := startSelf(ctx, "", "bench", "loop", "--mqtt", "tcp://"+addr, "--kafka", kafka.run.Kafka)
	if err != nil {
		return err
	}
	defer loop.stop()
	l := &lane{
		o: o, topic: benchTopic, mqtt: []string{"tcp://" + addr}, kafka: kafkac.Config{Brokers: []string{kafka.run.Kafka}},
		measured: []*process{broker, kafka, loop},
	}
	if err := l.makeTopic(ctx); err != nil {
		return err
	}
	full, err := l.messages(ctx, 0)
	if err != nil {
		return err
	}
	half, err := l.messages(ctx, goalMessages/2)
	if err != nil {
		return err
	}
	r.add("rival, Mosquitto and a bare loop to the same Kafka: QoS 1 messages", full.rate, "/s", higher)
	r.add("rival: lost", float64(full.lost+half.lost), "", lower)
	r.add("rival: CPU per message", full.cpu, "µs", lower)
	r.add("rival: p99 at 10,000/s", half.p99, "ms", lower)
	return nil
}

// Loop is the rival's bridge: it subscribes, produces, and acknowledges what Kafka
// has. It knows nothing of sensors.
func Loop(ctx context.Context, mqtt, kafka string) error {
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: kafkac.Config{Brokers: []string{kafka}}})
	if err != nil {
		return err
	}
	defer producer.Close()
	for ctx.Err() == nil {
		conn, err := mqttc.Connect(ctx, mqttc.Config{Addresses: []string{mqtt}, ClientID: "bare-loop", OnMessage: func(m mqttc.Message) {
			r := kafkac.Record{Topic: benchTopic, Key: []byte(m.Topic), Value: m.Payload, Timestamp: time.Now()}
			_ = producer.Produce(ctx, r, func(_ int32, _ int64, err error) {
				if err == nil {
					m.Ack()
				}
			})
		}})
		if err == nil {
			if err = conn.Subscribe(ctx, map[string]byte{"plant/#": 1}); err == nil {
				select {
				case <-conn.Done():
				case <-ctx.Done():
				}
			}
			conn.Abort()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// lane is a broker and the topic of Kafka to which its messages come.
type lane struct {
	o        SpineOptions
	mqtt     []string
	kafka    kafkac.Config
	topic    string
	measured []*process
	round    int
}

type figure struct {
	rate     float64 // messages a second that Kafka has
	cpu      float64 // µs of the measured processes, a message
	lost     int64
	slowest  float64 // s after the last was published until the last was read
	p50, p99 float64 // ms from publish to read back from Kafka
}

func (l *lane) makeTopic(ctx context.Context) error {
	admin, err := kafkac.NewAdmin(l.kafka)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.EnsureTopics(ctx, map[string]int{l.topic: 4}, nil); err != nil {
		return err
	}
	return admin.AwaitTopics(ctx, l.topic)
}

func (l *lane) cpu() (sum time.Duration) {
	for _, p := range l.measured {
		sum += p.cpu()
	}
	return sum
}

// tail reads what comes to the topic from now on, until ctx ends.
func (l *lane) tail(ctx context.Context, seen func(value []byte)) (wait func() error, err error) {
	admin, err := kafkac.NewAdmin(l.kafka)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	bounds, err := admin.ListOffsets(ctx, l.topic)
	if err != nil {
		return nil, err
	}
	var ranges []kafkac.Range
	for tp, b := range bounds {
		ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: b.End, End: 1 << 62})
	}
	done := make(chan error, 1)
	go func() {
		done <- kafkac.Read(ctx, l.kafka, ranges, func(r kafkac.Record) error { seen(r.Value); return nil })
	}()
	return func() error {
		if err := <-done; ctx.Err() == nil {
			return err
		}
		return nil
	}, nil
}

// number reads which message a record is.
func (l *lane) number(value []byte, b *signal.Batch) (int64, bool) {
	text := string(value)
	if l.topic == record.TopicReadings {
		if record.Decode(value, b) != nil || len(b.Readings) != 1 {
			return 0, false
		}
		return int64(b.Readings[0].Value.Number), true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// messages publishes plain messages of QoS 1, as many as go or so many a second.
func (l *lane) messages(ctx context.Context, rate float64) (f figure, err error) {
	l.round++
	base := int64(l.round) << 40
	limit := int64(l.o.Seconds*200_000) + inFlight
	sent := make([]atomic.Int64, limit) // when, in ns
	delays := make([]time.Duration, 0, limit)
	var published, read, inTime, doubled, last atomic.Int64
	room := make(chan struct{}, inFlight)
	var ending atomic.Int64
	tailing, stop := context.WithCancel(ctx)
	defer stop()
	var batch signal.Batch
	there := make(chan struct{})
	ready := sync.OnceFunc(func() { close(there) })
	wait, err := l.tail(tailing, func(value []byte) {
		n, ok := l.number(value, &batch)
		if n -= base; ok && n == -1 {
			ready()
		}
		if !ok || n < 0 || n >= limit {
			return
		}
		at := sent[n].Swap(0)
		if at == 0 {
			doubled.Add(1)
			return
		}
		now := time.Now()
		delays = append(delays, time.Duration(now.UnixNano()-at))
		last.Store(now.UnixNano())
		read.Add(1)
		if until := ending.Load(); until == 0 || now.UnixNano() <= until {
			inTime.Add(1)
		}
		<-room
	})
	if err != nil {
		return f, err
	}
	if err := l.probe(ctx, base-1, there); err != nil {
		return f, err
	}
	l.say("publishing for %g s%s", l.o.Seconds, map[bool]string{true: fmt.Sprintf(" at %.0f/s", rate), false: ""}[rate > 0])
	before, begin := l.cpu(), time.Now()
	end := begin.Add(time.Duration(l.o.Seconds * float64(time.Second)))
	ending.Store(end.UnixNano())
	var publishing sync.WaitGroup
	failed := make(chan error, l.o.Publishers)
	var next atomic.Int64
	for i := range l.o.Publishers {
		publishing.Go(func() {
			conn, err := mqttc.Connect(ctx, mqttc.Config{Addresses: l.mqtt, ClientID: fmt.Sprintf("bench-%d-%d", l.round, i), CleanSession: true})
			if err != nil {
				failed <- err
				return
			}
			topic := fmt.Sprintf(plainTopic, i)
			var last *mqttc.Delivery
			for time.Now().Before(end) && ctx.Err() == nil {
				n := next.Add(1) - 1
				if n >= limit {
					break
				}
				if rate > 0 {
					due := begin.Add(time.Duration(float64(n) / rate * float64(time.Second)))
					if early := time.Until(due); early > time.Millisecond {
						time.Sleep(early)
					}
				}
				select {
				case room <- struct{}{}:
				case <-ctx.Done():
					return
				}
				sent[n].Store(time.Now().UnixNano())
				published.Add(1)
				if last, err = conn.PublishAsync(ctx, topic, 1, false, strconv.AppendInt(nil, base+n, 10)); err != nil {
					failed <- err
					return
				}
			}
			if last != nil {
				select {
				case <-last.Done():
				case <-time.After(drainLimit):
				}
			}
			_ = conn.Close(ctx)
		})
	}
	publishing.Wait()
	select {
	case err := <-failed:
		return f, fmt.Errorf("publishing to %s: %w", strings.Join(l.mqtt, ", "), err)
	default:
	}
	for deadline := time.Now().Add(drainLimit); read.Load() < published.Load() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cpu := l.cpu() - before
	stop()
	if err := wait(); err != nil {
		return f, err
	}
	if read.Load() == 0 {
		return f, errors.New("nothing came to Kafka")
	}
	f.rate = float64(inTime.Load()) / l.o.Seconds
	f.cpu = float64(cpu.Microseconds()) / float64(read.Load())
	f.slowest = time.Duration(last.Load() - end.UnixNano()).Seconds()
	f.lost = published.Load() - read.Load()
	f.p50, f.p99 = ms(percentile(delays, 0.5)), ms(percentile(delays, 0.99))
	return f, nil
}

// probe publishes until the way to Kafka is open.
func (l *lane) probe(ctx context.Context, n int64, there chan struct{}) error {
	conn, err := mqttc.Connect(ctx, mqttc.Config{Addresses: l.mqtt, ClientID: "bench-probe", CleanSession: true})
	if err != nil {
		return err
	}
	defer conn.Abort()
	for range int(drainLimit / (100 * time.Millisecond)) {
		if err := conn.Publish(ctx, fmt.Sprintf(plainTopic, 0), 1, false, strconv.AppendInt(nil, n, 10)); err != nil {
			return err
		}
		select {
		case <-there:
			return conn.Close(ctx)
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("nothing comes from the broker to Kafka")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (l *lane) say(format string, args ...any) {
	if l.o.Say != nil {
		l.o.Say(format, args...)
	}
}

// window is how many messages an edge may have under way.
const window = 2000

// packed publishes as edges do, 20 readings to a message, and counts what they are
// told that Kafka has.
func (l *lane) packed(ctx context.Context) (f figure, err error) {
	l.say("publishing readings, %d to a message, for %g s", perMessage, l.o.Seconds)
	before, begin := l.cpu(), time.Now()
	end := begin.Add(time.Duration(l.o.Seconds * float64(time.Second)))
	var publishing sync.WaitGroup
	var sent, acked atomic.Int64
	failed := make(chan error, l.o.Publishers)
	for i := range l.o.Publishers {
		publishing.Go(func() {
			if err := l.edge(ctx, i, end, &sent, &acked); err != nil {
				failed <- err
			}
		})
	}
	publishing.Wait()
	select {
	case err := <-failed:
		return f, fmt.Errorf("publishing to %s: %w", strings.Join(l.mqtt, ", "), err)
	default:
	}
	took, cpu := time.Since(begin), l.cpu()-before
	f.rate = float64(acked.Load()) / took.Seconds()
	f.cpu = float64(cpu.Microseconds()) / float64(max(1, acked.Load()))
	f.lost = sent.Load() - acked.Load()
	return f, nil
}

// edge is one edge node until end, and until all is acknowledged.
func (l *lane) edge(ctx context.Context, i int, end time.Time, sent, acked *atomic.Int64) error {
	boot := uuid.Must(uuid.NewV7()).String()
	name := fmt.Sprint("edge-", i)
	node, err := sparkplug.NewEdgeNode(sparkplug.NodeConfig{Group: "bench", Edge: name, SessionBoot: boot})
	if err != nil {
		return err
	}
	node.Connect(0)
	will := node.Will(1)
	room := make(chan struct{}, window)
	var mine atomic.Int64
	asset := signal.NewAsset("bench", "line", name)
	batch := signal.Batch{Origin: signal.Origin{Edge: "bench/" + name, Boot: boot, Stream: signal.NewStream(asset, signal.Telemetry), Config: "bench"}}
	for s := range perMessage {
		batch.Readings = append(batch.Readings, signal.Reading{Sensor: fmt.Sprint("s", s), Unit: "bar", Quality: signal.QualityGood, Value: signal.NumberValue(0)})
	}
	reborn := make(chan struct{}, 1)
	conn, err := mqttc.Connect(ctx, mqttc.Config{
		Addresses: l.mqtt, ClientID: "bench-" + name, CleanSession: true,
		Will: &mqttc.Will{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS},
		OnMessage: func(m mqttc.Message) {
			m.Ack()
			if m.Topic == sparkplug.CommandTopic("bench", name) {
				select {
				case reborn <- struct{}{}:
				default:
				}
				return
			}
			a, err := sparkplug.ParseAck(m.Payload)
			if err != nil || a.Boot != boot {
				return
			}
			for _, r := range a.Ranges {
				n := int64(r.To - r.From + 1)
				acked.Add(n)
				mine.Add(n)
				for range n {
					<-room
				}
			}
		},
	})
	if err != nil {
		return err
	}
	defer conn.Abort()
	if err := conn.Subscribe(ctx, map[string]byte{sparkplug.AckTopic("bench", name): 0, sparkplug.CommandTopic("bench", name): 1}); err != nil {
		return err
	}
	publish := func(msgs []sparkplug.Message) error {
		for _, m := range msgs {
			if _, err := conn.PublishAsync(ctx, m.Topic, m.QoS, m.Retained, m.Payload); err != nil {
				return err
			}
		}
		return nil
	}
	if err := publish(node.Birth(signal.MicrosOf(time.Now()))); err != nil {
		return err
	}
	var msgs []sparkplug.Message
	for time.Now().Before(end) {
		select {
		case room <- struct{}{}:
		case <-reborn:
			if err := publish(node.Birth(signal.MicrosOf(time.Now()))); err != nil {
				return err
			}
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		now := signal.MicrosOf(time.Now())
		for s := range batch.Readings {
			r := &batch.Readings[s]
			r.EventTime, r.AliveAt, r.Value.Number = now, now, float64(batch.Seq)+float64(s)
		}
		batch.Seq++
		if msgs, err = node.Data(msgs[:0], now, &batch); err != nil {
			return err
		}
		batch.N++
		sent.Add(1)
		if err := publish(msgs); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(drainLimit); mine.Load() < int64(batch.Seq) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return conn.Close(ctx)
}
