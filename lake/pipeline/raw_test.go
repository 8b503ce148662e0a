package pipeline

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headrace/headrace/internal/kafkac"
	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

func waveReading(first uint64, samples []byte) signal.Reading {
	w := record.Waveform{First: first, Rate: 100, Format: record.FormatI16, Scale: 0.5, Samples: samples}
	at := day + signal.Micros(first)*10_000
	return signal.Reading{Sensor: "de", EventTime: at, AliveAt: at, Value: signal.WaveValue(string(record.AppendWaveform(nil, &w))), Unit: "[g]", Quality: 192}
}

// Blocks of samples are in bronze.raw once, byte for byte, over a crash at
// every point of their way; what cannot be read is set aside there.
func TestRawIsThereOnce(t *testing.T) {
	db := openDB(t)
	for _, point := range []string{"", "lake.plan_written", "lake.raw_committed"} {
		t.Run(point, func(t *testing.T) {
			l := newLakeIn(t, t.TempDir(), db, 2)
			e := newEdge("s/e", "b1")
			var want []string
			for k := range uint64(6) {
				asset := signal.NewAsset("s", "l", fmt.Sprintf("a%d", k%3))
				b := e.message(asset)
				b.Stream = signal.NewStream(asset, signal.Raw)
				b.N = k / 3
				for i := range uint64(2) {
					samples := []byte{byte(k), byte(i), 3, 4, 5, 6}
					first := 6*k + 3*i
					b.Readings = append(b.Readings, waveReading(first, samples))
					want = append(want, fmt.Sprintf("%s/de|%d|%d|3|100|i16le|0.5|%s|%d|%d", asset, int64(day)+int64(first)*10_000, first, hex.EncodeToString(samples), b.N, i))
				}
				l.spine.send(b)
				l.spine.send(b) // sent again
			}
			odd := e.message("s/l/odd", at("x", day, 1))
			odd.Stream = "s/l/odd:raw"
			l.spine.send(odd)
			l.spine.put(kafkac.Record{Topic: record.TopicRaw, Key: []byte("s/l/odd"), Value: []byte("\xffnonsense")})
			if point != "" {
				r := l.start(crashAt(point, 1))
				<-r.done
			}
			r := l.start(nil)
			l.drain(r)
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			got := l.table(tableRaw, "path, epoch_us(event_time), first_sample, count, rate, format, scale, hex(samples), n, i")
			bad := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s[0] != '|' })
			got = slices.DeleteFunc(got, func(s string) bool { return s[0] == '|' })
			for i, s := range got {
				got[i] = lower(s)
			}
			slices.Sort(want)
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				t.Error("bronze.raw (-sent +table)", d)
			}
			if len(bad) != 2 {
				t.Errorf("%d rows of what cannot be read, want 2: %v", len(bad), bad)
			}
			if n := l.query("SELECT count(*) FROM " + l.relation(tableRaw) + " WHERE rescued IS NOT NULL")[0]; n != "2" {
				t.Errorf("%s rows are rescued, want 2", n)
			}
		})
	}
}

// lower is hex in the form of package hex, the rest as it is.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'F' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
