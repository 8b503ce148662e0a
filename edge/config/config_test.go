package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// waves has all that a rule of waveforms may say.
const waves = `
vibration:
  name: hall-1
  zones: {version: ours-1, source: the maker, machines: [{group: "7", mounting: springs, ab: 1, bc: 2, cd: 3}]}
  rules:
    - asset: "P-*"
      sensor: de_acceleration
      unit: "[g]"
      rate: 25600
      window: 8192
      overlap: 0.5
      average: 4
      every_seconds: 10
      rpm: 1480
      speed_sensor: speed
      order_tracking: true
      statistics: [peak_to_peak, skewness]
      bands: [{name: sub, orders: [0.3, 0.8]}, {name: hf, hz: [3000, 10000]}]
      velocity: {group: "7", mounting: springs}
      bearing: {balls: 9, ball_diameter: 7.94, pitch_diameter: 39.04, contact_angle: 0}
      harmonics: 4
      each_harmonic: true
      envelope_low: 2500
      envelope_high: 4500
      regimes:
        - {name: full, rpm: [1400, 1500], load: {sensor: power, low: 20, high: 40, max_age_seconds: 120}, state: {sensor: state, values: [running]}}
`

func TestLintVibration(t *testing.T) {
	change := func(pairs ...string) []byte { return []byte(good + strings.NewReplacer(pairs...).Replace(waves)) }
	for name, c := range map[string]struct {
		text []byte
		want []string
	}{
		"as it is": {change(), nil},
		"band above half the rate": {change("10000]", "13000]"), []string{
			"band hf ends at 13000 Hz, above half the rate of 25600 samples/s; it has no value",
		}},
		"velocity without a unit": {change(`unit: "[g]"`, `unit: ""`), []string{
			"velocity, but no unit; declare [g] or m/s2, a channel of another unit has none",
		}},
		"velocity above half the rate": {change("rate: 25600", "rate: 1900", "3000, 10000", "300, 900", "envelope_low: 2500", "envelope_low: 100", "envelope_high: 4500", "envelope_high: 900"), []string{
			"velocity ends at 1000 Hz, above half the rate of 1900 samples/s; it has no value",
		}},
		"window too short": {change("window: 8192", "window: 1024"), []string{
			"band sub: a window of 1024 samples has lines of 25 Hz, too wide for it; take 8192",
			"velocity: a window of 1024 samples has lines of 25 Hz, too wide for it; take 8192",
			"bearing: orders 3.585 and 5.415 are 45.2 Hz apart, less than two lines of 25 Hz of a window of 1024 samples; take 2048",
			"bearing: orders 5.415 and 4.713 are 17.3 Hz apart, less than two lines of 25 Hz of a window of 1024 samples; take 4096",
			"bearing: orders 3.585 and 4.713 are 27.8 Hz apart, less than two lines of 25 Hz of a window of 1024 samples; take 2048",
			"bearing: order 0.3983 is 9.82 Hz, less than two lines of 25 Hz of a window of 1024 samples; take 8192",
		}},
		"envelope above half the rate": {change("envelope_high: 4500", "envelope_high: 14000"), []string{
			"the envelope's band ends at 14000 Hz, above half the rate of 25600 samples/s",
		}},
		"no envelope": {change("envelope_low: 2500", "envelope_low: 13000", "envelope_high: 4500", "envelope_high: 14000"), []string{
			"the envelope's band ends at 14000 Hz, above half the rate of 25600 samples/s",
			"the envelope's band begins at 13000 Hz, where nothing is sampled; there will be no envelope",
		}},
		"no rate": {change("rate: 25600", "rate: 0"), []string{
			"no rate; bands cannot be checked against half of it, nor the window",
		}},
	} {
		cfg, err := Parse("a.yaml", c.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, s := range cfg.Lint() {
			got = append(got, strings.TrimPrefix(s, "vibration: rule 1: "))
		}
		less := cmpopts.SortSlices(func(a, b string) bool { return a < b })
		if d := cmp.Diff(c.want, got, less, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for want, text := range map[string][]byte{
		`velocity of a channel in "mm/s"`: change(`unit: "[g]"`, "unit: mm/s"),
		`has no group "1" mounted "rigid"`: change(`group: "7", mounting: springs}
      bearing`, `group: "1", mounting: rigid}
      bearing`),
		`did you mean "order_tracking"`: change("order_tracking", "order_trackin"),
	} {
		if _, err := Parse("a.yaml", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	// A group that is a number needs no quotes.
	if _, err := Parse("a.yaml", change(`group: "7"`, "group: 7")); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(good + waves))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Parse("f", b); err == nil {
			c.Lint()
		}
	})
}
