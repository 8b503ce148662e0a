package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/outbox"
	"github.com/headrace/headrace/edge/rules"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
)

const (
	dayRows = 24 * 3600 / 5
	dayStep = 5 * time.Second
	dayBand = 0.5
	dayHot  = 61.0
	dayCool = 58.0
	dayBeat = 60 * time.Second
)

// dayMachine measures every five seconds for a day, and goes on where its position
// stands; while the edge is away it keeps what it measured.
type dayMachine struct {
	start      time.Time
	next, read int
}

func (m *dayMachine) open(position []byte, _ *slog.Logger) (source.Source, error) {
	n, _ := binary.Uvarint(position)
	return &dayMachine{start: m.start, next: int(n), read: int(n)}, nil
}

func dayAssets() []signal.Asset { return []signal.Asset{"plant/hall/press-1", "plant/hall/press-2"} }

// samples are those of one row: a temperature that wanders, a pressure that stands
// still for long, and a state.
func (m *dayMachine) samples(row int) (out []source.Sample) {
	at := signal.MicrosOf(m.start.Add(time.Duration(row) * dayStep))
	for k, asset := range dayAssets() {
		phase := float64(row)/300 + float64(k)
		temperature := math.Round(1000*(50+12*math.Sin(phase)+math.Sin(37*phase)/2)) / 1000
		state := "idle"
		if (row/700+k)%3 > 0 {
			state = "running"
		}
		add := func(sensor string, class signal.Class, v signal.Value, unit string) {
			out = append(out, source.Sample{Asset: asset, Class: class, Reading: signal.Reading{
				Sensor: sensor, EventTime: at, AliveAt: at, Value: v, Unit: unit, Quality: signal.QualityGood,
			}})
		}
		add("temperature", signal.Telemetry, signal.NumberValue(temperature), "Cel")
		add("pressure", signal.Telemetry, signal.NumberValue(float64(row/1000)), "bar")
		add("state", signal.Event, signal.TextValue(state), "")
	}
	return out
}

func (m *dayMachine) Next(ctx context.Context) (source.Chunk, error) {
	m.Take()
	if m.next >= dayRows {
		return source.Chunk{}, io.EOF
	}
	at := m.start.Add(time.Duration(m.next) * dayStep)
	if err := (signal.WallClock{}).WaitUntil(ctx, at); err != nil {
		return source.Chunk{}, err
	}
	m.read = m.next + 1
	return source.Chunk{Time: at, Samples: m.samples(m.next)}, nil
}

func (m *dayMachine) Take()                     { m.next = m.read }
func (m *dayMachine) Position() []byte          { return binary.AppendUvarint(nil, uint64(m.next)) }
func (m *dayMachine) Figures() []signal.Counter { return nil }
func (m *dayMachine) Close() error              { return nil }

// dayRow is a reading as it must arrive.
type dayRow struct {
	Event, Alive signal.Micros
	Value        signal.Value
}

// expected is what a deadband, a heartbeat and a rule make of the day, written
// down plainly.
func (m *dayMachine) expected() (rows map[signal.Path][]dayRow, alarms []string) {
	rows = map[signal.Path][]dayRow{}
	type held struct {
		sent  signal.Value
		event signal.Micros
		alive signal.Micros
	}
	last := map[signal.Path]*held{}
	hot := map[signal.Path]bool{}
	for row := range dayRows {
		for _, s := range m.samples(row) {
			path, r := s.Asset.Sensor(s.Reading.Sensor), s.Reading
			l := last[path]
			send := l == nil
			if l != nil {
				switch r.Sensor {
				case "temperature":
					send = math.Abs(r.Value.Number-l.sent.Number) > dayBand
				default:
					send = !r.Value.Equal(l.sent)
				}
			}
			switch {
			case send:
				last[path] = &held{r.Value, r.EventTime, r.EventTime}
				rows[path] = append(rows[path], dayRow{r.EventTime, r.EventTime, r.Value})
			case r.EventTime-l.alive >= signal.Micros(dayBeat/time.Microsecond):
				l.alive = r.EventTime
				rows[path] = append(rows[path], dayRow{l.event, r.EventTime, l.sent})
			}
			if r.Sensor == "temperature" {
				if on := hot[path]; !on && r.Value.Number > dayHot || on && r.Value.Number <= dayCool {
					hot[path] = !on
					alarms = append(alarms, fmt.Sprintf("%s %v %d", s.Asset, !on, r.EventTime))
				}
			}
		}
	}
	return rows, alarms
}

