package ring

import (
	"errors"
	"io/fs"
	"os"

	"github.com/headrace/headrace/signal"
)

// sayConfig names the configuration in the newest segment, unless that does so.
func (r *Ring) sayConfig() error {
	if r.opt.Config == "" {
		return nil
	}
	last := ""
	for i := range r.entries {
		if r.entries[i].kind == kindConfig {
			last = string(r.entries[i].path)
		}
	}
	if last == r.opt.Config {
		return nil
	}
	e := entry{kind: kindConfig, path: signal.Path(r.opt.Config)}
	if r.opt.Clock != nil {
		e.from = signal.MicrosOf(r.opt.Clock.Now())
		e.to = e.from
	}
	return r.put(e, appendVarint(appendBytes(nil, fieldPath, r.opt.Config), fieldFrom, uint64(e.from)))
}

// ConfigAt is a configuration, and from when by the plant's clock the ring was
// written under it.
type ConfigAt struct {
	Time signal.Micros
	Hash string
}

// Configs lists the configurations under which what the ring has was taken, in order.
func (r *Reader) Configs() ([]ConfigAt, error) {
	numbers, err := segmentNumbers(r.dir)
	if err != nil {
		return nil, err
	}
	var out []ConfigAt
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
			e := &entries[i]
			if e.kind == kindConfig && (len(out) == 0 || out[len(out)-1].Hash != string(e.path)) {
				out = append(out, ConfigAt{e.from, string(e.path)})
			}
		}
	}
	return out, nil
}
