package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/lake/delta"
)

// BenchmarkManyFiles reads a table of 5,000 files of 100 rows. Making it takes
// longer than reading it.
func BenchmarkManyFiles(b *testing.B) {
	const files = 5000
	lake := b.TempDir()
	w := session(b)
	fields := readings()
	extra := ""
	for i := range 20 { // as wide as bronze
		fields = append(fields, delta.Field{Name: fmt.Sprintf("c%d", i), Type: delta.String})
		extra += fmt.Sprintf(", 'text %d' AS c%d", i, i)
	}
	table := create(b, filepath.Join(lake, "bronze", "readings"), fields)
	for f := 0; f < files; {
		var adds []delta.AddFile
		for range 10 {
			adds = append(adds, write(b, w, table, fmt.Sprintf("SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(i) AS event_time, 'a/b/c/s' || (i %% 7) AS path, CAST(i AS DOUBLE) AS value%s FROM range(%d, %d) r(i)", extra, f*100, f*100+100), nil))
			f++
		}
		commit(b, table, adds...)
	}
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := []Range{{"event_time", start.Add(50 * time.Hour), start.Add(51 * time.Hour)}, {"path", "a/b/c/s3", "a/b/c/s3"}}
	var c *Catalog
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			var err error
			if c, err = Open(b.Context(), lake); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first-pick", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			c, _ = Open(b.Context(), lake)
			b.StartTimer()
			if _, err := c.Files("bronze.readings", hour...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pick", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Files("bronze.readings", hour...); err != nil {
				b.Fatal(err)
			}
		}
	})
	var before, after runtime.MemStats
	fresh, err := Open(b.Context(), lake)
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := fresh.Files("bronze.readings", hour...); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("parsed statistics take %d MB", (after.HeapAlloc-before.HeapAlloc)>>20)
	runtime.KeepAlive(fresh)
	s := session(b)
	b.Run("mount", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Mount(b.Context(), s, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if n := number(b, s, "SELECT count(*) FROM bronze.readings"); n != files*100 {
				b.Fatal(n)
			}
		}
	})
	const filter = " WHERE event_time >= TIMESTAMPTZ '2024-01-03 02:00:00+00' AND event_time < TIMESTAMPTZ '2024-01-03 03:00:00+00' AND path = 'a/b/c/s3'"
	b.Run("filtered-view", func(b *testing.B) {
		for b.Loop() {
			number(b, s, "SELECT count(value) FROM bronze.readings"+filter)
		}
	})
	b.Run("filtered-picked", func(b *testing.B) {
		for b.Loop() {
			rel, err := c.Relation("bronze.readings", hour...)
			if err != nil {
				b.Fatal(err)
			}
			if n := number(b, s, "SELECT count(value) FROM "+rel+filter); n != 514 && n != 515 {
				b.Fatal(n)
			}
		}
	})
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") {
			b.Log(strings.TrimSpace(line))
		}
	}
}