// A plant's day in virtual time, with eight hours without a link and a reboot of
// the edge within them: what is in Kafka is what the filters and the local rule
// should have sent of what was measured, reading by reading, and the sums agree.
func TestPlantDayWithAPartitionAndAReboot(t *testing.T) {
	dir := t.TempDir()
	if d, err := os.MkdirTemp("/dev/shm", "headrace-plant-day-"); err == nil { //nolint:usetesting // t.TempDir is on a disk
		t.Cleanup(func() { _ = os.RemoveAll(d) })
		dir = d
	}
	wall := time.Now()
	synctest.Test(t, func(t *testing.T) { livePlantDay(t, dir) })
	t.Logf("a day of the plant took %s", time.Since(wall).Round(time.Millisecond))
}

func livePlantDay(t *testing.T, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var stops []func()
	defer func() {
		cancel()
		running.Wait()
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}()
	var network kfake.VirtualNetwork
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
		kfake.SeedTopics(4, record.TopicReadings, record.TopicEvents, record.TopicRaw), kfake.SeedTopics(1, record.TopicDeadletter))
	if err != nil {
		t.Error(err)
		return
	}
	stops = append(stops, cluster.Close)
	kafka := kafkac.Config{Brokers: []string{"127.0.0.1:9092"}, Dial: network.DialContext}
	producer, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: kafka})
	if err != nil {
		t.Error(err)
		return
	}
	stops = append(stops, producer.Close)
	listener := newPipes()
	stops = append(stops, startBroker(t, listener))
	address := []string{"tcp://127.0.0.1:1883"}
	b, err := bridge.New(bridge.Options{MQTT: mqttc.Config{Addresses: address, Dial: listener.Dial}, Producer: producer, Clock: signal.WallClock{}})
	if err != nil {
		t.Error(err)
		return
	}
	running.Go(func() { _ = b.Run(ctx) })

	filters, err := filter.New(filter.Config{HeartbeatSeconds: dayBeat.Seconds(), Rules: []filter.Rule{{Sensor: "temperature", Deadband: dayBand}}})
	if err != nil {
		t.Error(err)
		return
	}
	above, clear := dayHot, dayCool
	local, err := rules.New(rules.Config{Rules: []rules.Rule{{Name: "hot", Sensor: "temperature", Above: &above, Clear: &clear}}})
	if err != nil {
		t.Error(err)
		return
	}
	plant := newLink(listener.Dial)
	machine := &dayMachine{start: time.Now().Truncate(time.Second).Add(time.Second)}
	own := filepath.Join(dir, "edge")
	boot := func() (*edge.Agent, func()) {
		agent, err := edge.New(edge.Options{
			Dir: own, Group: "plant", Node: "edge-0", Open: machine.open, Filter: filters, Rules: local, Clock: signal.WallClock{},
			MQTT: mqttc.Config{Addresses: address, Dial: plant.Dial},
		})
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		inner, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		running.Go(func() { done <- agent.Run(inner) })
		return agent, func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	_, down := boot()
	if down == nil {
		return
	}
	time.Sleep(6 * time.Hour)
	plant.Part()
	time.Sleep(3 * time.Hour)
	down()
	time.Sleep(10 * time.Minute) // the machine goes on measuring
	agent, _ := boot()
	if agent == nil {
		return
	}
	time.Sleep(5*time.Hour - 10*time.Minute)
	plant.Join()
	select {
	case <-agent.DrainedC():
	case <-time.After(24 * time.Hour):
		t.Errorf("the edge has not drained: %+v", agent.Counters())
		return
	}
	st, err := outbox.ReadState(edge.OutboxDir(own))
	if err != nil {
		t.Error(err)
		return
	}
	checkPlantDay(t, ctx, kafka, machine, st.Counters)
}

