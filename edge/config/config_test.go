package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
)

const good = `
edge: {group: lyon, node: hall-1}
mqtt: {addresses: ["ssl://broker:8883"], user: hall-1, password_file: PASSWORD}
source:
  mqtt: {addresses: ["tcp://127.0.0.1:1883"]}
  map: {prefix: plant}
filters:
  name: hall-1
  rules:
    - {sensor: "*_temperature", percent: 0.25, span_low: 0, span_high: 150}
ring: {hours: 24, mega_bytes: 512}
`

func TestHashIsOfTheContent(t *testing.T) {
	a, err := Parse("a.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	same := "# reordered, with defaults written out\noutbox: {mega_bytes: 1024}\n" + strings.Replace(good, "  name: hall-1\n", "  heartbeat_seconds: 60\n  name: hall-1\n", 1)
	b, err := Parse("b.yaml", []byte(same))
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse("c.yaml", []byte(strings.Replace(good, "0.25", "0.5", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash() != b.Hash() || a.Hash() == other.Hash() || len(a.Hash()) != 16 {
		t.Errorf("hashes %s, %s and %s", a.Hash(), b.Hash(), other.Hash())
	}
}

func TestOptions(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("a.yaml", []byte(strings.Replace(good, "PASSWORD", secret, 1)))
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.Options("dir", signal.WallClock{}, func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.Group != "lyon" || o.Node != "hall-1" || o.MQTT.Password != "hush" || o.RingBytes != 512<<20 || o.RingAge.Hours() != 24 || o.Filter.Hash() != c.Filter.Hash() {
		t.Errorf("%+v", o)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Options("dir", signal.WallClock{}, func(string) string { return "" }, nil); err == nil || !strings.Contains(err.Error(), secret) {
		t.Errorf("without the file of the password: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for want, change := range map[string][2]string{
		"edge.node":               {"node: hall-1", `node: "a/b"`},
		"mqtt.addresses is empty": {`["ssl://broker:8883"]`, "[]"},
		"source.mqtt.addresses":   {`["tcp://127.0.0.1:1883"]`, "[]"},
		"reads nothing":           {"{prefix: plant}", "{}"},
		"filters: filter set":     {"percent: 0.25", "percent: 250"},
		"ring.hours":              {"hours: 24", "hours: -1"},
		`did you mean "prefix"`:   {"prefix: plant", "prefixx: plant"},
		"plain MQTT: prefix":      {"prefix: plant", "prefix: headrace"},
	} {
		_, err := Parse("edge.yaml", []byte(strings.Replace(good, change[0], change[1], 1)))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "edge.yaml") {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestLint(t *testing.T) {
	c, err := Parse("a.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Lint(); got != nil {
		t.Errorf("%q", got)
	}
	c, err = Parse("b.yaml", []byte(strings.Replace(good, "  rules:\n", `  heartbeat_seconds: 900
  rules:
    - {sensor: "a*", deadband: 200, span_low: 0, span_high: 100}
    - {percent: 60, span_high: 1, method: swinging_door}
`, 1)+`vibration: {rules: [{trigger: {kurtosis: 2.5}}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"filters: heartbeat_seconds is 900; values are taken for stale after 300 s",
		"filters: rule 1: the deadband of 200 is wider than the span of 100",
		"filters: rule 2: a deadband of 60 % of the span lets next to nothing through",
		"filters: rule 2: a line of the swinging door may span more than the 300 s after which values are stale",
		"filters: rule 3 never fits: rule 2 fits every sensor",
		"vibration: rule 1: neither rpm nor speed_sensor; there will be no orders",
		"vibration: rule 1: the trigger's kurtosis of 2.5 is that of plain noise; everything would leave",
	}
	if d := cmp.Diff(want, c.Lint()); d != "" {
		t.Error(d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Parse("f", b); err == nil {
			c.Lint()
		}
	})
}
