package outbox

import (
	"errors"
	"fmt"

	"github.com/headrace/headrace/record"
	"github.com/headrace/headrace/signal"
)

// State is what an outbox on disk says, read without changing it.
type State struct {
	Edge     string // "" if nothing was ever committed
	Counters Counters
	// Unacked are the messages without an acknowledgement, oldest boot first.
	// After a kill some of them may have one that was not written yet.
	Unacked       []Unacked
	Position      []byte
	FilterState   []byte
	SourceEnded   bool
	CorruptFrames int
	TornBytes     int64
	LostMessages  uint64
	Segments      int
	Bytes         int64
}

// Unacked is one message that waits.
type Unacked struct {
	signal.Origin
	Readings int
	Samples  uint64 // of a message of class raw
}

// Drained tells whether the source has ended and every message of it is
// acknowledged.
func (s State) Drained() bool { return s.SourceEnded && len(s.Unacked) == 0 }

// ReadState reads the outbox in dir. An outbox in use may be read too; the
// answer is then of some moment during the call. A directory that does not
// exist is an empty outbox.
func ReadState(dir string) (State, error) { return readState(osFS{}, dir) }

func readState(fsys FS, dir string) (st State, err error) {
	l, err := load(fsys, dir, "", false)
	if err != nil {
		return State{}, fmt.Errorf("reading outbox %s: %w", dir, err)
	}
	defer func() {
		err = errors.Join(err, closeAll(l.index))
	}()
	st = State{
		Edge: l.edge, Counters: l.state.counters, Position: l.state.position, FilterState: l.state.filter,
		SourceEnded: l.state.sourceEnded, CorruptFrames: l.corruptFrames, TornBytes: l.tornBytes,
		LostMessages: l.lostMessages, Segments: len(l.index.segments),
	}
	for _, s := range l.index.segments {
		st.Bytes += s.size
	}
	var batch signal.Batch
	for _, b := range l.index.boots {
		for seq, p, ok := l.index.next(b, 0); ok; seq, p, ok = l.index.next(b, seq) {
			body := make([]byte, p.size)
			segment, _, _ := l.index.get(b, seq)
			if _, err := segment.file.ReadAt(body, int64(p.at)); err != nil {
				return State{}, fmt.Errorf("reading outbox %s: %w", dir, err)
			}
			if err := record.Decode(body, &batch); err != nil {
				return State{}, fmt.Errorf("reading outbox %s: message %d of boot %s: %w", dir, seq, b.name, err)
			}
			batch.Edge, batch.Boot = l.edge, b.name
			st.Unacked = append(st.Unacked, Unacked{batch.Origin, int(p.readings), record.Samples(&batch)})
		}
	}
	return st, nil
}
