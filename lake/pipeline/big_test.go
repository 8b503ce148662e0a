package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/duck"
	"github.com/headrace/headrace/signal"
)

func TestBig(t *testing.T) {
	if os.Getenv("BIG") == "" {
		t.Skip()
	}
	db, _ := duck.Open(t.Context(), duck.Options{MemoryLimit: "96MB", Threads: 2, TempDir: filepath.Join(t.TempDir(), "duck")})
	l := newLakeIn(t, t.TempDir(), db, 8)
	l.spine.now = day + 30*86400e6
	total := 0
	for a := 0; a < 34; a++ {
		e := newEdge(fmt.Sprint("s/e", a), "b")
		for k := 0; k < 1000; k++ {
			var rs []signal.Reading
			for s := 0; s < 8; s++ {
				rs = append(rs, at(fmt.Sprint("sensor_", s), day+signal.Micros(k)*1e6, float64(k%17)*0.37+float64(s)))
			}
			l.spine.send(e.message(signal.NewAsset("skab", "valve1", fmt.Sprint(a)), rs...))
			total += 8
		}
	}
	rss := func() string {
		b, _ := os.ReadFile("/proc/self/status")
		var o string
		for _, x := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(x, "VmHWM") || strings.HasPrefix(x, "VmRSS") {
				o += x + " "
			}
		}
		return o
	}
	fmt.Println("before", total, rss())
	o := l.options(nil, nil)
	_ = o
	r := l.start(nil)
	t0 := time.Now()
	for {
		ok, err := r.Drained(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			break
		}
		time.Sleep(100 * time.Millisecond)
		if time.Since(t0) > 120*time.Second {
			t.Fatal(r.Status())
		}
	}
	fmt.Println("drained", time.Since(t0), float64(total)/time.Since(t0).Seconds(), "rows/s", rss())
	for _, s := range r.Status() {
		fmt.Println(s)
	}
	fmt.Println(r.Counters())
	r.end()
}
