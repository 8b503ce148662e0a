package edge_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headrace/headrace/edge"
	"github.com/headrace/headrace/edge/command"
	"github.com/headrace/headrace/edge/filter"
	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/internal/mqttc"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// slow is a link of so many bytes a second.
type slow struct {
	net.Conn
	perSecond float64
}

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(float64(len(b)) / s.perSecond * float64(time.Second)))
	return s.Conn.Write(b)
}

// timed is a source that remembers when it delivered each row.
type timed struct {
	source.Source
	at *sync.Map
}

func (s timed) Next(ctx context.Context) (source.Chunk, error) {
	c, err := s.Source.Next(ctx)
	if err == nil {
		s.at.Store(c.Samples[0].Reading.Value.Number, time.Now())
	}
	return c, err
}

func hours(from, to int) (time.Time, time.Time) {
	t0 := time.Unix(1_600_000_000, 0).UTC()
	return t0.Add(time.Duration(from) * time.Hour), t0.Add(time.Duration(to) * time.Hour)
}

func request(asset string, from, to time.Time) command.Request {
	return command.Request{ID: "r", Verb: command.Replay, Who: "ann", Why: "alert 17", Asset: asset, From: from, To: to}
}

// Over a slow link a replay takes its share of the time, and what is measured
// meanwhile comes as soon as without, and with a complete_to that goes on.
func TestReplayLeavesLiveDataItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past, link = 20_000, 50_000.0
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		dir := t.TempDir()
		a, stop := start(t, options(dir, &counting{n: past, step: time.Second}, l))
		drained(t, a, time.Hour)
		stop()

		opt := options(dir, &counting{n: past + 6000, step: time.Second, every: 100 * time.Millisecond}, l)
		opt.MQTT.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := l.Dial(ctx, network, addr)
			return slow{c, link}, err
		}
		var made sync.Map
		open := opt.Open
		opt.Open = func(position []byte, log *slog.Logger) (source.Source, error) {
			s, err := open(position, log)
			return timed{s, &made}, err
		}
		var worst time.Duration
		liveReadings, replayed := 0, 0
		var asked time.Time
		b.set(func() {
			b.got = nil
			b.lose = func(batch signal.Batch) bool {
				for _, r := range batch.Readings {
					if r.Historical {
						replayed++
						continue
					}
					liveReadings++
					if at, ok := made.Load(r.Value.Number); ok && !asked.IsZero() {
						worst = max(worst, time.Since(at.(time.Time)))
					}
				}
				return false
			}
		})
		a, stop = start(t, opt)
		time.Sleep(20 * time.Second) // births and all
		client, err := command.Dial(t.Context(), mqttc.Config{Addresses: []string{"tcp://broker"}, Dial: l.Dial})
		if err != nil {
			t.Fatal(err)
		}
		b.set(func() { asked = time.Now() })
		from, to := hours(0, 5)
		var complete []signal.Micros
		answer, err := client.Ask(t.Context(), "skab/valve1-0", request("skab/valve1/a", from, to), time.Minute, func(command.Answer) {
			b.set(func() { complete = append(complete, b.complete["skab/valve1/a:telemetry"]) })
		})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(asked)
		client.Close()
		const want = 2 * 5 * 3600
		j := answer.Replay
		if answer.State != command.Done || j.Readings != want || replayed < want {
			t.Errorf("%+v %+v; %d came", answer, j, replayed)
		}
		t.Logf("%d readings in %s; live readings came after %s at the latest", j.Readings, took, worst)
		// 200 ms in a pack, and a piece before it on the link.
		if worst > 700*time.Millisecond {
			t.Errorf("live readings came after %s", worst)
		}
		if len(complete) < 3 || complete[len(complete)-1] <= complete[1] {
			t.Errorf("complete_to stood still: %v", complete)
		}
		if got := counters(a)["replayed"]; got != want {
			t.Errorf("%d count as replayed, want %d", got, want)
		}
		stop()
		b.away()
	})
}

// waveforms is a source of n blocks, of which no filter lets any pass.
type waveforms struct{ n, at, read int }

const blockSamples = 2048

func (w *waveforms) open(position []byte, _ *slog.Logger) (source.Source, error) {
	s := *w
	if len(position) > 0 {
		if err := json.Unmarshal(position, &s.at); err != nil {
			return nil, err
		}
	}
	s.read = s.at
	return &s, nil
}

