package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// folderNode is a node's data folders without the node.
type folderNode struct {
	t    *testing.T
	root string
}

func (n folderNode) path(name string) string { return filepath.Join(n.root, name) }

func (n folderNode) paths(names ...string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, n.path(name))
	}
	return paths
}

// open opens folders by name and closes them again; it returns how the partitions are placed, for example "a: 0 2, b: 1 3".
func (n folderNode) open(names ...string) string {
	n.t.Helper()
	f, err := OpenFolders(n.paths(names...), Identity{Partitions: 4})
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			n.t.Error(err)
		}
	}()
	return describeFolders(f)
}

func describeFolders(f *Folders) string {
	var parts []string
	for i := range f.list {
		state := ""
		if f.list[i].err != nil {
			state = "!"
		}
		parts = append(parts, filepath.Base(f.list[i].path)+state+":"+strings.Trim(fmt.Sprint(f.on(i)), "[]"))
	}
	return strings.Join(parts, ", ")
}

// serve makes the folders of all partitions and notes that they have served.
func (n folderNode) serve(names ...string) {
	n.t.Helper()
	f, err := OpenFolders(n.paths(names...), Identity{Partitions: 4})
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	var all []uint32
	for id := range f.Identity.Partitions {
		dir := filepath.Join(partitionPath(f.list[f.Of(id)].path, id), "plog")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, id)
	}
	if err := f.RequirePresent(all...); err != nil {
		n.t.Fatal(err)
	}
}

// refuses opens folders that must be refused with all of want, and leaves every file as it was.
func (n folderNode) refuses(names []string, want ...string) {
	n.t.Helper()
	before := n.tree()
	f, err := OpenFolders(n.paths(names...), Identity{})
	if err == nil {
		n.t.Errorf("%v were opened as %s", names, describeFolders(f))
		_ = f.Close()
		return
	}
	text := strings.ReplaceAll(err.Error(), n.root+"/", "")
	for _, w := range want {
		if !strings.Contains(text, w) {
			n.t.Errorf("%v: %q does not say %q", names, text, w)
		}
	}
	if strings.Contains(text, "\n") {
		n.t.Errorf("%q", text)
	}
	if after := n.tree(); !reflect.DeepEqual(after, before) {
		n.t.Errorf("%v: a refusal changed the files from %v to %v", names, before, after)
	}
}

// tree is all files and what is in them; locks and probes do not count.
func (n folderNode) tree() map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(n.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() == lockFile || d.Name() == probeFile {
			return err
		}
		content := "folder"
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		}
		files[strings.TrimPrefix(path, n.root)] = content
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

func (n folderNode) expect(got, want string) {
	n.t.Helper()
	if got != want {
		n.t.Errorf("the folders are %q, expected %q", got, want)
	}
}

func (n folderNode) nodeFile(name string) nodeFile {
	n.t.Helper()
	file, err := readNodeFile(n.path(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return file
}

func newFolderNode(t *testing.T) folderNode { return folderNode{t, t.TempDir()} }

// TestPartitionsArePlacedEvenlyAndStay over restarts, whatever the order of the folders.
func TestPartitionsArePlacedEvenlyAndStay(t *testing.T) {
	n := newFolderNode(t)
	n.expect(n.open("a", "b"), "a:0 2, b:1 3")
	n.serve("a", "b")
	n.expect(n.open("b", "a"), "a:0 2, b:1 3")
	if a, b := n.nodeFile("a"), n.nodeFile("b"); a.Folder == b.Folder || !reflect.DeepEqual(a.Set, b.Set) || a.ClusterID != b.ClusterID || a.FormatVersion != 2 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if err := os.Rename(n.path("b"), n.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "elsewhere"), "a:0 2, elsewhere:1 3")
	if set := n.nodeFile("a").Set; set.Folders[1].Path != n.path("elsewhere") {
		t.Errorf("%+v", set)
	}
	before := n.tree()
	n.expect(n.open("a", "elsewhere"), "a:0 2, elsewhere:1 3")
	if !reflect.DeepEqual(before, n.tree()) {
		t.Error("a start at which nothing is new writes")
	}
	if err := os.Rename(partitionPath(n.path("a"), 2), partitionPath(n.path("elsewhere"), 2)); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "elsewhere"), "a:0, elsewhere:1 2 3")
}

