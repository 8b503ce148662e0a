package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/spine/log"
)

func options(dir string) log.Options {
	return log.Options{Listen: "127.0.0.1:0", Dir: dir, Partitions: map[string]int{"t": 2}}
}

func start(t *testing.T, opts log.Options) *log.Log {
	t.Helper()
	l, err := log.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func client(l *log.Log) kafkac.Config { return kafkac.Config{Brokers: []string{l.Addr()}} }

func producer(t *testing.T, cfg kafkac.Config) *kafkac.Producer {
	t.Helper()
	p, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: cfg, MaxMessageBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// put writes one record and waits for its offset.
func put(t *testing.T, p *kafkac.Producer, key, value string) int64 {
	t.Helper()
	type result struct {
		offset int64
		err    error
	}
	done := make(chan result, 1)
	err := p.Produce(t.Context(), kafkac.Record{Topic: "t", Key: []byte(key), Value: []byte(value)}, func(_ int32, offset int64, err error) {
		done <- result{offset, err}
	})
	if err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.offset
}

func all(t *testing.T, l *log.Log) []string {
	t.Helper()
	bounds, err := l.Bounds()
	if err != nil {
		t.Fatal(err)
	}
	var ranges []kafkac.Range
	for tp, b := range bounds {
		ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: b.Start, End: b.End})
	}
	var out []string
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := kafkac.Read(ctx, client(l), ranges, func(r kafkac.Record) error {
		out = append(out, string(r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func counter(l *log.Log, name string) int64 {
	for _, c := range l.Counters() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("did not happen within 20 s: %s", what)
		}
	}
}

func TestRestartKeepsRecordsAndTopicIDs(t *testing.T) {
	dir := t.TempDir()
	ids := func(l *log.Log) map[string]string {
		adm, err := kafkac.NewAdmin(client(l))
		if err != nil {
			t.Fatal(err)
		}
		defer adm.Close()
		ids, err := adm.TopicIDs(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	l := start(t, options(dir))
	want := ids(l)
	p := producer(t, client(l))
	for i := range 3 {
		if got := put(t, p, "k", fmt.Sprint(i)); got != int64(i) {
			t.Errorf("offset %d, want %d", got, i)
		}
	}
	l.Close()
	l = start(t, options(dir))
	if d := cmp.Diff(want, ids(l)); d != "" {
		t.Errorf("topic ids changed over the restart:\n%s", d)
	}
	if d := cmp.Diff([]string{"0", "1", "2"}, all(t, l)); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if got := put(t, producer(t, client(l)), "k", "3"); got != 3 {
		t.Errorf("offset %d after the restart, want 3", got)
	}
	l.Close()

	opts := options(dir)
	opts.Partitions = map[string]int{"t": 3}
	if l, err := log.Start(opts); err == nil {
		l.Close()
		t.Error("another number of partitions was accepted")
	} else if !strings.Contains(err.Error(), "configure 2") {
		t.Errorf("the error names no remedy: %v", err)
	}
	opts.Partitions = map[string]int{"t": 2, "later": 4}
	start(t, opts)
}

func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	opts := options(t.TempDir())
	opts.Listen = taken.Addr().String()
	if _, err := log.Start(opts); err == nil || !strings.Contains(err.Error(), "--listen-kafka") {
		t.Errorf("port in use: %v", err)
	}
	opts = options(t.TempDir())
	opts.Free = func(string) (uint64, error) { return 1 << 20, nil }
	var full *log.DiskFullError
	if _, err := log.Start(opts); !errors.As(err, &full) {
		t.Errorf("full disk: %v", err)
	}
}

// Below the floor nothing is taken, nothing is lost, and intake goes on by
// itself.
func TestFloorStopsIntake(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	opts := options(t.TempDir())
	opts.Free = func(string) (uint64, error) { return free.Load(), nil }
	l := start(t, opts)
	p := producer(t, client(l))
	put(t, p, "k", "before")
	free.Store(1)
	acked := make(chan struct{})
	if err := p.Produce(t.Context(), kafkac.Record{Topic: "t", Key: []byte("k"), Value: []byte("after")}, func(_ int32, _ int64, err error) {
		if err != nil {
			t.Error(err)
		}
		close(acked)
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "produce requests are refused", func() bool { return counter(l, "refused") >= 3 })
	select {
	case <-acked:
		t.Error("a record was acknowledged below the floor")
	default:
	}
	if counter(l, "intake_stopped_now") != 1 {
		t.Error("the counters do not show that intake has stopped")
	}
	free.Store(1 << 40)
	<-acked
	if d := cmp.Diff([]string{"before", "after"}, all(t, l)); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
}

// After a write that failed, the cluster would take the next batch for a
// repeat of the failed one and acknowledge it without writing it.
func TestFailedWriteNeverAcknowledges(t *testing.T) {
	dir := t.TempDir()
	opts := options(dir)
	opts.Partitions = map[string]int{"t": 1}
	l := start(t, opts)
	// A file where the partition's directory is to be.
	obstacle := filepath.Join(dir, "partitions", "t-0")
	if err := os.MkdirAll(filepath.Dir(obstacle), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := producer(t, client(l))
	results := make(chan string, 2)
	send := func(value string) {
		t.Helper()
		if err := p.Produce(t.Context(), kafkac.Record{Topic: "t", Value: []byte(value)}, func(_ int32, offset int64, err error) {
			results <- fmt.Sprintf("%s: offset %d, failed %t", value, offset, err != nil)
		}); err != nil {
			t.Fatal(err)
		}
	}
	send("first")
	if got := <-results; !strings.HasSuffix(got, "failed true") {
		t.Fatalf("a write that failed was acknowledged: %s", got)
	}
	send("other")
	eventually(t, "the next record is refused", func() bool { return counter(l, "refused") > 0 || counter(l, "reopened") > 0 })
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if got, want := <-results, "other: offset 0, failed false"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if d := cmp.Diff([]string{"other"}, all(t, l)); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if counter(l, "write_failures") == 0 || counter(l, "reopened") == 0 {
		t.Errorf("counters %v", l.Counters())
	}
}

func TestTrimKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	opts := options(dir)
	opts.Partitions = map[string]int{"t": 1}
	l := start(t, opts)
	p := producer(t, client(l))
	noise := make([]byte, 6<<20) // three batches fill a segment
	for i := range 8 {
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		put(t, p, "k", string(noise))
	}
	tp := kafkac.TopicPartition{Topic: "t", Partition: 0}
	for _, tc := range []struct{ committed, start int64 }{{0, 0}, {3, 3}, {2, 3}, {7, 7}, {8, 7}, {100, 7}} {
		if err := l.Trim(t.Context(), map[kafkac.TopicPartition]int64{tp: tc.committed}); err != nil {
			t.Fatal(err)
		}
		b, err := l.Bounds()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(kafkac.Offsets{Start: tc.start, End: 8}, b[tp]); d != "" {
			t.Errorf("trimmed to %d: %s", tc.committed, d)
		}
	}
	if kept := counter(l, "bytes_now"); kept > 7<<20 {
		t.Errorf("%d bytes are kept", kept)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "partitions", "t-0", "*.dat")); len(files) != 1 {
		t.Errorf("segments %v are kept", files)
	}
	// What a kill at this moment leaves behind.
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	killed := opts
	killed.Dir = copied
	after := start(t, killed)
	if b, err := after.Bounds(); err != nil || b[tp].End != 8 || b[tp].Start == 0 || b[tp].Start > 7 {
		t.Errorf("after a kill the log holds %v (error %v), want it to end at 8", b[tp], err)
	}
	if got := put(t, producer(t, client(after)), "k", "next"); got != 8 {
		t.Errorf("the next offset is %d, want 8", got)
	}
	if err := l.Check(map[kafkac.TopicPartition]int64{tp: 8}); err != nil {
		t.Errorf("a log trimmed as far as allowed is refused: %v", err)
	}
	var reset *kafkac.ResetError
	if err := l.Check(map[kafkac.TopicPartition]int64{tp: 9}); !errors.As(err, &reset) {
		t.Errorf("a log that ends before what was taken: %v", err)
	}
	var trimmed *kafkac.TrimmedError
	if err := l.Check(map[kafkac.TopicPartition]int64{tp: 6}); !errors.As(err, &trimmed) {
		t.Errorf("a log that starts after what was taken: %v", err)
	}
	if err := l.Trim(t.Context(), map[kafkac.TopicPartition]int64{{Topic: "nope"}: 1}); err == nil {
		t.Error("trimming a partition that does not exist is no error")
	}
}

func TestAdvertise(t *testing.T) {
	l := start(t, options(t.TempDir()))
	// The proxy stands between; only the advertised address is dialled after
	// the first question.
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	opts := options(t.TempDir())
	opts.Advertise = front.Addr().String()
	l = start(t, opts)
	go proxy(front, l.Addr())
	defer front.Close()
	dialled := make(chan string, 100)
	cfg := client(l)
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled <- addr
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	put(t, producer(t, cfg), "k", "v")
	last := ""
	for len(dialled) > 0 {
		last = <-dialled
	}
	if last != front.Addr().String() {
		t.Errorf("the client was told %s, want %s", last, front.Addr())
	}
}

func proxy(front net.Listener, to string) {
	for {
		in, err := front.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			_ = in.Close()
			continue
		}
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
	}
}

// A stranger's bytes on the port cost neither memory nor the log.
func TestHugeRequestIsRefused(t *testing.T) {
	l := start(t, options(t.TempDir()))
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answer %q, error %v; want the connection closed", bytes.TrimSpace(got), err)
	}
	put(t, producer(t, client(l)), "k", "v")
}
