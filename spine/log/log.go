// Package log is the embedded spine of a plant that has no Kafka: one broker
// in this process that speaks Kafka's protocol over TCP and keeps its
// partitions on disk, each batch synced before it is acknowledged.
//
// It is spoken to as any Kafka is; nothing takes a short cut past the
// protocol. It is built on kfake, whose known holes are guarded here: records
// are trimmed only as far as [Log.Trim] allows, so that a killed log never
// forgets its offsets; free space has a floor below which intake stops; after
// a write that failed nothing is taken until the log was opened anew; and what
// is open here at a start is small, because all kept data is read then.
package log

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headrace/headrace/internal/freespace"
	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/signal"
)

const (
	// segmentBytes is small, because whole segments are what trimming frees.
	segmentBytes = 16 << 20
	// MaxMessageBytes is the largest batch that is taken.
	MaxMessageBytes = 16 << 20
	// DefaultFloorBytes is the free space below which intake stops.
	DefaultFloorBytes = 64 << 20
)

// Options set a log up.
type Options struct {
	Listen string // host:port; port 0 takes a free one
	// Advertise is the host:port that clients are told to connect to; "" is
	// the address listened on.
	Advertise string
	Dir       string
	// Partitions are the topics and their numbers of partitions, which are
	// fixed for a topic's life.
	Partitions map[string]int
	// FloorBytes is the free space below which intake stops; 0 is
	// DefaultFloorBytes.
	FloorBytes uint64
	// Free returns the free bytes of the file system that holds dir; nil asks
	// the system.
	Free func(dir string) (uint64, error)
	Log  *slog.Logger // warnings; nil is silent
}

// Log is a running spine.
type Log struct {
	opts Options
	addr string

	// mu is held shared by who asks the cluster, and exclusively by who
	// replaces or closes it.
	mu      sync.RWMutex
	cluster *kfake.Cluster
	closed  bool

	failed  atomic.Bool // a write failed; see reopen
	free    atomic.Uint64
	refused atomic.Int64
	failures,
	reopened atomic.Int64

	stop context.CancelFunc
	done chan struct{}
}

// DiskFullError says that there is less free space than the floor.
type DiskFullError struct {
	Dir         string
	Free, Floor uint64
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("%s has %d MiB free, and intake stops below %d MiB; make room there, or choose another directory with --dir",
		e.Dir, e.Free>>20, e.Floor>>20)
}

// Start opens the log and returns when it takes connections.
func Start(opts Options) (*Log, error) {
	if opts.FloorBytes == 0 {
		opts.FloorBytes = DefaultFloorBytes
	}
	if opts.Free == nil {
		opts.Free = freespace.Of
	}
	if err := os.MkdirAll(opts.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("starting the spine: creating %s: %w", opts.Dir, err)
	}
	l := &Log{opts: opts, done: make(chan struct{})}
	if l.measure(); l.free.Load() < opts.FloorBytes {
		return nil, fmt.Errorf("starting the spine: %w", &DiskFullError{opts.Dir, l.free.Load(), opts.FloorBytes})
	}
	if err := l.open(opts.Listen); err != nil {
		return nil, fmt.Errorf("starting the spine: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	go l.watch(ctx)
	return l, nil
}

// open starts the cluster on the directory; l.mu is held or not needed yet.
func (l *Log) open(listen string) error {
	// Both files hold what clients were doing at the last orderly stop. The
	// producers' windows go stale in a life that ends with a kill, and then
	// refuse what is new; the groups' members are dead and would keep their
	// partitions from the living for a session time-out.
	for _, name := range []string{"seq_windows.json", "session_state.json"} {
		if err := os.Remove(filepath.Join(l.opts.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing stale state: %w", err)
		}
	}
	var addr string
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ClusterID("headrace"),
		kfake.DataDir(l.opts.Dir),
		kfake.SyncWrites(),
		kfake.GroupMinSessionTimeout(500*time.Millisecond),
		kfake.WithLogger(clusterLog{l}),
		kfake.BrokerConfigs(map[string]string{
			"log.segment.bytes":   fmt.Sprint(segmentBytes),
			"message.max.bytes":   fmt.Sprint(MaxMessageBytes),
			"log.retention.ms":    "-1",
			"log.retention.bytes": "-1",
		}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			inner, err := net.Listen(network, listen)
			if err != nil {
				return nil, err
			}
			addr = inner.Addr().String()
			return &listener{Listener: inner, advertise: l.opts.Advertise}, nil
		}),
	)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listening on %s: %w; stop the program that holds the port, or choose another port with --listen-kafka", listen, err)
		}
		return fmt.Errorf("opening %s on %s: %w", l.opts.Dir, listen, err)
	}
	cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Err: kerr.KafkaStorageError,
		When: func(kmsg.Request) bool { return l.refuses() },
	})
	if err := createTopics(cluster, l.opts.Partitions); err != nil {
		cluster.Close()
		return err
	}
	l.cluster, l.addr = cluster, addr
	l.failed.Store(false)
	return nil
}

func createTopics(cluster *kfake.Cluster, partitions map[string]int) error {
	for _, topic := range slices.Sorted(maps.Keys(partitions)) {
		want := partitions[topic]
		if cluster.TopicInfo(topic) == nil {
			if err := cluster.CreateTopic(topic, int32(want), map[string]string{"retention.ms": "-1"}); err != nil {
				return fmt.Errorf("creating topic %s with %d partitions: %w", topic, want, err)
			}
			continue
		}
		if have := len(cluster.PartitionInfos(topic)); have != want {
			return fmt.Errorf("topic %s has %d partitions, and %d are configured; the number is fixed for a topic's life, so configure %d", topic, have, want, have)
		}
	}
	return nil
}

