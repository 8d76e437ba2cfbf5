package replica

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"replicanode/plog"
)

func TestCorruptLogKeepsOnePartitionOut(t *testing.T) {
	dir := testDir(t)
	o := testOptions(t, dir)
	o.Partitions = 2
	n := startNode(t, o)
	for i := range 50 {
		set(t, n.Partition(0), key(i), strings.Repeat("x", 1000))
	}
	n.stop(t)
	segments, err := filepath.Glob(filepath.Join(dir, PartitionDir(0), LogDir, "*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	for _, name := range segments {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := strings.Index(string(data), strings.Repeat("x", 1000)); at > 0 {
			data[at+500] ^= 1
			must(t, os.WriteFile(name, data, 0o644))
		}
	}
	if n, err = openNode(o); err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	var corrupt *plog.ErrCorrupt
	if err := n.WaitReady(t.Context()); !errors.As(err, &corrupt) || corrupt.Partition != 0 {
		t.Fatalf("%v", err)
	}
	if p := n.Partition(0); !errors.As(p.Err(), &corrupt) || p.Log() != nil || p.DB() != nil {
		t.Errorf("%v", p.Err())
	}
	set(t, n.Partition(1), "k", "v")
}

func TestDatabaseAheadOfItsLogIsRefused(t *testing.T) {
	dir := testDir(t)
	o := testOptions(t, dir)
	n := startNode(t, o)
	for i := range 10 {
		set(t, n.Partition(0), key(i), "v")
	}
	n.stop(t)
	must(t, os.RemoveAll(filepath.Join(dir, PartitionDir(0), LogDir)))
	n, err := openNode(o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	if err := n.WaitReady(t.Context()); !errors.As(err, new(*FailedError)) {
		t.Fatalf("%v", err)
	}
}

// TestVanishedPartitionDoesNotComeBackEmpty, and the others serve.
func TestVanishedPartitionDoesNotComeBackEmpty(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.Partitions = 4
	n := startNode(t, o)
	for _, p := range n.Partitions() {
		set(t, p, "k", "v")
	}
	n.stop(t)
	folder := filepath.Join(o.Dir, PartitionDir(0))
	must(t, os.RemoveAll(folder))
	must(t, os.RemoveAll(filepath.Join(o.Dir, PartitionDir(1), LogDir)))
	for _, sub := range []string{LogDir, DBDir} {
		must(t, os.RemoveAll(filepath.Join(o.Dir, PartitionDir(2), sub)))
		must(t, os.Mkdir(filepath.Join(o.Dir, PartitionDir(2), sub), 0o755))
	}
	o.MustExist = []uint32{0, 1, 2, 3}
	for range 2 {
		n, err := openNode(o)
		if err != nil {
			t.Fatal(err)
		}
		must(t, n.Partition(3).waitReady(t.Context()))
		if v, _ := get(t, n.Partition(3), "k"); v != "v" {
			t.Errorf("the partition that is there has %q", v)
		}
		for _, p := range n.Partitions()[:3] {
			if err := p.waitReady(t.Context()); !errors.As(err, new(*MissingError)) {
				t.Errorf("partition %d: %v", p.ID(), err)
			}
		}
		n.stop(t)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder that vanished is there: %v", err)
	}
	o.MustExist = []uint32{1, 2, 3}
	n, err := openNode(o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	must(t, n.Partition(0).waitReady(t.Context()))
}

// TestDamageFoundWhileServingStopsThePartition, and no other one. Whoever reads the log finds it for all.
func TestDamageFoundWhileServingStopsThePartition(t *testing.T) {
	dir := testDir(t)
	o := testOptions(t, dir)
	o.Partitions, o.Log.SegmentBytes = 2, plog.MinSegmentBytes
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	const value = "a value that is easily found "
	for i := range 20 {
		set(t, p, key(i), strings.Repeat(value, 20))
	}
	rotSealed(t, filepath.Join(dir, PartitionDir(0), LogDir), value)
	if p.Err() != nil {
		t.Fatal("nobody has read anything yet")
	}
	r, err := p.Log().NewReader(1)
	for err == nil {
		_, err = r.Next()
	}
	must(t, r.Close())
	var corrupt *plog.ErrCorrupt
	if !errors.As(err, &corrupt) {
		t.Fatalf("the reader got %v", err)
	}
	var told *plog.ErrCorrupt
	if !errors.As(p.Err(), &told) || *told != *corrupt || strings.Count(p.Err().Error(), corrupt.Error()) != 1 {
		t.Errorf("the reader got %v, the partition says %v", corrupt, p.Err())
	}
	if err := try(p, func(tx *Tx) { _ = tx.Put([]byte("k"), nil, 0) }); !errors.As(err, new(*FailedError)) {
		t.Errorf("write: %v", err)
	}
	if err := p.View(t.Context(), func(*View) error { return nil }); !errors.As(err, new(*FailedError)) {
		t.Errorf("read: %v", err)
	}
	set(t, n.Partition(1), "k", "v")
	if v, ok := get(t, n.Partition(1), "k"); !ok || v != "v" {
		t.Errorf("%q", v)
	}
}

// rotSealed flips a bit of a value in the oldest segment of a log.
func rotSealed(t *testing.T, dir, value string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	for _, name := range slices.Sorted(slices.Values(segments))[:1] {
		data, err := os.ReadFile(name)
		must(t, err)
		at := strings.Index(string(data), value)
		if at < 0 {
			t.Fatalf("%s does not hold the value", name)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{value[0] ^ 1}, int64(at))
		must(t, errors.Join(err, f.Close()))
	}
}

// TestDamageFoundWhileReplayingKeepsThePartitionOut, and says why once.
func TestDamageFoundWhileReplayingKeepsThePartitionOut(t *testing.T) {
	dir := testDir(t)
	o := testOptions(t, dir)
	o.Partitions, o.Log.SegmentBytes = 2, plog.MinSegmentBytes
	n := startNode(t, o)
	const value = "a value that is easily found "
	for i := range 20 {
		set(t, n.Partition(0), key(i), strings.Repeat(value, 20))
	}
	n.stop(t)
	must(t, os.RemoveAll(filepath.Join(dir, PartitionDir(0), DBDir)))
	rotSealed(t, filepath.Join(dir, PartitionDir(0), LogDir), value)
	n, err := openNode(o)
	must(t, err)
	defer n.stop(t)
	err = n.WaitReady(t.Context())
	var corrupt *plog.ErrCorrupt
	if !errors.As(err, &corrupt) || corrupt.Segment != 1 || strings.Count(err.Error(), corrupt.Error()) != 1 {
		t.Errorf("%v", err)
	}
	if p := n.Partition(0); p.Log() != nil || p.DB() != nil {
		t.Error("the files are still open")
	}
	set(t, n.Partition(1), "k", "v")
}
