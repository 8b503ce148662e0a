package e2e

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/headrace/headrace/server/datadir"
	"github.com/headrace/headrace/test/harness"
)

// Every role in a process of its own, each killed in the middle of a replay
// and started again where it listened: what the others had under way to it is
// sent again, and stands once in the tables.
func TestEachProcessKilled(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, top := t.TempDir(), t.TempDir()
	harness.Generate(t, recordings, harness.Generated{
		Seed: 13, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1"}, Rows: 800,
	})
	cells := harness.Cells(t, recordings)
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("HEADRACE_SEED=%d", seed)

	running := map[string]*harness.Proc{}
	start := func(name string, args ...string) datadir.Run {
		t.Helper()
		p := harness.Start(t, bin, filepath.Join(top, name), nil, append([]string{"run"}, args...)...)
		running[name] = p
		return p.Ready(t, 20*time.Second)
	}
	kafka := start("spine", "--roles", "spine", "--listen-kafka", "127.0.0.1:0").Kafka
	mqtt := start("broker", "--roles", "broker", "--listen-mqtt", "127.0.0.1:0").MQTT
	again := map[string]func(){
		"spine":  func() { start("spine", "--roles", "spine", "--listen-kafka", kafka) },
		"broker": func() { start("broker", "--roles", "broker", "--listen-mqtt", mqtt) },
		"bridge": func() { start("bridge", "--roles", "bridge", "--mqtt", "tcp://"+mqtt, "--kafka", kafka) },
		"lake":   func() { start("lake", "--roles", "lake", "--kafka", kafka, "--kafka-session", "2s") },
		"edge": func() {
			start("edge", "--roles", "edge", "--mqtt", "tcp://"+mqtt, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "80")
		},
	}
	for _, name := range []string{"bridge", "lake", "edge"} {
		again[name]()
	}
	names := []string{"spine", "broker", "bridge", "lake", "edge"}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		wait := time.Duration(500+rng.IntN(1000)) * time.Millisecond
		t.Logf("%s is killed after %s", name, wait)
		select {
		case <-running[name].Done():
			t.Fatalf("%s ended by itself:\n%s", name, running[name].Stderr())
		case <-time.After(wait):
		}
		running[name].Kill()
		again[name]()
	}
	dir := filepath.Join(top, "lake")
	arrived(t, bin, dir, len(cells))
	harness.Exact(t, bin, dir, cells, nil)
	for name, p := range running {
		select {
		case <-p.Done():
			t.Errorf("%s ended by itself:\n%s", name, p.Stderr())
		default:
		}
	}
}
