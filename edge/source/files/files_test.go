package files

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/edge/source"
	"github.com/headrace/headrace/signal"
)

// reader opens the source again and again over one folder.
type reader struct {
	t        *testing.T
	cfg      Config
	position []byte
	src      source.Source
}

func newReader(t *testing.T, cfg Config) *reader {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	r := &reader{t: t, cfg: cfg}
	r.open()
	return r
}

func (r *reader) open() {
	r.t.Helper()
	set, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.src, err = Opener(Options{Set: set, Site: "lyon", Clock: signal.WallClock{}})(r.position, nil); err != nil {
		r.t.Fatal(err)
	}
}

// restart ends the source where it was committed last.
func (r *reader) restart() { _ = r.src.Close(); r.open() }

func (r *reader) commit() { r.src.Take(); r.position = r.src.Position() }

func (r *reader) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.cfg.Dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) append(name, text string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.cfg.Dir, name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) rename(from, to string) {
	r.t.Helper()
	if err := os.Rename(filepath.Join(r.cfg.Dir, from), filepath.Join(r.cfg.Dir, to)); err != nil {
		r.t.Fatal(err)
	}
}

// all reads for some seconds, of the bubble's time, and commits.
func (r *reader) all(seconds int) (out []string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	for {
		c, err := r.src.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			r.commit()
			return out
		}
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, r.texts(c)...)
	}
}

func (r *reader) texts(c source.Chunk) (out []string) {
	for _, x := range c.Samples {
		v := fmt.Sprint(x.Reading.Value.Number)
		if x.Reading.Value.Kind == signal.Text {
			v = x.Reading.Value.Text
		}
		at := x.Reading.EventTime.Time().Format("15:04:05")
		if x.Arrived {
			at = "arrival"
		}
		out = append(out, fmt.Sprintf("%s=%s%s %s", x.Asset.Sensor(x.Reading.Sensor), v, x.Reading.Unit, at))
	}
	for _, f := range c.Refused {
		out = append(out, fmt.Sprintf("refused %s: %s: %q", strings.TrimPrefix(f.From, r.cfg.Dir+"/"), f.Reason, f.Bytes))
	}
	return out
}

