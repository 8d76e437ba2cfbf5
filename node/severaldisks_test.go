package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	goredis "github.com/redis/go-redis/v9"

	"replicanode/gc"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// keyOf is a key of a partition.
func keyOf(partition, partitions uint32) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key-", i); replica.PartitionOf([]byte(key), partitions) == partition {
			return key
		}
	}
}

// twoDisks is a node with partition 0 on the first and partition 1 on the second of two folders.
func twoDisks(t *testing.T, change func(n *Node)) (n *Node, dirs []string) {
	t.Helper()
	root := t.TempDir()
	dirs = []string{filepath.Join(root, "a"), filepath.Join(root, "b")}
	n, err := New(Options{DataDirs: dirs, Partitions: 2, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	change(n)
	if err := n.Start(t.Context()); err != nil {
		halt(t, n)
		t.Fatal(err)
	}
	return n, dirs
}

// levels are those in force.
func levels(n *Node, codes ...tasks.Code) string {
	var at []threadpool.Priority
	for _, s := range n.tasks.Stats() {
		if slices.Contains(codes, s.Code) {
			at = append(at, s.Priority)
		}
	}
	return fmt.Sprint(at)
}

// TestFullDiskRefusesItsOwnWrites: the other disk takes them, and both do again once there is space. Meanwhile garbage collection overtakes
// everything, whatever an operator says of its level.
func TestFullDiskRefusesItsOwnWrites(t *testing.T) {
	var full atomic.Bool
	n, dirs := twoDisks(t, func(n *Node) {
		n.diskUsage = func(path string) (gc.Usage, error) {
			if full.Load() && filepath.Base(path) == "b" {
				return gc.Usage{TotalBytes: 1 << 40, FreeBytes: 12345}, nil
			}
			return gc.Usage{TotalBytes: 1 << 40, FreeBytes: 1 << 39}, nil
		}
	})
	defer halt(t, n)
	c := client(t, n)
	set := func(partition uint32) error { return c.Set(t.Context(), keyOf(partition, 2), "1", 0).Err() }
	if err := errors.Join(set(0), set(1)); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	eventually(t, "the full disk refuses writes", func() (bool, string) {
		err := set(1)
		return err != nil && strings.HasPrefix(err.Error(), "OOM ") && strings.Contains(err.Error(), dirs[1]) && strings.Contains(err.Error(), "12345 bytes free"), fmt.Sprint(err)
	})
	if err := set(0); err != nil {
		t.Errorf("the other disk: %v", err)
	}
	if err := c.MSet(t.Context(), keyOf(0, 2), "2", keyOf(1, 2), "2").Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM ") {
		t.Errorf("a command over both: %v", err)
	}
	if got, err := c.MGet(t.Context(), keyOf(0, 2), keyOf(1, 2)).Result(); err != nil || got[0] != "1" || got[1] != "1" {
		t.Errorf("reads: %v, %v", got, err)
	}
	if frugal := []bool{n.host.Partition(0).Log().Stats().Frugal, n.host.Partition(1).Log().Stats().Frugal}; !slices.Equal(frugal, []bool{false, true}) {
		t.Errorf("frugal logs: %v", frugal)
	}
	if err := n.tasks.SetPriority(tasks.GCLogs, threadpool.Low); err != nil {
		t.Fatal(err)
	}
	if at := levels(n, tasks.GCLogs, tasks.GCReplicas, tasks.GCValues); at != "[high high high]" {
		t.Errorf("garbage collection is at %s", at)
	}
	full.Store(false)
	eventually(t, "the disk takes writes again", func() (bool, string) { err := set(1); return err == nil, fmt.Sprint(err) })
	eventually(t, "garbage collection gives way again", func() (bool, string) {
		at := levels(n, tasks.GCLogs, tasks.GCReplicas, tasks.GCValues)
		return at == "[low low low]", at
	})
}

// hungFS makes disk statistics wait at writes, and lists of dropped replicas, in folders whose name is b.
type hungFS struct {
	vfs.FS
	hold *atomic.Pointer[chan struct{}]
}

func (fs hungFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if hold := fs.hold.Load(); hold != nil && filepath.Base(filepath.Dir(name)) == "b" {
		<-*hold
	}
	return fs.FS.OpenReadWrite(name, c, o...)
}

func (fs hungFS) List(name string) ([]string, error) {
	if hold := fs.hold.Load(); hold != nil && strings.HasSuffix(name, filepath.Join("b", droppedDir)) {
		<-*hold
	}
	return fs.FS.List(name)
}

// TestDiskThatHangsConcernsItsOwnPartitionsOnly: it is named within seconds, the other one is served and measured, and both when it
// answers again.
func TestDiskThatHangsConcernsItsOwnPartitionsOnly(t *testing.T) {
	logs := &hangingFS{FS: vfs.Default}
	stats := hungFS{FS: vfs.Default, hold: &logs.hold}
	n, dirs := twoDisks(t, func(n *Node) {
		n.diskFS = stats
		n.logFS = func(disk int) vfs.FS {
			if disk == 1 {
				return logs
			}
			return vfs.Default
		}
	})
	defer halt(t, n)
	hold := make(chan struct{})
	release := func() {
		if logs.hold.CompareAndSwap(&hold, nil) {
			close(hold)
		}
	}
	defer release()
	const writes = 40 // that wait at the same time: more than there are workers of a syncer
	c := goredis.NewClient(&goredis.Options{Addr: n.Addresses().Listen, ReadTimeout: time.Minute, PoolSize: 2 * writes})
	defer c.Close()
	if err := errors.Join(c.Set(t.Context(), keyOf(0, 2), "1", 0).Err(), c.Set(t.Context(), keyOf(1, 2), "1", 0).Err()); err != nil {
		t.Fatal(err)
	}
	logs.hold.Store(&hold)
	began := time.Now()
	hung := make(chan error, writes)
	for range writes {
		go func() { hung <- c.Set(context.Background(), keyOf(1, 2), "2", 0).Err() }()
	}
	eventually(t, "the disk is named", func() (bool, string) {
		r := n.Ready()
		return !r.Ready && len(r.Reasons) == 1 && strings.HasPrefix(r.Reasons[0], "partition 1: ") && strings.Contains(r.Reasons[0], dirs[1]) && strings.Contains(r.Reasons[0], "does not answer since"), fmt.Sprintf("%+v", r)
	})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	eventually(t, "further writes are refused", func() (bool, string) {
		err := c.Set(t.Context(), keyOf(1, 2), "3", 0).Err()
		return err != nil && strings.HasPrefix(err.Error(), "TRYAGAIN ") && strings.Contains(err.Error(), dirs[1]), fmt.Sprint(err)
	})
	for i := range 100 {
		if err := c.Set(t.Context(), keyOf(0, 2), i, 0).Err(); err != nil {
			t.Fatalf("the other disk: %v", err)
		}
	}
	checkOperatorsAreAnswered(t, n, dirs)
	release()
	for range writes {
		if err := <-hung; err != nil && !strings.HasPrefix(err.Error(), "TRYAGAIN ") {
			t.Errorf("a write that waited: %v", err)
		}
	}
	eventually(t, "the node is ready again", func() (bool, string) { r := n.Ready(); return r.Ready, fmt.Sprintf("%+v", r) })
	eventually(t, "writes go on", func() (bool, string) {
		err := c.Set(t.Context(), keyOf(1, 2), "4", 0).Err()
		return err == nil, fmt.Sprint(err)
	})
}

// checkOperatorsAreAnswered while the second disk hangs.
func checkOperatorsAreAnswered(t *testing.T, n *Node, dirs []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := admin.Get[DisksAnswer](ctx, api(t, n), "/v1/disks")
	if err != nil || len(a.Disks) != 2 || a.Disks[0].Stuck || !a.Disks[1].Stuck || a.Disks[1].Path != dirs[1] || a.Disks[1].StuckSince.IsZero() {
		t.Errorf("disks: %+v, %v", a.Disks, err)
	}
	before := a.Disks[0].Measured
	n.maintenance.disk.Trigger()
	eventually(t, "the other disk is measured", func() (bool, string) {
		d := n.maintenance.disk.Status()[0]
		return d.Measured.After(before), fmt.Sprintf("%+v", d)
	})
	for _, route := range []string{"/v1/status", "/v1/tasks/explain", "/v1/duplications"} {
		if _, err := admin.Get[any](ctx, api(t, n), route); err != nil {
			t.Errorf("%s: %v", route, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dirs[0], partitionsDir, "0009"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := droppedIn(dirs[0]).Drop(9, gc.KindDropped); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		g, err := admin.Get[GCAnswer](ctx, api(t, n), "/v1/gc")
		d := g.Dropped
		if err != nil || len(g.Logs) != 2 || len(d.Folders) != 1 || d.Folders[0].Partition != 9 || len(d.Unlisted) != 1 ||
			!strings.HasPrefix(d.Unlisted[0], dirs[1]) || !strings.Contains(d.Unlisted[0], gc.ErrNoAnswer.Error()) {
			t.Errorf("garbage collection: %+v, %v", g, err)
		}
	}
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	stuck := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "replicanode_gc_disk_stuck" {
			for _, m := range f.GetMetric() {
				stuck[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if len(stuck) != 2 || stuck[dirs[0]] != 0 || stuck[dirs[1]] != 1 {
		t.Errorf("metrics: %v", stuck)
	}
}

// TestDiskThatIsAwayLeavesTheOthers: the node serves what it can, says what it can't, and everything when the disk is back.
func TestDiskThatIsAwayLeavesTheOthers(t *testing.T) {
	n, dirs := twoDisks(t, func(*Node) {})
	c := client(t, n)
	for id := range uint32(2) {
		if err := c.Set(t.Context(), keyOf(id, 2), "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	halt(t, n)
	for away, others := range map[int]uint32{1: 0, 0: 1} {
		move(t, dirs[away], dirs[away]+".away")
		n = launch(t, Options{DataDirs: dirs})
		r := n.Ready()
		if r.Ready || len(r.Reasons) != 1 || !strings.HasPrefix(r.Reasons[0], fmt.Sprintf("partition %d: --data-dir %s: ", away, dirs[away])) {
			t.Errorf("%+v", r)
		}
		c := client(t, n)
		if err := c.Set(t.Context(), keyOf(others, 2), "2", 0).Err(); err != nil {
			t.Error(err)
		}
		if err := c.Get(t.Context(), keyOf(uint32(away), 2)).Err(); err == nil || !strings.HasPrefix(err.Error(), "MISCONF ") {
			t.Errorf("%v", err)
		}
		if disks := n.maintenance.disk.Status(); !disks[away].Failed || disks[others].Failed || disks[away].LastError == "" {
			t.Errorf("%+v", disks)
		}
		checkpointOne(t, n, others)
		halt(t, n)
		move(t, dirs[away]+".away", dirs[away])
	}
	n = launch(t, Options{DataDirs: dirs})
	if r := n.Ready(); !r.Ready {
		t.Errorf("%+v", r)
	}
	for id := range uint32(2) {
		if got, err := client(t, n).Get(t.Context(), keyOf(id, 2)).Result(); err != nil || got != "2" {
			t.Errorf("partition %d: %q, %v", id, got, err)
		}
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// checkpointOne makes a checkpoint of one partition.
func checkpointOne(t *testing.T, n *Node, partition uint32) {
	t.Helper()
	job, err := n.checkpoints.CreateNow(partition, false)
	if err != nil {
		t.Fatal(err)
	}
	<-job.Done()
	if err := job.Err(); err != nil {
		t.Error(err)
	}
}
