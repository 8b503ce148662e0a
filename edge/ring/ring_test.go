package ring

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/signal"
)

const asset = signal.Asset("s/l/m")

func collect(t rapid.TB, r *Ring, sensor string, from, before uint64) (out []uint64) {
	t.Helper()
	err := r.Blocks(asset, sensor, from, before, func(b Block) error {
		if want := content(sensor, b.First); string(b.Bytes) != want || b.Time != signal.Micros(b.First)*10 {
			t.Fatalf("block %d of %s: %q at %d", b.First, sensor, b.Bytes, b.Time)
		}
		out = append(out, b.First)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func content(sensor string, first uint64) string {
	return fmt.Sprintf("%s %d %0*d", sensor, first, int(first%50), 0)
}

func open(t rapid.TB, opt Options) *Ring {
	t.Helper()
	r, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sample draws a slow sample of a time.
func sample(t *rapid.T, sensor string, at signal.Micros) signal.Reading {
	v := signal.Reading{Sensor: sensor, EventTime: at, AliveAt: at, Quality: signal.QualityGood, Unit: "bar"}
	switch rapid.IntRange(0, 12).Draw(t, "kind") {
	case 0:
		v.Value = signal.NumberValue(rapid.Float64().Draw(t, "number"))
	case 1:
		v.Value = signal.BoolValue(rapid.Bool().Draw(t, "bool"))
	case 2:
		v.Value = signal.TextValue(rapid.StringN(0, 5, 20).Draw(t, "text"))
	case 3:
		v.Quality, v.Rescued = signal.QualityBad, "{}"
	case 4:
		v.AliveAt += 5
		v.Value = signal.NumberValue(math.NaN())
	case 5:
		v.Historical, v.Unit = true, "Pa"
		v.Value = signal.NumberValue(math.Inf(-1))
	default:
		v.Value = signal.NumberValue(float64(rapid.IntRange(-500, 500).Draw(t, "tenths")) * 0.1)
	}
	return v
}

// read is what a reader finds of an asset, or of all.
func read(t rapid.TB, dir string, of signal.Asset, from, to signal.Micros) (slow []Sample, waves []uint64) {
	t.Helper()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.Read(of, from, to, func(s *Sample) error {
		if s.Class == signal.Raw {
			waves = append(waves, uint64(s.Reading.EventTime/10))
		} else {
			slow = append(slow, *s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slow, waves
}

// ordered sorts samples by all that they say, so that lists can be compared.
func ordered(s []Sample) []Sample {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(a.Reading.EventTime, b.Reading.EventTime), cmp.Compare(a.Reading.Sensor, b.Reading.Sensor), cmp.Compare(a.Asset, b.Asset))
	})
	return s
}

// The ring against plain lists, over restarts, kills that lose what was not
// synced, and a source that is read again after each. A reader sees all of it
// meanwhile.
func TestRingAgainstLists(t *testing.T) {
	top, tries := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		tries++
		opt := Options{Dir: filepath.Join(top, strconv.Itoa(tries)), MaxBytes: 1 << 20, SegmentBytes: 900, FlushBytes: 60, FlushSpan: time.Hour}
		r := open(t, opt)
		var synced, since []Sample // slow samples; since the last sync
		blocks := map[string][]uint64{}
		var sinceBlocks []func()
		next, now := map[string]uint64{}, signal.Micros(1)
		again := func() { // the source delivers again what was not committed
			for _, s := range since {
				if err := r.AppendSample(s.Asset, s.Class, &s.Reading); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range sinceBlocks {
				f()
			}
		}
		check := func() {
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
			synced, since, sinceBlocks = append(synced, since...), nil, nil
			slow, waves := read(t, opt.Dir, "", 0, math.MaxInt64)
			if d := gocmp.Diff(ordered(synced), ordered(slow), gocmp.Comparer(signal.Value.Equal)); d != "" {
				t.Fatalf("the reader: %s", d)
			}
			if n := len(blocks["a"]) + len(blocks["b"]); len(waves) != n {
				t.Fatalf("the reader finds %d blocks, want %d", len(waves), n)
			}
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			sensor := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "sensor")
			switch rapid.SampledFrom([]string{"block", "sample", "sample", "sample", "sync", "close", "kill"}).Draw(t, "step") {
			case "block":
				first := next[sensor]
				put := func() {
					if err := r.Append(asset, sensor, Block{Time: signal.Micros(first) * 10, First: first, Bytes: []byte(content(sensor, first))}); err != nil {
						t.Fatal(err)
					}
				}
				put()
				sinceBlocks = append(sinceBlocks, put)
				blocks[sensor] = append(blocks[sensor], first)
				next[sensor] = first + rapid.Uint64Range(1, 3).Draw(t, "gap")
			case "sample":
				now += signal.Micros(rapid.IntRange(1, 3).Draw(t, "step"))
				s := Sample{signal.NewAsset("s", "l", rapid.SampledFrom([]string{"m", "n"}).Draw(t, "asset")), signal.Telemetry, sample(t, sensor, now)}
				if err := r.AppendSample(s.Asset, s.Class, &s.Reading); err != nil {
					t.Fatal(err)
				}
				since = append(since, s)
			case "sync":
				check()
			case "close":
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				r = open(t, opt)
				again() // the commit behind it did not come about
			case "kill":
				_ = errors.Join(closeFile(r.file), closeFile(r.journal))
				r = open(t, opt)
				again()
			}
		}
		check()
		for sensor, want := range blocks {
			from := rapid.Uint64Range(0, next[sensor]).Draw(t, "from")
			i := slices.IndexFunc(want, func(v uint64) bool { return v >= from })
			if i < 0 {
				i = len(want)
			}
			if d := gocmp.Diff(append([]uint64(nil), want[i:]...), collect(t, r, sensor, from, math.MaxUint64)); d != "" {
				t.Fatalf("blocks of %s from %d: %s", sensor, from, d)
			}
		}
		if s := r.Stats(); s.Damaged != 0 || s.Refused != 0 {
			t.Fatalf("%+v", s)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A run gives back every sample to the bit, in the order in which they came.
func TestRunIsLossless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r run
		var want, got []signal.Reading
		at := signal.Micros(rapid.Int64Range(-1<<40, 1<<50).Draw(t, "start"))
		for range rapid.IntRange(1, 100).Draw(t, "n") {
			at += signal.Micros(rapid.Int64Range(-1000, 1_000_000).Draw(t, "step"))
			v := sample(t, "x", at)
			r.add(&v)
			want = append(want, v)
		}
		if err := r.samples("x", func(v signal.Reading) error { got = append(got, v); return nil }); err != nil {
			t.Fatal(err)
		}
		bits := gocmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
		if d := gocmp.Diff(want, got, bits); d != "" {
			t.Fatal(d)
		}
	})
}

// fill makes a ring of some segments with a block and samples in each record, and
// returns what is in it.
func fill(t *testing.T, opt Options, n int) {
	t.Helper()
	r := open(t, opt)
	for i := range n {
		at := signal.Micros(i+1) * 1_000_000
		if err := r.Append(asset, "de", Block{Time: at, First: uint64(i), Bytes: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
		for k := range 10 {
			v := signal.Reading{Sensor: "t", EventTime: at + signal.Micros(k), AliveAt: at + signal.Micros(k), Value: signal.NumberValue(float64(i)), Quality: signal.QualityGood}
			if err := r.AppendSample(asset, signal.Telemetry, &v); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.pack(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// A flipped byte costs the record that it is in, wherever it is, and stops nothing.
func TestFlippedByte(t *testing.T) {
	whole := t.TempDir()
	opt := Options{Dir: whole, MaxBytes: 1 << 20, SegmentBytes: 1500}
	fill(t, opt, 12)
	files, err := filepath.Glob(filepath.Join(whole, "*"+segmentEnding))
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(b); at += 7 {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			flipped := slices.Clone(b)
			flipped[at] ^= 0x55
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			opt.Dir = dir
			r := open(t, opt)
			slow, waves := read(t, dir, "", 0, math.MaxInt64)
			if len(waves) < 11 || len(slow) < 110 || len(waves) == 11 && len(slow) == 110 {
				t.Fatalf("byte %d of %s: %d blocks and %d samples are left of 12 and 120", at, filepath.Base(file), len(waves), len(slow))
			}
			if err := r.Append(asset, "de", Block{Time: 99e6, First: 99, Bytes: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if _, again := read(t, dir, "", 99e6, 100e6); len(again) != 1 {
				t.Fatalf("byte %d: the ring does not go on", at)
			}
		}
	}
}

type fixedClock struct{ now time.Time }

func (c *fixedClock) Now() time.Time                                   { return c.now }
func (c *fixedClock) WaitUntil(ctx context.Context, _ time.Time) error { return ctx.Err() }

// What is older than the bound goes, segment by segment; a time from a far future
// takes nothing with it.
func TestAge(t *testing.T) {
	clock := &fixedClock{time.Unix(50, 0)}
	opt := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 1500, MaxAge: 60 * time.Second, Clock: clock}
	fill(t, opt, 40)
	r := open(t, opt)
	if err := r.Append(asset, "other", Block{Time: math.MaxInt64 / 2, First: 1, Bytes: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, waves := read(t, opt.Dir, asset, 0, 41e6); len(waves) != 40 {
		t.Errorf("%d blocks while all are young", len(waves))
	}
	clock.now = time.Unix(90, 0)
	if err := r.shrink(); err != nil {
		t.Fatal(err)
	}
	_, waves := read(t, opt.Dir, asset, 0, 41e6)
	if len(waves) < 10 || len(waves) > 14 || waves[len(waves)-1] != 40e5 {
		t.Errorf("%d blocks are left when those up to 30 s are too old", len(waves))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// Bytes and age bound the ring; what is pinned stays beyond them, up to a bound of
// its own; what was there the longest goes first.
func TestRetention(t *testing.T) {
	opt := Options{Dir: t.TempDir(), MaxBytes: 8000, SegmentBytes: 1500, PinnedBytes: 4000}
	fill(t, opt, 100)
	r := open(t, opt)
	s := r.Stats()
	if s.Bytes > 8000 || s.Bytes < 4000 || s.Segments < 2 {
		t.Errorf("%+v", s)
	}
	_, waves := read(t, opt.Dir, asset, 0, math.MaxInt64)
	if len(waves) == 0 || waves[len(waves)-1] != 100e5 {
		t.Fatalf("%d blocks, the newest is not there", len(waves))
	}
	pin := Pin{Asset: asset, From: signal.Micros(waves[0] * 10), To: signal.Micros(waves[0]*10 + 1), Why: "budget"}
	if err := r.Pin(pin); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, opt)
	if d := gocmp.Diff([]Pin{pin}, r.Pins()); d != "" {
		t.Error(d)
	}
	for i := range 200 {
		at := signal.Micros(200+i) * 1_000_000
		if err := r.Append(asset, "de", Block{Time: at, First: uint64(200 + i), Bytes: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, kept := read(t, opt.Dir, asset, pin.From, pin.To); len(kept) != 1 || r.Stats().Pinned == 0 {
		t.Errorf("%d blocks of what is pinned, %+v", len(kept), r.Stats())
	}
	// More pins than there is room for: the oldest is given up, and counted.
	if err := r.Pin(Pin{Asset: asset, To: math.MaxInt64, Why: "all"}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		at := signal.Micros(400+i) * 1_000_000
		if err := r.Append(asset, "de", Block{Time: at, First: uint64(400 + i), Bytes: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); s.Bytes > 8000+4000 || s.Unpinned == 0 {
		t.Errorf("%+v", s)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// A disk that is short costs the ring its oldest and then what comes, never an
// error; with room it goes on.
func TestShortDisk(t *testing.T) {
	free := uint64(1000)
	opt := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 1500, FloorBytes: 100, Free: func(string) (uint64, error) { return free, nil }}
	fill(t, opt, 30)
	r := open(t, opt)
	before := r.Stats()
	free = 50
	for i := range 100 {
		at := signal.Micros(100+i) * 1_000_000
		if err := r.Append(asset, "de", Block{Time: at, First: uint64(100 + i), Bytes: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
		v := signal.Reading{Sensor: "t", EventTime: at, AliveAt: at}
		if err := r.AppendSample(asset, signal.Telemetry, &v); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); s.Refused == 0 || s.Segments >= before.Segments {
		t.Errorf("%+v", s)
	}
	free = 1000
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := r.Append(asset, "de", Block{Time: 900e6, First: 900, Bytes: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := r.full(syscall.ENOSPC); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, waves := read(t, opt.Dir, asset, 900e6, 901e6); len(waves) != 1 {
		t.Error("with room the ring does not go on")
	}
}

// A slow sensor with a resolution costs little: its times are regular, its values
// small steps.
func TestSlowSamplesAreSmall(t *testing.T) {
	r := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 20})
	rng := uint64(1)
	const sensors, seconds = 20, 3600
	for s := range seconds {
		for k := range sensors {
			rng = rng*6364136223846793005 + 1442695040888963407
			value := 50 + 10*math.Sin(float64(s)/300+float64(k)) + 0.15*float64(int64(rng>>33)%7-3)/3
			at := signal.Micros(s) * 1_000_000
			v := signal.Reading{Sensor: "t" + strconv.Itoa(k), EventTime: at, AliveAt: at, Value: signal.NumberValue(math.Round(value*10) / 10), Unit: "Cel", Quality: signal.QualityGood}
			if err := r.AppendSample(asset, signal.Telemetry, &v); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.pack(); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	each := float64(s.SlowBytes) / float64(s.Packed)
	t.Logf("%.3f bytes a sample with its time", each)
	if s.Packed != sensors*seconds || each > 0.5 {
		t.Errorf("%d samples of %.3f bytes each, want at most 0.5", s.Packed, each)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// files makes a ring with a segment and a journal and returns their bytes.
func files(t testing.TB) (segment, journal []byte) {
	dir := t.TempDir()
	r, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	v := signal.Reading{Sensor: "t", EventTime: 1, AliveAt: 2, Value: signal.TextValue("x")}
	for i := range 3 {
		err = errors.Join(err, r.AppendSample(asset, signal.Event, &v), r.Append(asset, "de", Block{First: uint64(i), Bytes: []byte("b")}))
	}
	err = errors.Join(err, r.Sync())
	journal, err2 := os.ReadFile(r.journal.Name())
	err = errors.Join(err, err2, r.pack(), r.seal(), r.Close())
	segment, err2 = os.ReadFile(segmentFile(dir, 1))
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return segment, journal
}

// Files of a ring that hold nonsense are opened, read and written to.
func TestNonsense(t *testing.T) {
	segment, journal := files(t)
	for name, c := range map[string][2][]byte{
		"swapped": {journal, segment}, "cut": {segment[:len(segment)/2], journal[:len(journal)/2]}, "noise": {[]byte("HRR2HRR2HRR2"), []byte("HRR2\x03")}, "empty": {},
	} {
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(segmentFile(dir, 1), c[0], 0o600), os.WriteFile(filepath.Join(dir, journalPrefix+"1"), c[1], 0o600)); err != nil {
			t.Fatal(err)
		}
		r := open(t, Options{Dir: dir})
		v := signal.Reading{Sensor: "new", EventTime: 7, AliveAt: 7}
		if err := errors.Join(r.AppendSample(asset, signal.Telemetry, &v), r.Close()); err != nil {
			t.Fatal(err)
		}
		if slow, _ := read(t, dir, asset, 7, 8); len(slow) != 1 {
			t.Errorf("%s: the ring does not go on", name)
		}
	}
}

// Whatever bytes stand in a file, reading them neither panics nor makes samples
// of sensors without a name.
func FuzzRecords(f *testing.F) {
	segment, journal := files(f)
	f.Add(segment)
	f.Add(journal)
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = readIndex(bytes.NewReader(b), int64(len(b)))
		s := newSlow()
		_, _, err := scan(b, func(k kind, at int, payload []byte) error {
			e, data, err := describe(k, at, payload)
			if err != nil {
				return nil //nolint:nilerr // a reader passes it over
			}
			if runs, err := readRuns(c, signal.Asset(e.path), data); err == nil {
				for key, run := range runs {
					_ = run.samples(key.sensor, func(signal.Reading) error { return nil })
				}
			}
			if raw, err := c.unpack(payload); err == nil {
				_ = s.recall(raw, func(k sensorKey, _ uint64, _ *signal.Reading) {
					if k.asset == "" {
						t.Fatal("a sample of nobody")
					}
				})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