func (w *waveforms) Next(context.Context) (source.Chunk, error) {
	w.Take()
	if w.at >= w.n {
		return source.Chunk{}, io.EOF
	}
	w.read = w.at + 1
	at := time.Unix(1_600_000_000, 0).Add(time.Duration(w.at) * time.Second)
	raw := make([]byte, 2*blockSamples)
	for i := range blockSamples {
		v := int16(1000 * math.Sin(float64(i*w.at)))
		raw[2*i], raw[2*i+1] = byte(v), byte(v>>8)
	}
	block := record.AppendWaveform(nil, &record.Waveform{First: uint64(w.at * blockSamples), Rate: 2048, Format: record.FormatI16, Scale: 1, Samples: raw})
	r := signal.Reading{Sensor: "v", EventTime: signal.MicrosOf(at), AliveAt: signal.MicrosOf(at), Value: signal.WaveValue(string(block)), Quality: signal.QualityGood}
	return source.Chunk{Time: at, Samples: []source.Sample{{Asset: "skab/valve1/a", Class: signal.Raw, Reading: r}}}, nil
}

func (w *waveforms) Take()                     { w.at = w.read }
func (w *waveforms) Figures() []signal.Counter { return nil }
func (w *waveforms) Close() error              { return nil }
func (w *waveforms) Position() []byte {
	b, _ := json.Marshal(w.at)
	return b
}

// Waveforms of which none left come whole on the raw stream, each block once, and
// what cannot be is refused with the reason.
func TestReplayOfWaveforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		l := newPipes()
		defer startBroker(t, l)()
		b := newBridge(t)
		b.up(l.Dial)
		opt := options(t.TempDir(), nil, l)
		opt.Open, opt.Filter = (&waveforms{n: n}).open, filter.None()
		a, err := edge.New(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		drained(t, a, time.Hour)
		client, err := command.Dial(t.Context(), mqttc.Config{Addresses: []string{"tcp://broker"}, Dial: l.Dial})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(q command.Request) command.Answer {
			t.Helper()
			answer, err := client.Ask(t.Context(), "skab/valve1-0", q, time.Minute, nil)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		from, to := hours(0, 1)
		answer := ask(request("skab/valve1/a", from.Add(100*time.Second), to))
		if answer.State != command.Done || answer.Replay.Samples != (n-100)*blockSamples || answer.Replay.Left == "" {
			t.Errorf("%+v %+v", answer, answer.Replay)
		}
		// The audit and the configuration go with the birth to headrace.events.
		time.Sleep(5 * time.Second)
		b.set(func() {
			said := map[string]string{}
			for _, r := range b.node {
				said[r.Sensor] = r.Value.Text
			}
			if said["Config/Hash"] != filter.None().Hash() || said["Config/Status"] != command.Applied {
				t.Errorf("the birth says %v", said)
			}
			for _, word := range []string{`"who":"ann"`, `"why":"alert 17"`, `"verb":"replay"`, "skab/valve1/a"} {
				if !strings.Contains(said["Command/Last"], word) {
					t.Errorf("the birth says %v, not %s", said, word)
				}
			}
		})
		blocks := map[uint64]int{}
		b.set(func() {
			var w record.Waveform
			for _, batch := range b.got {
				for _, r := range batch.Readings {
					if err := record.DecodeWaveform([]byte(r.Value.Text), &w); err != nil || batch.Stream != "skab/valve1/a:raw" || !r.Historical {
						t.Errorf("%v, %s, historical %t", err, batch.Stream, r.Historical)
					}
					blocks[w.First/blockSamples]++
				}
			}
		})
		for i := range uint64(n) {
			if want := map[bool]int{true: 1}[i >= 100]; blocks[i] != want {
				t.Fatalf("block %d came %d times, want %d", i, blocks[i], want)
			}
		}
		got := counters(a)
		if got["samples_replayed"] != (n-100)*blockSamples || got["samples_shipped"] != got["samples_replayed"] || got["replayed"] != 0 {
			t.Errorf("%v", got)
		}
		for name, c := range map[string]struct {
			q    command.Request
			want string
		}{
			"a range that is gone":  {request("skab/valve1/a", from.Add(-time.Hour), from), "any more"},
			"an asset of others":    {request("skab/valve1/z", from, to), "it has skab/valve1/a"},
			"an empty range":        {request("skab/valve1/a", to, from), "empty"},
			"a verb that is not":    {command.Request{Verb: "dance", Who: "ann"}, "dance"},
			"a plan without a file": {command.Request{Verb: command.Plan, Who: "ann"}, "no configuration file"},
		} {
			c.q.ID = name
			if a := ask(c.q); a.State != command.Refused || !strings.Contains(a.Reason, c.want) {
				t.Errorf("%s: %+v", name, a)
			}
		}
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.away()
	})
}
