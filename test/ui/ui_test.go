package ui

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/need"
)

// chromium returns the browser, or skips where it or the Node packages are missing.
func chromium(t *testing.T) string {
	t.Helper()
	_, err := exec.LookPath("node")
	need.Suite(t, "browser", err == nil, "Node.js is missing: sudo apt-get install nodejs npm")
	path, err := exec.LookPath("chromium")
	need.Suite(t, "browser", err == nil, "Chromium is missing: sudo apt-get install chromium")
	_, err = os.Stat(filepath.Join(harness.Root(t), "ui", "node_modules", "playwright-core"))
	need.Suite(t, "browser", err == nil, "the page's Node packages are missing: scripts/npm.sh")
	return path
}

// drive runs a script of this folder to its end. What it asks for is looked up in on.
func drive(t *testing.T, browser, script string, args []string, on map[string]func()) {
	t.Helper()
	shots := filepath.Join(harness.Root(t), "bin", "shots")
	if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "CHROMIUM="+browser, "SHOTS="+shots)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		t.Log(line)
		if what, asked := strings.CutPrefix(line, "ask "); asked {
			do, known := on[what]
			if !known {
				t.Errorf("%s asks for %q, which this test does not know", script, what)
				break
			}
			do()
			if _, err := fmt.Fprintln(in, "done "+what); err != nil {
				t.Errorf("answering %s: %v", script, err)
			}
		}
	}
	_, _ = io.Copy(io.Discard, out)
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v; pictures are in %s", script, err, shots)
	}
}

// A value changes on the page, and when its edge is cut off its age grows
// while the page stays live.
func TestPageOverThePlant(t *testing.T) {
	browser := chromium(t)
	bin := harness.Binary(t)
	recordings := t.TempDir()
	// Recorded just now, so that the plant's clock of the centre, which is the
	// wall's, and that of the replay agree.
	harness.Generate(t, recordings, harness.Generated{
		Seed: 11, Files: []string{"valve1/0", "valve1/1"}, Rows: 3600, Start: time.Now().UTC().Truncate(time.Second),
	})
	centre := harness.Start(t, bin, filepath.Join(t.TempDir(), "centre"), nil,
		append([]string{"run", "--roles", "broker,bridge,spine,lake,http"}, harness.Loopback()...)...)
	run := centre.Ready(t, 30*time.Second)
	edge := harness.Start(t, bin, filepath.Join(t.TempDir(), "edge"), nil,
		"run", "--roles", "edge", "--replay", "skab:"+recordings, "--speed", "1", "--filters", "none", "--mqtt", "tcp://"+run.MQTT)

	drive(t, browser, "plant.mjs", []string{"http://" + run.HTTP + "/", "skab/valve1/0"}, map[string]func(){
		"cut": edge.Kill,
		"end": func() {
			centre.Signal(t, syscall.SIGTERM)
			centre.Exit(t, 30*time.Second)
		},
	})
}

// A planner goes from the risk to the closed order, over a simulated plant.
func TestPageFromRiskToClosedOrder(t *testing.T) {
	browser := chromium(t)
	bin := harness.Binary(t)
	p := harness.Start(t, bin, filepath.Join(t.TempDir(), "data"), nil,
		append([]string{"up", "--plant", "demo:seed=11,duty=5s", "--speed", "20"}, harness.Loopback()...)...)
	run := p.Ready(t, 30*time.Second)
	drive(t, browser, "orders.mjs", []string{"http://" + run.HTTP + "/"}, nil)
}

// How the page writes values and ages, and what it draws.
func TestPageUnits(t *testing.T) {
	drive(t, chromium(t), "units.mjs", nil, nil)
}

// The states of the page that a test cannot bring about on a real plant.
func TestPageStates(t *testing.T) {
	browser := chromium(t)
	drive(t, browser, "states.mjs", []string{mock(t), mock(t, "--empty")}, nil)
}

// mock starts the page's mock plant and returns its address.
func mock(t *testing.T, args ...string) string {
	t.Helper()
	script := filepath.Join(harness.Root(t), "ui", "dev", "mock.mjs")
	cmd := exec.Command("node", append([]string{script, "0"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("starting the mock plant: %v", err)
	}
	return strings.TrimSpace(line)
}
