package config

import (
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/edge/source/ownclock"
	"github.com/headrace/headrace/signal"
)

const head = "edge: {group: lyon, node: hall-1}\nmqtt: {addresses: [\"tcp://broker:1883\"]}\n"

const sparkplugYAML = head + `source:
  sparkplug:
    mqtt: {addresses: ["tcp://127.0.0.1:1883"]}
    host_id: scada
    rules:
      - {topic: "ACME/{node}/{device}/{tag...}", path: "lyon/{node}/{device}/{tag}", unit_is: bar}
clock: {not_before: 2026-03-01, need_sync: true}
`

const filesYAML = head + `source:
  files:
    dir: /var/spool/plc
    format: csv
    separator: ";"
    time: Zeit
    zone: Europe/Berlin
    asset: lyon/hall/{file}
    columns:
      - {column: "T (°C)", sensor: temperature, unit: Cel}
`

func TestKindsOfSources(t *testing.T) {
	c, err := Parse("s.yaml", []byte(sparkplugYAML))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Source.Sparkplug; s.HostID != "scada" || s.Groups[0] != "lyon" || s.ClientID != "headrace-sparkplug-lyon-hall-1" || s.ReorderSeconds != 2 || len(s.Rules) != 1 {
		t.Errorf("%+v", s)
	}
	same, err := Parse("s.yaml", []byte(strings.Replace(sparkplugYAML, "host_id: scada", "host_id: scada\n    reorder_seconds: 2\n    groups: [lyon]", 1)))
	if err != nil || same.Hash() != c.Hash() {
		t.Errorf("defaults written out change the hash: %v", err)
	}
	other, err := Parse("s.yaml", []byte(strings.Replace(sparkplugYAML, "unit_is: bar", "unit_is: kPa", 1)))
	if err != nil || other.Hash() == c.Hash() {
		t.Errorf("a rule does not change the hash: %v", err)
	}
	f, err := Parse("f.yaml", []byte(filesYAML))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Source.Files; got.Dir != "/var/spool/plc" || got.Zone != "Europe/Berlin" || got.Pattern != "*.csv" || len(got.Columns) != 1 || f.Hash() == c.Hash() {
		t.Errorf("%+v", got)
	}
	for _, cfg := range []*Config{c, f} {
		dir := t.TempDir()
		o, err := cfg.Options(dir, signal.WallClock{}, func(string) string { return "" }, nil)
		if err != nil {
			t.Fatal(err)
		}
		src, err := o.Open(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, n := range src.Figures() {
			found = found || n.Name == "clock_steps"
		}
		if !found {
			t.Errorf("the source is not kept from a wrong clock: %v", src.Figures())
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	if at, err := c.Clock.notBefore(); err != nil || at != time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("%s %v", at, err)
	}
	if at, err := f.Clock.notBefore(); err != nil || at != ownclock.Built() {
		t.Errorf("%s %v", at, err)
	}
}

func TestRefusedKinds(t *testing.T) {
	for _, c := range []struct{ text, from, to, want string }{
		{sparkplugYAML, `["tcp://127.0.0.1:1883"]`, "[]", "source.sparkplug: mqtt.addresses"},
		{sparkplugYAML, "host_id", "hostid", `did you mean "host_id"`},
		{sparkplugYAML, "host_id: scada", "rebirth_seconds: -1", "rebirth_seconds"},
		{sparkplugYAML, "{tag...}", "{tag", "rule 1"},
		{sparkplugYAML, "2026-03-01", "yesterday", "clock: not_before"},
		{sparkplugYAML, "need_sync: true", "mega_bytes: -1", "clock: mega_bytes"},
		{sparkplugYAML, "source:\n", "source:\n  map: {prefix: plant}\n", "belong to source.mqtt"},
		{sparkplugYAML, "source:\n", "source:\n  mqtt: {addresses: [\"tcp://a:1\"]}\n", "more than one"},
		{filesYAML, "format: csv", "format: xls", "source.files: files: format"},
		{filesYAML, "separator", "separators", `did you mean "separator"`},
	} {
		_, err := Parse("edge.yaml", []byte(strings.Replace(c.text, c.from, c.to, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
