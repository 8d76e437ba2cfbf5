package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxFileLines bounds a file to what one story needs; generated code is exempt.
const maxFileLines = 600

func TestFilesTellOneStory(t *testing.T) {
	root := moduleRoot(t)
	for _, src := range sources(t) {
		if strings.HasSuffix(src.path, ".pb.go") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, src.path))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), "\n"); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: split it by idea", src.path, n, maxFileLines)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	root := moduleRoot(t)
	documented := map[string]bool{}
	for _, src := range sources(t) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, src.path), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		documented[src.pkg] = documented[src.pkg] || file.Doc != nil
	}
	for pkg, ok := range documented {
		if !ok && !strings.HasSuffix(pkg, "pb") {
			t.Errorf("package %s has no doc comment", pkg)
		}
	}
}

func TestNoInitAndNoSleepInTests(t *testing.T) {
	root := moduleRoot(t)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			return skipFolder(root, path, rel, d)
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		return checkCalls(t, path, rel)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkCalls refuses init functions anywhere and, in tests, wall-clock sleeps. A sleep inside a virtual-time bubble is a step
// of the test's clock, so files that use testing/synctest may have them.
func checkCalls(t *testing.T, path, rel string) error {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		return err
	}
	virtual := false
	for _, spec := range file.Imports {
		virtual = virtual || spec.Path.Value == `"testing/synctest"`
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				t.Errorf("%s: func init hides work; call it where it is needed", fset.Position(n.Pos()))
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" && strings.HasSuffix(rel, "_test.go") && !virtual {
				t.Errorf("%s: a test waits for a signal, not for time to pass", fset.Position(n.Pos()))
			}
		}
		return true
	})
	return nil
}
