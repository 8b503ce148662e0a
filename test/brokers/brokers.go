// Package brokers runs MQTT brokers of others, as processes of their own on
// loopback: Mosquitto, HiveMQ CE and a cluster of three NATS servers. It is for
// tests alone.
package brokers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/need"
)

// Suite is the name of this suite in HEADRACE_REQUIRE.
const Suite = "brokers"

// The user of a broker that asks for one.
const (
	User     = "plant"
	Password = "w3-kept=secret"
)

// Brokers are one broker, or the nodes of a cluster.
type Brokers struct {
	Nodes  []*harness.Server
	scheme string
	flags  []string
}

// Flags are those that let a Headrace process use the brokers.
func (b *Brokers) Flags() []string {
	var addresses []string
	for _, n := range b.Nodes {
		addresses = append(addresses, b.scheme+n.Addr())
	}
	return append([]string{"--mqtt", strings.Join(addresses, ",")}, b.flags...)
}

// Mosquitto starts one; secure asks for TLS and a password.
func Mosquitto(t testing.TB, secure bool) *Brokers {
	t.Helper()
	program := find(t, "mosquitto", "sudo apt-get install mosquitto")
	dir := t.TempDir()
	addr := harness.FreePorts(t, 1)[0]
	host, port, _ := strings.Cut(addr, ":")
	conf := []string{
		"listener " + port + " " + host, "persistence true", "persistence_location " + dir + "/", "autosave_interval 1",
		"log_dest stderr", "log_type error", "log_type warning",
		// Its default drops what a busy subscriber has not taken, without a word.
		"max_queued_messages 0", "max_inflight_messages 0",
	}
	b := &Brokers{scheme: "tcp://"}
	if secure {
		certs := harness.NewCertificates(t, dir)
		users := filepath.Join(dir, "users")
		write(t, users, "")
		if out, err := exec.CommandContext(t.Context(), find(t, "mosquitto_passwd", "sudo apt-get install mosquitto"), "-b", users, User, Password).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v\n%s", err, out)
		}
		password := filepath.Join(dir, "password")
		write(t, password, Password+"\n")
		conf = append(conf, "allow_anonymous false", "password_file "+users,
			"cafile "+certs.CA, "certfile "+certs.Cert, "keyfile "+certs.Key)
		b.scheme = "ssl://"
		b.flags = []string{"--mqtt-ca", certs.CA, "--mqtt-user", User, "--mqtt-password-file", password}
	} else {
		conf = append(conf, "allow_anonymous true")
	}
	if os.Getuid() == 0 {
		conf = append(conf, "user root") // else it changes to a user who may not read the folder
	}
	file := filepath.Join(dir, "mosquitto.conf")
	write(t, file, strings.Join(conf, "\n")+"\n")
	b.Nodes = []*harness.Server{harness.StartServer(t, dir, addr, program, "-c", file)}
	return b
}

// HiveMQ starts a HiveMQ CE.
func HiveMQ(t testing.TB) *Brokers {
	t.Helper()
	jars := harness.Jars(t, Suite, "brokers")
	dir := t.TempDir()
	addr := harness.FreePorts(t, 1)[0]
	host, port, _ := strings.Cut(addr, ":")
	var folders []string
	for _, name := range []string{"conf", "data", "extensions"} {
		folders = append(folders, filepath.Join(dir, name))
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "conf", "config.xml"), fmt.Sprintf(`<?xml version="1.0"?>
<hivemq>
  <listeners><tcp-listener><port>%s</port><bind-address>%s</bind-address></tcp-listener></listeners>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
`, port, host))
	args := append([]string{
		"-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(jars, "*"),
		filepath.Join(harness.Root(t), "test", "brokers", "HiveMQ.java"),
	}, folders...)
	return &Brokers{Nodes: []*harness.Server{harness.StartServer(t, dir, addr, "java", args...)}, scheme: "tcp://"}
}

// Cluster starts three NATS servers of the module that go.mod names: each
// takes any client, and what one of them has stored two of them have.
func Cluster(t testing.TB) *Brokers {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "nats-server")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/nats-io/nats-server/v2")
	build.Dir = harness.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building nats-server: %v\n%s", err, out)
	}
	const nodes = 3
	ports := harness.FreePorts(t, 3*nodes)
	var routes []string
	for i := range nodes {
		routes = append(routes, fmt.Sprintf("%q", "nats://"+ports[3*i]))
	}
	b := &Brokers{scheme: "tcp://"}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		home := filepath.Join(dir, name)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(home, "nats.conf")
		write(t, file, fmt.Sprintf(`server_name: %s
listen: %q
max_payload: 8388608
cluster { name: plant, listen: %q, routes: [%s] }
jetstream { store_dir: %q, max_memory_store: 67108864, max_file_store: 1073741824, sync_interval: "200ms" }
mqtt { listen: %q, ack_wait: "24h", max_ack_pending: 16384 }
`, name, ports[3*i+1], ports[3*i], strings.Join(routes, ", "), home, ports[3*i+2]))
		b.Nodes = append(b.Nodes, harness.LaunchServer(t, home, ports[3*i+2], program, "-c", file))
	}
	for _, n := range b.Nodes {
		n.Await(t)
	}
	return b
}

// find looks for a program, also where Debian keeps servers.
func find(t testing.TB, name, remedy string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if file, err := exec.LookPath(candidate); err == nil {
			return file
		}
	}
	need.Suite(t, Suite, false, name+" is missing: "+remedy)
	return ""
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
