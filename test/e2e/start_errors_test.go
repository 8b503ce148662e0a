package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
)

// tree is every file below dir with a sum of its content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, file)
		if d.IsDir() {
			fmt.Fprintf(&b, "%s/\n", rel)
			return nil
		}
		content, err := os.ReadFile(file)
		fmt.Fprintf(&b, "%s %x\n", rel, sha256.Sum256(content))
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, file, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// refused runs a start that cannot succeed: exit 2 and one line that names the
// cause and the remedy.
func refused(t *testing.T, bin string, args []string, want ...string) {
	t.Helper()
	r := harness.Run(t, bin, args...)
	if r.Code != 2 {
		t.Errorf("exit %d, want 2", r.Code)
	}
	if r.Stdout != "" {
		t.Errorf("standard output: %q, want nothing", r.Stdout)
	}
	if strings.Count(r.Stderr, "\n") != 1 || !strings.HasSuffix(r.Stderr, "\n") {
		t.Errorf("standard error is not one line:\n%s", r.Stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("standard error lacks %q:\n%s", w, r.Stderr)
		}
	}
	t.Logf("%s", bytes.TrimSpace([]byte(r.Stderr)))
}

// with is `up` on loopback with free ports, and more flags, which win.
func with(dir string, more ...string) []string {
	args := append([]string{"up", "--dir", dir}, harness.Loopback()...)
	return append(args, more...)
}

func TestStartsThatCannotSucceed(t *testing.T) {
	bin := harness.Binary(t)
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	port := occupied.Addr().String()

	recordings := t.TempDir()
	harness.Generate(t, recordings, harness.Generated{Seed: 1, Files: []string{"line/pump"}, Rows: 5})

	for _, flag := range []string{"--listen-mqtt", "--listen-kafka", "--listen-http"} {
		t.Run("port in use "+flag, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			args := []string{"up", "--dir", dir, flag, port}
			for _, other := range []string{"--listen-mqtt", "--listen-kafka", "--listen-http"} {
				if other != flag {
					args = append(args, other, "127.0.0.1:0")
				}
			}
			refused(t, bin, args, port, "in use", flag)
		})
	}
	t.Run("address of another machine", func(t *testing.T) {
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--listen-http", "192.0.2.1:8080"), "192.0.2.1:8080", "--listen-http")
	})
	t.Run("directory not ours", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "thesis.txt"), "do not touch")
		before := tree(t, dir)
		refused(t, bin, with(dir), dir, "thesis.txt", "--dir")
		harness.SameText(t, "the directory", tree(t, dir), before)
	})
	t.Run("directory is a file", func(t *testing.T) {
		file := write(t, filepath.Join(t.TempDir(), "file"), "do not touch")
		refused(t, bin, with(file), file, "--dir")
	})
	t.Run("newer version", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "headrace.json"), `{"format": 99, "version": "9.1.0"}`)
		write(t, filepath.Join(dir, "lake", "x"), "x")
		before := tree(t, dir)
		refused(t, bin, with(dir), dir, "9.1.0", "run that version or a newer one")
		harness.SameText(t, "the directory", tree(t, dir), before)
	})
	t.Run("marker damaged", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "headrace.json"), `{"format":`)
		before := tree(t, dir)
		refused(t, bin, with(dir), "headrace.json", "--dir")
		harness.SameText(t, "the directory", tree(t, dir), before)
	})
	t.Run("unknown key", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		file := write(t, filepath.Join(t.TempDir(), "plant.yaml"), "speed: max\nlisten:\n  http: 127.0.0.1:0\n  kafak: 127.0.0.1:0\n")
		refused(t, bin, with(dir, "--config", file), file+":4:3", `"kafak"`, `did you mean "kafka"?`)
		harness.SameText(t, "the directory", tree(t, dir), "")
	})
	t.Run("broken YAML", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		file := write(t, filepath.Join(t.TempDir(), "plant.yaml"), "speed: max\nlisten: [\n  http: 127.0.0.1:0\n")
		refused(t, bin, with(dir, "--config", file), file+":")
		harness.SameText(t, "the directory", tree(t, dir), "")
	})
	t.Run("value of the wrong kind", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		file := write(t, filepath.Join(t.TempDir(), "plant.yaml"), "filters: none\nlisten: everything\n")
		refused(t, bin, with(dir, "--config", file), file+":2:9")
		harness.SameText(t, "the directory", tree(t, dir), "")
	})
	t.Run("no configuration file", func(t *testing.T) {
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--config", filepath.Join(t.TempDir(), "plant.yaml")), "plant.yaml")
	})
	t.Run("full disk", func(t *testing.T) {
		disk := harness.Tmpfs(t, 8)
		dir := filepath.Join(disk, "data")
		refused(t, bin, with(dir), dir, "MiB free", "--dir")
		harness.SameText(t, "the disk", tree(t, disk), "./\n")
	})
	t.Run("no recordings there", func(t *testing.T) {
		missing := filepath.Join(t.TempDir(), "nowhere")
		dir := filepath.Join(t.TempDir(), "data")
		refused(t, bin, with(dir, "--replay", "skab:"+missing), missing, "--replay")
	})
	t.Run("folder without recordings", func(t *testing.T) {
		empty := t.TempDir()
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--replay", "skab:"+empty), empty)
	})
	t.Run("unknown form of recordings", func(t *testing.T) {
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--replay", "scab:"+recordings), "scab", "skab")
	})
	t.Run("wrong speed", func(t *testing.T) {
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--speed", "fast"), "fast", "max")
	})
	t.Run("unknown role", func(t *testing.T) {
		refused(t, bin, []string{"run", "--roles", "broker,spin", "--dir", filepath.Join(t.TempDir(), "data")}, `"spin"`, `"spine"`)
	})
	t.Run("role without its broker", func(t *testing.T) {
		refused(t, bin, []string{"run", "--roles", "lake", "--dir", filepath.Join(t.TempDir(), "data")}, "--kafka")
	})
	t.Run("unknown flag", func(t *testing.T) {
		refused(t, bin, with(filepath.Join(t.TempDir(), "data"), "--sped", "1"), "--sped")
	})
}

// A start that fails leaves a folder of ours as it was, and a folder is used
// by one process at a time.
func TestRefusedStartLeavesDataAlone(t *testing.T) {
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	harness.Generate(t, recordings, harness.Generated{Seed: 5, Files: []string{"valve1/0"}, Rows: 60})
	drain(t, bin, dir, recordings)

	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	port := occupied.Addr().String()
	for _, flag := range []string{"--listen-mqtt", "--listen-kafka", "--listen-http"} {
		args := []string{"up", "--dir", dir, flag, port}
		for _, other := range []string{"--listen-mqtt", "--listen-kafka", "--listen-http"} {
			if other != flag {
				args = append(args, other, "127.0.0.1:0")
			}
		}
		refused(t, bin, args, port, flag)
	}
	harness.Verify(t, bin, dir)

	p := harness.Start(t, bin, dir, nil, append([]string{"up"}, harness.Loopback()...)...)
	p.Ready(t, 20*time.Second)
	refused(t, bin, with(dir), dir, fmt.Sprintf("process %d", p.Cmd.Process.Pid), "--dir")
	harness.Verify(t, bin, dir) // a ledger can be proved while it runs
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), nil)
}