func (r *reader) figure(name string) int64 {
	for _, c := range r.src.Figures() {
		if c.Name == name {
			return c.Value
		}
	}
	return -1
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

var wide = Config{Format: CSV, Time: "ts", Asset: "lyon/hall/{file}"}

func TestWideAndLong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		file string
		text string
		want []string
	}{
		"a column per sensor": {wide, "pump 1.csv", "\ufeffts,\"Oil Temp\",note\r\n2026-01-01 10:00:00,21.5,\"a, \"\"b\"\"\"\r\n2026-01-01T11:00:01+01:00,,ok\r\n", []string{
			"lyon/hall/pump 1/oil_temp=21.5 10:00:00", `lyon/hall/pump 1/note=a, "b" 10:00:00`, "lyon/hall/pump 1/note=ok 10:00:01",
		}},
		"named columns, German": {
			Config{Format: CSV, Separator: ";", DecimalComma: true, Time: "Zeit", TimeFormat: "02.01.2006 15:04:05", Zone: "Europe/Berlin", Asset: "lyon/hall/p", Columns: []Column{{Column: "T (°C)", Sensor: "temp", Unit: "Cel"}}},
			"a.csv",
			"Zeit;T (°C);other\n01.07.2026 12:00:00;1,5;x\n",
			[]string{"lyon/hall/p/temp=1.5Cel 10:00:00"},
		},
		"no header": {
			Config{Format: CSV, NoHeader: true, Separator: "tab", Time: "1", TimeFormat: "unix", Asset: "lyon/hall/p", Columns: []Column{{Column: "3", Sensor: "x"}}},
			"a.csv",
			"0\tq\t1\n60\tq\t2\n",
			[]string{"lyon/hall/p/x=1 00:00:00", "lyon/hall/p/x=2 00:01:00"},
		},
		"a path in each row": {
			Config{Format: CSV, Time: "ts", TimeFormat: "unix_ms", Path: "tag", Value: "v", Unit: "u", Quality: "q"},
			"a.csv",
			"ts,tag,v,u,q\n1000,lyon/a/b/c,1,bar,192\n2000,paris/a/b/c,1,bar,192\n3000,lyon/a/b,1,bar,192\n4000,lyon/a/b/d,2,,x\n",
			[]string{
				"lyon/a/b/c=1bar 00:00:01",
				`refused a.csv:3: it is of site paris; this edge is of lyon: "2000,paris/a/b/c,1,bar,192\n"`,
				`refused a.csv:4: "lyon/a/b" has 3 names, want 4: site/line/asset/sensor: "3000,lyon/a/b,1,bar,192\n"`,
				`refused a.csv:5: quality "x" is none of OPC's numbers: "4000,lyon/a/b/d,2,,x\n"`,
			},
		},
		"no time": {Config{Format: CSV, Asset: "lyon/hall/p"}, "a.csv", "x\n7\n", []string{"lyon/hall/p/x=7 arrival"}},
		"JSON lines": {
			Config{Format: JSONL, Time: "ts", Asset: "lyon/hall/p"}, "a.jsonl", `{"ts":"2026-01-01T00:00:01Z","Oil Temp":1.5,"on":true,"none":null}` + "\n\n" + `{"ts":2000,"s":"text"}` + "\n[1]\n{\"ts\":3000,\"o\":{}}\n", []string{
				"lyon/hall/p/oil_temp=1.5 00:00:01", "lyon/hall/p/on=1 00:00:01", "lyon/hall/p/s=text 00:00:02",
				`refused a.jsonl:4: the line is no JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage: "[1]\n"`,
				`refused a.jsonl:5: o: {} is neither number, text nor truth value: "{\"ts\":3000,\"o\":{}}\n"`,
			},
		},
		"JSON lines with paths": {
			Config{Format: JSONL, Time: "t", TimeFormat: "unix", Asset: "lyon/hall/p", Path: "tag", Value: "v", Unit: "u"}, "a.jsonl", `{"t":1.5,"tag":"a/b","v":1,"u":"bar"}` + "\n", []string{"lyon/hall/p/a%2Fb=1bar 00:00:01"},
		},
		"rows that are none": {wide, "p.csv", "ts,x\n2026-01-01 10:00:00,1,2\nyesterday,1\n\n2026-01-01 10:00:00,\"a\"b\n2026-01-01 10:00:01,\xff\n2026-01-01 10:00:02,3\n", []string{
			`refused p.csv:2: the row has 3 cells, the header 2: "2026-01-01 10:00:00,1,2\n"`,
			`refused p.csv:3: "yesterday" is not a time by time_format "": "yesterday,1\n"`,
			`refused p.csv:5: column 23: extraneous or missing " in quoted-field: "2026-01-01 10:00:00,\"a\"b\n"`,
			`refused p.csv:6: it is not UTF-8: "2026-01-01 10:00:01,\xff\n"`,
			"lyon/hall/p/x=3 10:00:02",
		}},
		"a header that is none": {wide, "p.csv", "time,x\n1,2\n", []string{
			`refused p.csv:1: the whole file is left out: there is no column "ts" (time); there are ["time" "x"]; mend it and put it there again: "time,x\n"`,
		}},
		"a quote that nobody closes": {wide, "p.csv", "ts,x\n2026-01-01 10:00:00,\"1\n2026-01-01 10:00:01,2\n", []string{
			`refused p.csv:2: a quote is opened and not closed: "2026-01-01 10:00:00,\"1\n"`, "lyon/hall/p/x=2 10:00:01",
		}},
		"a line that is too long": {wide, "p.csv", "ts,x\n2026-01-01 10:00:00," + strings.Repeat("y", 3*readBytes) + "\n2026-01-01 10:00:01,2\n", []string{
			"refused p.csv:2: " + errTooLong.Error(), "lyon/hall/p/x=2 10:00:01",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, c.cfg)
				r.write(c.file, c.text)
				r.write("."+c.file, c.text)
				r.write(c.file+".part", c.text)
				got := r.all(100)
				for i := range got {
					if strings.Contains(got[i], errTooLong.Error()) {
						got[i], _, _ = strings.Cut(got[i], ": \"")
					}
				}
				same(t, "read", got, c.want...)
				r.restart()
				same(t, "after a restart", r.all(100))
			})
		})
	}
}

