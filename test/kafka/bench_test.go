package kafka_test

import (
	"os"
	"testing"

	"github.com/headrace/headrace/test/harness"
	"github.com/headrace/headrace/test/kafka"
)

// The spine's bench with Apache Kafka behind the bridge, for `make bench`. Its
// figures decide nothing here.
func TestBenchBesideKafka(t *testing.T) {
	if os.Getenv("HEADRACE_BENCH") == "" {
		t.Skip("it measures and proves nothing; make bench runs it")
	}
	bin := harness.Binary(t)
	c := kafka.Start(t, kafka.Options{})
	r := harness.Run(t, bin, append([]string{"bench", "spine"}, c.Flags()...)...)
	t.Log("\n" + r.Stdout)
	if r.Code > 1 {
		t.Errorf("exit %d\n%s", r.Code, r.Stderr)
	}
}
