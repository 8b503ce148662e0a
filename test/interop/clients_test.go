package interop

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headrace/headrace/test/harness"
)

// While readings go by, clients that know nothing of Headrace see every one of
// them: paho-mqtt at the broker, kcat at the spine.
func TestForeignClientsSeeEveryReading(t *testing.T) {
	kcat := harness.Program(t, "interop", "kcat")
	recordings, top := t.TempDir(), t.TempDir()
	harness.Generate(t, recordings, harness.Generated{
		Seed: 20, Files: []string{"valve1/0", "valve1/1", "hall/pump 7", "spare"}, Rows: 1000,
	})
	cells := harness.Cells(t, recordings)
	bin := harness.Binary(t)

	// Without a lake nothing is trimmed, and kcat finds it all.
	centre := filepath.Join(top, "centre")
	args := append([]string{"run", "--roles", "broker,bridge,spine"}, harness.Loopback()...)
	p := harness.Start(t, bin, centre, nil, args...)
	run := p.Ready(t, 20*time.Second)

	seen := filepath.Join(top, "seen.csv")
	host, port, _ := strings.Cut(run.MQTT, ":")
	subscriber := harness.Python(t, script(t, "subscribe.py"), host, port, strconv.Itoa(len(cells)), seen)
	ended := subscribe(t, subscriber)

	harness.Start(t, bin, filepath.Join(top, "edge"), nil, "run", "--roles", "edge", "--mqtt", "tcp://"+run.MQTT,
		"--replay", "skab:"+recordings, "--filters", "none", "--speed", "max")
	ended()
	harness.SameCells(t, "what paho-mqtt saw", readCells(t, seen), cells)

	// -e ends at the end of the log; it is asked again until that is the end of
	// the readings.
	var got map[harness.Cell]int
	harness.Eventually(t, drainLimit, "kcat has seen every reading", func() bool {
		got = consume(t, kcat, run.Kafka)
		return total(got) >= len(cells)
	})
	harness.SameCells(t, "what kcat saw", got, cells)
}

func total(cells map[harness.Cell]int) (n int) {
	for k := range maps.Values(cells) {
		n += k
	}
	return n
}

// subscribe starts the subscriber and returns, once it has subscribed, a
// function that waits for its end.
func subscribe(t *testing.T, cmd *exec.Cmd) func() {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "subscribed" {
		t.Fatalf("the subscriber said %q: %v\n%s", lines.Text(), cmd.Wait(), stderr.String())
	}
	return func() {
		t.Helper()
		limit := time.AfterFunc(drainLimit, func() { _ = stdin.Close() })
		defer limit.Stop()
		for lines.Scan() {
			t.Logf("paho-mqtt: %s", lines.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the subscriber: %v\n%s", err, stderr.String())
		}
	}
}

func readCells(t *testing.T, file string) map[harness.Cell]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma = ';'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	cells := map[harness.Cell]int{}
	for _, row := range rows {
		us, err1 := strconv.ParseInt(row[1], 10, 64)
		v, err2 := strconv.ParseFloat(row[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("row %v: %v %v", row, err1, err2)
		}
		cells[harness.Cell{Path: row[0], Time: us, Value: v}]++
	}
	return cells
}

// consume reads the whole topic with kcat, decodes each record by
// docs/formats/record.proto and returns the readings of each message once.
func consume(t *testing.T, kcat, brokers string) map[harness.Cell]int {
	t.Helper()
	// Lengths first, because a value holds any byte.
	cmd := exec.CommandContext(t.Context(), kcat, "-C", "-b", brokers, "-t", "headrace.readings", "-o", "beginning", "-e", "-q",
		"-f", "%K %S\n%k%s%h\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kcat: %v\n%s", err, stderr.String())
	}
	record := recordType(t)
	cells, seen := map[harness.Cell]int{}, map[string]bool{}
	for r := bytes.NewReader(out); r.Len() > 0; {
		key, value, headers := kcatRecord(t, r)
		m := dynamicpb.NewMessage(record)
		if err := proto.Unmarshal(value, m); err != nil {
			t.Fatalf("record of key %s: %v", key, err)
		}
		get := func(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
			return m.Get(m.Descriptor().Fields().ByName(name))
		}
		edge, boot, stream := get(m, "edge").String(), get(m, "boot").String(), get(m, "stream").String()
		n, config := get(m, "n").Uint(), get(m, "config").String()
		asset, _, _ := strings.Cut(stream, ":")
		if key != asset {
			t.Errorf("key %q of stream %q", key, stream)
		}
		if want := fmt.Sprintf("edge=%s,boot=%s,stream=%s,n=%d,config=%s", edge, boot, stream, n, config); headers != want {
			t.Errorf("headers %q, want %q", headers, want)
		}
		id := fmt.Sprint(edge, "|", boot, "|", stream, "|", n)
		if seen[id] {
			continue // at least once on the way
		}
		seen[id] = true
		readings := get(m, "readings").List()
		for i := range readings.Len() {
			r := readings.Get(i).Message()
			cells[harness.Cell{
				Path: asset + "/" + get(r, "sensor").String(), Time: get(r, "event_time").Int(), Value: get(r, "number").Float(),
			}]++
		}
	}
	return cells
}

func kcatRecord(t *testing.T, r *bytes.Reader) (key string, value []byte, headers string) {
	t.Helper()
	var k, v int
	if _, err := fmt.Fscanf(r, "%d %d\n", &k, &v); err != nil {
		t.Fatalf("reading kcat's answer: %v", err)
	}
	b := make([]byte, k+v)
	if n, _ := r.Read(b); n != len(b) {
		t.Fatalf("kcat's answer is cut short: %d of %d bytes", n, len(b))
	}
	var line []byte
	for {
		c, err := r.ReadByte()
		if err != nil || c == '\n' {
			break
		}
		line = append(line, c)
	}
	return string(b[:k]), b[k:], string(line)
}

func recordType(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		ImportPaths: []string{filepath.Join(harness.Root(t), "docs", "formats")},
	}}
	files, err := compiler.Compile(t.Context(), "record.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages().ByName("Record")
}
