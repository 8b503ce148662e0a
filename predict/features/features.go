// Package features makes the numbers that models read: per acceleration channel
// and window, rolling over the last windows, each with the end of its window
// (event time) and the time at which it was available.
//
// It is arithmetic over rows of silver: it reads no table, and it knows no model.
// The columns are documented in docs/formats/features.md.
package features

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/headrace/headrace/signal"
)

// The rolling mean is over at most Rolling windows of the last RollingSpan, and
// needs Least of them.
const (
	Rolling     = 5
	Least       = 3
	RollingSpan = signal.Micros(120_000_000)
)

// Vector is the features of one window in the order of [Names]; NaN is unknown.
type Vector [11]float64

// Names are the columns of features.vibration.
func Names() []string {
	return []string{
		"log_rms", "kurtosis", "log_crest", "share_1x", "share_low", "share_mid", "share_high",
		"env_bpfo", "env_bpfi", "env_bsf", "env_ftf",
	}
}

// Definition names how the features are made: equal for equal definitions.
func Definition() string {
	sum := sha256.Sum256([]byte("vibration/1 rolling=5 least=3 span=120s " + strings.Join(Names(), " ")))
	return hex.EncodeToString(sum[:8])
}

// suffixes are the readings that a vector is made of; see docs/formats/vibration.md.
func suffixes() []string {
	return []string{".rms", ".kurtosis", ".crest", ".band.1x", ".band.low", ".band.mid", ".band.high", ".env.total", ".env.bpfo", ".env.bpfi", ".env.bsf", ".env.ftf"}
}

// Channel splits the name of a derived sensor into its channel and the place of
// its value in a window.
func Channel(sensor string) (channel string, place int, ok bool) {
	i := strings.IndexByte(sensor, '.')
	if i < 0 {
		return "", 0, false
	}
	place = slices.Index(suffixes(), sensor[i:])
	return sensor[:i], place, place >= 0
}

// window is one window of a channel, as far as its readings have come.
type window struct {
	end    signal.Micros
	values [12]float64
	seen   uint16 // places that have been said, if only as unknown
	vector Vector
}

const allSeen = 1<<12 - 1

// vectorOf makes the features of one window. All but the kurtosis are ratios or
// logarithms, so that the gain of a channel only moves log_rms.
func vectorOf(v *[12]float64) Vector {
	rms, total := v[0], v[7]
	share := func(band float64) float64 { return band * band / (rms * rms) }
	order := func(e float64) float64 { return math.Log(max(e, 1e-12*rms) / total) }
	out := Vector{
		math.Log(rms), v[1], math.Log(v[2]), share(v[3]), share(v[4]), share(v[5]), share(v[6]),
		order(v[8]), order(v[9]), order(v[10]), order(v[11]),
	}
	for i, x := range out {
		if math.IsInf(x, 0) {
			out[i] = math.NaN()
		}
	}
	return out
}

// History is the windows of one channel, as far back as is kept.
type History struct {
	windows []window // ascending by end
}

// Put takes one reading of a window and tells whether it is news.
func (h *History) Put(end signal.Micros, place int, value float64) bool {
	i := sort.Search(len(h.windows), func(i int) bool { return h.windows[i].end >= end })
	if i == len(h.windows) || h.windows[i].end != end {
		w := window{end: end}
		for k := range w.values {
			w.values[k] = math.NaN()
		}
		h.windows = slices.Insert(h.windows, i, w)
	}
	w := &h.windows[i]
	bit := uint16(1) << place
	if w.seen&bit != 0 && (w.values[place] == value || math.IsNaN(w.values[place]) && math.IsNaN(value)) {
		return false
	}
	w.seen |= bit
	w.values[place] = value
	w.vector = vectorOf(&w.values)
	return true
}

// Complete tells whether all of a window has come: every value, or a newer
// window, since an edge sends a window at once.
func (h *History) Complete(end signal.Micros) bool {
	i := sort.Search(len(h.windows), func(i int) bool { return h.windows[i].end >= end })
	return i < len(h.windows) && h.windows[i].end == end && (h.windows[i].seen == allSeen || i < len(h.windows)-1)
}

// Forget drops windows that ended before a time.
func (h *History) Forget(before signal.Micros) {
	i := sort.Search(len(h.windows), func(i int) bool { return h.windows[i].end >= before })
	if i > len(h.windows)/4 {
		h.windows = slices.Clone(h.windows[i:])
	}
}

// Newest is the end of the newest window, 0 without one.
func (h *History) Newest() signal.Micros {
	if len(h.windows) == 0 {
		return 0
	}
	return h.windows[len(h.windows)-1].end
}

// Ends calls visit with the ends of windows in [from, to], in order.
func (h *History) Ends(from, to signal.Micros, visit func(signal.Micros)) {
	i := sort.Search(len(h.windows), func(i int) bool { return h.windows[i].end >= from })
	for ; i < len(h.windows) && h.windows[i].end <= to; i++ {
		visit(h.windows[i].end)
	}
}

// At is the rolling mean at a window's end: of the last [Rolling] windows up to
// it for which use says yes, and of how many. A feature that one of them lacks
// is unknown.
func (h *History) At(end signal.Micros, use func(signal.Micros) bool) (v Vector, windows int) {
	i := sort.Search(len(h.windows), func(i int) bool { return h.windows[i].end > end })
	for i--; i >= 0 && windows < Rolling && h.windows[i].end > end-RollingSpan; i-- {
		if h.windows[i].end != end && !use(h.windows[i].end) {
			continue
		}
		for k, x := range h.windows[i].vector {
			v[k] += x
		}
		windows++
	}
	for k := range v {
		v[k] /= float64(windows)
	}
	return v, windows
}
