package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/cmd/internal/verb"
)

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestHelpShowsAnExample(t *testing.T) {
	for _, name := range []string{"up", "run", "ledger verify", "sql", "doctor", "version"} {
		code, out, _ := call(t, append(strings.Fields(name), "--help")...)
		if code != verb.Done || !strings.Contains(out, "Example") || !strings.Contains(out, "headrace "+name) {
			t.Errorf("headrace %s --help: exit %d\n%s", name, code, out)
		}
	}
	if code, out, _ := call(t); code != verb.Done || !strings.Contains(out, "ledger") {
		t.Errorf("headrace: exit %d\n%s", code, out)
	}
}

func TestWrongUseIsOneLineAndExitTwo(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "headrace.yaml")
	if err := os.WriteFile(config, []byte("dir: "+dir+"\nspeeed: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("users: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upp"}, "upp"},
		{[]string{"up", "--sped", "3"}, "--sped"},
		{[]string{"up", "--speed=-1", "--dir", dir}, "--speed -1"},
		{[]string{"up", "--speed", "NaN", "--dir", dir}, "--speed NaN"},
		{[]string{"up", "--filters", "some"}, "--filters"},
		{[]string{"up", "--until-drained", "--dir", dir}, "--replay skab:DIR"},
		{[]string{"up", "--replay", "cwru", "--dir", dir}, "cwru"},
		{[]string{"up", "--config", config}, `headrace.yaml:2:1: unknown key "speeed"; did you mean "speed"?`},
		{[]string{"up", "--config", filepath.Join(dir, "none.yaml")}, "none.yaml"},
		{[]string{"run", "--roles", "lake", "--kafka", "127.0.0.1:1", "--kafka-user", "u", "--kafka-password-file", secret, "--dir", filepath.Join(dir, "d")}, "needs --kafka-sasl"},
		{[]string{"run", "--roles", "lake", "--kafka", "127.0.0.1:1", "--kafka-sasl", "PLAIN", "--kafka-user", "u", "--kafka-password-file", secret, "--dir", filepath.Join(dir, "d")}, "readable"},
		{[]string{"run", "--roles", "lake", "--kafka", "127.0.0.1:1", "--kafka-sasl", "SCRAM-SHA-512", "--dir", filepath.Join(dir, "d")}, "needs --kafka-user"},
		{[]string{"run", "--roles", "lake", "--kafka", "127.0.0.1:1", "--kafka-ca", secret, "--dir", filepath.Join(dir, "d")}, "holds none in PEM"},
		{[]string{"run", "--roles", "spine", "--kafka-tls", "--dir", filepath.Join(dir, "d")}, "--kafka HOST:PORT"},
		{[]string{"run", "--roles", "edge", "--mqtt-user", "u", "--dir", filepath.Join(dir, "d")}, "--mqtt ssl://HOST:PORT"},
		{[]string{"run", "--roles", "bridge", "--kafka", "a:1", "--mqtt", "tcp://10.0.0.1:1883", "--mqtt-user", "u", "--mqtt-password-file", secret, "--dir", filepath.Join(dir, "d")}, "readable"},
		{[]string{"up", "--listen-mqtt-users", secret, "--dir", filepath.Join(dir, "d")}, secret},
		{[]string{"up", "--listen-mqtt-cert", secret, "--dir", filepath.Join(dir, "d")}, "belong together"},
		{[]string{"spine", "status", "--dir", filepath.Join(dir, "d")}, "not a Headrace data directory"},
		{[]string{"spine", "tail", "--asset", "a", "--from", "x", "--dir", filepath.Join(dir, "d")}, "--from x"},
		{[]string{"deadletter", "retry", "--dir", filepath.Join(dir, "d")}, "--all"},
		{[]string{"up", "--listen-http", "0.0.0.0:0", "--listen-mqtt", "127.0.0.1:0", "--listen-kafka", "127.0.0.1:0", "--dir", filepath.Join(dir, "d")}, "beyond loopback"},
		{[]string{"run", "--roles", "brdge", "--dir", dir}, `did you mean "bridge"?`},
		{[]string{"run", "--roles", "bridge", "--dir", dir}, "--mqtt tcp://HOST:PORT"},
		{[]string{"run", "--roles", "lake", "--dir", dir}, "--kafka HOST:PORT"},
		{[]string{"ledger", "verify", "--dir", dir}, "--dir"},
		{[]string{"sql", "SELECT 1", "--dir", dir}, "--dir"},
	} {
		code, out, errs := call(t, c.args...)
		if code != verb.Usage || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("headrace %s: exit %d, stderr %q, want one line with %q\n%s", strings.Join(c.args, " "), code, errs, c.want, out)
		}
	}
}

func TestVersionAsJSON(t *testing.T) {
	code, out, _ := call(t, "version", "--output", "json")
	var v struct{ Version, Go string }
	if err := json.Unmarshal([]byte(out), &v); code != verb.Done || err != nil || v.Version != version || v.Go == "" {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
}

func TestDoctor(t *testing.T) {
	free := []string{"--listen-mqtt", "127.0.0.1:0", "--listen-kafka", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"}
	code, out, errs := call(t, append([]string{"doctor", "--output", "json", "--dir", t.TempDir()}, free...)...)
	var v struct {
		OK     bool
		Checks []finding
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || code == verb.Usage || v.OK != (code == verb.Done) {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	seen := map[string]finding{}
	for _, f := range v.Checks {
		seen[f.Check] = f
		if !f.OK && f.Remedy == "" {
			t.Errorf("%s is bad and has no remedy", f.Check)
		}
	}
	for _, name := range []string{"port mqtt", "port kafka", "port http", "directory", "disk", "disk sync", "clock", "open files"} {
		if _, ok := seen[name]; !ok {
			t.Errorf("no check %q", name)
		}
	}

	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ = call(t, append([]string{"doctor", "--dir", foreign}, free...)...)
	if code != verb.Found || !strings.Contains(out, "BAD  directory") {
		t.Errorf("foreign directory: exit %d\n%s", code, out)
	}
}