func row(i int) string { return fmt.Sprintf("2026-01-01 10:00:%02d,%d\n", i, i) }
func want(file string, i int) string {
	return fmt.Sprintf("lyon/hall/%s/x=%d 10:00:%02d", file, i, i)
}

// A last line waits for its end, and after a while is taken for whole.
func TestHalfWrittenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, wide)
		r.write("p.csv", "ts,x\n"+row(1)+"2026-01-01 10:00:0")
		same(t, "whole lines", r.all(5), want("p", 1))
		r.restart()
		r.append("p.csv", "2,")
		same(t, "still half", r.all(30))
		r.append("p.csv", "2")
		same(t, "not yet", r.all(55))
		same(t, "a minute without an end", r.all(10), want("p", 2))
		r.append("p.csv", "\n"+row(3))
		same(t, "the rest", r.all(5), want("p", 3))
	})
}

// However files are rotated, each row is read once: renamed, copied and cut, or
// written anew with what they had before.
func TestRotations(t *testing.T) {
	for name, rotate := range map[string]func(r *reader){
		"renamed": func(r *reader) {
			r.append("p.csv", row(3)) // not read yet
			r.rename("p.csv", "p.csv.1")
			r.write("p.csv", "ts,x\n"+row(4))
		},
		"renamed to a name that is read too": func(r *reader) {
			r.append("p.csv", row(3))
			r.rename("p.csv", "old.csv")
			r.write("p.csv", "ts,x\n"+row(4))
		},
		"copied and cut": func(r *reader) {
			b, err := os.ReadFile(filepath.Join(r.cfg.Dir, "p.csv"))
			if err != nil {
				r.t.Fatal(err)
			}
			r.write("p-1.csv", string(b)+row(3))
			same(r.t, "a copy is not read", r.all(2))
			r.write("p.csv", "ts,x\n"+row(4))
		},
		"written anew by a rename": func(r *reader) {
			r.write("p.csv.tmp", "ts,x\n"+row(1)+row(2)+row(3)+row(4))
			r.rename("p.csv.tmp", "p.csv")
		},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newReader(t, wide)
					r.write("p.csv", "ts,x\n"+row(1)+row(2))
					same(t, "before", r.all(3), want("p", 1), want("p", 2))
					if restart {
						r.restart()
					}
					rotate(r)
					got := r.all(10)
					if restart {
						r.restart()
						got = append(got, r.all(10)...)
					}
					same(t, "after", got, want("p", 3), want("p", 4))
					if n := r.figure("rows"); n != 4 {
						t.Errorf("%d rows", n)
					}
				})
			})
		}
	}
}

// Two files with the same rows are two files, and what is cut before it was read
// is said.
func TestTwinsAndLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, wide)
		r.write("a.csv", "ts,x\n"+row(1))
		r.write("b.csv", "ts,x\n"+row(1))
		same(t, "twins", r.all(10), want("a", 1), want("b", 1))
		r.append("a.csv", "2026-01-01 10")
		same(t, "half a line", r.all(3))
		r.write("a.csv", "ts,x\n")
		same(t, "cut", r.all(3))
		if r.figure("files_lost") != 1 || r.figure("files_rotated") != 1 {
			t.Errorf("%v", r.src.Figures())
		}
		// A broken file is read when it is mended.
		r.write("c.csv", "zeit,x\n"+row(5))
		if got := r.all(3); len(got) != 1 {
			t.Errorf("%q", got)
		}
		r.restart()
		same(t, "still broken", r.all(3))
		r.write("c.csv", "ts,x\n"+row(5))
		same(t, "mended", r.all(3), want("c", 5))
	})
}

