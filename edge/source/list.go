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
	Kind  string // SKAB or CWRU
	File  string
	Node  string // the edge node's name: the file's path without ending, "-" for "/"
	Asset signal.Asset
	Bytes int64
}

// List finds the recordings of a kind in dir: every *.csv, or *.f32, in it and in
// the folders right below it. The line is the folder, or for a file at the top
// its stem, the asset is the stem; of CWRU the line is rig, and names are in
// lower case. leftOut says, a line each, which other files of the kind there are
// and why they are not replayed.
func List(dir, kind string) (out []Recording, leftOut []string, err error) {
	l := lister{dir: dir, kind: kind, ending: ".csv", nodes: map[string]string{}, assets: map[signal.Asset]string{}}
	if kind == CWRU {
		l.ending = ".f32"
	}
	if err := l.folder("", 0); err != nil {
		return nil, nil, fmt.Errorf("listing recordings: %w", err)
	}
	if len(l.out) == 0 {
		return nil, nil, fmt.Errorf("listing recordings: there is no *%s in %s or in its folders; name the folder that holds them with --replay %s:DIR", l.ending, dir, kind)
	}
	slices.SortFunc(l.out, func(a, b Recording) int { return strings.Compare(a.Node, b.Node) })
	return l.out, l.leftOut, nil
}

// maxDepth is how deep recordings may lie; deepest is how deep they are looked
// for, to tell of them.
const (
	maxDepth = 1
	deepest  = 4
)

type lister struct {
	dir, kind, ending string

	nodes   map[string]string
	assets  map[signal.Asset]string
	out     []Recording
	leftOut []string
}

func (l *lister) folder(folder string, depth int) error {
	entries, err := os.ReadDir(filepath.Join(l.dir, folder))
	if err != nil {
		if depth > maxDepth {
			return nil // nothing of it would be replayed
		}
		return fmt.Errorf("%w; name a readable folder of recordings with --replay %s:DIR", err, l.kind)
	}
	for _, e := range entries {
		name := filepath.Join(folder, e.Name())
		st, err := os.Stat(filepath.Join(l.dir, name)) // what a link leads to
		switch ours := strings.EqualFold(filepath.Ext(e.Name()), l.ending); {
		case err != nil && ours:
			l.leave(name, "cannot be read: "+err.Error())
		case err != nil:
		case st.IsDir():
			if depth < deepest {
				if err := l.folder(name, depth+1); err != nil {
					return err
				}
			}
		case !ours:
		case !st.Mode().IsRegular():
			l.leave(name, "is no regular file")
		case depth > maxDepth:
			l.leave(name, "lies deeper than one folder; move it up")
		case strings.HasPrefix(name, "."):
			l.leave(name, "is hidden; rename it")
		default:
			if err := l.add(folder, e.Name(), st.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) leave(name, why string) {
	l.leftOut = append(l.leftOut, fmt.Sprintf("%s %s", filepath.Join(l.dir, name), why))
}

func (l *lister) add(folder, name string, size int64) error {
	file := filepath.Join(l.dir, folder, name)
	stem := clean(strings.TrimSuffix(name, filepath.Ext(name)))
	line, node := stem, stem
	if folder != "" {
		line = clean(folder)
		node = line + "-" + stem
	}
	if l.kind == CWRU {
		stem, node, line = strings.ToLower(stem), strings.ToLower(node), "rig"
	}
	asset, err := signal.ParseAsset(string(signal.NewAsset(l.kind, line, stem)))
	if err != nil {
		return fmt.Errorf("%s: %w; rename it", file, err)
	}
	if other, taken := l.nodes[node]; taken {
		return fmt.Errorf("%s and %s would both be edge node %s; rename one", other, file, node)
	}
	if other, taken := l.assets[asset]; taken {
		return fmt.Errorf("%s and %s would both be asset %s; rename one", other, file, asset)
	}
	l.nodes[node], l.assets[asset] = file, file
	l.out = append(l.out, Recording{Kind: l.kind, File: file, Node: node, Asset: asset, Bytes: size})
	return nil
}

// Start is the event time of the recording's first readable row.
func (r Recording) Start() (time.Time, error) {
	if r.Kind == CWRU {
		_, err := r.samples()
		return cwruStart(), err
	}
	f, err := os.Open(r.File)
	if err != nil {
		return time.Time{}, fmt.Errorf("opening recording: %w", err)
	}
	defer f.Close()
	in := lineReader{r: bufio.NewReaderSize(f, readBytes)}
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return time.Time{}, fmt.Errorf("recording %s: there is no row with a time in UTF-8 text; its first cell must be like 2020-03-09 10:14:33. Mend it or move it away", r.File)
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
	if r.Kind == CWRU {
		w, err := openWave(r, position)
		if err != nil {
			return nil, err
		}
		return w, nil
	}
	f, err := openFile(r.File, r.Asset, position, log)
	if err != nil {
		return nil, err
	}
	return f, nil
}
