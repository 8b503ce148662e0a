package source

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/headrace/headrace/signal"
)

// Sample is one reading of one asset.
type Sample struct {
	Asset   signal.Asset
	Class   signal.Class
	Reading signal.Reading
	// Arrived says that the source gave no time: the reading's is that of its
	// arrival, by the edge's own clock.
	Arrived bool
}

// Refusal is something that came and is no reading.
type Refusal struct {
	Source string // the source's kind
	From   string // a topic of the plant's broker, or file:line
	Reason string
	Bytes  []byte // as they came
}

// Chunk is what a source delivers at once.
type Chunk struct {
	// Time is the plant's time at which the chunk happens: its newest event time.
	Time    time.Time
	Samples []Sample  // valid until the next call of Next
	Refused []Refusal // the same
}

// Source delivers readings. Its methods are called from one goroutine.
type Source interface {
	// Next returns what comes next, or io.EOF at the end. When ctx ends it
	// returns ctx's error and loses nothing; any other error is final.
	Next(ctx context.Context) (Chunk, error)
	// Take says that the chunk which Next returned last is taken. Calling Next
	// again says so too.
	Take()
	// Position stands after the last chunk taken. It is opaque to everybody
	// else, and small.
	Position() []byte
	// Figures are what the source has counted since its beginning, over all
	// openings: rows refused and the like.
	Figures() []signal.Counter
	Close() error
}

// Opener opens a source at a position, or at its beginning if there is none.
// What the source has to say beside its readings it tells log.
type Opener func(position []byte, log *slog.Logger) (Source, error)

// Resumer is a source that knows the plant's time at the position at which it
// was opened.
type Resumer interface {
	// Reached is the newest event time before the position; zero at the beginning.
	Reached() time.Time
}

// Live is a source that may be unable to wait: what is not taken in time is lost
// there, as with a device that is polled. One without the method can wait, since
// it, or who is behind it, keeps what was not taken.
type Live interface {
	Live() bool
}

// Confirmer is a source that is told what is durable, so that it can let go of it.
type Confirmer interface {
	// Mark is called with each commit; the function that it returns is called once,
	// from another goroutine, when what was taken before is in the outbox.
	Mark() (committed func())
	// Figures may be asked for from any goroutine.
	Figures() []signal.Counter
}

// The kinds of recordings; a kind is the name of its site too.
const (
	SKAB = "skab" // ;-separated CSV files, slow sensors
	CWRU = "cwru" // little-endian float32 without header, vibration
)

// ParseSpec splits what --replay takes: "skab:DIR" or "cwru:DIR".
func ParseSpec(spec string) (kind, dir string, err error) {
	kind, dir, ok := strings.Cut(spec, ":")
	if !ok || dir == "" || kind != SKAB && kind != CWRU {
		return "", "", fmt.Errorf("replay %q is not known; write skab:DIR, a folder of ;-separated CSV files, or cwru:DIR, a folder of *.f32 files", spec)
	}
	return kind, dir, nil
}
