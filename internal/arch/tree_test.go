package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/headrace/headrace"

// source is one Go file as the rules see it.
type source struct {
	file      string // relative to the top, with slashes
	dir       string
	pkg       string
	doc       string
	test      bool
	generated bool
	imports   []string
	inits     []int // lines of func init
	sleeps    []int // lines of time.Sleep
	lines     int
}

// tree is the checkout: every file that is, or could be, committed.
type tree struct {
	top   string
	files []string
	src   []source
}

func readTree(t *testing.T) *tree {
	t.Helper()
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the source of this test is not known")
	}
	tr := &tree{top: filepath.Join(filepath.Dir(self), "..", "..")}
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = tr.top
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("listing files with git: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		// Deleted files stay in git's list until the deletion is staged.
		if info, err := os.Lstat(filepath.Join(tr.top, name)); err == nil && info.Mode().IsRegular() {
			tr.files = append(tr.files, name)
			if strings.HasSuffix(name, ".go") && !strings.Contains("/"+name, "/testdata/") {
				tr.src = append(tr.src, tr.parse(t, name))
			}
		}
	}
	if len(tr.src) == 0 {
		t.Fatal("no Go file found")
	}
	return tr
}

func (tr *tree) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tr.top, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (tr *tree) parse(t *testing.T, name string) source {
	t.Helper()
	b := tr.read(t, name)
	s := source{file: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(b, []byte("\n"))}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("parsing: %v", err)
	}
	s.pkg, s.doc, s.generated = f.Name.Name, f.Doc.Text(), ast.IsGenerated(f)
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", name, i.Path.Value, err)
		}
		s.imports = append(s.imports, p)
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			s.inits = append(s.inits, fset.Position(fn.Pos()).Line)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
				s.sleeps = append(s.sleeps, fset.Position(sel.Pos()).Line)
			}
		}
		return true
	})
	return s
}

// inModule returns the folder of an import of our own.
func inModule(imp string) (dir string, ok bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// outside tells an import that is neither ours nor the standard library's.
func outside(imp string) bool {
	_, ours := inModule(imp)
	first, _, _ := strings.Cut(imp, "/")
	return !ours && strings.Contains(first, ".")
}

func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }
