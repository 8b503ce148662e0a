package roles

import (
	"context"
	"fmt"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/lake/medallion"
	"github.com/headrace/headrace/lake/pipeline"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/spine/routes"
	"github.com/headrace/headrace/twin/registry"
)

// lakeGroup is the consumer group in which lake workers share the spine.
const lakeGroup = "headrace.lake"

// openRegistry opens the authority on assets and sensors, and tells it what
// --registry says and what a plant or replay brings. What somebody has
// described goes before what is shipped.
func (p *process) openRegistry(ctx context.Context) error {
	if p.registry != nil {
		return nil
	}
	reg, err := registry.Open(ctx, p.registryFile(), registry.Options{Clock: p.clock, Log: p.Log})
	if err != nil {
		return err
	}
	p.registry = reg
	p.stack.onStop("registry", reg.Close)
	if p.RegistryFile != "" {
		if _, err := reg.LoadFile(ctx, p.RegistryFile); err != nil {
			return err
		}
	}
	if p.feeds == nil {
		return nil
	}
	if p.feeds.plant != nil {
		return p.registerPlant(ctx)
	}
	if _, err := reg.ApplyReplay(ctx, p.feeds.site, p.feeds.assets()); err != nil {
		return fmt.Errorf("registering the assets of %s: %w", p.Replay, err)
	}
	return nil
}

// registerPlant loads the plant's own file, once: what is corrected later stays.
func (p *process) registerPlant(ctx context.Context) error {
	snap, err := p.registry.Snapshot(ctx)
	if err != nil {
		return err
	}
	at := signal.MicrosOf(p.feeds.plant.Start())
	for _, a := range p.feeds.assets() {
		if m, ok := snap.Asset(a, at); ok && m.Claimed {
			return nil
		}
	}
	_, err = p.registry.Load(ctx, "plant "+p.Plant, p.feeds.plant.Registry())
	return err
}

func (p *process) startLake(ctx context.Context) error {
	if err := p.openRegistry(ctx); err != nil {
		return err
	}
	if err := p.openDuck(ctx); err != nil {
		return err
	}
	shipped, err := medallion.Files()
	if err != nil {
		return err
	}
	files := make([]pipeline.File, len(shipped))
	for i, f := range shipped {
		files[i] = pipeline.File(f)
	}
	parsed, err := pipeline.Parse(files)
	if err != nil {
		return err
	}
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	session := p.KafkaSession
	if session == 0 {
		session = 10 * time.Second
	}
	feed, err := pipeline.NewKafkaFeed(kafkac.ConsumerConfig{
		Config:         p.kafkaConfig("lake"),
		Group:          lakeGroup,
		SessionTimeout: session,
		MaxFetchBytes:  4 << 20,
	}, routes.NewReader(p.kafkaConfig("lake")).Topics)
	if err != nil {
		return err
	}
	p.stack.onStop("lake's reader", func() error { feed.Close(); return nil })
	opts := pipeline.Options{
		Dir:      p.lakeDir(),
		DB:       p.duck,
		Feed:     feed,
		Registry: p.registry,
		Pipeline: parsed,
		Clock:    p.clock,
		Log:      p.Log.With("station", "lake"),
		Reached:  p.Reached,
		// Small enough that every flow's batch fits the SQL engine's memory.
		BatchBytes: 384 << 10,
		BatchRows:  16_000,
	}
	p.lake, err = pipeline.New(ctx, opts)
	if err != nil {
		return err
	}
	p.stack.run("lake", p.lake.Run)
	if p.TrimKafka && p.log == nil {
		p.stack.run("Kafka's trimming", func(ctx context.Context) error { return p.trimming(ctx, nil) })
	}
	return nil
}
