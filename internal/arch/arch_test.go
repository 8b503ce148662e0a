package arch

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ranks: a folder imports only folders of a lower rank. Below internal every
// folder stands alone; elsewhere the packages of one top folder are one house.
func ranks() map[string]int {
	return map[string]int{
		"signal": 0,
		"record": 1, "sparkplug": 1, "plain": 1, "internal": 1, "ui": 1,
		"edge": 2, "spine": 2, "lake": 2, "twin": 2,
		"predict": 3, "plant": 3,
		"server": 4,
		"bench":  5,
		"cmd":    6,
		"test":   7, "examples": 7,
	}
}

// clients: where each outside module may be imported outside of tests. Nil is
// "tests only", "*" is "anywhere".
func clients() map[string][]string {
	return map[string][]string{
		"github.com/alecthomas/kong":            {"cmd"},
		"github.com/apache/arrow-go":            {"internal/duck"},
		"github.com/bufbuild/protocompile":      nil,
		"github.com/danielgtaylor/huma":         {"server"},
		"github.com/duckdb/duckdb-go":           {"internal/duck"},
		"github.com/eclipse/paho.mqtt.golang":   {"internal/mqttc"},
		"github.com/goccy/go-yaml":              {"internal/strictyaml"},
		"github.com/google/go-cmp":              nil,
		"github.com/google/uuid":                {"*"},
		"github.com/klauspost/compress":         {"record", "edge/egress", "edge/ring"},
		"github.com/mochi-mqtt/server":          nil,
		"github.com/nats-io/nats-server":        {"spine/broker"},
		"github.com/parquet-go/parquet-go":      {"lake/delta"},
		"github.com/prometheus/client_golang":   {"server"},
		"github.com/twmb/franz-go/pkg/kadm":     {"internal/kafkac"},
		"github.com/twmb/franz-go/pkg/kerr":     {"internal/kafkac", "spine/log"},
		"github.com/twmb/franz-go/pkg/kfake":    {"spine/log"},
		"github.com/twmb/franz-go/pkg/kgo":      {"internal/kafkac"},
		"github.com/twmb/franz-go/pkg/kmsg":     {"internal/kafkac", "spine/log"},
		"github.com/twmb/franz-go/pkg/sasl":     {"internal/kafkac"},
		"github.com/twmb/franz-go/pkg/kversion": {"internal/kafkac"},
		"golang.org/x/crypto":                   {"spine/broker"},
		"golang.org/x/sync":                     {"*"},
		"golang.org/x/sys":                      {"*"},
		"gonum.org/v1/gonum":                    {"predict"},
		"google.golang.org/protobuf":            {"record", "sparkplug", "edge"},
		"modernc.org/sqlite":                    {"internal/sqlite"},
		"pgregory.net/rapid":                    nil,
	}
}

func top(dir string) string {
	first, rest, _ := strings.Cut(dir, "/")
	if first == "internal" {
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	}
	return first
}

func rank(dir string) (int, bool) {
	first, _, _ := strings.Cut(dir, "/")
	r, ok := ranks()[first]
	return r, ok
}

func TestImportsPointOneWay(t *testing.T) {
	for _, s := range readTree(t).src {
		from, ok := rank(s.dir)
		if !ok {
			t.Errorf("%s: folder %s has no rank; the plan of the house does not know it", s.file, top(s.dir))
			continue
		}
		if s.test {
			continue
		}
		for _, imp := range s.imports {
			dir, ours := inModule(imp)
			if !ours || top(dir) == top(s.dir) {
				continue
			}
			if to, known := rank(dir); !known || to >= from {
				t.Errorf("%s: %s may not import %s: arrows point to lower ranks only", s.file, top(s.dir), dir)
			}
		}
	}
}

// What the simulated plant knows of its own faults is in package plant/truth;
// the file's name stands nowhere else.
func TestGroundTruthIsReadByNobody(t *testing.T) {
	tree := readTree(t)
	for _, s := range tree.src {
		if s.test || under(s.dir, "plant") || under(s.dir, "test") {
			continue
		}
		for _, imp := range s.imports {
			dir, ours := inModule(imp)
			switch {
			case ours && under(dir, "plant/truth"):
				t.Errorf("%s: imports %s; the ground truth is the plant's own", s.file, dir)
			case ours && under(dir, "plant") && s.dir != "server/roles" && s.dir != "bench" && s.dir != "cmd/headrace":
				// server/roles starts the simulator, bench weighs what it sends, cmd reads its name; none hands on what it knows.
				t.Errorf("%s: imports %s, which only server/roles and bench start", s.file, dir)
			}
		}
		text, err := os.ReadFile(filepath.Join(tree.top, s.file))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "truth.json") {
			t.Errorf("%s: names the file of the ground truth", s.file)
		}
	}
}

