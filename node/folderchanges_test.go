package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// TestFolderIsAddedAndTakenOut: an empty one at any time, and out only what holds nothing.
func TestFolderIsAddedAndTakenOut(t *testing.T) {
	n := newFolderNode(t)
	n.serve("a")
	n.expect(n.open("a", "b"), "a:0 1 2 3, b:")
	n.expect(n.open("a", "b", "c"), "a:0 1 2 3, b:, c:")
	n.expect(n.open("a", "c"), "a:0 1 2 3, c:")
	n.refuses([]string{"c"}, "--data-dir a is missing", "partitions 0, 1, 2, 3")
	n.expect(n.open("a", "b", "c"), "a:0 1 2 3, c:, b:")
	// A partition that starts again goes where the fewest are.
	f, err := OpenFolders(n.paths("a", "b", "c"), Identity{})
	if err != nil {
		t.Fatal(err)
	}
	name, err := f.Drop(2, "dropped")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "b", "c"), "a:0 1 3, c:2, b:")
	f, err = OpenFolders(n.paths("a", "b", "c"), Identity{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Undelete(name)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("a", "b", "c"), "a:0 1 2 3, c:, b:")
	// What is in a folder that was taken out is not overlooked.
	n.expect(n.open("a", "b"), "a:0 1 2 3, b:")
	if err := os.MkdirAll(filepath.Join(partitionPath(n.path("c"), 1), "plog"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"a", "b", "c"}, "--data-dir c: is none of this node's folders any more", "partition 1")
	if err := os.MkdirAll(n.path("b/dropped/0001-5"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"a"}, "--data-dir b is missing", "dropped replicas or checkpoints")
}

// TestFirstFolderStays as long as it may hold checkpoints.
func TestFirstFolderStays(t *testing.T) {
	n := newFolderNode(t)
	n.open("a", "b")
	n.serve("a", "b")
	for _, id := range []uint32{0, 2} {
		if err := os.Rename(partitionPath(n.path("a"), id), partitionPath(n.path("b"), id)); err != nil {
			t.Fatal(err)
		}
	}
	n.open("a", "b")
	if err := os.MkdirAll(n.path("a/checkpoints/0000"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"b"}, "--data-dir a is missing", "dropped replicas or checkpoints")
	if err := os.Rename(n.path("a"), n.path("hidden")); err != nil {
		t.Fatal(err)
	}
	n.refuses([]string{"b"}, "--data-dir a is missing: it keeps the node's checkpoints")
	if err := os.Rename(n.path("hidden"), n.path("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.path("a/checkpoints")); err != nil {
		t.Fatal(err)
	}
	n.expect(n.open("b"), "b:0 1 2 3")
}

// TestLossOfADiskIsAccepted partition by partition, and then the node goes on without it.
func TestLossOfADiskIsAccepted(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"absent":      os.RemoveAll,
		"not mounted": func(path string) error { return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newFolderNode(t)
			n.serve("a", "b")
			if err := harm(n.path("b")); err != nil {
				t.Fatal(err)
			}
			for _, id := range []uint32{1, 3} {
				f, err := OpenExisting(n.paths("a", "b"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Drop(id, "dropped"); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%v", err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			n.expect(n.open("a"), "a:0 1 2 3")
		})
	}
}

// TestMissedChangesAreCaughtUp by a folder that was away, and two that were away in turns agree again.
func TestMissedChangesAreCaughtUp(t *testing.T) {
	n := newFolderNode(t)
	n.open("a", "b")
	away := func(name string, do func()) {
		if err := os.Rename(n.path(name), n.path("away")); err != nil {
			t.Fatal(err)
		}
		do()
		if err := errors.Join(os.RemoveAll(n.path(name)), os.Rename(n.path("away"), n.path(name))); err != nil {
			t.Fatal(err)
		}
	}
	require := func(partition uint32) {
		f, err := OpenFolders(n.paths("a", "b"), Identity{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.RequirePresent(partition), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	n.serve("a", "b")
	f, err := OpenFolders(n.paths("a", "b"), Identity{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.AllowEmpty(0), f.AllowEmpty(1), f.Close()); err != nil {
		t.Fatal(err)
	}
	away("b", func() { require(0) })
	away("a", func() { require(1) })
	n.open("a", "b")
	a, b := n.nodeFile("a"), n.nodeFile("b")
	if len(a.MayStartEmpty) != 0 || !reflect.DeepEqual(a.Set, b.Set) || !slices.Equal(a.MayStartEmpty, b.MayStartEmpty) {
		t.Errorf("%+v %+v\n%+v %+v", a, a.Set, b, b.Set)
	}
}

// TestCrashBetweenTheFilesOfAnAddition: whichever NODE files were written, the next start with the new folder finishes the addition,
// and one without it goes on as before.
func TestCrashBetweenTheFilesOfAnAddition(t *testing.T) {
	power := errors.New("power loss")
	for written := range 4 {
		for _, before := range [][]string{{"a"}, {"a", "b"}, nil} {
			for _, retry := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d written of %d and one, again %v", written, len(before), retry), func(t *testing.T) {
					n := newFolderNode(t)
					all := append(slices.Clone(before), "c")
					if before == nil {
						all = []string{"a", "b", "c"} // a new node
					} else {
						n.serve(before...)
					}
					left := written
					f, err := openFolders(n.paths(all...), Identity{Partitions: 4}, func(name string, data []byte) error {
						if left--; left < 0 {
							return power
						}
						return writeFileSynced(name, data)
					})
					if err == nil {
						err = f.Close()
					} else if !errors.Is(err, power) {
						t.Fatal(err)
					}
					next := all
					if !retry && before != nil {
						next = before
					}
					got := n.open(next...)
					if before == nil {
						n.expect(got, "a:0 3, b:1, c:2")
						return
					}
					want := map[int]string{1: "a:0 1 2 3", 2: "a:0 2, b:1 3"}[len(before)]
					if retry {
						want += ", c:"
					}
					n.expect(got, want)
					n.expect(n.open(next...), want)
					_ = err
				})
			}
		}
	}
}
