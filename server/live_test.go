package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/twin/state"
)

// pipes is a listener whose connections are in memory, so that a bubble's time
// can pass while they wait.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sse is one event as a browser's EventSource would see it.
type sse struct {
	at   time.Duration // since the test began
	name string        // "comment" and "retry" for what is none
	data string
}

// events reads a stream until it ends.
func events(body io.Reader, began time.Time, out chan<- sse) {
	defer close(out)
	lines := bufio.NewScanner(body)
	e := sse{}
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "retry":
			e = sse{name: "retry", data: value}
		case "": // a comment, or the end of an event
			if value != "" {
				e = sse{name: "comment", data: value}
			} else if e.name != "" {
				e.at = time.Since(began)
				out <- e
				e = sse{}
			}
		}
	}
}

// rebuild makes the server's channels those of the bubble; the registry's file
// stays outside of it.
func (f *fixture) rebuild(t *testing.T) {
	t.Helper()
	var err error
	if f.Server, err = New(f.opts); err != nil {
		t.Fatal(err)
	}
}

func TestLive(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Clock = &testClock{at: start}
		o.Counters = func() []signal.Counter { return []signal.Counter{{Station: "bronze", Name: "rows", Value: 3}} }
		o.Twin = state.New()
	})
	clock, twin := f.opts.Clock.(*testClock), f.opts.Twin
	row := func(p signal.Path, v float64, event int) state.Row {
		return state.Row{Path: p, Value: signal.NumberValue(v), Unit: "A", EventTime: signal.Micros(event), AliveAt: signal.Micros(event), Quality: 192, Good: true}
	}
	twin.Apply([]state.Row{row("s/l/a/x", 1, 1e6), row("s/l/b/x", 1, 1e6)})

	synctest.Test(t, func(t *testing.T) {
		f.rebuild(t)
		began := time.Now()
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- f.Serve(ctx, l) }()
		client := &http.Client{Transport: &http.Transport{DialContext: l.dial}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://localhost/api/v1/live?under=s/l/a")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
			t.Fatal(resp.StatusCode, ct)
		}
		told := make(chan sse, 1000)
		go events(resp.Body, began, told)
		got := func() (out []sse) {
			synctest.Wait()
			for {
				select {
				case e, ok := <-told:
					if !ok {
						return out
					}
					out = append(out, e)
				default:
					return out
				}
			}
		}
		const (
			tick0    = `{"plant_time":"2020-03-09T10:14:40Z","speed":60}`
			stations = `,"stations":[{"station":"bronze","counters":[{"name":"rows","value":3}]}]}`
		)
		at := func(s int) string {
			return `{"plant_time":"` + start.Add(time.Duration(s)*time.Minute).Format(time.RFC3339) + `"`
		}
		reading := func(p string, v, ms int) string {
			when := time.UnixMilli(int64(ms)).UTC().Format(time.RFC3339Nano)
			return fmt.Sprintf(`{"path":"%s","kind":"number","value":%d,"text":null,"unit":"A","event_time":"%s","alive_at":"%s","quality":192,"good":true}`, p, v, when, when)
		}
		equal := func(what string, want, got []sse) {
			t.Helper()
			if d := cmp.Diff(want, got, cmp.AllowUnexported(sse{})); d != "" {
				t.Errorf("%s: %s", what, d)
			}
		}

		equal("at first", []sse{{0, "retry", "2000"}, {0, "clock", tick0}, {0, "stations", at(0) + stations}, {0, "reading", reading("s/l/a/x", 1, 1000)}}, got())

		// Changes within the pause are told once, with the newest value; others'
		// changes and late arrivals are not.
		for v := 2; v <= 5; v++ {
			twin.Apply([]state.Row{row("s/l/a/x", float64(v), v*1e6), row("s/l/b/x", 1, v*1e6), row("s/l/a/x", 0, 0)})
		}
		time.Sleep(streamPause)
		equal("coalesced", []sse{{streamPause, "reading", reading("s/l/a/x", 5, 5000)}}, got())

		// Each second the clock and the stations.
		clock.add(time.Minute)
		time.Sleep(time.Second - streamPause)
		second := []sse{{time.Second, "clock", strings.Replace(tick0, "10:14", "10:15", 1)}, {time.Second, "stations", at(1) + stations}}
		equal("after a second", second, got())

		// A heartbeat for proxies.
		time.Sleep(14 * time.Second)
		comments := 0
		all := got()
		for _, e := range all {
			if e.name == "comment" && e.data == "alive" {
				comments++
			}
		}
		if comments != 1 || len(all) != 2*14+1 {
			t.Errorf("%d comments among %d events of 14 seconds", comments, len(all))
		}

		// A reconnect starts anew.
		again, err := client.Get("http://localhost/api/v1/live")
		if err != nil {
			t.Fatal(err)
		}
		defer again.Body.Close()
		both := make(chan sse, 10)
		go events(again.Body, began, both)
		synctest.Wait()
		names := map[string]int{}
		for range len(both) {
			names[(<-both).name]++
		}
		if d := cmp.Diff(map[string]int{"retry": 1, "clock": 1, "stations": 1, "reading": 2}, names); d != "" {
			t.Error(d)
		}

		// A clean stop ends open streams at once.
		stopped := time.Now()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if d := time.Since(stopped); d > 500*time.Millisecond {
			t.Errorf("the stop took %s", d)
		}
		for range told { // until the stream's end
		}
	})
}

