// Package kafka runs Apache Kafka, from the jars that scripts/jars.sh resolves,
// as brokers of their own processes on loopback. It is for tests alone.
package kafka

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/headrace/headrace/test/harness"
)

// Suite is the name of this suite in HEADRACE_REQUIRE.
const Suite = "kafka"

// The user of a secure cluster.
const (
	User     = "headrace"
	Password = "a7-Qx kept=secret"
)

// Options say what cluster.
type Options struct {
	Brokers int  // 0 is 1
	Secure  bool // clients need TLS, and SASL or a certificate
}

// Cluster is a running cluster: each node is broker and controller.
type Cluster struct {
	Certificates harness.Certificates // of a secure one
	secure       bool
	jars         string
	nodes        []*node
}

type node struct {
	id                                int
	dir                               string
	client, mutual, inner, controller string // host:port
	server                            *harness.Server
}

// Start starts a cluster; it ends with the test. Without Java or the jars the
// suite cannot run.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{secure: o.Secure, jars: harness.Jars(t, Suite, "kafka")}
	dir := t.TempDir()
	if o.Secure {
		c.Certificates = harness.NewCertificates(t, dir)
	}
	ports := harness.FreePorts(t, 4*max(o.Brokers, 1))
	for i := range max(o.Brokers, 1) {
		n := &node{id: i + 1, dir: filepath.Join(dir, fmt.Sprint(i+1))}
		n.client, n.mutual, n.inner, n.controller = ports[4*i], ports[4*i+1], ports[4*i+2], ports[4*i+3]
		c.nodes = append(c.nodes, n)
	}
	var formatted sync.WaitGroup
	failed := make([]error, len(c.nodes))
	for i, n := range c.nodes {
		c.configure(t, n)
		formatted.Go(func() { failed[i] = c.format(t.Context(), n) })
	}
	formatted.Wait()
	for _, err := range failed {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		n.server = harness.LaunchServer(t, n.dir, n.client, "java", c.java(n, "kafka.Kafka", filepath.Join(n.dir, "server.properties"))...)
	}
	for _, n := range c.nodes {
		n.server.Await(t)
	}
	return c
}

// Addresses are those that clients dial.
func (c *Cluster) Addresses() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.client)
	}
	return out
}

// Mutual is the address of a secure cluster that wants a certificate instead
// of a password.
func (c *Cluster) Mutual() string { return c.nodes[0].mutual }

// PasswordFile holds the password of User.
func (c *Cluster) PasswordFile() string { return filepath.Join(c.nodes[0].dir, "password") }

// Flags are those that let a Headrace process use the cluster.
func (c *Cluster) Flags() []string {
	flags := []string{"--kafka", strings.Join(c.Addresses(), ",")}
	if c.secure {
		flags = append(flags, "--kafka-ca", c.Certificates.CA, "--kafka-sasl", "SCRAM-SHA-512", "--kafka-user", User, "--kafka-password-file", c.PasswordFile())
	}
	return flags
}

// Kill ends a broker as a power cut would.
func (c *Cluster) Kill(i int) { c.nodes[i].server.Kill() }

// Restart starts a killed broker again, where it was.
func (c *Cluster) Restart(t testing.TB, i int) {
	t.Helper()
	c.nodes[i].server.Restart(t)
}

func (c *Cluster) configure(t testing.TB, n *node) {
	t.Helper()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var voters []string
	for _, v := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, v.controller))
	}
	replicas := len(c.nodes)
	lines := []string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", n.id),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=INNER",
		"log.dirs=" + filepath.Join(n.dir, "data"),
		"auto.create.topics.enable=false",
		fmt.Sprintf("default.replication.factor=%d", replicas),
		fmt.Sprintf("min.insync.replicas=%d", max(replicas-1, 1)),
		fmt.Sprintf("offsets.topic.replication.factor=%d", replicas),
		"offsets.topic.num.partitions=1",
		"transaction.state.log.num.partitions=1",
		fmt.Sprintf("transaction.state.log.replication.factor=%d", replicas),
		fmt.Sprintf("transaction.state.log.min.isr=%d", max(replicas-1, 1)),
		"share.coordinator.state.topic.num.partitions=1",
		fmt.Sprintf("share.coordinator.state.topic.replication.factor=%d", replicas),
		"share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"num.network.threads=2", "num.io.threads=4", "background.threads=2",
		"log.cleaner.threads=1", "log.cleaner.dedupe.buffer.size=16777216",
		// What retention would do in a week it does in a second.
		"log.retention.check.interval.ms=1000",
		// A dead broker is noticed within seconds.
		"broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500", "replica.lag.time.max.ms=5000",
	}
	listeners := []string{"CLIENT://" + n.client, "INNER://" + n.inner}
	protocol := "CLIENT:PLAINTEXT"
	if c.secure {
		listeners = append(listeners, "MUTUAL://"+n.mutual)
		protocol = "CLIENT:SASL_SSL,MUTUAL:SSL"
		lines = append(lines, c.security(t, n)...)
	}
	lines = append(lines,
		"listeners="+strings.Join(append(listeners, "CONTROLLER://"+n.controller), ","),
		"advertised.listeners="+strings.Join(listeners, ","),
		"listener.security.protocol.map="+protocol+",INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
	)
	n.write(t, "server.properties", strings.Join(lines, "\n")+"\n")
	n.write(t, "password", Password+"\n")
	n.write(t, "log4j2.properties", `status=error
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.c.ref=c
`)
}

// security are the settings of the listeners that clients may use.
func (c *Cluster) security(t testing.TB, n *node) []string {
	t.Helper()
	cert, err := os.ReadFile(c.Certificates.Cert)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(c.Certificates.Key)
	if err != nil {
		t.Fatal(err)
	}
	store := n.write(t, "server.pem", string(key)+string(cert))
	scram := "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	return []string{
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + store,
		"ssl.truststore.type=PEM", "ssl.truststore.location=" + c.Certificates.CA,
		"listener.name.mutual.ssl.client.auth=required",
		"listener.name.client.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		fmt.Sprintf("listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q;", User, Password),
		"listener.name.client.scram-sha-256.sasl.jaas.config=" + scram,
		"listener.name.client.scram-sha-512.sasl.jaas.config=" + scram,
	}
}

func (n *node) write(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(n.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// clusterID is any UUID in Kafka's spelling.
const clusterID = "aGVhZHJhY2UtdGVzdHMtMA"

// java are the arguments of a JVM of a node.
func (c *Cluster) java(n *node, args ...string) []string {
	return append([]string{
		"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xss512k",
		"-Dlog4j2.configurationFile=" + filepath.Join(n.dir, "log4j2.properties"), "-cp", filepath.Join(c.jars, "*"),
	}, args...)
}

func (c *Cluster) format(ctx context.Context, n *node) error {
	args := []string{"kafka.tools.StorageTool", "format", "-t", clusterID, "-c", filepath.Join(n.dir, "server.properties")}
	if c.secure {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%q]", mechanism, User, Password))
		}
	}
	cmd := exec.CommandContext(ctx, "java", c.java(n, args...)...)
	cmd.Dir = n.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("formatting Kafka %d: %w\n%s", n.id, err, out)
	}
	return nil
}
