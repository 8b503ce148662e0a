// Package medallion holds the pipelines that Headrace ships: the bronze, silver
// and gold tables as SQL files. It only carries the text; lake/pipeline reads
// and runs it.
package medallion

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed *.sql
var files embed.FS

// File is one pipeline file.
type File struct{ Name, Text string }

// Files returns the shipped files in order of name.
func Files() ([]File, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("listing the shipped pipelines: %w", err)
	}
	out := make([]File, 0, len(entries))
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the shipped pipeline %s: %w", e.Name(), err)
		}
		out = append(out, File{Name: e.Name(), Text: string(text)})
	}
	return out, nil
}
