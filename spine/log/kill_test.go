package log_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/spine/log"
)

// TestMain lets the test binary play the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HEADRACE_TEST_SPINE"); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

// victim runs a log, writes records to it without end, tells each
// acknowledged one as "partition offset value", and trims as far as it may.
func victim(dir string) {
	l, err := log.Start(options(dir))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	p, err := kafkac.NewProducer(kafkac.ProducerConfig{Config: client(l), Linger: time.Millisecond})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	ctx, life := context.Background(), time.Now().UnixNano()
	noise, flush := make([]byte, 0), 500
	trim := os.Getenv("HEADRACE_TEST_TRIM") != ""
	if trim {
		// Trimming frees whole segments, so they have to fill.
		noise, flush = make([]byte, 256<<10), 50
		_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	}
	for i := 0; ; i++ {
		value := fmt.Sprintf("%d-%d", life, i)
		_ = p.Produce(ctx, kafkac.Record{Topic: "t", Key: []byte(strconv.Itoa(i)), Value: append([]byte(value+" "), noise...)}, func(partition int32, offset int64, err error) {
			if err == nil {
				// One write call: what is told is told before a kill.
				_, _ = fmt.Fprintf(os.Stdout, "%d %d %s\n", partition, offset, value)
			}
		})
		if i%flush == flush-1 {
			_ = p.Flush(ctx)
			if trim {
				bounds, _ := l.Bounds()
				ends := map[kafkac.TopicPartition]int64{}
				for tp, b := range bounds {
					ends[tp] = b.End
				}
				_ = l.Trim(ctx, ends)
			}
		}
	}
}

// kill lets a victim run until it told of atLeast records and kills it. It
// returns what was acknowledged: partition → offset → value.
func kill(t *testing.T, dir string, trim bool, atLeast int) map[int32]map[int64]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HEADRACE_TEST_SPINE="+dir)
	if trim {
		cmd.Env = append(cmd.Env, "HEADRACE_TEST_TRIM=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[int32]map[int64]string{0: {}, 1: {}}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		var partition int32
		var offset int64
		var value string
		if k, _ := fmt.Sscan(lines.Text(), &partition, &offset, &value); k != 3 {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Error(lines.Text())
			}
			continue // cut by the kill
		}
		if old, ok := acked[partition][offset]; ok {
			t.Errorf("offset %d of partition %d was given twice: to %s and %s", offset, partition, old, value)
		}
		acked[partition][offset] = value
		if n == atLeast {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	return acked
}

// What was acknowledged before a kill -9 is there after it, at its offset,
// over several lives; and a log trimmed as far as allowed goes on counting.
func TestKillNine(t *testing.T) {
	for _, trim := range []bool{false, true} {
		t.Run(fmt.Sprintf("trim=%t", trim), func(t *testing.T) {
			dir := t.TempDir()
			seed := uint64(time.Now().UnixNano())
			rng := rand.New(rand.NewPCG(seed, 0))
			told := map[int32]map[int64]string{0: {}, 1: {}}
			for life := range 3 {
				atLeast := 500 + rng.IntN(2500)
				if trim {
					atLeast = 150 + rng.IntN(150)
				}
				acked := kill(t, dir, trim, atLeast)
				for p, offsets := range acked {
					for offset, value := range offsets {
						if old, ok := told[p][offset]; ok {
							t.Errorf("seed %d, life %d: offset %d of partition %d was given again: to %s after %s", seed, life, offset, p, value, old)
						}
						told[p][offset] = value
					}
				}
				check(t, dir, told, trim)
			}
		})
	}
}

func check(t *testing.T, dir string, told map[int32]map[int64]string, trim bool) {
	t.Helper()
	l, err := log.Start(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bounds, err := l.Bounds()
	if err != nil {
		t.Fatal(err)
	}
	var ranges []kafkac.Range
	for tp, b := range bounds {
		ranges = append(ranges, kafkac.Range{TopicPartition: tp, Start: b.Start, End: b.End})
		for offset := range told[tp.Partition] {
			if offset >= b.End {
				t.Errorf("%s ends at %d, but offset %d was acknowledged", tp, b.End, offset)
			}
			if offset < b.Start && !trim {
				t.Errorf("%s starts at %d, but offset %d was acknowledged", tp, b.Start, offset)
			}
		}
		if trim && b.Start == 0 {
			t.Errorf("%s was not trimmed, or went back to offset 0: %v", tp, b)
		}
	}
	n := 0
	if err := kafkac.Read(t.Context(), client(l), ranges, func(r kafkac.Record) error {
		if want, ok := told[r.Partition][r.Offset]; ok {
			n++
			if got, _, _ := strings.Cut(string(r.Value), " "); got != want {
				return fmt.Errorf("partition %d, offset %d holds %s, want %s", r.Partition, r.Offset, got, want)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	t.Logf("%d acknowledged records are there, bounds %v", n, bounds)
}
