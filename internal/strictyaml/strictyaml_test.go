package strictyaml_test

import (
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/strictyaml"
)

type config struct {
	Dir    string `yaml:"dir"`
	Listen struct {
		MQTT string `yaml:"mqtt"`
		HTTP string `yaml:"http"`
	} `yaml:"listen"`
	Kafka []string `yaml:"kafka"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", "dir: x\nlisten: {mqtt: ':1'}\nkafka: [a]\n", ""},
		{"empty", "", ""},
		{"comment only", "# nothing\n", ""},
		{"unknown", "dir: x\nlistn:\n  mqtt: a\n", `c.yaml:2:1: unknown key "listn"; did you mean "listen"?`},
		{"unknown inside", "listen:\n  htpt: a\n", `c.yaml:2:3: unknown key "htpt"; did you mean "http"?`},
		{"far away", "zzzzzzzz: 1\n", `c.yaml:1:1: unknown key "zzzzzzzz"`},
		{"broken", "dir: [x\n", "c.yaml:1:"},
		{"wrong type", "kafka: {a: b}\n", "c.yaml:1:"},
		{"tab", "\tdir: x\n", "c.yaml:1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v config
			err := strictyaml.Decode("c.yaml", []byte(c.in), &v)
			if c.want == "" {
				if err != nil {
					t.Errorf("Decode: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Decode: %v, want one line with %q", err, c.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("dir: x\nlisten: {mqtt: ':1'}\n"))
	f.Add([]byte("listn: ["))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		var v config
		if err := strictyaml.Decode("f", b, &v); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}
