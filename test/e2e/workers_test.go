package e2e

import (
	"context"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/test/harness"
)

func admin(t *testing.T, addr string) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// members is how many members of the group hold partitions of the readings.
func members(t *testing.T, kafka *kadm.Client) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	listed, err := kafka.ListGroups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	described, err := kafka.DescribeGroups(ctx, listed.Groups()...)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range described {
		if g.State != "Stable" {
			return -1
		}
		for _, m := range g.Members {
			a, ok := m.Assigned.AsConsumer()
			if ok && slices.ContainsFunc(a.Topics, func(t kmsg.ConsumerMemberAssignmentTopic) bool { return t.Topic == record.TopicReadings }) {
				n++
			}
		}
	}
	return n
}

// A lake worker stopped past its session time-out loses its share to another;
// woken, it must not write what the other has written.
func TestWorkerStoppedAndWoken(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t, "crashpoints")
	for _, point := range []string{"lake.plan_written", "lake.bronze_committed"} {
		t.Run(point, func(t *testing.T) {
			recordings, top := t.TempDir(), t.TempDir()
			harness.Generate(t, recordings, harness.Generated{
				Seed: 10, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1", "c/2", "d/3", "e/4", "f/5"}, Rows: 400,
			})
			cells := harness.Cells(t, recordings)
			dir := filepath.Join(top, "a")
			args := append([]string{"run", "--roles", "broker,spine,bridge,lake,http", "--kafka-session", "2s"}, harness.Loopback()...)
			a := harness.Start(t, bin, dir, nil, args...)
			run := a.Ready(t, 20*time.Second)
			kafka := admin(t, run.Kafka)

			b := harness.Start(t, bin, filepath.Join(top, "b"), []string{"HEADRACE_STOP_AT=" + point + ":2"},
				"run", "--roles", "lake", "--kafka", run.Kafka, "--lake", filepath.Join(dir, "lake"), "--kafka-session", "2s")
			harness.Eventually(t, 30*time.Second, "both workers hold partitions", func() bool { return members(t, kafka) == 2 })

			edge := harness.Start(t, bin, filepath.Join(top, "edge"), nil, "run", "--roles", "edge",
				"--mqtt", "tcp://"+run.MQTT, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "60")
			harness.Eventually(t, 30*time.Second, "the second worker has stopped itself", func() bool { return b.Stopped(t) })
			harness.Eventually(t, time.Minute, "the first worker holds everything", func() bool { return members(t, kafka) == 1 })
			arrived(t, bin, dir, len(cells))

			b.Signal(t, syscall.SIGCONT)
			harness.Eventually(t, time.Minute, "the second worker holds partitions again", func() bool { return members(t, kafka) == 2 })
			harness.Exact(t, bin, dir, cells, nil)
			for _, p := range []*harness.Proc{edge, b, a} {
				p.Signal(t, syscall.SIGINT)
				if code := p.Exit(t, 30*time.Second); code != 0 {
					t.Errorf("exit %d, want 0:\n%s", code, p.Stderr())
				}
			}
			harness.Exact(t, bin, dir, cells, nil)
		})
	}
}

// A spine that was trimmed as far as it may be and then killed numbers what
// comes next as if nothing had happened.
func TestTrimmedSpineKilled(t *testing.T) {
	t.Parallel()
	bin := harness.Binary(t)
	recordings, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	start := func() (*harness.Proc, string) {
		t.Helper()
		args := append([]string{"up"}, harness.Loopback()...)
		p := harness.Start(t, bin, dir, nil, append(args, "--replay", "skab:"+recordings, "--filters", "none", "--speed", "max")...)
		run := p.Ready(t, 20*time.Second)
		arrived(t, bin, dir, len(harness.Cells(t, recordings)))
		return p, run.Kafka
	}
	const topic = "headrace.readings"
	offsets := func(addr string) (starts, ends map[int32]int64) {
		kafka := admin(t, addr)
		s, err := kafka.ListStartOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		e, err := kafka.ListEndOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		starts, ends = map[int32]int64{}, map[int32]int64{}
		s.Each(func(o kadm.ListedOffset) { starts[o.Partition] = o.Offset })
		e.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
		return starts, ends
	}

	harness.Generate(t, recordings, harness.Generated{Seed: 11, Files: []string{"valve1/0", "valve1/1", "a/0", "b/1"}, Rows: 400})
	p, addr := start()
	var ends map[int32]int64
	harness.Eventually(t, time.Minute, "the spine is trimmed", func() bool {
		var starts map[int32]int64
		starts, ends = offsets(addr)
		for _, start := range starts {
			if start > 0 {
				return true
			}
		}
		return false
	})
	p.Kill()

	harness.Generate(t, recordings, harness.Generated{Seed: 12, Files: []string{"c/0", "d/1", "e/2", "f/3"}, Rows: 200})
	p, addr = start()
	_, after := offsets(addr)
	grown := int64(0)
	for partition, end := range ends {
		if after[partition] < end {
			t.Errorf("partition %d ended at %d before the kill and ends at %d after it", partition, end, after[partition])
		}
		grown += after[partition] - end
	}
	t.Logf("ends before %v, after %v", ends, after)
	if grown == 0 {
		t.Error("nothing came after the kill")
	}
	p.Kill()
	harness.Verify(t, bin, dir)
	harness.Exact(t, bin, dir, harness.Cells(t, recordings), nil)
}
