// Package strictyaml reads YAML configuration strictly: an unknown key is an
// error that names its line and its nearest neighbour. It is the one place that
// imports the YAML library.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// MaxBytes bounds a configuration file.
const MaxBytes = 4 << 20

// Decode decodes one YAML document into v. name stands in errors.
func Decode(name string, b []byte, v any) error {
	err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(v)
	if err == nil || errors.Is(err, io.EOF) {
		return nil // an empty file sets nothing
	}
	var ye yaml.Error
	if !errors.As(err, &ye) {
		return fmt.Errorf("reading %s: %s", name, firstLine(err.Error()))
	}
	at := name
	if tk := ye.GetToken(); tk != nil && tk.Position != nil {
		at = fmt.Sprintf("%s:%d:%d", name, tk.Position.Line, tk.Position.Column)
	}
	msg := ye.GetMessage()
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		key := ""
		if unknown.Token != nil {
			key = unknown.Token.Value
		}
		msg = fmt.Sprintf("unknown key %q", key)
		if near := Nearest(key, keys(reflect.TypeOf(v), nil)); near != "" {
			msg += fmt.Sprintf("; did you mean %q?", near)
		}
	}
	return fmt.Errorf("reading %s: %s", at, firstLine(msg))
}

// Nearest returns the candidate with the fewest edits from s, "" if all differ
// by more than half of s.
func Nearest(s string, candidates []string) string {
	best, bestDist := "", max(len(s)/2, 1)+1
	for _, c := range candidates {
		if d := edits(s, c); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// keys lists the yaml keys of t and of everything inside it.
func keys(t reflect.Type, seen []reflect.Type) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return keys(t.Elem(), seen)
	case reflect.Struct:
	default:
		return nil
	}
	if slices.Contains(seen, t) {
		return nil
	}
	seen = append(seen, t)
	var out []string
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			out = append(out, key)
		}
		out = append(out, keys(f.Type, seen)...)
	}
	return out
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