func TestOutsideClientsHaveOnePlace(t *testing.T) {
	table := clients()
	for _, s := range readTree(t).src {
		for _, imp := range s.imports {
			if !outside(imp) {
				continue
			}
			key := ""
			for k := range table {
				if under(imp, k) {
					key = k
				}
			}
			if key == "" {
				t.Errorf("%s: imports %s, which has no place in the plan", s.file, imp)
				continue
			}
			places := table[key]
			if s.test || under(s.dir, "test") || slices.Contains(places, "*") {
				continue
			}
			if !slices.ContainsFunc(places, func(p string) bool { return under(s.dir, p) }) {
				t.Errorf("%s: imports %s, whose place is %v", s.file, imp, places)
			}
		}
	}
}

// The edge agent ships as a static binary, so nothing that it can reach may need C.
func TestEdgeNeedsNoC(t *testing.T) {
	graph := map[string]map[string]bool{}
	for _, s := range readTree(t).src {
		if s.test {
			continue
		}
		if graph[s.dir] == nil {
			graph[s.dir] = map[string]bool{}
		}
		for _, imp := range s.imports {
			graph[s.dir][imp] = true
		}
	}
	seen := map[string]bool{}
	var walk func(dir, way string)
	walk = func(dir, way string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		for imp := range graph[dir] {
			if imp == "C" || strings.HasPrefix(imp, "github.com/duckdb/") || strings.HasPrefix(imp, "github.com/apache/arrow-go/") {
				t.Errorf("%s imports %s; the edge must build without C", way, imp)
			}
			if next, ours := inModule(imp); ours {
				walk(next, way+" → "+next)
			}
		}
	}
	for dir := range maps.Clone(graph) {
		if under(dir, "edge") || under(dir, "cmd/headrace-edge") {
			walk(dir, dir)
		}
	}
}

func TestPackages(t *testing.T) {
	docs, names := map[string]string{}, map[string]string{}
	for _, s := range readTree(t).src {
		if len(s.inits) > 0 {
			t.Errorf("%s:%d: func init; registration is explicit", s.file, s.inits[0])
		}
		name := strings.TrimSuffix(s.pkg, "_test")
		names[s.dir] = name
		want := "Package " + name + " "
		if name == "main" {
			want = "Command "
		}
		if strings.HasPrefix(s.doc, want) {
			docs[s.dir] = s.doc
		}
		for part := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "manager", "helpers", "misc"}, part) {
				t.Errorf("%s: a folder named %q says nothing of what is in it", s.file, part)
			}
		}
	}
	for dir, name := range names {
		if docs[dir] == "" {
			t.Errorf("%s: package %s has no comment that says what it is for (main packages begin with \"Command\")", dir, name)
		}
	}
}

// A test may sleep only where sleeping costs nothing and decides nothing: in a synctest bubble.
func TestTestsDoNotSleep(t *testing.T) {
	for _, s := range readTree(t).src {
		if len(s.sleeps) > 0 && (s.test || under(s.dir, "test")) && !slices.Contains(s.imports, "testing/synctest") {
			t.Errorf("%s:%d: time.Sleep outside of testing/synctest; wait for what happens", s.file, s.sleeps[0])
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	const limit = 700
	tr := readTree(t)
	for _, s := range tr.src {
		if s.lines > limit && !s.generated {
			t.Errorf("%s has %d lines; split it (limit %d)", s.file, s.lines, limit)
		}
	}
	for _, name := range tr.files {
		if under(name, "ui/dist") || !hasSuffix(name, ".ts", ".tsx", ".css", ".mjs", ".sh", ".sql", ".py") {
			continue
		}
		if n := strings.Count(string(tr.read(t, name)), "\n"); n > limit {
			t.Errorf("%s has %d lines; split it (limit %d)", name, n, limit)
		}
	}
}

func TestModule(t *testing.T) {
	const limit = 40
	tr := readTree(t)
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = tr.top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reading go.mod: %v", err)
	}
	var mod struct {
		Replace []any
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace) > 0 {
		t.Errorf("go.mod has %d replace directives; go install would refuse it", len(mod.Replace))
	}
	direct := 0
	for _, r := range mod.Require {
		if !r.Indirect {
			direct++
		}
	}
	if direct >= limit {
		t.Errorf("go.mod has %d direct dependencies, want fewer than %d", direct, limit)
	}
}

func hasSuffix(name string, suffixes ...string) bool {
	return slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}
