package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
	"github.com/headrace/headrace/test/need"
)

var quiet = slog.New(slog.DiscardHandler)

func write(t testing.TB, dir, name, content string) Recording {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return Recording{File: file, Node: "n", Asset: "skab/valve1/0"}
}

// drain reads a source to its end.
func drain(t testing.TB, s Source) (out []Sample) {
	t.Helper()
	for {
		c, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Samples...)
	}
}

func TestNames(t *testing.T) {
	for title, want := range map[string]string{
		"Accelerometer1RMS": "accelerometer1_rms", "Volume Flow RateRMS": "volume_flow_rate_rms",
		"Current": "current", "RMSValue": "rms_value", " a - b_c ": "a_b_c", "HTTPServer2Port": "http_server2_port",
		"Druck / Öl": "druck_%2F_öl", "50%": "50%25", "": "", "x\x00y": "x%00y", "a:b": "a%3Ab",
	} {
		if got := clean(snake(title)); got != want {
			t.Errorf("%q became %q, want %q", title, got, want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		name := string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "name"))
		if err := signal.CheckName(clean(name)); err != nil {
			rt.Error(err)
		}
	})
}

func TestRows(t *testing.T) {
	var log bytes.Buffer
	rec := write(t, t.TempDir(), "0.csv", "\ufeffdatetime;Current;Volume Flow RateRMS;Note;anomaly;changepoint\r\n"+
		"2020-03-09 10:14:33;1.5;;open;0.0;1.0\r\n"+
		"yesterday;1;2;x;0;0\r\n"+
		"\r\n"+
		"2020-03-09T10:14:34.25;NaN;-1e3\r\n"+
		"2020-03-09 10:14:35;1;2;3;0;0;9;8\r\n"+
		strings.Repeat("9", maxLineBytes+1)+"\n"+
		"2020-03-09 11:14:36+01:00;1e999;0x10;7;0;0")
	s, err := rec.Open(nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := func(clock string, micros signal.Micros) signal.Micros {
		v, err := time.Parse(time.DateTime, "2020-03-09 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return signal.MicrosOf(v) + micros
	}
	sample := func(at signal.Micros, sensor, unit string, v signal.Value, rescued string) Sample {
		q := signal.QualityGood
		if v.Kind == signal.Null {
			q = signal.QualityBad
		}
		return Sample{Asset: "skab/valve1/0", Class: signal.Telemetry, Reading: signal.Reading{
			Sensor: sensor, EventTime: at, AliveAt: at, Value: v, Unit: unit, Quality: q, Rescued: rescued,
		}}
	}
	row := func(at signal.Micros, rescued string, current, flow, note signal.Value) []Sample {
		return []Sample{
			sample(at, "current", "A", current, rescued),
			sample(at, "volume_flow_rate_rms", "L/min", flow, rescued),
			sample(at, "note", "", note, rescued),
		}
	}
	num, text, null := signal.NumberValue, signal.TextValue, signal.Value{}
	var want []Sample
	want = append(want, row(at("10:14:33", 0), "", num(1.5), null, text("open"))...)
	want = append(want, row(at("10:14:34", 250_000), "", signal.NumberValue(nan()), num(-1000), null)...)
	want = append(want, row(at("10:14:35", 0), `{"extra_cells":["9","8"]}`, num(1), num(2), num(3))...)
	want = append(want, row(at("10:14:36", 0), "", text("1e999"), text("0x10"), num(7))...)
	if diff := cmp.Diff(want, drain(t, s), cmp.Comparer(signal.Value.Equal)); diff != "" {
		t.Error("samples (-want +got):\n", diff)
	}
	if diff := cmp.Diff([]signal.Counter{{Station: "edge", Name: "rows", Value: 4}, {Station: "edge", Name: "rows_refused", Value: 2}}, s.Figures()); diff != "" {
		t.Error(diff)
	}
	var pos position
	if err := json.Unmarshal(s.Position(), &pos); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]signal.Range{{From: 3, To: 3}, {From: 7, To: 7}}, pos.BadLines); diff != "" {
		t.Error(diff)
	}
	for _, place := range []string{"0.csv:3", "0.csv:7"} {
		if strings.Count(log.String(), place) != 1 {
			t.Errorf("the log does not name %s once:\n%.500s", place, log.String())
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

// TestResume reads a file in pieces, reopening at each position, and gets what
// one reading gets.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		var content strings.Builder
		content.WriteString("datetime;a;b\n")
		for i := range rapid.IntRange(0, 20).Draw(rt, "rows") {
			end := rapid.SampledFrom([]string{"\n", "\r\n", "\n\n"}).Draw(rt, "end")
			when := time.Unix(int64(i), 0).UTC().Format(time.DateTime)
			if rapid.IntRange(0, 5).Draw(rt, "bad") == 0 {
				when = "?"
			}
			fmt.Fprintf(&content, "%s;%d;x%s", when, i, end)
		}
		rec := write(t, dir, "f.csv", content.String())
		s, err := rec.Open(nil, quiet)
		if err != nil {
			rt.Fatal(err)
		}
		want := drain(t, s)
		wantPos := s.Position()
		s.Close()
		var got []Sample
		var pos []byte
		for {
			s, err := rec.Open(pos, quiet)
			if err != nil {
				rt.Fatal(err)
			}
			var end error
			for range rapid.IntRange(1, 4).Draw(rt, "piece") {
				c, err := s.Next(context.Background())
				if err != nil {
					end = err
					break
				}
				if rapid.IntRange(0, 3).Draw(rt, "leave") == 0 {
					break // read, but not taken
				}
				got = append(got, c.Samples...)
				s.Take()
			}
			pos = s.Position()
			s.Close()
			if errors.Is(end, io.EOF) {
				break
			}
			if end != nil {
				rt.Fatal(end)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
		if diff := cmp.Diff(string(wantPos), string(pos)); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"":                                     "empty",
		"time;a\n":                             `begins with "time"`,
		"datetime;A b;a-b\n":                   "would both be sensor a_b",
		"datetime;" + strings.Repeat("x", 300): "longer than",
	} {
		rec := write(t, dir, "f.csv", content)
		if _, err := rec.Open(nil, quiet); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want one with %q", content, err, want)
		}
	}
	rec := write(t, dir, "f.csv", "datetime;a\n2020-01-01 00:00:00;1\n")
	s, err := rec.Open(nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	pos := s.Position()
	s.Close()
	write(t, dir, "f.csv", "datetime;b\n2020-01-01 00:00:00;1\n")
	if _, err := rec.Open(pos, quiet); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("another file was taken: %v", err)
	}
	write(t, dir, "f.csv", "datetime;a\n2020-01-01 00:00:00;2\n2020-01-01 00:00:01;3\n")
	if _, err := rec.Open(pos, quiet); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("another file with the same header was taken: %v", err)
	}
	write(t, dir, "f.csv", "datetime;a\n2020-01-01 00:00:00;1\n2020-01-01 00:00:01;3\n")
	grown, err := rec.Open(pos, quiet)
	if err != nil {
		t.Fatalf("a file that has grown was refused: %v", err)
	}
	grown.Close()
	if _, _, err := List(t.TempDir(), "skab"); err == nil || !strings.Contains(err.Error(), "no *.csv") {
		t.Errorf("empty folder: %v", err)
	}
	if _, _, err := List(filepath.Join(dir, "missing"), "skab"); err == nil {
		t.Error("a missing folder was listed")
	}
	both := t.TempDir()
	write(t, both, "v/0.csv", "")
	write(t, both, "v-0.csv", "")
	if _, _, err := List(both, "skab"); err == nil || !strings.Contains(err.Error(), "rename one") {
		t.Errorf("two files of one name: %v", err)
	}
	twice := t.TempDir()
	write(t, twice, "x.csv", "")
	write(t, twice, "x/x.csv", "")
	if _, _, err := List(twice, "skab"); err == nil || !strings.Contains(err.Error(), "would both be asset skab/x/x; rename one") {
		t.Errorf("two files of one asset: %v", err)
	}
	for cell, ok := range map[string]bool{"2199-12-31 00:00:00": true, "2263-01-01 00:00:00": false, "0000-01-01 00:00:00": false} {
		if _, err := parseTime(cell); (err == nil) != ok {
			t.Errorf("parseTime(%s): %v", cell, err)
		}
	}
	for _, spec := range []string{"", "skab", "skab:", "other:x"} {
		if _, _, err := ParseSpec(spec); err == nil {
			t.Errorf("ParseSpec(%q) took it", spec)
		}
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"top.csv", "valve1/0.csv", "valve1/deep/no.csv", "v:2/a b.CSV", "notes.txt", ".git/x.csv"} {
		write(t, dir, name, "datetime;a\nx;1\n2020-03-09 10:14:33;1\n")
	}
	got, leftOut, err := List(dir, "skab")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{".git/x.csv is hidden; rename it", "valve1/deep/no.csv lies deeper than one folder; move it up"} {
		if len(leftOut) != 2 || !strings.HasSuffix(leftOut[i], want) {
			t.Errorf("left out %q, want %q", leftOut, want)
		}
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Node+" "+string(r.Asset))
		if start, err := r.Start(); err != nil || start.Format(time.DateTime) != "2020-03-09 10:14:33" {
			t.Errorf("%s starts at %v, %v", r.File, start, err)
		}
	}
	want := []string{"top skab/top/top", "v%3A2-a b skab/v%3A2/a b", "valve1-0 skab/valve1/0"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

// TestRecordings reads the real recordings, where they are.
func TestRecordings(t *testing.T) {
	dir := os.Getenv("HEADRACE_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "skab")
	recs, _, err := List(dir, "skab")
	need.Suite(t, "data", err == nil, fmt.Sprintf("no recordings: %v; set HEADRACE_DATA to their folder", err))
	for _, r := range recs {
		raw, err := os.ReadFile(r.File)
		if err != nil {
			t.Fatal(err)
		}
		rows := len(strings.Split(strings.TrimSpace(string(raw)), "\n")) - 1
		s, err := r.Open(nil, quiet)
		if err != nil {
			t.Fatal(err)
		}
		got := drain(t, s)
		s.Close()
		if len(got) != 8*rows {
			t.Errorf("%s: %d readings, want 8 × %d", r.File, len(got), rows)
		}
		for _, x := range got {
			if x.Reading.Value.Kind != signal.Number || x.Reading.Unit == "" {
				t.Fatalf("%s: %+v", r.File, x)
			}
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("datetime;a;b\n2020-03-09 10:14:33;1;x\n", 1)
	f.Add("\ufeffdatetime;Volume Flow RateRMS;anomaly\r\n2020-03-09 10:14:33.5;;1\r\n;;;\n", 0)
	f.Fuzz(func(t *testing.T, content string, piece int) {
		rec := write(t, t.TempDir(), "f.csv", content)
		s, err := rec.Open(nil, quiet)
		if err != nil {
			return
		}
		all := drain(t, s)
		s.Close()
		for _, x := range all {
			if err := signal.CheckName(x.Reading.Sensor); err != nil {
				t.Error(err)
			}
		}
	})
}
