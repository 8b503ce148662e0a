package roles

import (
	"context"
	"fmt"
	"os"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/internal/strictyaml"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/routes"
)

// readRoutes reads the rules by which streams get topics of their own.
func readRoutes(file string) (*routes.Set, error) {
	if file == "" {
		return routes.New(routes.Config{})
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	var cfg routes.Config
	if err := strictyaml.Decode(file, b, &cfg); err != nil {
		return nil, err
	}
	set, err := routes.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return set, nil
}

// routes is the table that tells the bridge which topic a stream has.
func (p *process) routes(producer *kafkac.Producer) (*routes.Table, error) {
	rules, err := readRoutes(p.RoutesFile)
	if err != nil {
		return nil, err
	}
	return routes.NewTable(routes.Options{
		Kafka: p.kafkaConfig("routes"), Producer: producer, Clock: p.clock, Rules: rules, Make: p.makeTopic,
		Routed: func(ctx context.Context, stream signal.Stream, topic string) { p.bridge.Routed(ctx, stream, topic) },
		Log:    p.Log.With("station", "routes"),
	})
}

// makeTopic makes a topic that a rule names, with as many partitions as the
// topic of readings. One that is there stays as its operator made it.
func (p *process) makeTopic(ctx context.Context, topic string) error {
	admin, err := kafkac.NewAdmin(p.kafkaConfig("topics"))
	if err != nil {
		return err
	}
	defer admin.Close()
	there, err := admin.Existing(ctx, topic, record.TopicReadings)
	if err != nil {
		return err
	}
	if _, ok := there[topic]; ok {
		return nil
	}
	settings := map[string]string{"retention.ms": "-1"}
	if p.log == nil {
		settings = outsideTopics()
	}
	if err := admin.EnsureTopics(ctx, map[string]int{topic: max(1, there[record.TopicReadings].Partitions)}, settings); err != nil {
		return err
	}
	return admin.AwaitTopics(ctx, topic)
}
