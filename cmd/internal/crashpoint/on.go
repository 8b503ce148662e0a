//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/headrace/headrace/signal"
)

// Reached makes the process kill itself, as a power cut would, when it passes
// the point named by HEADRACE_CRASH_AT=point:count for the count-th time, and
// stop itself as SIGSTOP does at HEADRACE_STOP_AT=point:count. Built with the
// tag crashpoints for the crash tests only.
func Reached() signal.Reached {
	crash, crashAt := point("HEADRACE_CRASH_AT")
	stop, stopAt := point("HEADRACE_STOP_AT")
	var mu sync.Mutex
	passed := map[string]int{}
	return func(name string) {
		mu.Lock()
		passed[name]++
		n := passed[name]
		mu.Unlock()
		self := os.Getpid()
		if name == crash && n == crashAt {
			fmt.Fprintf(os.Stderr, "crash point %s, pass %d\n", name, n)
			_ = syscall.Kill(self, syscall.SIGKILL)
			select {}
		}
		if name == stop && n == stopAt {
			fmt.Fprintf(os.Stderr, "stop point %s, pass %d\n", name, n)
			_ = syscall.Kill(self, syscall.SIGSTOP)
		}
	}
}

func point(key string) (string, int) {
	name, count, _ := strings.Cut(os.Getenv(key), ":")
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	return name, n
}
