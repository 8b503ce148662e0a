package vibration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/strictyaml"
)

// The rule in the documentation is one, and nothing is wrong with it.
func TestDocumentedRule(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats", "vibration.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```yaml\n")
	if len(blocks) != 3 {
		t.Fatalf("%d examples, want 2", len(blocks)-1)
	}
	rule, _, _ := strings.Cut(blocks[1], "```")
	zones, _, _ := strings.Cut(blocks[2], "```")
	var f struct {
		Vibration Config `yaml:"vibration"`
	}
	text := rule + strings.ReplaceAll(zones, "pumps", `"2"`)
	if err := strictyaml.Decode("vibration.md", []byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if _, err := New(f.Vibration); err != nil || len(f.Vibration.Rules) != 1 || f.Vibration.Zones.Version != "ours-2" {
		t.Errorf("%+v: %v", f.Vibration, err)
	}
	for i := range f.Vibration.Rules {
		if findings := f.Vibration.Rules[i].Lint(); len(findings) > 0 {
			t.Errorf("%q", findings)
		}
	}
	for _, name := range []string{".rms", ".peak", ".crest", ".kurtosis", ".p2p", ".skewness", ".velocity", ".zone", ".env.total", ".env.bpfo", ".env.bpfo.h1", ".regime", ".band.low"} {
		if !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("%s is not documented", name)
		}
	}
}
