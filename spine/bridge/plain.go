package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/plain"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/sparkplug"
)

// maxStreams bounds the streams of plain messages of one site.
const maxStreams = 1 << 20

// plainNode stands for all that speaks plain MQTT at a site.
const plainNode = "mqtt"

// takePlain reads a message that is no Sparkplug. Its sender promises nothing, so
// its readings get an identity here.
func (b *Bridge) takePlain(ctx context.Context, in *inbound, m mqttc.Message, notSparkplug error) {
	err := notSparkplug
	if b.opts.Plain != nil && !strings.HasPrefix(m.Topic, sparkplug.Namespace+"/") {
		var msg plain.Message
		msg, err = b.opts.Plain.Read(m.Topic, m.Payload, signal.MicrosOf(b.opts.Clock.Now()))
		switch {
		case errors.Is(err, plain.ErrNoRule):
			err = fmt.Errorf("%w; it is no Sparkplug either: %w", err, notSparkplug)
		case m.Retained:
			// What is retained comes from another time, which it may not tell.
			b.count(func(c *counts) { c.ignored++ })
			return
		case err == nil:
			if err = b.producePlain(ctx, in, &msg); err == nil {
				return
			}
		}
	}
	b.deadLetter(ctx, in, m, sparkplug.Topic{}, sparkplug.Result{Reason: err.Error()}, 0)
}

func (b *Bridge) producePlain(ctx context.Context, in *inbound, msg *plain.Message) error {
	site, _, _ := msg.Asset.Split()
	n := b.sites[site]
	if n == nil {
		if len(b.sites) >= maxNodes {
			return fmt.Errorf("more than %d sites", maxNodes)
		}
		n = &node{group: site, edge: plainNode}
		b.sites[site] = n
	}
	stream := signal.NewStream(msg.Asset, msg.Class)
	if _, known := n.n[stream]; !known && len(n.n) >= maxStreams {
		return fmt.Errorf("more than %d streams of site %s", maxStreams, site)
	}
	batch := signal.Batch{
		Origin:   signal.Origin{Edge: site + "/" + plainNode, Stream: stream, Config: b.opts.Plain.Hash()},
		Readings: []signal.Reading{msg.Reading},
	}
	n.identify(&batch)
	b.count(func(c *counts) { c.plain++ })
	b.produceBatch(ctx, in, &batch, nil, 0)
	return nil
}
