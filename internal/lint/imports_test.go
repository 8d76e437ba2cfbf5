// Package lint holds the rules of the house as ordinary tests: which room may import which, and what a file may look like.
package lint

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "replicanode"

// rooms lists the top-level packages from the bottom of the house to the top. A room imports only rooms that stand before it,
// so that every arrow points one way and any prefix of this list builds alone.
var rooms = []string{
	"internal",
	"threadpool",
	"tasks",
	"plog",
	"peer",
	"replica",
	"duplication",
	"checkpoint",
	"gc",
	"server",
	"node",
	"bench",
	"cmd",
}

// allowed narrows what the lower rooms may import of the project itself. Rooms not named here may use every room before them.
var allowed = map[string][]string{
	"threadpool":  {},
	"tasks":       {"threadpool"},
	"plog":        {},
	"peer":        {},
	"replica":     {"plog", "peer"},
	"duplication": {"plog", "peer", "replica", "tasks", "threadpool"},
	"checkpoint":  {"plog", "replica", "tasks", "threadpool"},
	"gc":          {"plog", "checkpoint", "tasks", "threadpool"},
}

// thirdParty lists the only modules outside the standard library that the importable rooms may pull in: whoever imports the
// scheduler must not pay for a storage engine.
var thirdParty = map[string][]string{
	"threadpool":             {"github.com/panjf2000/ants/v2"},
	"threadpool/poolmetrics": {"github.com/prometheus/client_golang"},
	"tasks":                  {"github.com/prometheus/client_golang", "github.com/HdrHistogram/hdrhistogram-go", "github.com/cenkalti/backoff/v5", "golang.org/x/time"},
	"plog":                   {"github.com/cockroachdb/pebble/v2/vfs", "github.com/prometheus/client_golang", "golang.org/x/sys"},
}

// source is one non-test Go file with its imports.
type source struct {
	path    string
	pkg     string // directory below the module root
	imports []string
}

func TestImportsPointDown(t *testing.T) {
	rank := make(map[string]int, len(rooms))
	for i, room := range rooms {
		rank[room] = i
	}
	for _, src := range sources(t) {
		from := room(src.pkg)
		fromRank, ok := rank[from]
		if !ok {
			t.Errorf("%s: room %q is not in the list of rooms; add it where it belongs", src.path, from)
			continue
		}
		for _, path := range src.imports {
			rest, own := strings.CutPrefix(path, module+"/")
			if !own {
				continue
			}
			to := room(rest)
			if to == from {
				continue
			}
			if to != "internal" && rank[to] >= fromRank {
				t.Errorf("%s imports %s: imports point from %s down, never up", src.path, path, from)
			}
			if list, narrowed := allowed[from]; narrowed && to != "internal" && !contains(list, to) {
				t.Errorf("%s imports %s: %s may import only %v", src.path, path, from, list)
			}
		}
	}
}

func TestImportableRoomsStayLight(t *testing.T) {
	for _, src := range sources(t) {
		list, narrowed := thirdParty[src.pkg]
		if !narrowed {
			continue
		}
		for _, path := range src.imports {
			if !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
				continue
			}
			if !hasPrefixIn(list, path) {
				t.Errorf("%s imports %s: %s may import only %v", src.path, path, src.pkg, list)
			}
		}
	}
}

func TestOnlyCommandImportsTheCLI(t *testing.T) {
	for _, src := range sources(t) {
		for _, path := range src.imports {
			if strings.HasPrefix(path, "github.com/urfave/cli") && room(src.pkg) != "cmd" {
				t.Errorf("%s imports %s: flags belong to cmd", src.path, path)
			}
		}
	}
}

func TestOnlyTestsImportFixtures(t *testing.T) {
	for _, src := range sources(t) {
		for _, path := range src.imports {
			if path == module+"/internal/fixture" {
				t.Errorf("%s imports %s: it is for tests", src.path, path)
			}
		}
	}
}

// sources parses the imports of every non-test Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	root := moduleRoot(t)
	var list []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipFolder(root, path, rel, d)
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		src := source{path: filepath.ToSlash(rel), pkg: filepath.ToSlash(filepath.Dir(rel))}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			src.imports = append(src.imports, name)
		}
		list = append(list, src)
		return nil
	})
	if err != nil {
		t.Fatalf("read the module's sources: %v", err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].path < list[j].path })
	if len(list) == 0 {
		t.Fatal("found no Go files: the walk is broken")
	}
	return list
}

// skipFolder leaves out hidden folders, data, and nested modules: they have rules of their own.
func skipFolder(root, path, rel string, d fs.DirEntry) error {
	if path == root {
		return nil
	}
	if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "data" || rel == "bin" {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

func room(pkg string) string {
	return strings.SplitN(pkg, "/", 2)[0]
}

func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}

func hasPrefixIn(list []string, path string) bool {
	for _, item := range list {
		if path == item || strings.HasPrefix(path, item+"/") {
			return true
		}
	}
	return false
}