// TestPartitionIsMovedByHand while the node is stopped: it is where its folder is, and the record follows. A copy under another name is nobody's.
func TestPartitionIsMovedByHand(t *testing.T) {
	n := newFolderNode(t)
	n.serve("a", "b")
	n.expect(n.open("a", "b"), "a:0 2, b:1 3")
	from, to := partitionPath(n.path("b"), 3), partitionPath(n.path("a"), 3)
	if err := os.CopyFS(to+".tmp", os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "b"), "a:0 2, b:1 3")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"a", "b"}, "holds partition 3, and so does", "move the outdated one")
	if err := os.RemoveAll(from); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "b"), "a:0 2 3, b:1")
	if err := os.RemoveAll(to + ".tmp"); err != nil {
		t.Fatal(err)
	}
	file, err := readNodeFile(n.path("b"))
	if err != nil || fmt.Sprint(file.Set.Folders[0].Partitions) != "[0 2 3]" {
		t.Errorf("%+v, %v", file.Set, err)
	}
}

func TestPlacementPrefersSpaceAmongEquals(t *testing.T) {
	p := &folderPlan{chosen: []*folder{{free: 5 << 30}, {free: 9 << 30}, {free: 7 << 30, err: errors.New("gone")}, {free: 8 << 30}}}
	for load, want := range map[[4]int]int{{0, 0, 0, 0}: 1, {0, 1, 0, 0}: 3, {0, 1, 0, 1}: 0, {3, 2, 0, 1}: 3} {
		if got := p.emptiest(load[:]); got != want {
			t.Errorf("%v: %d, expected %d", load, got, want)
		}
	}
}

// TestSoleFolderIsAsItWas: with one folder an older build can go back to it.
func TestSoleFolderIsAsItWas(t *testing.T) {
	n := newFolderNode(t)
	n.expect(n.open("a"), "a:0 1 2 3")
	data, err := os.ReadFile(n.path("a/NODE"))
	if err != nil || strings.Contains(string(data), "set") || strings.Contains(string(data), "folder") || n.nodeFile("a").FormatVersion != 1 {
		t.Errorf("%s, %v", data, err)
	}
}

func TestFoldersThatDoNotBelongTogether(t *testing.T) {
	n := newFolderNode(t)
	n.serve("a", "b")
	n.serve("sole")
	n.open("other1", "other2")
	if err := os.Symlink(n.path("a"), n.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.path("copy"), os.DirFS(n.path("b"))); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.path("solecopy"), os.DirFS(n.path("sole"))); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.path("foreign/letters"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"a", "a"}, "--data-dir a: is the same folder as --data-dir a")
	n.refuses([]string{"a", "b", "link"}, "--data-dir link: is the same folder as --data-dir a")
	n.refuses([]string{"a", "b", "a/new"}, "--data-dir a/new: lies within --data-dir a")
	n.refuses([]string{"new/x", "new"}, "--data-dir new/x: lies within --data-dir new")
	n.refuses([]string{"a", "b", "copy"}, "--data-dir copy: is a copy of --data-dir b")
	n.refuses([]string{"sole", "solecopy"}, "--data-dir solecopy: is a copy of --data-dir sole", "only folder")
	n.refuses([]string{"a", "b", "other1"}, "--data-dir other1: belongs to another node than --data-dir a")
	n.refuses([]string{"sole", "other1", "other2"}, "belongs to another node")
	n.refuses([]string{"a", "b", "foreign"}, "--data-dir foreign: is not empty and has no NODE file")
	n.refuses([]string{"a"}, "--data-dir b is missing: it holds partitions 1, 3 of this node; give it, too")
	n.refuses([]string{"a", "new"}, "--data-dir b is missing: it holds partitions 1, 3")
	n.refuses([]string{"a", "b", "sole"}, "belongs to another node")
	if _, err := OpenFolders(n.paths("a", "b"), Identity{Partitions: 8}); err == nil || !strings.Contains(err.Error(), "--partitions 8") {
		t.Errorf("%v", err)
	}
	if err := os.CopyFS(partitionPath(n.path("b"), 0), os.DirFS(partitionPath(n.path("a"), 0))); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"a", "b"}, "--data-dir b: holds partition 0, and so does --data-dir a", "a/partitions/0000", "b/partitions/0000")
}

