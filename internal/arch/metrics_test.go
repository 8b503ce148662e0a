package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every counter has its line in docs/reference/metrics.md, and every line its
// counter. A counter is named by a text in a function that lists a station's.
func TestCountersAreDescribed(t *testing.T) {
	// The lake names the station with each counter; elsewhere the folder is one.
	const lake = "lake/pipeline"
	stationOf := map[string]string{"edge": "edge", "edge/source": "edge", "edge/source/mqttin": "edge", "edge/source/sparkplugin": "edge", "edge/source/files": "edge", "edge/source/ownclock": "edge", "spine/broker": "broker", "spine/bridge": "bridge", "spine/log": "spine", lake: "", "predict": "predict"}
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	tr := readTree(t)
	want := map[string]bool{}
	note := func(station string, texts []string) {
		if station == "" && len(texts) > 0 {
			station, texts = texts[0], texts[1:]
		}
		for _, s := range texts {
			switch {
			case s == "failed_":
				s += "{rule}"
			case strings.HasPrefix(s, "_"):
				s = "{table}" + s
			}
			want[station+" "+s] = true
		}
	}
	for _, s := range tr.src {
		station, ok := stationOf[s.dir]
		if !ok || s.test {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(tr.top, s.file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || !slices.Contains([]string{"Counters", "counters", "Figures"}, f.Name.Name) {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				var parts []ast.Node
				switch n := n.(type) {
				case *ast.CallExpr:
					if fun, ok := n.Fun.(*ast.Ident); !ok || fun.Name != "add" && fun.Name != "c" {
						return true
					}
					for _, a := range n.Args[:len(n.Args)-1] { // the last one is the value
						parts = append(parts, a)
					}
				case *ast.CompositeLit:
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok {
							if key, ok := kv.Key.(*ast.Ident); !ok || key.Name != "Name" {
								continue
							}
							e = kv.Value
						} else if _, ok := e.(*ast.BasicLit); !ok {
							continue
						}
						parts = append(parts, e)
					}
				default:
					return true
				}
				var texts []string
				for _, p := range parts {
					ast.Inspect(p, func(n ast.Node) bool {
						if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
							if v, err := strconv.Unquote(lit.Value); err == nil && (name.MatchString(v) || strings.HasPrefix(v, "_")) {
								texts = append(texts, v)
							}
						}
						return true
					})
				}
				if s.dir == lake && len(texts) == 1 { // the station is computed: each that follows another table
					note("silver", texts)
					note("gold", texts)
				} else {
					note(station, texts)
				}
				return true
			})
		}
	}
	if len(want) < 40 {
		t.Fatalf("only %d counters are found in the code: %v", len(want), slices.Sorted(maps.Keys(want)))
	}

	have := map[string]bool{}
	station := ""
	row := regexp.MustCompile("^\\| `([^`]+)` \\|")
	for line := range strings.Lines(string(tr.read(t, "docs/reference/metrics.md"))) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			station = strings.TrimSpace(title)
		}
		if m := row.FindStringSubmatch(line); m != nil && !strings.HasPrefix(m[1], "headrace_") {
			have[fmt.Sprintf("%s %s", station, m[1])] = true
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("docs/reference/metrics.md and the code's counters (-code +page):\n%s", diff)
	}
}