// checkPlantDay reads Kafka to its end and compares it with what should have been
// sent.
func checkPlantDay(t *testing.T, ctx context.Context, kafka kafkac.Config, machine *dayMachine, c outbox.Counters) {
	got := map[signal.Path][]dayRow{}
	var alarms []string
	boots := map[string]bool{}
	shipped, repeats, historical := 0, 0, 0
	readPlantDay(t, ctx, kafka, func(b *signal.Batch, again bool) {
		if again {
			repeats++
			return
		}
		boots[b.Boot] = true
		asset, _ := b.Stream.Split()
		for _, r := range b.Readings {
			shipped++
			if r.Historical {
				historical++
			}
			if a, ok := signal.ParseAlarm(r.Sensor, r.Value); ok {
				alarms = append(alarms, fmt.Sprintf("%s %v %d", asset, a.State == signal.AlarmRaised, r.EventTime))
				continue
			}
			path := asset.Sensor(r.Sensor)
			got[path] = append(got[path], dayRow{r.EventTime, r.AliveAt, r.Value})
		}
	})
	for _, rows := range got {
		slices.SortFunc(rows, func(a, b dayRow) int { return int(a.Alive - b.Alive) })
	}
	want, wantAlarms := machine.expected()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Kafka is not what should have been sent (-want +got):\n%.2000s", d)
	}
	slices.Sort(alarms)
	slices.Sort(wantAlarms)
	if d := cmp.Diff(wantAlarms, alarms); d != "" || len(alarms) < 4 {
		t.Errorf("alarms (-want +got):\n%s", d)
	}
	n, held := len(wantAlarms), 0
	for _, rows := range want {
		n += len(rows)
		for _, r := range rows {
			if r.Alive > r.Event {
				held++
			}
		}
	}
	measured := dayRows * 3 * len(dayAssets())
	wantCounters := outbox.Counters{
		Emitted: uint64(measured), Derived: uint64(len(wantAlarms)), Held: uint64(held), Filtered: uint64(measured + len(wantAlarms) + held - n),
		Shipped: uint64(n), Retried: c.Retried,
	}
	if d := cmp.Diff(wantCounters, c); d != "" || shipped != n || len(boots) != 2 {
		t.Errorf("%d readings arrived of %d, by %d boots; counters (-want +got):\n%s", shipped, n, len(boots), d)
	}
	t.Logf("%d measured, %d arrived, %d of them late, %d alarms; %d messages came twice", measured, shipped, historical, len(alarms), repeats)
}

// readPlantDay hands out the messages of readings and events; again tells that one
// came before.
func readPlantDay(t *testing.T, ctx context.Context, kafka kafkac.Config, each func(b *signal.Batch, again bool)) {
	admin, err := kafkac.NewAdmin(kafka)
	if err != nil {
		t.Error(err)
		return
	}
	defer admin.Close()
	held, err := admin.ListOffsets(ctx, record.TopicReadings, record.TopicEvents, record.TopicDeadletter)
	if err != nil {
		t.Error(err)
		return
	}
	var ranges []kafkac.Range
	for tp, o := range held {
		if tp.Topic == record.TopicDeadletter && o.End > 0 {
			t.Errorf("%d dead letters", o.End)
		}
		if tp.Topic != record.TopicDeadletter {
			ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: o.Start, End: o.End})
		}
	}
	seen := map[string]bool{}
	err = kafkac.Read(ctx, kafka, ranges, func(r kafkac.Record) error {
		if kind, _ := r.Header(record.HeaderKind); record.IsEvent(string(kind)) {
			return nil // a birth or a death
		}
		var b signal.Batch
		if err := record.Decode(r.Value, &b); err != nil {
			return err
		}
		id := fmt.Sprint(b.Boot, "|", b.Stream, "|", b.N)
		each(&b, seen[id])
		seen[id] = true
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
