package silent

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

// What two roles send each other vanishes for a minute (half an hour under
// HEADRACE_SOAK), under load: the roles go on by themselves when the network is
// back, with nothing lost and nothing doubled, and the memory of who waits does not
// grow with the silence.
func TestSilence(t *testing.T) {
	silent, rows, speed := time.Minute, 2200, "20"
	if os.Getenv("HEADRACE_SOAK") != "" {
		silent, rows, speed = 30*time.Minute, 12_000, "6"
	}
	bin := harness.Binary(t)
	recordings := t.TempDir()
	harness.Generate(t, recordings, harness.Generated{Seed: 91, Files: []string{"valve1/0", "valve1/1", "a/0"}, Rows: rows})
	cells := harness.Cells(t, recordings)
	cuts := []struct {
		name string
		a, b int
	}{{"edge and broker", edge, broker}, {"broker and bridge", broker, bridge}, {"bridge and Kafka", bridge, spine}}
	var worlds []*world
	for i := range cuts {
		w := newWorld(t, i)
		worlds = append(worlds, w)
		w.listen(spine, "9092")
		w.listen(broker, "1883")
		w.start(bin, spine, "--roles", "spine,lake", "--listen-kafka", "127.0.0.1:9092", "--advertise-kafka", address(spine)+":9092")
		w.start(bin, broker, "--roles", "broker", "--listen-mqtt", "127.0.0.1:1883")
		w.start(bin, bridge, "--roles", "bridge", "--mqtt", "tcp://"+address(broker)+":1883", "--kafka", address(spine)+":9092", "-v")
		w.start(bin, edge, "--roles", "edge", "--mqtt", "tcp://"+address(broker)+":1883", "--replay", "skab:"+recordings, "--filters", "none", "--speed", speed, "-v")
	}
	arrived := func(w *world) int {
		return harness.Count(t, bin, w.lakeDir(), "SELECT count(*) FROM bronze.readings")
	}
	before := make([]int, len(worlds))
	memory := make([][places]int64, len(worlds))
	for i, w := range worlds {
		harness.Eventually(t, time.Minute, cuts[i].name+": readings arrive", func() bool {
			before[i] = arrived(w)
			return before[i] > 0
		})
		for p := range places {
			memory[i][p], _ = w.procs[p].RSS(t)
		}
	}
	for i, w := range worlds {
		w.silence(cuts[i].a, cuts[i].b, true)
	}
	began := time.Now()
	<-time.After(silent / 2)
	halves := make([]int, len(worlds))
	for i, w := range worlds {
		halves[i] = arrived(w)
	}
	<-time.After(time.Until(began.Add(silent)))
	for i, w := range worlds {
		if now := arrived(w); now != halves[i] || now == len(cells) {
			t.Errorf("%s: %d readings arrived in the second half of the silence, of %d", cuts[i].name, now-halves[i], len(cells))
		}
		w.silence(cuts[i].a, cuts[i].b, false)
	}
	healed := time.Now()
	first := make([]time.Duration, len(worlds))
	harness.Eventually(t, 3*time.Minute, "readings arrive again everywhere", func() bool {
		all := true
		for i, w := range worlds {
			if first[i] == 0 && arrived(w) > halves[i] {
				first[i] = time.Since(healed)
			}
			all = all && first[i] > 0
		}
		return all
	})
	want := strconv.Itoa(len(cells))
	for i, w := range worlds {
		harness.Eventually(t, silent+3*time.Minute, cuts[i].name+": every reading has arrived", func() bool {
			rows := harness.CSV(t, bin, w.lakeDir(), `SELECT (SELECT count(*) FROM bronze.readings), (SELECT count(*) FROM silver.readings)`)
			return rows[0][0] == want && rows[0][1] == want
		})
		harness.Exact(t, bin, w.lakeDir(), cells, nil)
		t.Logf("%s: silent for %s with %d readings there, again after %s", cuts[i].name, silent, halves[i], first[i].Round(100*time.Millisecond))
		for p, proc := range w.procs {
			select {
			case <-proc.Done():
				t.Errorf("%s: the process at place %d ended by itself:\n%s", cuts[i].name, p, proc.Stderr())
				continue
			default:
			}
			now, peak := proc.RSS(t)
			t.Logf("%s: place %d had %d MiB before, %d after, %d at most", cuts[i].name, p, memory[i][p]>>20, now>>20, peak>>20)
			if p != spine && peak > 200<<20 {
				t.Errorf("%s: the process at place %d took %s", cuts[i].name, p, fmt.Sprint(peak>>20, " MiB"))
			}
		}
	}
}
