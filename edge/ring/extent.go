package ring

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/headrace/headrace/signal"
)

// Extent is the time of the oldest and the newest sample that a ring has of an asset.
type Extent struct {
	Asset    signal.Asset
	From, To signal.Micros
}

// Extents lists what the ring has, by asset.
func (r *Reader) Extents() ([]Extent, error) {
	of := map[signal.Asset]Extent{}
	widen := func(a signal.Asset, from, to signal.Micros) {
		e, ok := of[a]
		if !ok {
			e = Extent{a, from, to}
		}
		e.From, e.To = min(e.From, from), max(e.To, to)
		of[a] = e
	}
	rest, err := r.journals()
	if err != nil {
		return nil, err
	}
	for k, run := range rest.runs {
		if err := run.samples(k.sensor, func(v signal.Reading) error { widen(k.asset, v.EventTime, v.EventTime); return nil }); err != nil {
			r.Damaged++
		}
	}
	numbers, err := segmentNumbers(r.dir)
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		f, err := os.Open(segmentFile(r.dir, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, _, _, _, err := segmentEntries(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		for i := range entries {
			switch e := &entries[i]; e.kind {
			case kindWave:
				widen(e.path.Asset(), e.from, e.to)
			case kindSlow:
				widen(signal.Asset(e.path), e.from, e.to)
			default: // no samples
			}
		}
	}
	out := make([]Extent, 0, len(of))
	for _, e := range of {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Extent) int { return cmp.Compare(a.Asset, b.Asset) })
	return out, nil
}