// Whenever the source is stopped, and whatever of it was committed, every row is
// delivered once by what was committed.
func TestEachRowOnce(t *testing.T) {
	const rows = 6000
	dir := t.TempDir()
	cfg := wide
	cfg.Dir = dir
	cfg.PollSeconds = 0.001
	r := newReader(t, cfg)
	seen := map[string]int{}
	var text strings.Builder
	text.WriteString("ts,x\n")
	for i := range rows {
		fmt.Fprintf(&text, "2026-01-01 10:00:00,%d\n", i)
	}
	whole := text.String()
	random := rand.New(rand.NewPCG(1, 2))
	written := 0
	for len(seen) < rows {
		if written < len(whole) {
			n := min(len(whole)-written, random.IntN(20_000))
			r.append("p.csv", whole[written:written+n])
			written += n
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		var uncommitted []string
		for {
			c, err := r.src.Next(ctx)
			if err != nil {
				break
			}
			uncommitted = append(uncommitted, r.texts(c)...)
			if random.IntN(2) == 0 {
				r.commit()
				for _, x := range uncommitted {
					seen[x]++
				}
				uncommitted = nil
			}
		}
		cancel()
		r.restart()
	}
	for x, n := range seen {
		if n != 1 {
			t.Fatalf("%s came %d times", x, n)
		}
	}
}

// Records are cut as encoding/csv reads them.
func TestCutAgainstCSV(t *testing.T) {
	set, err := New(Config{Dir: "x", Format: CSV, Asset: "a/b/c"})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(rapid.SliceOfN(rapid.StringOf(rapid.RuneFrom([]rune("ab\",\n ü;"))), 2, 4), 1, 8).Draw(t, "cells")
		var b strings.Builder
		w := csv.NewWriter(&b)
		if err := w.WriteAll(cells); err != nil {
			t.Fatal(err)
		}
		var got [][]string
		rest := []byte(b.String())
		for len(rest) > 0 {
			record, lines, why, ok := set.cut(rest, false)
			if why != nil || !ok || lines < 1 || lines != int64(strings.Count(string(record), "\n")) {
				t.Fatalf("%q: %v, %d lines, %v", rest, why, lines, ok)
			}
			one, err := set.cells(record)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, one)
			rest = rest[len(record):]
		}
		if d := cmp.Diff(cells, got); d != "" {
			t.Error(d)
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(true, []byte("ts,x\n2026-01-01 10:00:00,1\n\"a\nb\",\"\n"))
	f.Add(false, []byte("{\"ts\":1,\"x\":2}\n{"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, isCSV bool, b []byte) {
		cfg := Config{Dir: dir, Format: JSONL, Time: "ts", Asset: "lyon/a/b"}
		if isCSV {
			cfg.Format = CSV
		}
		set, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		src, err := Opener(Options{Set: set, Site: "lyon", Clock: signal.WallClock{}})(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := src.(*watcher)
		file := newFile(entry{Name: "f", First: "f", Line: 1})
		for offset := int64(-1); file.read.Offset > offset && file.read.Offset < int64(len(b)) && !file.read.Broken; {
			offset = file.read.Offset
			s.rows(file, b[offset:], true)
			for _, x := range s.samples {
				if _, err := signal.ParsePath(string(x.Asset.Sensor(x.Reading.Sensor))); err != nil {
					t.Error(err)
				}
			}
			s.samples, s.refused = s.samples[:0], s.refused[:0]
		}
		if file.read.Offset != int64(len(b)) && !file.read.Broken {
			t.Errorf("%d of %d bytes were read", file.read.Offset, len(b))
		}
	})
}

func TestRefusedConfigurations(t *testing.T) {
	good := Config{Dir: "x", Format: CSV, Asset: "lyon/a/{file}"}
	for want, change := range map[string]func(*Config){
		"dir is empty":           func(c *Config) { c.Dir = "" },
		"neither csv nor jsonl":  func(c *Config) { c.Format = "xml" },
		"write it like *.csv":    func(c *Config) { c.Pattern = "a/*" },
		"not one character":      func(c *Config) { c.Separator = ";;" },
		"decimal_comma":          func(c *Config) { c.DecimalComma = true },
		"are for csv":            func(c *Config) { c.Format, c.NoHeader = JSONL, true },
		"Europe/Paris":           func(c *Config) { c.Zone = "Mars" },
		"time_format":            func(c *Config) { c.TimeFormat = "iso" },
		"poll_seconds":           func(c *Config) { c.PollSeconds = -1 },
		"asset":                  func(c *Config) { c.Asset = "lyon/a" },
		"path needs value":       func(c *Config) { c.Path = "p" },
		"need path":              func(c *Config) { c.Value = "v" },
		"neither asset nor path": func(c *Config) { c.Asset = "" },
		"stands twice":           func(c *Config) { c.Columns = []Column{{Column: "a", Sensor: "s"}, {Column: "b", Sensor: "s"}} },
		"class":                  func(c *Config) { c.Columns = []Column{{Column: "a", Sensor: "s", Class: "raw"}} },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one with %q", err, want)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
