package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
// stands once in bronze, and what the bridge had of a plain client with QoS 1
// stands there too.
func TestSpineKills(t *testing.T) {
	t.Parallel()
	kills := 5
	if os.Getenv("HEADRACE_SOAK") != "" {
		kills = 100
	}
	bin := harness.Binary(t)
	recordings, top := t.TempDir(), t.TempDir()
	const speed = 40 // rows a second
	rows := 1200 * kills / 5
	harness.Generate(t, recordings, harness.Generated{Seed: 17, Files: []string{"valve1/0", "valve1/1", "a/0"}, Rows: rows})
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
	start("edge", "--roles", "edge", "--mqtt", "tcp://"+mqtt, "--replay", "skab:"+recordings, "--filters", "none", "--speed", strconv.Itoa(speed))

	plain := &plainClient{mqtt: mqtt, taken: map[int]time.Time{}}
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
	var deaths []time.Time // of the broker
	for _, name := range order {
		wait := time.Duration(300+rng.IntN(900)) * time.Millisecond
		select {
		case <-running[name].Done():
			t.Fatalf("%s ended by itself:\n%s", name, running[name].Stderr())
		case <-time.After(wait):
		}
		if name == "broker" {
			deaths = append(deaths, time.Now())
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
	// The embedded broker writes what it has taken a moment later: a kill may cost
	// what came just before it. Nothing else may be missing.
	excused := func(n int) bool {
		return slices.ContainsFunc(deaths, func(d time.Time) bool { return d.Sub(sent[n]) < brokerWrites && d.After(sent[n]) })
	}
	arrivedValues := map[int]bool{}
	harness.Eventually(t, drainLimit, "every plain message has arrived", func() bool {
		for _, r := range harness.SQL[struct{ Value float64 }](t, bin, dir, "SELECT DISTINCT value FROM bronze.readings WHERE site = 'plant'") {
			arrivedValues[int(r.Value)] = true
		}
		for n := range sent {
			if !arrivedValues[n] && !excused(n) {
				return false
			}
		}
		return true
	})
	lost := 0
	for n := range sent {
		if !arrivedValues[n] {
			lost++
		}
	}
	harness.Eventually(t, drainLimit+time.Duration(rows/speed)*time.Second, "every reading of the edge has arrived", func() bool {
		return harness.Count(t, bin, dir, "SELECT count(*) FROM bronze.readings WHERE site = 'skab'") == len(cells)
	})
	if n := harness.Count(t, bin, dir, "SELECT count(*) FROM (SELECT edge, boot, stream, n, i FROM bronze.readings GROUP BY ALL HAVING count(*) > 1)"); n > 0 {
		t.Errorf("%d readings stand twice", n)
	}
	t.Logf("%d kills, %d plain messages of which the broker took %d to its death, %d readings of the edge", len(order), len(sent), lost, len(cells))
}

// brokerWrites is how long the embedded broker may hold what it has taken before it
// writes it: its sync interval, and some.
const brokerWrites = 300 * time.Millisecond

// plainClient publishes numbers with QoS 1, one after the other, and keeps which of
// them the broker has taken.
type plainClient struct {
	mqtt  string
	mu    sync.Mutex
	taken map[int]time.Time
}

func (c *plainClient) numbers() map[int]time.Time {
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
			c.taken[n] = time.Now()
			c.mu.Unlock()
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		conn.Abort()
	}
}
