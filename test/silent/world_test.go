package silent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/need"
)

// relayVariable has this binary carry connections instead of testing:
// "FROM>TO". The roles listen on loopback only; what reaches their namespace is
// passed on there.
const relayVariable = "HEADRACE_TEST_RELAY"

func TestMain(m *testing.M) {
	if way, ok := os.LookupEnv(relayVariable); ok {
		from, to, _ := strings.Cut(way, ">")
		if err := relay(from, to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func relay(from, to string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	front, err := net.Listen("tcp", from)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = front.Close() })()
	for {
		in, err := front.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = in.Close() }()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer func() { _ = out.Close() }()
			var both sync.WaitGroup
			both.Go(func() { _, _ = io.Copy(out, in); _ = out.Close(); _ = in.Close() })
			both.Go(func() { _, _ = io.Copy(in, out); _ = out.Close(); _ = in.Close() })
			both.Wait()
		}()
	}
}

// The places, each a namespace of a world; its address is 10.77.N.2 with N from 1.
const (
	edge = iota
	broker
	bridge
	spine // and lake
	places
)

func address(place int) string { return fmt.Sprintf("10.77.%d.2", place+1) }

// world is a router and the places around it.
type world struct {
	t     *testing.T
	name  string
	dir   string
	procs [places]*harness.Proc
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// newWorld makes the namespaces, which go with the test.
func newWorld(t *testing.T, i int) *world {
	t.Helper()
	_, err := exec.LookPath("ip")
	need.Suite(t, "network", err == nil && os.Getuid() == 0, "network namespaces need root and iproute2")
	w := &world{t: t, name: fmt.Sprintf("hr%d-%d", os.Getpid(), i), dir: t.TempDir()}
	add := func(ns string) {
		run(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		run(t, "-n", ns, "link", "set", "lo", "up")
	}
	add(w.ns(places))
	for p := range places {
		ns, gate := w.ns(p), fmt.Sprintf("10.77.%d.1", p+1)
		add(ns)
		inside, outside := fmt.Sprintf("p%d", p), fmt.Sprintf("r%d", p)
		run(t, "link", "add", inside, "netns", ns, "type", "veth", "peer", "name", outside, "netns", w.ns(places))
		run(t, "-n", ns, "addr", "add", address(p)+"/24", "dev", inside)
		run(t, "-n", w.ns(places), "addr", "add", gate+"/24", "dev", outside)
		run(t, "-n", ns, "link", "set", inside, "up")
		run(t, "-n", w.ns(places), "link", "set", outside, "up")
		run(t, "-n", ns, "route", "add", "default", "via", gate)
	}
	run(t, "netns", "exec", w.ns(places), "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return w
}

func (w *world) ns(place int) string { return fmt.Sprintf("%s-%d", w.name, place) }

// silence swallows, or lets through again, what two places send each other.
func (w *world) silence(a, b int, on bool) {
	w.t.Helper()
	verb := "del"
	if on {
		verb = "add"
	}
	run(w.t, "-n", w.ns(places), "rule", verb, "from", address(a), "to", address(b), "blackhole")
	run(w.t, "-n", w.ns(places), "rule", verb, "from", address(b), "to", address(a), "blackhole")
}

// start starts a role's process at its place.
func (w *world) start(bin string, place int, args ...string) {
	w.t.Helper()
	dir := filepath.Join(w.dir, fmt.Sprint(place))
	w.procs[place] = harness.Start(w.t, "ip", dir, nil, append([]string{"netns", "exec", w.ns(place), bin, "run"}, args...)...)
	w.procs[place].Ready(w.t, time.Minute)
}

// listen passes on, at a place, what comes from outside to a port of loopback.
func (w *world) listen(place int, port string) {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	c := exec.Command("ip", "netns", "exec", w.ns(place), self)
	c.Env = append(os.Environ(), relayVariable+"="+address(place)+":"+port+">127.0.0.1:"+port)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
}

// lakeDir is where the tables are.
func (w *world) lakeDir() string { return filepath.Join(w.dir, fmt.Sprint(spine)) }
