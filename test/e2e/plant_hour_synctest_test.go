package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/bridge"
)

const (
	plantHour = time.Hour
	sensors   = 4
)

// pump is a machine with sensors that measure once a second for an hour.
type pump struct {
	asset   signal.Asset
	start   time.Time
	next    int
	offered bool // what Next returned last is not taken yet
}

func (p *pump) value(sensor, second int) float64 {
	return math.Sin(float64(second)/60) + float64(sensor) + float64(len(p.asset))
}

func (p *pump) Next(ctx context.Context) (source.Chunk, error) {
	p.Take()
	if time.Duration(p.next)*time.Second >= plantHour {
		return source.Chunk{}, io.EOF
	}
	at := p.start.Add(time.Duration(p.next) * time.Second)
	if err := (signal.WallClock{}).WaitUntil(ctx, at); err != nil {
		return source.Chunk{}, err
	}
	chunk := source.Chunk{Time: at}
	for s := range sensors {
		chunk.Samples = append(chunk.Samples, source.Sample{
			Asset: p.asset, Class: signal.Telemetry,
			Reading: signal.Reading{
				Sensor: fmt.Sprintf("sensor_%d", s), EventTime: signal.MicrosOf(at), AliveAt: signal.MicrosOf(at),
				Value: signal.NumberValue(p.value(s, p.next)), Quality: signal.QualityGood,
			},
		})
	}
	p.offered = true
	return chunk, nil
}

func (p *pump) Take() {
	if p.offered {
		p.next, p.offered = p.next+1, false
	}
}

func (p *pump) Position() []byte          { return binary.AppendUvarint(nil, uint64(p.next)) }
func (p *pump) Figures() []signal.Counter { return nil }
func (p *pump) Close() error              { return nil }

// A plant's hour in virtual time: three edges, a broker, a bridge and Kafka, all
// over pipes; for ten minutes the edges are cut off from the broker. Nothing
// is lost, and every stream is complete.
func TestPlantHourWithAPartition(t *testing.T) {
	// Real files, so real syncs: in memory where the machine has such a place.
	dir := t.TempDir()
	if d, err := os.MkdirTemp("/dev/shm", "headrace-plant-hour-"); err == nil { //nolint:usetesting // t.TempDir is on a disk
		t.Cleanup(func() { _ = os.RemoveAll(d) })
		dir = d
	}
	wall := time.Now()
	synctest.Test(t, func(t *testing.T) { livePlantHour(t, dir) })
	t.Logf("%s of the plant took %s", plantHour, time.Since(wall).Round(time.Millisecond))
}

func livePlantHour(t *testing.T, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	// Everything must have ended before the bubble does, whatever went wrong.
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
	b, err := bridge.New(bridge.Options{
		MQTT: mqttc.Config{Addresses: address, Dial: listener.Dial}, Producer: producer, Clock: signal.WallClock{},
	})
	if err != nil {
		t.Error(err)
		return
	}
	running.Go(func() { _ = b.Run(ctx) })

	plant := newLink(listener.Dial)
	start := time.Now().Truncate(time.Second).Add(time.Second)
	var agents []*edge.Agent
	var pumps []*pump
	for k := range 3 {
		p := &pump{asset: signal.NewAsset("plant", "hall", fmt.Sprintf("pump-%d", k)), start: start}
		node := fmt.Sprintf("edge-%d", k)
		agent, err := edge.New(edge.Options{
			Dir: filepath.Join(dir, node), Group: "plant", Node: node,
			Open:   func([]byte, *slog.Logger) (source.Source, error) { return p, nil },
			Filter: filter.None(), Clock: signal.WallClock{},
			MQTT: mqttc.Config{Addresses: address, Dial: plant.Dial},
		})
		if err != nil {
			t.Error(err)
			return
		}
		agents, pumps = append(agents, agent), append(pumps, p)
		running.Go(func() {
			if err := agent.Run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", node, err)
			}
		})
	}

	time.Sleep(20 * time.Minute)
	plant.Part()
	time.Sleep(10 * time.Minute)
	plant.Join()

	limit := time.After(2 * plantHour)
	for k, agent := range agents {
		select {
		case <-agent.DrainedC():
		case <-limit:
			t.Errorf("edge-%d has not drained an hour after its end: %+v", k, agent.Counters())
			return
		}
	}
	t.Logf("drained %s after the last measurement", time.Since(start.Add(plantHour-time.Second)).Round(time.Millisecond))
	checkPlantHour(t, ctx, kafka, pumps)
}

// checkPlantHour reads Kafka to its end and compares it with what was measured.
func checkPlantHour(t *testing.T, ctx context.Context, kafka kafkac.Config, pumps []*pump) {
	admin, err := kafkac.NewAdmin(kafka)
	if err != nil {
		t.Error(err)
		return
	}
	defer admin.Close()
	held, err := admin.ListOffsets(ctx, record.TopicReadings, record.TopicDeadletter)
	if err != nil {
		t.Error(err)
		return
	}
	var ranges []kafkac.Range
	for tp, o := range held {
		if tp.Topic == record.TopicDeadletter && o.End > 0 {
			t.Errorf("%d dead letters", o.End)
		}
		if tp.Topic == record.TopicReadings {
			ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: o.Start, End: o.End})
		}
	}
	type cell struct {
		path signal.Path
		at   signal.Micros
	}
	got := map[cell]float64{}
	streams := map[string]map[uint64]bool{}
	repeats, historical := 0, 0
	err = kafkac.Read(ctx, kafka, ranges, func(r kafkac.Record) error {
		var b signal.Batch
		if err := record.Decode(r.Value, &b); err != nil {
			return err
		}
		stream := fmt.Sprint(b.Edge, "|", b.Boot, "|", b.Stream)
		if streams[stream] == nil {
			streams[stream] = map[uint64]bool{}
		}
		if streams[stream][b.N] {
			repeats++
			return nil
		}
		streams[stream][b.N] = true
		asset, _ := b.Stream.Split()
		for _, reading := range b.Readings {
			c := cell{asset.Sensor(reading.Sensor), reading.EventTime}
			if v, twice := got[c]; twice {
				t.Errorf("%v comes with two messages: %v and %v", c, v, reading.Value)
			}
			got[c] = reading.Value.Number
			if reading.Historical {
				historical++
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
		return
	}
	missing, wrong := 0, 0
	for _, p := range pumps {
		for second := range int(plantHour / time.Second) {
			for s := range sensors {
				c := cell{p.asset.Sensor(fmt.Sprintf("sensor_%d", s)), signal.MicrosOf(p.start.Add(time.Duration(second) * time.Second))}
				v, ok := got[c]
				switch {
				case !ok:
					missing++
				case v != p.value(s, second):
					wrong++
				}
				delete(got, c)
			}
		}
	}
	if missing > 0 || wrong > 0 || len(got) > 0 {
		t.Errorf("%d readings are missing, %d are wrong, %d were never measured", missing, wrong, len(got))
	}
	for stream, ns := range streams {
		if top := slices.Max(slices.Collect(maps.Keys(ns))); top+1 != uint64(len(ns)) {
			t.Errorf("stream %s has %d messages, the last is n=%d", stream, len(ns), top)
		}
	}
	if len(streams) != len(pumps) {
		t.Errorf("%d streams, want %d", len(streams), len(pumps))
	}
	t.Logf("%d streams, %d repeated messages, %d readings came late", len(streams), repeats, historical)
}
