package interop

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/edge/source/sparkplugin"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/harness"
)

// An edge's Sparkplug source reads a device that pysparkplug makes: what its birth
// says, each of its values in order with its time, and its death: by its will, or by
// a goodbye whose bdSeq is one too high.
func TestSparkplugSourceReadsPysparkplug(t *testing.T) {
	t.Run("dies", func(t *testing.T) { readPysparkplug(t, false) })
	t.Run("leaves", func(t *testing.T) { readPysparkplug(t, true) })
}

func readPysparkplug(t *testing.T, leaves bool) {
	const values = 500 // seq goes around
	addr := harness.PlantBroker(t)
	rules, err := sparkplugin.NewRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	src, err := sparkplugin.Opener(sparkplugin.Options{
		MQTT: mqttc.Config{Addresses: []string{"tcp://" + addr}}, ClientID: "edge", Site: "lyon", Rules: rules, Clock: signal.WallClock{},
	})(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	figure := func(name string) int64 {
		for _, c := range src.Figures() {
			if c.Name == name {
				return c.Value
			}
		}
		return -1
	}
	harness.Eventually(t, drainLimit, "the source is connected", func() bool { return figure("source_connected_now") == 1 })

	host, port, _ := strings.Cut(addr, ":")
	cmd := harness.Python(t, script(t, "sparkplug_device.py"), host, port, fmt.Sprint(values))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	says := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the device said %q, want %q: %v\n%s", lines.Text(), want, cmd.Wait(), stderr.String())
		}
	}
	take := func(n int) (out []source.Sample) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), drainLimit)
		defer cancel()
		for len(out) < n {
			c, err := src.Next(ctx)
			if err != nil {
				t.Fatalf("after %d of %d: %v", len(out), n, err)
			}
			for _, r := range c.Refused {
				t.Errorf("refused: %s: %s", r.From, r.Reason)
			}
			out = append(out, c.Samples...)
		}
		return out
	}

	says("born")
	got := map[string]any{}
	for _, s := range take(5) {
		v := any(s.Reading.Value.Number)
		if s.Reading.Value.Kind == signal.Text {
			v = s.Reading.Value.Text
		}
		got[string(s.Asset.Sensor(s.Reading.Sensor))] = v
		if device := strings.HasPrefix(string(s.Asset), "lyon/mill"); device && s.Reading.EventTime != 1_600_000_000_000_000 || s.Arrived || !s.Reading.Quality.Good() {
			t.Errorf("%+v", s)
		}
	}
	want := map[string]any{
		"lyon/plc-1/plc-1/uptime": 1.0, "lyon/mill/pump/bearing.temp": 20.5, "lyon/mill/pump/state": "running", "lyon/mill/pump/on": 1.0, "lyon/mill/pump/count": -5.0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	fmt.Fprintln(stdin)
	for i, s := range take(values) {
		if s.Asset.Sensor(s.Reading.Sensor) != "lyon/mill/pump/bearing.temp" || s.Reading.Value.Number != float64(i)/4 || s.Reading.EventTime != signal.Micros(1_600_000_001_000+i)*1000 {
			t.Fatalf("value %d is %+v", i, s)
		}
	}
	says("sent")
	if n := figure("source_gaps"); n != 0 {
		t.Errorf("%d messages are missing", n)
	}

	died := time.Now()
	if leaves {
		fmt.Fprintln(stdin, "leave")
	}
	_ = stdin.Close()
	for _, s := range take(5) {
		if s.Reading.Quality != signal.QualityStale || s.Reading.AliveAt != s.Reading.EventTime || s.Reading.EventTime.Time().Before(died.Add(-time.Second)) {
			t.Errorf("after the death: %+v", s)
		}
	}
	_ = cmd.Wait() // it ends by a failure
}
