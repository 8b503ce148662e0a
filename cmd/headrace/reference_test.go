package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/cmd/internal/verb"
)

var update = flag.Bool("update", false, "write docs/reference anew")

func model(t *testing.T) *kong.Application {
	t.Helper()
	p, err := newParser()
	if err != nil {
		t.Fatal(err)
	}
	return p.Model
}

// golden compares a page of docs/reference with what the code says.
func golden(t *testing.T, name, want string) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", "reference", name)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("%s is stale; write it anew with: go test ./cmd/headrace -run Reference -update\n%s", file, diff)
	}
}

// cell makes a text fit for a table of Markdown.
func cell(s string) string { return strings.ReplaceAll(strings.TrimSuffix(s, "."), "|", `\|`) }

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func TestReferenceOfTheCommandLine(t *testing.T) {
	app := model(t)
	var b strings.Builder
	b.WriteString("# The command line\n\nGenerated from `cmd/headrace`. Every verb takes `--help`.\n\n" +
		"| exit code | |\n| --- | --- |\n" +
		fmt.Sprintf("| %d | done |\n| %d | done, and something was found wrong |\n| %d | wrong use, or it cannot start; one line on standard error says why and what helps |\n", verb.Done, verb.Found, verb.Usage))
	for _, verb := range app.Leaves(true) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", strings.TrimSpace(verb.FullPath()), verb.Help)
		if len(verb.Positional) > 0 {
			b.WriteString("| argument | meaning |\n| --- | --- |\n")
			for _, a := range verb.Positional {
				fmt.Fprintf(&b, "| %s | %s |\n", code(a.Summary()), cell(a.Help))
			}
			b.WriteString("\n")
		}
		b.WriteString("| flag | default | meaning |\n| --- | --- | --- |\n")
		for _, f := range verb.Flags {
			name := "--" + f.Name
			if f.Short != 0 {
				name = fmt.Sprintf("-%c, %s", f.Short, name)
			}
			if !f.IsBool() && f.PlaceHolder != "" {
				name += "=" + f.PlaceHolder
			}
			def := code(f.Default)
			if f.Required {
				def = "must be given"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", code(name), def, cell(f.Help))
		}
		if verb.Detail != "" {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", strings.TrimSpace(verb.Detail))
		}
	}
	golden(t, "cli.md", b.String())
}

func TestReferenceOfTheConfiguration(t *testing.T) {
	flags := map[string]*kong.Flag{}
	verbs := map[string][]string{}
	for _, verb := range model(t).Leaves(true) {
		for _, f := range verb.Flags {
			if verb.Name == "up" || verb.Name == "run" {
				flags[f.Name] = f
				verbs[f.Name] = append(verbs[f.Name], verb.Name)
			}
		}
	}
	var b strings.Builder
	b.WriteString(`# The configuration file

Generated from ` + "`cmd/headrace`" + `. YAML, named by ` + "`--config`" + ` of ` + "`headrace up` and `headrace run`" + `. A flag wins over the file, the file over the default. An unknown
key is an error that names its line and its nearest neighbour; a key that the verb has no flag for is left aside. Paths count from the folder
in which the process is started. What has no key here is a flag only; see [cli.md](cli.md).

` + "```yaml" + `
dir: /var/lib/headrace
roles: [broker, bridge, spine, lake, http]
listen:
  mqtt: 127.0.0.1:1883
  http: 127.0.0.1:8080
` + "```" + `

| key | value | default | verbs | meaning |
| --- | --- | --- | --- | --- |
`)
	var walk func(of reflect.Type, prefix string)
	walk = func(of reflect.Type, prefix string) {
		for field := range of.Fields() {
			key := prefix + field.Tag.Get("yaml")
			if field.Type.Kind() == reflect.Struct {
				walk(field.Type, key+".")
				continue
			}
			name := strings.NewReplacer(".", "-", "_", "-").Replace(key)
			f := flags[name]
			if f == nil {
				t.Errorf("key %s has no flag --%s", key, name)
				continue
			}
			value := "text"
			if field.Type.Kind() == reflect.Slice {
				value = "list"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", key, value, code(f.Default), strings.Join(verbs[name], ", "), cell(f.Help))
		}
	}
	walk(reflect.TypeFor[fileConfig](), "")
	golden(t, "configuration.md", b.String())
}

// What a key is set to reaches its flag.
func TestEveryKeyReachesItsFlag(t *testing.T) {
	resolver, err := loadConfig(strings.NewReader(`{dir: a, roles: [b, c], replay: d, speed: e, filters: f,
listen: {mqtt: g, kafka: h, http: i}, advertise_kafka: j, mqtt: [k, l], kafka: [m], bridge_group: n,
listen_mqtt_users: w0, listen_mqtt_cert: w1, listen_mqtt_key: w2, listen_mqtt_ca: w3,
kafka_tls: v0, kafka_ca: v1, kafka_cert: v2, kafka_key: v3, kafka_sasl: v4, kafka_user: v5, kafka_password_file: v6, mqtt_ca: v7, mqtt_cert: v8, mqtt_key: v9, mqtt_user: v10, mqtt_password_file: v11, trim_kafka: v12}`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, verb := range model(t).Leaves(true) {
		for _, f := range verb.Flags {
			if v, err := resolver.Resolve(nil, nil, f); err != nil {
				t.Error(err)
			} else if v != nil {
				got[f.Name] = v
			}
		}
	}
	want := map[string]any{
		"dir": "a", "roles": "b,c", "replay": "d", "speed": "e", "filters": "f", "listen-mqtt": "g", "listen-kafka": "h",
		"listen-http": "i", "advertise-kafka": "j", "mqtt": "k,l", "kafka": "m", "bridge-group": "n",
		"listen-mqtt-users":   "w0",
		"listen-mqtt-cert":    "w1",
		"listen-mqtt-key":     "w2",
		"listen-mqtt-ca":      "w3",
		"kafka-tls":           "v0",
		"kafka-ca":            "v1",
		"kafka-cert":          "v2",
		"kafka-key":           "v3",
		"kafka-sasl":          "v4",
		"kafka-user":          "v5",
		"kafka-password-file": "v6",
		"mqtt-ca":             "v7",
		"mqtt-cert":           "v8",
		"mqtt-key":            "v9",
		"mqtt-user":           "v10",
		"mqtt-password-file":  "v11",
		"trim-kafka":          "v12",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
