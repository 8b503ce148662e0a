package ring

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// The ring against a plain list, over restarts, crashes that lose what was not
// synced, and repeats.
func TestRingAgainstList(t *testing.T) {
	top, tries := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		tries++
		dir := filepath.Join(top, strconv.Itoa(tries))
		opt := Options{Dir: dir, MaxBytes: 4000, SegmentBytes: 600}
		r, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]uint64{}
		next := map[string]uint64{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			sensor := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "sensor")
			switch rapid.SampledFrom([]string{"append", "append", "append", "repeat", "reopen", "torn"}).Draw(t, "step") {
			case "append":
				first := next[sensor]
				if err := r.Append(asset, sensor, Block{Time: signal.Micros(first) * 10, First: first, Bytes: []byte(content(sensor, first))}); err != nil {
					t.Fatal(err)
				}
				want[sensor] = append(want[sensor], first)
				next[sensor] = first + rapid.Uint64Range(1, 3).Draw(t, "gap")
			case "repeat":
				if n := len(want[sensor]); n > 0 {
					first := want[sensor][rapid.IntRange(0, n-1).Draw(t, "which")]
					if err := r.Append(asset, sensor, Block{Time: signal.Micros(first) * 10, First: first, Bytes: []byte(content(sensor, first))}); err != nil {
						t.Fatal(err)
					}
				}
			case "reopen", "torn":
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				files, err := filepath.Glob(filepath.Join(dir, "*.ring"))
				if err != nil {
					t.Fatal(err)
				}
				if len(files) > 0 && rapid.Bool().Draw(t, "garbage") {
					f, err := os.OpenFile(files[len(files)-1], os.O_APPEND|os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.Write(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "torn")); err != nil {
						t.Fatal(err)
					}
					if err := f.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if r, err = Open(opt); err != nil {
					t.Fatal(err)
				}
			}
			if r.Bytes() > opt.MaxBytes {
				t.Fatalf("%d bytes, at most %d", r.Bytes(), opt.MaxBytes)
			}
		}
		for _, sensor := range []string{"a", "b"} {
			got, all := collect(t, r, sensor, 0, 1<<60), want[sensor]
			// The oldest may be gone, and nothing else.
			if len(got) > len(all) || len(got) < min(len(all), 3) {
				t.Fatalf("%s: %d blocks of %d", sensor, len(got), len(all))
			}
			if d := cmp.Diff(all[len(all)-len(got):], got); d != "" && len(got) > 0 {
				t.Fatal(d)
			}
			if n := len(got); n > 2 {
				if d := cmp.Diff(got[1:n-1], collect(t, r, sensor, got[0]+1, got[n-1])); d != "" {
					t.Fatal(d)
				}
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	r, err := Open(Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(3) {
		if err := r.Append(asset, "a", Block{First: i, Bytes: []byte("x")}); err != nil {
			f.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, name(1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name(7)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(Options{Dir: dir})
		if err != nil {
			return
		}
		for p := range r.channels {
			if err := r.Blocks(p.Asset(), p.Sensor(), 0, 1<<62, func(Block) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Append(asset, "new", Block{First: 1}); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
