package ring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/headrace/headrace/internal/wholefile"
	"github.com/headrace/headrace/signal"
)

// shrink drops the oldest segments that bytes and age have no room for, but what
// is pinned, as far as that has room.
func (r *Ring) shrink() error {
	pinned := int64(0)
	i := 0
	for i < len(r.segments)-1 {
		s := r.segments[i]
		over := r.stats.Bytes-pinned > r.opt.MaxBytes-r.opt.SegmentBytes
		old := r.opt.MaxAge > 0 && r.opt.Clock != nil && s.to < signal.MicrosOf(r.opt.Clock.Now().Add(-r.opt.MaxAge))
		if !over && !old {
			break
		}
		if r.isPinned(s) {
			if pinned+s.size <= r.opt.PinnedBytes {
				pinned += s.size
				i++
				continue
			}
			r.unpin(s)
		}
		if err := r.drop(i); err != nil {
			return err
		}
	}
	r.stats.Pinned = pinned
	return nil
}

func (r *Ring) drop(i int) error {
	s := r.segments[i]
	if err := os.Remove(segmentFile(r.opt.Dir, s.number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dropping the oldest of the ring: %w", err)
	}
	r.segments = slices.Delete(r.segments, i, i+1)
	r.stats.Bytes -= s.size
	return nil
}

// yield gives up the oldest while the disk is short, and then refuses what comes.
func (r *Ring) yield() error {
	for {
		free, err := r.opt.Free(r.opt.Dir)
		if err != nil {
			return err
		}
		short := free < r.opt.FloorBytes
		if !short || len(r.segments) <= 1 {
			if short != r.refusing {
				r.refusing = short
				r.opt.Log.Warn("the ring's disk is short or has room again", "dir", r.opt.Dir, "free", free, "floor", r.opt.FloorBytes, "keeps", !short)
			}
			return nil
		}
		if err := r.drop(0); err != nil {
			return err
		}
	}
}

// Pin is a range of time that outlives the ring's bounds, up to a bound of its own.
type Pin struct {
	Asset    signal.Asset  `json:"asset"`
	From, To signal.Micros // of samples; of waveforms, of their first sample
	Why      string        `json:"why"`
}

func (r *Ring) isPinned(s *segment) bool {
	return slices.ContainsFunc(r.pins, func(p Pin) bool { return p.From <= s.to && p.To >= s.from })
}

// unpin gives up the pins of a segment for which there is no room.
func (r *Ring) unpin(s *segment) {
	before := len(r.pins)
	r.pins = slices.DeleteFunc(r.pins, func(p Pin) bool { return p.From <= s.to && p.To >= s.from })
	r.stats.Unpinned += int64(before - len(r.pins))
	if err := writePins(r.opt.Dir, r.pins); err != nil {
		r.opt.Log.Error("the ring's pins cannot be written", "cause", err)
	}
}

// Pin keeps a range beyond the ring's bounds: the segments that hold it, with
// what else is in them.
func (r *Ring) Pin(p Pin) error {
	if slices.Contains(r.pins, p) {
		return nil
	}
	pins := append(slices.Clone(r.pins), p)
	if err := writePins(r.opt.Dir, pins); err != nil {
		return fmt.Errorf("pinning %s: %w", p.Asset, err)
	}
	r.pins = pins
	return nil
}

// Unpin lets a range go.
func (r *Ring) Unpin(p Pin) error {
	pins := slices.DeleteFunc(slices.Clone(r.pins), func(q Pin) bool { return p == q })
	if err := writePins(r.opt.Dir, pins); err != nil {
		return fmt.Errorf("unpinning %s: %w", p.Asset, err)
	}
	r.pins = pins
	return nil
}

// Pins are the ranges that are pinned, the oldest first.
func (r *Ring) Pins() []Pin { return slices.Clone(r.pins) }

const pinsName = "pins.json"

func readPins(dir string) (pins []Pin, err error) {
	b, err := os.ReadFile(filepath.Join(dir, pinsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pins, json.Unmarshal(b, &pins)
}

func writePins(dir string, pins []Pin) error {
	b, err := json.Marshal(pins)
	if err != nil {
		return err
	}
	return wholefile.Replace(filepath.Join(dir, pinsName), b, 0o600)
}
