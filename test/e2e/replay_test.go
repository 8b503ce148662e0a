// Package e2e drives the built binary as a user would: replays, crashes,
// blocked ports, full disks, wrong use. It holds tests alone.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

const mib = 1 << 20

// maxRSS is what the whole product may hold in memory when it is ready and when
// it runs live; maxPeak while a backlog goes through as fast as it can, when the
// SQL engine's allocator overshoots its limit for moments.
const (
	maxRSS  = 300 * mib
	maxPeak = 400 * mib
)

// drainLimit bounds a replay of a recording on a busy machine.
const drainLimit = 2 * time.Minute

// up are the arguments of a replay as fast as it goes, to its end.
func up(recordings string, more ...string) []string {
	args := append([]string{"up"}, harness.Loopback()...)
	args = append(args, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "max", "--until-drained")
	return append(args, more...)
}

// drain replays recordings to their end and returns the ended process.
func drain(t *testing.T, bin, dir, recordings string) *harness.Proc {
	t.Helper()
	p := harness.Start(t, bin, dir, nil, up(recordings)...)
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("replay: exit %d, want 0", code)
	}
	return p
}

// arrived waits until bronze and silver hold so many readings.
func arrived(t *testing.T, bin, dir string, readings int) {
	t.Helper()
	want := strconv.Itoa(readings)
	harness.Eventually(t, drainLimit, "every reading has arrived", func() bool {
		rows := harness.CSV(t, bin, dir, `SELECT (SELECT count(*) FROM bronze.readings), (SELECT count(*) FROM silver.readings)`)
		return rows[0][0] == want && rows[0][1] == want
	})
}

// impossible tells whether a value is beyond what a temperature can be.
func impossible(c harness.Cell) bool {
	return strings.HasSuffix(c.Path, "/temperature") && c.Value >= 5000
}

func TestReplayOfRealRecordings(t *testing.T) {
	recordings := harness.Data(t, "skab")
	bin := harness.Binary(t)
	dir := filepath.Join(t.TempDir(), "data")

	start := time.Now()
	p := harness.Start(t, bin, dir, nil, up(recordings)...)
	p.Ready(t, 10*time.Second)
	ready := time.Since(start)
	if code := p.Exit(t, drainLimit); code != 0 {
		t.Fatalf("replay: exit %d, want 0", code)
	}
	took, rss := time.Since(start), p.MaxRSS()
	t.Logf("ready after %s, drained after %s, at most %d MiB", ready.Round(time.Millisecond), took.Round(time.Millisecond), rss/mib)
	if rss > maxPeak {
		t.Errorf("the process held %d MiB, want at most %d", rss/mib, maxPeak/mib)
	}

	cells := harness.Cells(t, recordings)
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, cells, nil)

	// The twin's state is the last value of each sensor.
	last := map[string]harness.Cell{}
	for c := range cells {
		if c.Time > last[c.Path].Time {
			last[c.Path] = c
		}
	}
	type state struct {
		Path  string  `json:"path"`
		Us    int64   `json:"us"`
		Value float64 `json:"value"`
	}
	states := harness.SQL[state](t, bin, dir, `SELECT path, epoch_us(event_time) AS us, value FROM gold.twin_state`)
	if len(states) != len(last) {
		t.Errorf("gold.twin_state has %d rows, want %d", len(states), len(last))
	}
	for _, s := range states {
		if want := last[s.Path]; (harness.Cell{Path: s.Path, Time: s.Us, Value: s.Value}) != want {
			t.Errorf("gold.twin_state: %+v, want %v", s, want)
		}
	}
}

// What a stranger sends is taken and listed, and what cannot be is set aside
// with the name of the rule.
func TestStrangersAndImpossibleValues(t *testing.T) {
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{
		Seed: 2, Files: []string{"valve1/0", "valve1/1"}, Rows: 300, Extra: []string{"Stranger"},
		Put: map[string]map[int]string{"Temperature": {100: "5000"}},
	})
	drain(t, bin, dir, recordings)
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), impossible)

	type quarantined struct {
		Path       string   `json:"path"`
		Value      float64  `json:"value"`
		Violations []string `json:"violations"`
	}
	for _, q := range harness.SQL[quarantined](t, bin, dir, `SELECT path, value, violations FROM silver.readings_quarantine`) {
		if got, want := fmt.Sprint(q), "{skab/valve1/0/temperature 5000 [possible_value]}"; got != want {
			t.Errorf("quarantine holds %s, want %s", got, want)
		}
	}
	if n := harness.Count(t, bin, dir, `SELECT count(*) FROM gold.windows_1m WHERE max >= 4999 OR last >= 4999 OR mean > 1000`); n != 0 {
		t.Errorf("%d windows hold the impossible value", n)
	}
	// The windows on both sides of it are there: only the value is missing.
	if n := harness.Count(t, bin, dir, `SELECT count(*) FROM gold.windows_1m WHERE path = 'skab/valve1/0/temperature' AND count > 0`); n != 5 {
		t.Errorf("%d windows of the temperature, want 5", n)
	}
	if n := harness.Count(t, bin, dir, `SELECT count(*) FROM registry.sensors WHERE NOT claimed AND path IN ('skab/valve1/0/stranger', 'skab/valve1/1/stranger')`); n != 2 {
		t.Errorf("registry.sensors lists %d unclaimed strangers, want 2", n)
	}
	if n := harness.Count(t, bin, dir, `SELECT count(*) FROM silver.readings WHERE sensor = 'stranger' AND NOT claimed`); n != 600 {
		t.Errorf("silver holds %d readings of strangers, want 600", n)
	}

	// The same list is in the API.
	p := harness.Start(t, bin, dir, nil, append([]string{"up"}, harness.Loopback()...)...)
	run := p.Ready(t, 20*time.Second)
	var answer struct {
		Sensors []struct {
			Path string `json:"path"`
		} `json:"sensors"`
	}
	harness.Get(t, run, "/api/v1/registry/unclaimed", &answer)
	var paths []string
	for _, s := range answer.Sensors {
		paths = append(paths, s.Path)
	}
	if got, want := strings.Join(paths, " "), "skab/valve1/0/stranger skab/valve1/1/stranger"; got != want {
		t.Errorf("unclaimed: %q, want %q", got, want)
	}
}

// An own folder of recordings, of any depth that the form allows, works.
func TestReplayGoesOnWithNewRecordings(t *testing.T) {
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 3, Files: []string{"hall/pump 7"}, Rows: 120})
	drain(t, bin, dir, recordings)
	harness.Generate(t, recordings, harness.Generated{Seed: 4, Files: []string{"spare"}, Rows: 60})
	drain(t, bin, dir, recordings)
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), nil)
	if _, err := os.Stat(filepath.Join(dir, "run.json")); !os.IsNotExist(err) {
		t.Errorf("run.json is still there after the end: %v", err)
	}
}
