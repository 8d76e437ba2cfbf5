package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"replicanode/replica"
)

// TestVanishedPartitionIsMissed: a folder that served once and is gone is the reason why the node is not ready, until the operator
// says that the partition may start empty.
func TestVanishedPartitionIsMissed(t *testing.T) {
	dir := t.TempDir()
	o := Options{DataDir: dir, Partitions: 2}
	n := launch(t, o)
	if !n.Ready().Ready {
		t.Fatalf("%+v", n.Ready())
	}
	halt(t, n)
	if err := os.RemoveAll(filepath.Join(dir, partitionsDir, replica.PartitionDir(1))); err != nil {
		t.Fatal(err)
	}
	n = launch(t, o)
	r := n.Ready()
	if r.Ready || len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], "partition 1") || !strings.Contains(r.Reasons[0], "vanished") {
		t.Errorf("%+v", r)
	}
	if !n.host.Partition(0).Ready() {
		t.Error("the other partition does not serve")
	}
	halt(t, n)
	f := mustOpen(t, dir, Identity{})
	if err := f.AllowEmpty(1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n = launch(t, o)
	if r := n.Ready(); !r.Ready {
		t.Errorf("%+v", r)
	}
	if got := n.folders.mustExist(); !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("must exist: %v", got)
	}
}

func TestMayStartEmptySurvivesReopening(t *testing.T) {
	path := t.TempDir()
	f := mustOpen(t, path, Identity{Partitions: 4})
	steps := []struct {
		do   func() error
		want []uint32
	}{
		{func() error { return nil }, nil},
		{func() error { return f.RequirePresent(0, 2) }, []uint32{0, 2}},
		{func() error { return f.RequirePresent(1, 3) }, []uint32{0, 1, 2, 3}},
		{func() error { return f.AllowEmpty(2) }, []uint32{0, 1, 3}},
		{func() error { return f.AllowEmpty(9) }, []uint32{0, 1, 3}},
		{func() error { return f.RequirePresent(2) }, []uint32{0, 1, 2, 3}},
	}
	for i, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		id := f.Identity
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = mustOpen(t, path, Identity{})
		if got := f.mustExist(); !slices.Equal(got, step.want) || f.Identity != id {
			t.Errorf("step %d: must exist %v, expected %v; identity %+v", i, got, step.want, f.Identity)
		}
	}
}
