// Package truth is what a simulated plant knows of itself and nobody else may:
// which bearing fails and when, which sensors lie, when an edge has no network.
//
// The plant writes it beside its data. Tests read it; no station does, which
// internal/arch checks. The format is documented in docs/formats/truth.md.
package truth

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/headrace/headrace/signal"
)

// name is the file's in the plant's directory; format its version.
const (
	name   = "truth.json"
	format = 1
)

// Truth is what holds of one plant.
type Truth struct {
	Format int       `json:"format"`
	Spec   string    `json:"spec"` // what the plant was made from
	Start  time.Time `json:"start"`
	End    time.Time `json:"end,omitzero"` // zero without one
	// Defect is the bearing that fails; nil if none does.
	Defect *Defect `json:"defect,omitempty"`
	Faults []Fault `json:"faults,omitempty"`
	Outage *Outage `json:"outage,omitempty"`
}

// Defect is a bearing that degrades.
type Defect struct {
	Asset  signal.Asset `json:"asset"`
	Part   string       `json:"part"` // outer_race, inner_race or ball
	Begins time.Time    `json:"begins"`
	Fails  time.Time    `json:"fails"` // functional failure
}

// Fault is a sensor that lies: stuck, dead or impossible.
type Fault struct {
	Path   signal.Path `json:"path"`
	Kind   string      `json:"kind"`
	Begins time.Time   `json:"begins"`
}

// Outage is a time in which an edge has no network.
type Outage struct {
	Edge string    `json:"edge"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Read reads the truth of the plant in a directory.
func Read(dir string) (Truth, error) {
	var t Truth
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return t, fmt.Errorf("reading the plant's truth: %w", err)
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("reading the plant's truth %s: %w", filepath.Join(dir, name), err)
	}
	if t.Format != format {
		return t, fmt.Errorf("reading the plant's truth %s: its format is %d, want %d", filepath.Join(dir, name), t.Format, format)
	}
	return t, nil
}

// ErrOther says that a directory holds another plant.
var ErrOther = errors.New("another plant has run here")

// Write keeps the truth in a directory, readable by its owner alone. A plant
// that goes on where it was finds its own; another one is refused.
func Write(dir string, t Truth) error {
	t.Format = format
	if old, err := Read(dir); err == nil {
		if old.Spec != t.Spec {
			return fmt.Errorf("%w: %s, not %s; begin anew with another --dir", ErrOther, old.Spec, t.Spec)
		}
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing the plant's truth: %w", err)
	}
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return fmt.Errorf("writing the plant's truth: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the plant's truth: %w", err)
	}
	return nil
}