// TestFolderThatCannotBeUsedLeavesTheOthers serving: not mounted, damaged, or unreadable.
func TestFolderThatCannotBeUsedLeavesTheOthers(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"not mounted": func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.Mkdir(path, 0o755))
		},
		"absent":       func(path string) error { return os.Rename(path, path+".away") },
		"damaged":      func(path string) error { return os.WriteFile(filepath.Join(path, identityFile), []byte(`{"fo`), 0o644) },
		"NODE is gone": func(path string) error { return os.Remove(filepath.Join(path, identityFile)) },
		"a file": func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.WriteFile(path, nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFolderNode(t)
			n.serve("a", "b")
			before := n.tree()
			if err := harm(n.path("b")); err != nil {
				t.Fatal(err)
			}
			harmed := n.tree()
			f, err := OpenFolders(n.paths("a", "b"), Identity{})
			if err != nil {
				t.Fatal(err)
			}
			n.expect(describeFolders(f), "a:0 2, b!:1 3")
			if len(f.notes) != 1 || !strings.Contains(f.notes[0], "--data-dir "+n.path("b")) || !strings.Contains(f.notes[0], "partitions 1, 3") {
				t.Errorf("%q", f.notes)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(harmed, n.tree()) {
				t.Errorf("something was written: %v became %v", harmed, n.tree())
			}
			n.refuses([]string{"a", "b", "new"}, "only while all others can be used", "--data-dir b")
			if name == "not mounted" || name == "absent" {
				if err := errors.Join(os.RemoveAll(n.path("b")), os.Rename(n.path("b.away"), n.path("b"))); err != nil {
					t.Fatal(err)
				}
				n.expect(n.open("a", "b"), "a:0 2, b:1 3")
				if !reflect.DeepEqual(before, n.tree()) {
					t.Error("the folder came back differently")
				}
			}
		})
	}
}

// TestCommandsAddNoFolder: a folder that is named by mistake is refused by what works on a node's folders, and left as it is.
func TestCommandsAddNoFolder(t *testing.T) {
	n := newFolderNode(t)
	n.serve("a", "b")
	if err := os.Mkdir(n.path("empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := n.tree()
	for _, names := range [][]string{{"new"}, {"empty"}, {"a", "b", "new"}, {"a", "b", "empty"}} {
		f, err := OpenExisting(n.paths(names...))
		if err == nil {
			_ = f.Close()
		}
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--data-dir "+n.path(names[len(names)-1])) {
			t.Errorf("%v: %v", names, err)
		}
	}
	if after := n.tree(); !reflect.DeepEqual(after, before) {
		t.Errorf("%v became %v", before, after)
	}
}

// TestOlderBuildsRefuseOneOfSeveral: what they know nothing of, they must not take for a whole node.
func TestOlderBuildsRefuseOneOfSeveral(t *testing.T) {
	n := newFolderNode(t)
	n.serve("a")
	n.open("a", "b")
	var file struct {
		FormatVersion int `json:"format_version"`
	}
	for _, name := range []string{"a", "b"} {
		data, err := os.ReadFile(n.path(name + "/NODE"))
		if err == nil {
			err = json.Unmarshal(data, &file)
		}
		if err != nil || file.FormatVersion != 2 {
			t.Errorf("%s, %v", data, err)
		}
	}
}
