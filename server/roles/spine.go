package roles

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/spine/broker"
	spinelog "github.com/headrace/headrace/spine/log"
)

// partitions are those of the embedded spine. They are fixed for a topic's
// life; a power of two, so that a partition holds whole shards of the lake.
func partitions() map[string]int {
	return map[string]int{
		record.TopicReadings:   4,
		record.TopicEvents:     4,
		record.TopicRaw:        4,
		record.TopicDeadletter: 1,
	}
}

const (
	// maxPending is what may wait for Kafka in the bridge: beyond it the bridge
	// leaves the broker, and the edges keep what they have.
	maxPending  = 24 << 20
	brokerClose = 2 * time.Second
	adminWait   = 30 * time.Second
)

func (p *process) startSpine(context.Context) error {
	l, err := spinelog.Start(spinelog.Options{
		Listen:     p.ListenKafka,
		Advertise:  p.AdvertiseKafka,
		Dir:        p.Dir.Path("spine"),
		Partitions: partitions(),
		FloorBytes: floorBytes,
		Log:        p.Log.With("station", "spine"),
	})
	if err != nil {
		return err
	}
	p.log = l
	p.stack.onStop("spine", func() error { l.Close(); return nil })
	p.run.Kafka = l.Addr()
	p.kafka = []string{l.Addr()}
	p.stack.run("spine's trimming", p.trimming)
	return nil
}

func (p *process) startBroker(ctx context.Context) error {
	b, err := broker.Start(ctx, broker.Options{
		Listen: p.ListenMQTT,
		Dir:    p.Dir.Path("broker"),
		Log:    p.Log.With("station", "broker"),
	})
	if err != nil {
		return err
	}
	p.broker = b
	p.stack.onStop("broker", closing(brokerClose, b.Close))
	p.run.MQTT = b.Addr()
	p.mqtt = []string{"tcp://" + b.Addr()}
	return nil
}

func (p *process) startBridge(ctx context.Context) error {
	cfg := kafkac.Config{Brokers: p.kafka, ClientID: "headrace-bridge", Log: p.Log.With("station", "bridge")}
	if p.log == nil {
		if err := ensureTopics(ctx, cfg); err != nil {
			return err
		}
	}
	producerConfig := kafkac.ProducerConfig{Config: cfg, MaxBufferedBytes: 2 * maxPending}
	if p.log != nil {
		producerConfig.MaxMessageBytes = 8 << 20 // an outside Kafka has limits of its own
	}
	producer, err := kafkac.NewProducer(producerConfig)
	if err != nil {
		return err
	}
	p.stack.onStop("bridge's producer", func() error { producer.Close(); return nil })
	b, err := bridge.New(bridge.Options{
		MQTT:       mqttc.Config{Addresses: p.mqtt},
		Producer:   producer,
		Clock:      p.clock,
		MaxPending: maxPending,
		Log:        p.Log.With("station", "bridge"),
		Reached:    p.Reached,
	})
	if err != nil {
		return err
	}
	p.bridge = b
	p.stack.run("bridge", b.Run)
	return nil
}

// ensureTopics makes the topics on a Kafka that is not ours.
func ensureTopics(ctx context.Context, cfg kafkac.Config) error {
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	admin, err := kafkac.NewAdmin(cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.EnsureTopics(ctx, partitions(), nil); err != nil {
		return fmt.Errorf("making the topics of Kafka at %v: %w", cfg.Brokers, err)
	}
	return nil
}

// trimEvery is how often the spine forgets what the lake has.
const trimEvery = 2 * time.Second

// trimming lets the spine forget what bronze has committed, whichever worker in
// whichever process it was. Each topic has one bronze table that reads it.
func (p *process) trimming(ctx context.Context) error {
	admin, err := kafkac.NewAdmin(kafkac.Config{Brokers: p.kafka, ClientID: "headrace-trim", Log: p.Log.With("station", "spine")})
	if err != nil {
		return err
	}
	defer admin.Close()
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	trims := []*trim{
		{table: "bronze.readings", topics: []string{record.TopicReadings, record.TopicEvents}},
		{table: "bronze.raw", topics: []string{record.TopicRaw}},
	}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		committed := map[kafkac.TopicPartition]int64{}
		var errs []error
		for _, t := range trims {
			errs = append(errs, t.committed(ctx, p.lakeDir(), admin, committed))
		}
		err := errors.Join(append(errs, p.log.Trim(ctx, committed))...)
		if err != nil && ctx.Err() == nil {
			p.Log.Warn("trimming the spine", "error", err)
		}
	}
}

// trim is a bronze table and what it reads.
type trim struct {
	table  string
	topics []string
	open   *delta.Table
	ids    map[string]kafkac.Topic
}

// committed adds how far the table is in each partition. Without a lake there
// is nothing to trim by; the floor of free space holds.
func (t *trim) committed(ctx context.Context, lake string, admin *kafkac.Admin, to map[kafkac.TopicPartition]int64) (err error) {
	if t.open == nil {
		schema, name, _ := strings.Cut(t.table, ".")
		table, err := delta.Open(ctx, filepath.Join(lake, schema, name), delta.Options{})
		if errors.Is(err, delta.ErrNotTable) {
			return nil
		}
		if err != nil {
			return err
		}
		t.open = table
	}
	if t.ids == nil {
		if t.ids, err = admin.Topics(ctx, t.topics...); err != nil {
			return err
		}
	}
	snap, err := t.open.Refresh(ctx)
	if err != nil {
		return err
	}
	for name, topic := range t.ids {
		for i := range int32(topic.Partitions) {
			if next := snap.Txn(pipeline.BronzeTxn(t.table, topic.ID, i)); next > 0 {
				to[kafkac.TopicPartition{Topic: name, Partition: i}] = next
			}
		}
	}
	return nil
}

// OpenSpine opens the spine of a data directory that no process uses, to read it.
func OpenSpine(dir *datadir.Dir) (*spinelog.Log, error) {
	return spinelog.Start(spinelog.Options{
		Listen: "127.0.0.1:0", Dir: dir.Path("spine"), Partitions: partitions(), FloorBytes: 1,
	})
}
