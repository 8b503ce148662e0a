package roles

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/internal/wholefile"
	"github.com/headrace/headrace/lake/delta"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/spine/bridge"
	"github.com/headrace/headrace/spine/broker"
	spinelog "github.com/headrace/headrace/spine/log"
	"github.com/headrace/headrace/spine/routes"
)

// partitions are those of the embedded spine. They are fixed for a topic's
// life; a power of two, so that a partition holds whole shards of the lake.
func partitions() map[string]int {
	return map[string]int{
		record.TopicReadings:   4,
		record.TopicEvents:     4,
		record.TopicRaw:        4,
		record.TopicDeadletter: 1,
		record.TopicBridges:    16,
		record.TopicRoutes:     1,
	}
}

const (
	// maxPending is what may wait for Kafka in the bridge: beyond it the bridge
	// leaves the broker, and the edges keep what they have.
	maxPending  = 24 << 20
	brokerClose = 2 * time.Second
	// foreignSession is how long a silent bridge keeps its share of a foreign topic.
	foreignSession = 10 * time.Second
	adminWait      = 30 * time.Second
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
	p.stack.run("spine's trimming", func(ctx context.Context) error { return p.trimming(ctx, p.log.Trim) })
	return nil
}

func (p *process) startBroker(ctx context.Context) error {
	b, err := broker.Start(ctx, broker.Options{
		Listen: p.ListenMQTT,
		Users:  p.MQTTUsers,
		TLS:    p.MQTTListenTLS,
		Dir:    p.Dir.Path("broker"),
		Log:    p.Log.With("station", "broker"),
	})
	if err != nil {
		return err
	}
	p.broker = b
	p.stack.onStop("broker", closing(brokerClose, b.Close))
	p.run.MQTT = b.Addr()
	p.mqtt = b.Local().Addresses
	return nil
}

// PlainPrefix stands before site/line/asset/sensor unless a file says otherwise.
const PlainPrefix = "plant"

func readPlain(file string) (*plain.Set, error) {
	cfg := plain.Config{Prefix: PlainPrefix}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading rules for plain MQTT: %w", err)
		}
		cfg = plain.Config{}
		if err := strictyaml.Decode(file, b, &cfg); err != nil {
			return nil, err
		}
	}
	set, err := plain.New(cfg)
	if err != nil && file != "" {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return set, err
}

