package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// tree is the file as JSON has it. What cannot be written is not in a checked file.
func (c *Config) tree() map[string]any {
	var out map[string]any
	b, err := json.Marshal(c.File)
	if err != nil || json.Unmarshal(b, &out) != nil {
		return nil
	}
	return out
}

// Sections are the hashes of the file's sections.
func (c *Config) Sections() map[string]string {
	out := map[string]string{}
	for name, v := range c.tree() {
		b, err := json.Marshal(v)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(b)
		out[name] = hex.EncodeToString(sum[:8])
	}
	return out
}

// Differ names the sections in which two configurations differ.
func Differ(a, b *Config) (out []string) {
	x, y := a.Sections(), b.Sections()
	for _, name := range slices.Sorted(maps.Keys(y)) {
		if x[name] != y[name] {
			out = append(out, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x)) {
		if _, there := y[name]; !there {
			out = append(out, name)
		}
	}
	return out
}

// Refused names what next changes of now although only the file at the edge may:
// who the edge is, brokers, credentials and the files of them, and how a source is
// reached.
func Refused(now, next *Config) []string {
	var out []string
	differences("", now.tree(), next.tree(), func(path []string) {
		if local(path) {
			out = append(out, strings.Join(path, "."))
		}
	}, nil)
	slices.Sort(out)
	return slices.Compact(out)
}

// local tells whether a field is the file's at the edge alone.
func local(path []string) bool {
	for _, p := range path {
		switch p {
		case "ca", "cert", "key", "user", "password", "password_file", "addresses":
			return true
		}
	}
	switch path[0] {
	case "edge", "mqtt":
		return true
	case "source", "sources":
		// Of a source, only what its messages mean may change from afar.
		return !slices.Contains(path, "map") && path[len(path)-1] != "silent_after_seconds"
	}
	return false
}

// differences calls visit with the leaves in which two trees differ.
func differences(name string, a, b any, visit func([]string), path []string) {
	if name != "" {
		path = append(slices.Clip(path), name)
	}
	x, isX := a.(map[string]any)
	y, isY := b.(map[string]any)
	if (isX || a == nil) && (isY || b == nil) && (isX || isY) {
		keys := maps.Clone(x)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, y)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			differences(k, x[k], y[k], visit, path)
		}
		return
	}
	p, isP := a.([]any)
	q, isQ := b.([]any)
	if (isP || a == nil) && (isQ || b == nil) && (isP || isQ) {
		for i := range max(len(p), len(q)) {
			var u, v any
			if i < len(p) {
				u = p[i]
			}
			if i < len(q) {
				v = q[i]
			}
			differences(fmt.Sprint(i), u, v, visit, path)
		}
		return
	}
	if !reflect.DeepEqual(a, b) && len(path) > 0 {
		visit(path)
	}
}
