package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/test/brokers"
	"github.com/headrace/headrace/test/harness"
)

// edgePoints are where the edge kills itself, and how often it passes them in a
// second or so.
var edgePoints = []struct {
	name   string
	passes int
}{
	{"edge.outbox_committed", 6},
	{"edge.acked", 4},
	{"", 0}, // killed from outside, at any moment
}

// controller publishes rows of a plant's sensors, at QoS 1, until it is stopped.
type controller struct {
	conn *mqttc.Conn
	base time.Time
	rows int
}

const controllerSensors = 8

func controllerValue(row, sensor int) float64 {
	if sensor == 0 { // beyond the level of 50 for ten rows of each forty
		if row%40 >= 30 {
			return 60
		}
		return 40
	}
	return float64(row) + float64(sensor)/10
}

func (c *controller) run(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last *mqttc.Delivery
	for {
		at := c.base.Add(time.Duration(c.rows) * time.Second).Format(time.RFC3339)
		for s := range controllerSensors {
			var err error
			topic := fmt.Sprintf("field/lyon/hall/m-1/s%d", s)
			if last, err = c.conn.PublishAsync(context.WithoutCancel(ctx), topic, 1, false, fmt.Appendf(nil, `{"ts": %q, "value": %g}`, at, controllerValue(c.rows, s))); err != nil {
				return err
			}
		}
		c.rows++
		select {
		case <-tick.C:
		case <-ctx.Done():
			<-last.Done()
			return last.Err()
		}
	}
}