func (p *process) startBridge(ctx context.Context) error {
	cfg := p.kafkaConfig("bridge")
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	producerConfig := kafkac.ProducerConfig{Config: cfg, MaxBufferedBytes: 2 * maxPending}
	if p.log != nil {
		producerConfig.MaxMessageBytes = 8 << 20 // an outside Kafka has limits of its own
		producerConfig.OneAtATime = true
	}
	producer, err := kafkac.NewProducer(producerConfig)
	if err != nil {
		return err
	}
	p.stack.onStop("bridge's producer", func() error { producer.Close(); return nil })
	var share *bridge.Share
	if p.BridgeGroup != "" {
		share = &bridge.Share{Kafka: p.kafkaConfig("bridges"), Group: "headrace.bridges." + p.BridgeGroup}
	}
	mapping, err := readPlain(p.PlainFile)
	if err != nil {
		return err
	}
	table, err := p.routes(producer)
	if err != nil {
		return err
	}
	id, err := p.bridgeID()
	if err != nil {
		return err
	}
	b, err := bridge.New(bridge.Options{
		ClientID:   id,
		Plain:      mapping,
		Share:      share,
		Routes:     table,
		MQTT:       p.mqttConfig(),
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
	p.stack.run("routes", table.Run)
	p.stack.run("bridge", b.Run)
	foreign, err := readForeign(p.ForeignFile)
	if err != nil {
		return err
	}
	for _, f := range foreign {
		p.stack.run("bridge of topic "+f.Topic, func(ctx context.Context) error {
			return b.RunForeign(ctx, kafkac.ConsumerConfig{Config: p.kafkaConfig("foreign"), Group: "headrace.foreign." + f.Topic, SessionTimeout: foreignSession}, f)
		})
	}
	return nil
}

// bridgeID names the bridge's session at the broker, for as long as the data
// directory lives.
func (p *process) bridgeID() (string, error) {
	file := p.Dir.Path("bridge-id")
	b, err := os.ReadFile(file)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the name of the bridge's session: %w", err)
	}
	id := "headrace-bridge-" + uuid.NewString()[:8]
	if err := wholefile.Replace(file, []byte(id+"\n"), 0o640); err != nil {
		return "", fmt.Errorf("keeping the name of the bridge's session: %w", err)
	}
	return id, nil
}

// outsideTopics are the settings of the topics that the bridge makes on a Kafka
// that is not ours. Retention counts from a record's time, which is the plant's
// clock: under a replay everything would be old at once, and after a long
// outage nothing may go before the lake has it. A plant's clock may also run
// ahead, which Kafka would refuse.
func outsideTopics() map[string]string {
	return map[string]string{
		"cleanup.policy":                  "delete",
		"retention.ms":                    "-1",
		"retention.bytes":                 "-1",
		"message.timestamp.type":          "CreateTime",
		"message.timestamp.after.max.ms":  strconv.FormatInt(math.MaxInt64, 10),
		"message.timestamp.before.max.ms": strconv.FormatInt(math.MaxInt64, 10),
	}
}

// ensureTopics makes the topics on a Kafka that is not ours. Those that are
// there stay as their operator made them. Bridge and lake both need them, and
// do not know of each other.
func (p *process) ensureTopics(ctx context.Context) error {
	if p.log != nil || p.topicsMade {
		return nil
	}
	cfg := p.kafkaConfig("topics")
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	admin, err := kafkac.NewAdmin(cfg)
	if err != nil {
		return err
	}
	defer admin.Close()
	want := partitions()
	names := slices.Sorted(maps.Keys(want))
	there, err := admin.Existing(ctx, names...)
	if err != nil {
		return fmt.Errorf("looking for the topics of Kafka at %v: %w", cfg.Brokers, err)
	}
	for _, name := range names {
		n := there[name].Partitions
		switch {
		case n == 0:
			continue
		case n&(n-1) != 0 || n > pipeline.Shards:
			return fmt.Errorf("topic %s has %d partitions; the lake needs a power of two up to %d, so that a partition holds whole shards: make the topic anew", name, n, pipeline.Shards)
		}
		want[name] = n
	}
	routing := map[string]int{record.TopicRoutes: want[record.TopicRoutes]}
	delete(want, record.TopicRoutes)
	if err := errors.Join(admin.EnsureTopics(ctx, want, outsideTopics()), admin.EnsureTopics(ctx, routing, map[string]string{"cleanup.policy": "compact"})); err != nil {
		return fmt.Errorf("making the topics of Kafka at %v: %w", cfg.Brokers, err)
	}
	p.topicsMade = true
	if err := admin.AwaitTopics(ctx, names...); err != nil {
		return fmt.Errorf("making the topics of Kafka at %v: %w", cfg.Brokers, err)
	}
	if len(there) == 0 {
		return nil
	}
	delete(there, record.TopicRoutes)
	unsafe, err := admin.Forgets(ctx, slices.Sorted(maps.Keys(there))...)
	if err != nil {
		return fmt.Errorf("reading the topics' settings of Kafka at %v: %w", cfg.Brokers, err)
	}
	for _, u := range unsafe {
		p.Log.Warn("a topic may forget what the lake has not read", "topic", u.Topic, "setting", u.Setting, "value", u.Value,
			"remedy", "set "+u.Setting+" to "+u.Wanted+", and let --trim-kafka or your own clean-up follow bronze")
	}
	return nil
}

// trimEvery is how often the spine forgets what the lake has.
const trimEvery = 2 * time.Second

// trimming lets Kafka forget what bronze has committed, whichever worker in
// whichever process it was. Each topic has one bronze table that reads it.
// forget is how, or nil for Kafka's own way.
func (p *process) trimming(ctx context.Context, forget func(context.Context, map[kafkac.TopicPartition]int64) error) error {
	admin, err := kafkac.NewAdmin(p.kafkaConfig("trim"))
	if err != nil {
		return err
	}
	defer admin.Close()
	if forget == nil {
		forget = admin.DeleteRecords
	}
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	routed := routes.NewReader(p.kafkaConfig("trim"))
	readings, raw := &trim{table: "bronze.readings"}, &trim{table: "bronze.raw"}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		committed := map[kafkac.TopicPartition]int64{}
		own, err := routed.Topics(ctx)
		errs := []error{err}
		readings.topics, raw.topics = []string{record.TopicReadings, record.TopicEvents}, []string{record.TopicRaw}
		for name, ofRaw := range own {
			if ofRaw {
				raw.topics = append(raw.topics, name)
			} else {
				readings.topics = append(readings.topics, name)
			}
		}
		for _, t := range []*trim{readings, raw} {
			errs = append(errs, t.committed(ctx, p.lakeDir(), admin, committed))
		}
		err = errors.Join(append(errs, forget(ctx, committed))...)
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
	if len(t.ids) < len(t.topics) {
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
