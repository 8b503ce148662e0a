package arch

import (
	"bytes"
	"errors"
	"fmt"
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
	"sync"
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

// load reads the checkout once for all tests; nobody changes what it returns.
var load = sync.OnceValues(loadTree)

func readTree(t *testing.T) *tree {
	t.Helper()
	tr, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func loadTree() (*tree, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return nil, errors.New("the source of this test is not known")
	}
	tr := &tree{top: filepath.Join(filepath.Dir(self), "..", "..")}
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = tr.top
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing files with git: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		// Deleted files stay in git's list until the deletion is staged.
		if info, err := os.Lstat(filepath.Join(tr.top, name)); err != nil || !info.Mode().IsRegular() {
			continue
		}
		tr.files = append(tr.files, name)
		if strings.HasSuffix(name, ".go") && !strings.Contains("/"+name, "/testdata/") {
			s, err := parse(tr.top, name)
			if err != nil {
				return nil, err
			}
			tr.src = append(tr.src, s)
		}
	}
	if len(tr.src) == 0 {
		return nil, errors.New("no Go file found")
	}
	return tr, nil
}

func (tr *tree) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tr.top, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(top, name string) (source, error) {
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		return source{}, err
	}
	s := source{file: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(b, []byte("\n"))}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, fmt.Errorf("parsing: %w", err)
	}
	s.pkg, s.doc, s.generated = f.Name.Name, f.Doc.Text(), ast.IsGenerated(f)
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("%s: import %s: %w", name, i.Path.Value, err)
		}
		s.imports = append(s.imports, p)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				s.inits = append(s.inits, fset.Position(n.Pos()).Line)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" {
				s.sleeps = append(s.sleeps, fset.Position(n.Pos()).Line)
			}
		}
		return true
	})
	return s, nil
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
