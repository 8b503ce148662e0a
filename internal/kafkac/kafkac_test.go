package kafkac_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/kafkac"
)

func cluster(t *testing.T, partitions int32) kafkac.Config {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return kafkac.Config{Brokers: c.ListenAddrs()}
}

func producer(t *testing.T, cfg kafkac.ProducerConfig) *kafkac.Producer {
	t.Helper()
	p, err := kafkac.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// produce writes n records per key "k0"…, value "k0-0"…, and waits.
func produce(t *testing.T, p *kafkac.Producer, keys, n int) {
	t.Helper()
	var failed atomic.Value
	for i := range n {
		for k := range keys {
			r := kafkac.Record{
				Topic: "t", Key: fmt.Appendf(nil, "k%d", k), Value: fmt.Appendf(nil, "k%d-%d", k, i),
				Timestamp: time.UnixMilli(1_600_000_000_000),
				Headers:   []kafkac.Header{{Key: "n", Value: fmt.Append(nil, i)}},
			}
			if err := p.Produce(t.Context(), r, func(_ int32, _ int64, err error) {
				if err != nil {
					failed.Store(err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		t.Fatal(err)
	}
}

func tp(p int32) kafkac.TopicPartition { return kafkac.TopicPartition{Topic: "t", Partition: p} }

func TestPartitionIsJavas(t *testing.T) {
	// Values of org.apache.kafka.common.utils.Utils.murmur2.
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string":                       -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := kafkac.Murmur2Positive([]byte(key)); got != uint32(want)&0x7fffffff {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, uint32(want)&0x7fffffff)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		n := rapid.IntRange(1, 100).Draw(t, "n")
		if key == nil {
			key = []byte{}
		}
		client := kgo.StickyKeyPartitioner(nil).ForTopic("t").Partition(&kgo.Record{Key: key}, n)
		if got := kafkac.Partition(key, n); got != client {
			t.Fatalf("partition %d, the client says %d", got, client)
		}
	})
}

func TestProduceAndReadRange(t *testing.T) {
	cfg := cluster(t, 3)
	for _, c := range []kafkac.Compression{kafkac.LZ4, kafkac.Zstd, kafkac.None} {
		produce(t, producer(t, kafkac.ProducerConfig{Config: cfg, Compression: c}), 10, 5)
	}
	adm, err := kafkac.NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	bounds, err := adm.ListOffsets(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	var ranges []kafkac.Range
	want := 0
	for p, b := range bounds {
		ranges = append(ranges, kafkac.Range{TopicPartition: p, Start: 2, End: b.End - 1})
		want += int(b.End) - 3
	}
	next := map[int32]int64{}
	got := 0
	err = kafkac.Read(t.Context(), cfg, ranges, func(r kafkac.Record) error {
		if n, ok := next[r.Partition]; ok && n != r.Offset {
			t.Errorf("partition %d: offset %d after %d", r.Partition, r.Offset, n-1)
		}
		next[r.Partition] = r.Offset + 1
		if p := kafkac.Partition(r.Key, 3); p != int(r.Partition) {
			t.Errorf("key %s is in partition %d, want %d", r.Key, r.Partition, p)
		}
		if n, ok := r.Header("n"); !ok || len(n) == 0 {
			t.Errorf("headers are lost: %v", r.Headers)
		}
		got++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("read %d records, want %d", got, want)
	}
	stop := errors.New("stop")
	if err := kafkac.Read(t.Context(), cfg, ranges, func(kafkac.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error became %v", err)
	}
	err = kafkac.Read(t.Context(), cfg, []kafkac.Range{{TopicPartition: tp(0), Start: 1000, End: 1001}}, func(kafkac.Record) error { return nil })
	if _, ok := errors.AsType[*kafkac.OutOfRangeError](err); !ok {
		t.Errorf("reading beyond the end: %v", err)
	}
}

// A blocked cluster takes nothing: Produce waits at its bound, and nothing is
// given up.
func TestProducerWaitsForTheCluster(t *testing.T) {
	cfg := cluster(t, 1)
	var open atomic.Bool
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !open.Load() {
			return nil, errors.New("network unreachable")
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	p := producer(t, kafkac.ProducerConfig{Config: cfg, MaxBufferedBytes: 64 << 10})
	var acked atomic.Int64
	handed := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := p.Produce(ctx, kafkac.Record{Topic: "t", Value: make([]byte, 1<<10)}, func(_ int32, offset int64, err error) {
			if err != nil || offset != acked.Add(1)-1 {
				t.Errorf("offset %d, error %v", offset, err)
			}
		})
		cancel()
		if err != nil {
			break
		}
		handed++
	}
	if handed == 0 || handed > 64 || p.Buffered() > 64<<10 {
		t.Errorf("%d records, %d bytes are buffered", handed, p.Buffered())
	}
	open.Store(true)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if int(acked.Load()) != handed || p.Buffered() != 0 {
		t.Errorf("%d of %d arrived, %d bytes are left", acked.Load(), handed, p.Buffered())
	}
}

// member is a group member that keeps what it read.
type member struct {
	c      *kafkac.Consumer
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	owned map[kafkac.TopicPartition]bool
	next  map[kafkac.TopicPartition]int64
	err   error
}

func join(t *testing.T, cfg kafkac.Config, starts *sync.Map) *member {
	t.Helper()
	m := &member{done: make(chan struct{}), owned: map[kafkac.TopicPartition]bool{}, next: map[kafkac.TopicPartition]int64{}}
	c, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
		Config: cfg, Group: "g", Topics: []string{"t"},
		SessionTimeout: time.Second, RebalanceTimeout: 2 * time.Second, MaxWait: 100 * time.Millisecond,
		OnAssigned: func(_ context.Context, tps []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			out := map[kafkac.TopicPartition]int64{}
			for _, p := range tps {
				at, _ := starts.LoadOrStore(p, int64(0))
				out[p] = at.(int64)
				m.owned[p], m.next[p] = true, at.(int64)
			}
			return out, nil
		},
		OnRevoked: func(_ context.Context, tps []kafkac.TopicPartition, _ bool) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range tps {
				delete(m.owned, p)
				starts.Store(p, m.next[p]) // the tables
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.c = c
	ctx, cancel := context.WithCancel(t.Context())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		for {
			got, err := c.Poll(ctx, 100)
			m.mu.Lock()
			if err != nil {
				m.err = err
				m.mu.Unlock()
				return
			}
			for _, f := range got {
				if !m.owned[f.TopicPartition] {
					continue
				}
				if f.Records[0].Offset != m.next[f.TopicPartition] {
					t.Errorf("%s: got offset %d, want %d", f.TopicPartition, f.Records[0].Offset, m.next[f.TopicPartition])
				}
				m.next[f.TopicPartition] = f.Records[len(f.Records)-1].Offset + 1
			}
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) leave() {
	m.cancel()
	<-m.done
	m.c.Close()
}

func (m *member) owns() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owned)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
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

func TestGroupStartsWhereTheCallerSays(t *testing.T) {
	cfg := cluster(t, 4)
	p := producer(t, kafkac.ProducerConfig{Config: cfg})
	produce(t, p, 20, 10)
	var starts sync.Map
	starts.Store(tp(0), int64(7))

	a := join(t, cfg, &starts)
	eventually(t, "a owns all partitions", func() bool { return a.owns() == 4 })
	b := join(t, cfg, &starts)
	eventually(t, "the partitions are shared", func() bool { return a.owns() == 2 && b.owns() == 2 })
	produce(t, p, 20, 10)
	sum := func(ms ...*member) (n int64) {
		seen := map[kafkac.TopicPartition]int64{}
		starts.Range(func(k, v any) bool { seen[k.(kafkac.TopicPartition)] = v.(int64); return true })
		for _, m := range ms {
			m.mu.Lock()
			for p := range m.owned {
				seen[p] = m.next[p]
			}
			m.mu.Unlock()
		}
		for _, v := range seen {
			n += v
		}
		return n
	}
	eventually(t, "all 400 records are read", func() bool { return sum(a, b) == 400 })
	b.leave()
	eventually(t, "a owns all partitions again", func() bool { return a.owns() == 4 })
	produce(t, p, 20, 1)
	eventually(t, "all 420 records are read", func() bool { return sum(a) == 420 })
	if err := a.c.CommitOffsets(t.Context(), a.next); err != nil {
		t.Error(err)
	}
	a.leave()
}

func TestSeekGoesBack(t *testing.T) {
	cfg := cluster(t, 1)
	produce(t, producer(t, kafkac.ProducerConfig{Config: cfg}), 1, 50)
	c, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
		Config: cfg, Group: "g", Topics: []string{"t"},
		OnAssigned: func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return map[kafkac.TopicPartition]int64{tp(0): 10}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []int64
	for _, seek := range []int64{-1, 20, 15, 40, 15} {
		if seek >= 0 {
			c.Seek(map[kafkac.TopicPartition]int64{tp(0): seek})
		}
		f, err := c.Poll(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f[0].Records[0].Offset)
	}
	if d := cmp.Diff([]int64{10, 20, 15, 40, 15}, got); d != "" {
		t.Errorf("first offsets after each seek (-want +got):\n%s", d)
	}
}

func TestConsumerEndsRatherThanSkips(t *testing.T) {
	cfg := cluster(t, 1)
	produce(t, producer(t, kafkac.ProducerConfig{Config: cfg}), 1, 5)
	reset := &kafkac.ResetError{TopicPartition: tp(0), Committed: 9, End: 5}
	for _, tc := range []struct {
		name       string
		onAssigned func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error)
		check      func(error) bool
	}{
		{"the caller refuses", func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return nil, reset
		}, func(err error) bool { var e *kafkac.ResetError; return errors.As(err, &e) }},
		{"no offset", func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return nil, nil
		}, func(err error) bool { return err != nil }},
		{"beyond the end", func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return map[kafkac.TopicPartition]int64{tp(0): 9}, nil
		}, func(err error) bool { var e *kafkac.OutOfRangeError; return errors.As(err, &e) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
				Config: cfg, Group: tc.name, Topics: []string{"t"}, OnAssigned: tc.onAssigned,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := c.Poll(ctx, 1); !tc.check(err) {
				t.Errorf("Poll returned %v", err)
			}
		})
	}
	c, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
		Config: cfg, Group: "idle", Topics: []string{"t"},
		OnAssigned: func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return map[kafkac.TopicPartition]int64{tp(0): 5}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an idle Poll returned %v", err)
	}
}

func TestEnsureTopics(t *testing.T) {
	cfg := cluster(t, 2)
	adm, err := kafkac.NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	ctx := t.Context()
	for range 2 {
		if err := adm.EnsureTopics(ctx, map[string]int{"t": 2, "u": 3}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := adm.EnsureTopics(ctx, map[string]int{"u": 4}, nil); err == nil {
		t.Error("another number of partitions was accepted")
	}
	ids, err := adm.TopicIDs(ctx, "t", "u")
	if err != nil || len(ids["t"]) != 22 || ids["t"] == ids["u"] {
		t.Errorf("ids %v, error %v", ids, err)
	}
	if _, err := adm.Topics(ctx, "missing"); err == nil {
		t.Error("a missing topic is no error")
	}
	produce(t, producer(t, kafkac.ProducerConfig{Config: cfg}), 4, 10)
	if err := adm.DeleteRecords(ctx, map[kafkac.TopicPartition]int64{tp(0): 3}); err != nil {
		t.Fatal(err)
	}
	bounds, err := adm.ListOffsets(ctx, "t")
	if err != nil || bounds[tp(0)].Start != 3 {
		t.Errorf("bounds %v, error %v", bounds, err)
	}
}

func TestCheckCommitted(t *testing.T) {
	held := map[kafkac.TopicPartition]kafkac.Offsets{tp(0): {Start: 5, End: 10}, tp(1): {}}
	for _, tc := range []struct {
		name           string
		committed      map[kafkac.TopicPartition]int64
		reset, trimmed bool
	}{
		{"within", map[kafkac.TopicPartition]int64{tp(0): 5, tp(1): 0}, false, false},
		{"at the end", map[kafkac.TopicPartition]int64{tp(0): 10}, false, false},
		{"beyond the end", map[kafkac.TopicPartition]int64{tp(0): 11}, true, false},
		{"below the start", map[kafkac.TopicPartition]int64{tp(0): 4}, false, true},
		{"never read, already trimmed", nil, false, true},
		{"partition is gone", map[kafkac.TopicPartition]int64{tp(0): 7, tp(9): 1}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := kafkac.CheckCommitted(tc.committed, held)
			var reset *kafkac.ResetError
			var trimmed *kafkac.TrimmedError
			if errors.As(err, &reset) != tc.reset || errors.As(err, &trimmed) != tc.trimmed {
				t.Errorf("error %v, want reset %t, trimmed %t", err, tc.reset, tc.trimmed)
			}
		})
	}
}

// A group that will never take the member ends the consumer; kept to itself it
// would be a lake that stands still without a word.
func TestGroupThatRefuses(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.GroupMinSessionTimeout(6*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c, err := kafkac.NewConsumer(kafkac.ConsumerConfig{
		Config: kafkac.Config{Brokers: k.ListenAddrs()}, Group: "g", Topics: []string{"t"}, SessionTimeout: 2 * time.Second,
		OnAssigned: func(context.Context, []kafkac.TopicPartition) (map[kafkac.TopicPartition]int64, error) {
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, err = c.Poll(ctx, 10); err != nil {
			break
		}
	}
	if !strings.Contains(err.Error(), "INVALID_SESSION_TIMEOUT") || !strings.Contains(err.Error(), "--kafka-session") {
		t.Error(err)
	}
}

// What a cluster says of its topics, before and after.
func TestTopicsOfACluster(t *testing.T) {
	admin, err := kafkac.NewAdmin(cluster(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	there, err := admin.Existing(t.Context(), "t", "nowhere")
	if err != nil || len(there) != 1 || there["t"].Partitions != 2 {
		t.Errorf("existing %v, %v", there, err)
	}
	if err := admin.AwaitTopics(t.Context(), "t"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := admin.AwaitTopics(short, "t", "nowhere"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a topic that never comes: %v", err)
	}
	if err := admin.EnsureTopics(t.Context(), map[string]int{"kept": 1}, map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}); err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context(), map[string]int{"short": 1}, map[string]string{"retention.ms": "1000"}); err != nil {
		t.Fatal(err)
	}
	forgets, err := admin.Forgets(t.Context(), "kept", "short")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forgets {
		if f.Topic == "kept" || f.Setting == "retention.ms" && f.Value != "1000" {
			t.Errorf("%+v", f)
		}
	}
	if len(forgets) == 0 {
		t.Error("a retention of a second is not told")
	}
	produceTimes(t, admin)
}

func produceTimes(t *testing.T, admin *kafkac.Admin) {
	t.Helper()
	at, err := admin.OffsetsAt(t.Context(), time.UnixMilli(0), "t")
	if err != nil || at[tp(0)] != 0 || len(at) != 2 {
		t.Errorf("offsets %v, %v", at, err)
	}
}