func TestAStuckClientDelaysNobody(t *testing.T) {
	f := newFixture(t, nil)
	synctest.Test(t, func(t *testing.T) {
		f.rebuild(t)
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- f.Serve(ctx, l) }()
		stuck, err := l.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer stuck.Close()
		// It asks and never reads.
		if _, err := io.WriteString(stuck, "GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(f.streams) != 1 {
			t.Fatalf("%d streams are open", len(f.streams))
		}
		f.opts.Twin.Apply([]state.Row{{Path: "s/l/a/x", EventTime: 1}}) // does not block
		time.Sleep(streamDeadline + time.Second)
		synctest.Wait()
		if len(f.streams) != 0 {
			t.Error("a client that does not read keeps its stream beyond the deadline")
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeStopsInTime(t *testing.T) {
	f := newFixture(t, nil)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l) }()
	url := "http://" + l.Addr().String()
	var bodies []io.Closer
	for range 5 {
		resp, err := http.Get(url + "/api/v1/live")
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp.Body)
		var first [5]byte
		if _, err := io.ReadFull(resp.Body, first[:]); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the stop took %s with open streams", d)
	}
	for _, b := range bodies {
		b.Close()
	}
	if _, err := http.Get(url + "/api/v1/status"); err == nil {
		t.Error("it still answers")
	}
}

func TestTooManyStreams(t *testing.T) {
	f := newFixture(t, nil)
	for range maxStreams {
		f.streams <- struct{}{}
	}
	w := f.ask("GET", "/api/v1/live")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Error(w.Code, w.Header())
	}
	<-f.streams
	if w := f.ask("HEAD", "/api/v1/live"); w.Code != 200 || w.Body.Len() != 0 {
		t.Error(w.Code, w.Body)
	}
}

// TestAStreamOfManySensors measures what a page costs that watches everything.
func TestAStreamOfManySensors(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Twin = state.New() })
	const sensors = 20_000
	rows := make([]state.Row, sensors)
	for i := range rows {
		rows[i] = state.Row{Path: signal.Path(fmt.Sprintf("s/l/a%d/x%d", i/10, i%10)), EventTime: 1, Good: true}
	}
	f.opts.Twin.Apply(rows)
	ctx, cancel := context.WithCancel(t.Context())
	w := &counting{ResponseRecorder: httptest.NewRecorder(), all: sensors, cancel: cancel}
	r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/live", nil)
	r.Host = "localhost"
	began := time.Now()
	f.ServeHTTP(w, r)
	t.Logf("%d readings in %s", w.readings, time.Since(began))
	if w.readings != sensors {
		t.Errorf("%d readings, want %d", w.readings, sensors)
	}
}

// counting hangs up when it has seen all readings.
type counting struct {
	*httptest.ResponseRecorder
	readings, all int
	cancel        context.CancelFunc
}

func (c *counting) Write(b []byte) (int, error) {
	c.readings += strings.Count(string(b), "event: reading\n")
	if c.readings >= c.all {
		c.cancel()
	}
	return len(b), nil
}

func TestEventsAreOneLineOfJSON(t *testing.T) {
	w := httptest.NewRecorder()
	st := stream{w: w, rc: http.NewResponseController(w)}
	row := state.Row{Path: "s/l/a/x", Value: signal.TextValue("two\nlines\r\u2028\"<\x00")}
	if err := st.event("reading", reading(&row)); err != nil {
		t.Fatal(err)
	}
	if err := st.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(w.Body.String(), "\n")
	if len(lines) != 4 || lines[0] != "event: reading" || lines[2] != "" {
		t.Fatalf("%q", lines)
	}
	var back struct{ Text string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[1], "data: ")), &back); err != nil || back.Text != row.Value.Text {
		t.Errorf("%q, %v", back.Text, err)
	}
}
