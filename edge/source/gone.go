package source

import (
	"context"
	"io"
	"log/slog"

	"github.com/headrace/headrace/signal"
)

// Gone opens the source of an edge whose recording is not there any more: it
// delivers nothing and keeps the position, so that what the edge still has is
// sent, and the recording may come back.
func Gone(position []byte, _ *slog.Logger) (Source, error) { return gone(position), nil }

type gone []byte

func (gone) Next(context.Context) (Chunk, error) { return Chunk{}, io.EOF }
func (gone) Take()                               {}
func (g gone) Position() []byte                  { return g }
func (gone) Figures() []signal.Counter           { return nil }
func (gone) Close() error                        { return nil }