// The edge's own binary is killed again and again, at named points of its way and at
// any moment, while a controller goes on: everything that was published is in
// Kafka, nothing else is, and what stands there twice is the same. HEADRACE_SOAK=1
// kills a hundred times instead of twenty; HEADRACE_SEED repeats a run.
func TestEdgeKillNine(t *testing.T) {
	kills := 20
	if os.Getenv("HEADRACE_SOAK") != "" {
		kills = 100
	}
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 77))
	t.Logf("HEADRACE_SEED=%d", seed)
	bin := edgeBinary(t, "crashpoints")

	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(0),
		kfake.SeedTopics(4, record.TopicReadings, record.TopicEvents, record.TopicRaw), kfake.SeedTopics(1, record.TopicDeadletter))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	kafka := kafkac.Config{Brokers: cluster.ListenAddrs()}
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: kafka})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	// The plant's is a program: the broker in this process loses what is published
	// while a session passes from one connection to the next.
	field, centre := brokers.Mosquitto(t, false).Nodes[0].Addr(), harness.PlantBroker(t)
	b, err := bridge.New(bridge.Options{MQTT: mqttc.Config{Addresses: []string{"tcp://" + centre}}, Producer: producer, Clock: signal.WallClock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = b.Run(ctx) })

	own, file := filepath.Join(t.TempDir(), "edge"), filepath.Join(t.TempDir(), "edge.yaml")
	text := fmt.Sprintf(`
edge: {group: lyon, node: hall-1}
mqtt: {addresses: ["tcp://%s"]}
source: {mqtt: {addresses: ["tcp://%s"]}, map: {prefix: field}}
filters: {pass_all: true}
alarms: {rules: [{name: hot, sensor: s0, above: 50, severity: high}]}
`, centre, field)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(env ...string) *harness.Proc { return harness.Start(t, bin, own, env, "run", "--config", file) }
	// The plant's broker knows the edge before anything is published.
	p := start()
	harness.Eventually(t, 30*time.Second, "the edge reads the plant's broker", func() bool {
		r := harness.Run(t, bin, "status", "--dir", own, "--output", "json")
		return strings.Contains(r.Stdout, `"source_connected_now":1`)
	})
	conn, err := mqttc.Connect(ctx, mqttc.Config{Addresses: []string{"tcp://" + field}, ClientID: "plc", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Abort()
	plc := &controller{conn: conn, base: time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)}
	publishing, enough := context.WithCancel(ctx)
	published := make(chan error, 1)
	running.Go(func() { published <- plc.run(publishing) })
	p.Kill()
	p.Exit(t, 10*time.Second)

	began := time.Now()
	hit := map[string]int{}
	for k := range kills {
		point := edgePoints[k%len(edgePoints)]
		wait := time.Duration(50+rng.IntN(1200)) * time.Millisecond
		var env []string
		if point.name != "" {
			env = []string{fmt.Sprintf("HEADRACE_CRASH_AT=%s:%d", point.name, 1+rng.IntN(point.passes))}
			wait = 10 * time.Second
		}
		p = start(env...)
		select {
		case <-p.Done():
			hit[point.name]++
		case <-time.After(wait):
			if point.name != "" {
				t.Errorf("%s was not passed within %s", env[0], wait)
			}
			p.Kill()
		}
		if code := p.Exit(t, 10*time.Second); code != -1 {
			t.Fatalf("kill %d: exit %d\n%s", k, code, p.Stderr())
		}
	}
	enough()
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills in %s, %v, while %d rows were published", kills, time.Since(began).Round(time.Millisecond), hit, plc.rows)
	p = start()
	var got map[string]float64
	var alarms map[string]int
	defer func() {
		if t.Failed() {
			t.Logf("%d rows of %d sensors; %d readings and %d alarms came: %v", plc.rows, controllerSensors, len(got), len(alarms), alarms)
		}
	}()
	harness.Eventually(t, time.Minute, "everything published is in Kafka", func() bool {
		got, alarms = nil, nil
		got, alarms = killRows(t, kafka)
		return len(got) >= plc.rows*controllerSensors && len(alarms) >= 2*(plc.rows/40)
	})
	p.Signal(t, syscall.SIGTERM)
	if code := p.Exit(t, 10*time.Second); code != 0 {
		t.Errorf("exit %d, want 0\n%s", code, p.Stderr())
	}
	wrong := 0
	for row := range plc.rows {
		at := signal.MicrosOf(plc.base.Add(time.Duration(row) * time.Second))
		for s := range controllerSensors {
			key := fmt.Sprintf("lyon/hall/m-1/s%d@%d", s, at)
			if v, ok := got[key]; !ok || v != controllerValue(row, s) {
				wrong++
			}
			delete(got, key)
		}
		if row%40 == 30 && alarms[fmt.Sprintf("raised@%d", at)] != 1 || row%40 == 0 && row > 0 && alarms[fmt.Sprintf("cleared@%d", at)] != 1 {
			t.Errorf("row %d: alarms %v", row, alarms)
		}
	}
	if wrong > 0 || len(got) > 0 {
		t.Errorf("%d readings are missing or wrong, %d were never published", wrong, len(got))
	}
	if want := (plc.rows+9)/40 + (plc.rows-1)/40; len(alarms) != want {
		t.Errorf("%d alarms, want %d: %v", len(alarms), want, alarms)
	}
}

// killRows reads Kafka: the values by path and time, and of the alarms how many ids
// there are by state and time. What stands twice must be the same.
func killRows(t *testing.T, kafka kafkac.Config) (got map[string]float64, alarms map[string]int) {
	got, alarms = map[string]float64{}, map[string]int{}
	ids := map[string]bool{}
	readPlantDay(t, t.Context(), kafka, func(b *signal.Batch, _ bool) {
		asset, _ := b.Stream.Split()
		for _, r := range b.Readings {
			if a, ok := signal.ParseAlarm(r.Sensor, r.Value); ok {
				key := fmt.Sprintf("%s@%d", a.State, r.EventTime)
				if !ids[a.ID+key] {
					alarms[key]++
				}
				ids[a.ID+key] = true
				continue
			}
			key := fmt.Sprintf("%s@%d", asset.Sensor(r.Sensor), r.EventTime)
			if v, twice := got[key]; twice && v != r.Value.Number {
				t.Errorf("%s is %v and %v", key, v, r.Value.Number)
			}
			got[key] = r.Value.Number
		}
	})
	return got, alarms
}
