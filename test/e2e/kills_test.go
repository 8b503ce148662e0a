package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/test/harness"
)

// Broker, bridge and embedded spine are killed again and again under load (five
// times each; a hundred under HEADRACE_SOAK): what the edge was told that Kafka has
// stands once in bronze, and what the broker took from a plain client with QoS 1
// stands there too.
func TestSpineKills(t *testing.T) {
	t.Parallel()
	kills := 5
	if os.Getenv("HEADRACE_SOAK") != "" {
		kills = 100
	}
	bin := harness.Binary(t)
	recordings, top := t.TempDir(), t.TempDir()
	harness.Generate(t, recordings, harness.Generated{Seed: 17, Files: []string{"valve1/0", "valve1/1", "a/0"}, Rows: 1200 * kills / 5})
	cells := harness.Cells(t, recordings)
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("HEADRACE_SEED=%d", seed)

	running := map[string]*harness.Proc{}
	start := func(name string, args ...string) datadir.Run {
		t.Helper()
		p := harness.Start(t, bin, filepath.Join(top, name), nil, append([]string{"run"}, args...)...)
		running[name] = p
		return p.Ready(t, time.Minute)
	}
	kafka := start("spine", "--roles", "spine", "--listen-kafka", "127.0.0.1:0").Kafka
	mqtt := start("broker", "--roles", "broker", "--listen-mqtt", "127.0.0.1:0").MQTT
	again := map[string]func(){
		"spine":  func() { start("spine", "--roles", "spine", "--listen-kafka", kafka) },
		"broker": func() { start("broker", "--roles", "broker", "--listen-mqtt", mqtt) },
		"bridge": func() { start("bridge", "--roles", "bridge", "--mqtt", "tcp://"+mqtt, "--kafka", kafka) },
	}
	again["bridge"]()
	start("lake", "--roles", "lake", "--kafka", kafka, "--kafka-session", "2s")
	start("edge", "--roles", "edge", "--mqtt", "tcp://"+mqtt, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "40")

	plain := &plainClient{mqtt: mqtt, taken: map[int]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() { plain.run(ctx) })
	defer publishing.Wait()
	defer stop()
	harness.Eventually(t, time.Minute, "the bridge takes plain messages", func() bool {
		return harness.Count(t, bin, filepath.Join(top, "lake"), "SELECT count(*) FROM bronze.readings WHERE site = 'plant'") > 0
	})

	var order []string
	for range kills {
		order = append(order, "broker", "bridge", "spine")
	}
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, name := range order {
		wait := time.Duration(300+rng.IntN(900)) * time.Millisecond
		select {
		case <-running[name].Done():
			t.Fatalf("%s ended by itself:\n%s", name, running[name].Stderr())
		case <-time.After(wait):
		}
		running[name].Kill()
		again[name]()
	}
	// The broker sends an unacknowledged message again after 10 s.
	stop()
	publishing.Wait()
	dir := filepath.Join(top, "lake")
	sent := plain.numbers()
	if len(sent) < 10*kills {
		t.Errorf("only %d plain messages were taken by the broker", len(sent))
	}
	harness.Eventually(t, drainLimit, "every plain message has arrived", func() bool {
		return harness.Count(t, bin, dir, "SELECT count(DISTINCT value) FROM bronze.readings WHERE site = 'plant'") >= len(sent)
	})
	rows := harness.SQL[struct{ Value float64 }](t, bin, dir, "SELECT DISTINCT value FROM bronze.readings WHERE site = 'plant'")
	arrivedValues := map[int]bool{}
	for _, r := range rows {
		arrivedValues[int(r.Value)] = true
	}
	for n := range sent {
		if !arrivedValues[n] {
			t.Errorf("the broker took plain message %d, and Kafka never got it", n)
		}
	}
	harness.Eventually(t, drainLimit, "every reading of the edge has arrived", func() bool {
		return harness.Count(t, bin, dir, "SELECT count(*) FROM bronze.readings WHERE site = 'skab'") == len(cells)
	})
	if n := harness.Count(t, bin, dir, "SELECT count(*) FROM (SELECT edge, boot, stream, n, i FROM bronze.readings GROUP BY ALL HAVING count(*) > 1)"); n > 0 {
		t.Errorf("%d readings stand twice", n)
	}
	t.Logf("%d kills, %d plain messages, %d readings of the edge", len(order), len(sent), len(cells))
}

// plainClient publishes numbers with QoS 1, one after the other, and keeps which of
// them the broker has taken.
type plainClient struct {
	mqtt  string
	mu    sync.Mutex
	taken map[int]bool
}

func (c *plainClient) numbers() map[int]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken
}

func (c *plainClient) run(ctx context.Context) {
	var next atomic.Int64
	for ctx.Err() == nil {
		conn, err := mqttc.Connect(ctx, mqttc.Config{Addresses: []string{"tcp://" + c.mqtt}, ClientID: "plain-client", CleanSession: true})
		if err != nil {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		for ctx.Err() == nil {
			n := int(next.Add(1))
			payload := fmt.Sprintf(`{"ts": %d, "value": %d}`, time.Now().UnixMilli(), n)
			if err := conn.Publish(ctx, fmt.Sprintf("plant/plant/hall/a%d/v", n%5), 1, false, []byte(payload)); err != nil {
				break
			}
			c.mu.Lock()
			c.taken[n] = true
			c.mu.Unlock()
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		conn.Abort()
	}
}
