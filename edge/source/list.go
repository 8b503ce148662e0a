package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/signal"
)

// Recording is one file to replay: one edge.
type Recording struct {
	File  string
	Node  string // the edge node's name: the file's path without ending, "-" for "/"
	Asset signal.Asset
	Bytes int64
}

// List finds the recordings in dir: every *.csv in it and in the folders right
// below it. The line is the folder, or for a file at the top its stem, the
// asset is the stem.
func List(dir, site string) ([]Recording, error) {
	if err := signal.CheckName(site); err != nil {
		return nil, fmt.Errorf("listing recordings: site: %w", err)
	}
	var out []Recording
	nodes := map[string]string{}
	add := func(folder, name string) error {
		file := filepath.Join(dir, folder, name)
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return nil
		}
		stem := clean(strings.TrimSuffix(name, filepath.Ext(name)))
		line, node := stem, stem
		if folder != "" {
			line = clean(folder)
			node = line + "-" + stem
		}
		asset, err := signal.ParseAsset(string(signal.NewAsset(site, line, stem)))
		if err != nil {
			return fmt.Errorf("%s: %w; rename it", file, err)
		}
		if other, taken := nodes[node]; taken {
			return fmt.Errorf("%s and %s would both be edge node %s; rename one", other, file, node)
		}
		nodes[node] = file
		out = append(out, Recording{File: file, Node: node, Asset: asset, Bytes: st.Size()})
		return nil
	}
	folders := []string{""}
	for i := 0; i < len(folders); i++ {
		entries, err := os.ReadDir(filepath.Join(dir, folders[i]))
		if err != nil {
			return nil, fmt.Errorf("listing recordings: %w; name the folder that holds them with --replay skab:DIR", err)
		}
		for _, e := range entries {
			switch {
			case strings.EqualFold(filepath.Ext(e.Name()), ".csv") && !e.IsDir():
				if err := add(folders[i], e.Name()); err != nil {
					return nil, fmt.Errorf("listing recordings: %w; make it readable", err)
				}
			case i == 0 && e.IsDir() && !strings.HasPrefix(e.Name(), "."):
				folders = append(folders, e.Name())
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("listing recordings: there is no *.csv in %s or in its folders; name the folder that holds them", dir)
	}
	slices.SortFunc(out, func(a, b Recording) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// Start is the event time of the recording's first readable row.
func (r Recording) Start() (time.Time, error) {
	f, err := os.Open(r.File)
	if err != nil {
		return time.Time{}, fmt.Errorf("opening recording: %w", err)
	}
	defer f.Close()
	in := lineReader{r: bufio.NewReaderSize(f, readBytes)}
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return time.Time{}, fmt.Errorf("recording %s: there is no row with a time", r.File)
		}
		if errors.Is(err, errTooLong) {
			continue
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("reading recording %s: %w", r.File, err)
		}
		cell, _, _ := strings.Cut(string(line), ";")
		if t, err := parseTime(cell); err == nil {
			return t, nil
		}
	}
}

// Open opens the recording at a position of its own; it is an [Opener].
func (r Recording) Open(position []byte, log *slog.Logger) (Source, error) {
	f, err := openFile(r.File, r.Asset, position, log)
	if err != nil {
		return nil, err
	}
	return f, nil
}