// Addr is the address that is listened on.
func (l *Log) Addr() string { return l.addr }

// Close saves and ends the log.
func (l *Log) Close() {
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.cluster.Close()
	}
}

// refuses tells whether a produce request is to be put off: the answer is an
// error that clients repeat until it passes. It runs for each request, in the
// cluster's goroutine.
func (l *Log) refuses() bool {
	if !l.failed.Load() && l.measure() {
		return false
	}
	l.refused.Add(1)
	return true
}

// measure asks for the free space and tells whether it is above the floor. A
// file system that does not answer counts as full.
func (l *Log) measure() bool {
	free, err := l.opts.Free(l.opts.Dir)
	if err != nil {
		free = 0
		l.warn("asking for free space failed", "dir", l.opts.Dir, "error", err)
	}
	l.free.Store(free)
	return free >= l.opts.FloorBytes
}

// watch tells when intake stops and goes on, and mends a failed log.
func (l *Log) watch(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	stopped := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		full := !l.measure()
		if !full && l.failed.Load() {
			l.reopen()
		}
		if now := full || l.failed.Load(); now != stopped {
			stopped = now
			if now {
				l.warn("intake has stopped", "error", &DiskFullError{l.opts.Dir, l.free.Load(), l.opts.FloorBytes})
			} else {
				l.warn("intake goes on", "dir", l.opts.Dir, "free_mib", l.free.Load()>>20)
			}
		}
	}
}

// reopen opens the log anew after a write that failed. The cluster has already
// counted the failed batch's sequence numbers, so that it would acknowledge
// the batch's repeat without writing it; a new cluster knows nothing of them.
func (l *Log) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.cluster.Close()
	if err := l.open(l.addr); err != nil {
		l.closed = true
		l.warn("opening the spine anew after a failed write; restart the process", "error", err)
		return
	}
	l.reopened.Add(1)
}

func (l *Log) warn(msg string, args ...any) {
	if l.opts.Log != nil {
		l.opts.Log.Warn("spine: "+msg, args...)
	}
}

// clusterLog passes the cluster's warnings on and notices failed writes.
type clusterLog struct{ l *Log }

func (c clusterLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn {
		return
	}
	if strings.HasPrefix(format, "persist batch") {
		c.l.failed.Store(true)
		c.l.failures.Add(1)
	}
	c.l.warn(fmt.Sprintf(format, args...))
}

// Bounds returns what every partition of the configured topics holds.
func (l *Log) Bounds() (map[kafkac.TopicPartition]kafkac.Offsets, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, errors.New("reading the spine's offsets: it is closed")
	}
	out := make(map[kafkac.TopicPartition]kafkac.Offsets)
	for topic := range l.opts.Partitions {
		for _, p := range l.cluster.PartitionInfos(topic) {
			out[kafkac.TopicPartition{Topic: topic, Partition: p.Partition}] = kafkac.Offsets{Start: p.LogStartOffset, End: p.HighWatermark}
		}
	}
	return out, nil
}

// Check compares the log with what was already taken from it: it returns
// [*kafkac.ResetError] and [*kafkac.TrimmedError]. Partitions that are not in
// committed are not checked.
func (l *Log) Check(committed map[kafkac.TopicPartition]int64) error {
	bounds, err := l.Bounds()
	if err != nil {
		return err
	}
	maps.DeleteFunc(bounds, func(tp kafkac.TopicPartition, _ kafkac.Offsets) bool {
		_, asked := committed[tp]
		return !asked
	})
	return kafkac.CheckCommitted(committed, bounds)
}

// Trim gives up the records of each partition that are below the offset
// committed: the one that every reader has safely taken. The newest record
// stays in any case, with its whole batch, because a log that was killed knows
// its offsets only by what it holds.
func (l *Log) Trim(ctx context.Context, committed map[kafkac.TopicPartition]int64) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return errors.New("trimming the spine: it is closed")
	}
	for tp, offset := range committed {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := l.cluster.PartitionInfo(tp.Topic, tp.Partition)
		if p == nil {
			return fmt.Errorf("trimming the spine: there is no partition %s", tp)
		}
		to := min(offset, p.HighWatermark-1)
		if to <= p.LogStartOffset {
			continue
		}
		if err := l.cluster.DeleteRecords(tp.Topic, tp.Partition, to); err != nil {
			return fmt.Errorf("trimming %s to %d: %w", tp, to, err)
		}
	}
	return nil
}

// Counters returns the spine's figures.
func (l *Log) Counters() []signal.Counter {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var records, trimmed, bytes int64
	if !l.closed {
		for topic := range l.opts.Partitions {
			for _, p := range l.cluster.PartitionInfos(topic) {
				records += p.HighWatermark
				trimmed += p.LogStartOffset
				bytes += p.NumBytes
			}
		}
	}
	stopped := int64(0)
	if l.failed.Load() || l.free.Load() < l.opts.FloorBytes {
		stopped = 1
	}
	c := func(name string, value int64) signal.Counter {
		return signal.Counter{Station: "spine", Name: name, Value: value}
	}
	return []signal.Counter{
		c("records", records),
		c("trimmed", trimmed),
		c("bytes_now", bytes),
		c("free_bytes_now", int64(l.free.Load())),
		c("intake_stopped_now", stopped),
		c("refused", l.refused.Load()),
		c("write_failures", l.failures.Load()),
		c("reopened", l.reopened.Load()),
	}
}
