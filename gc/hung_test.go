package gc

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// hanging is a file system on which the calls below one folder hang from a given moment on.
type hanging struct {
	mu     sync.Mutex
	which  func(op errorfs.Op) bool // nil: none
	gone   chan struct{}
	folder string
}

func (h *hanging) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasPrefix(op.Path, h.folder) {
			return nil
		}
		h.mu.Lock()
		hangs := h.which != nil && h.which(op)
		h.mu.Unlock()
		if hangs {
			<-h.gone
		}
		return nil
	}))
}

func (h *hanging) set(which func(op errorfs.Op) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.which = which
}

// TestHungDisk: whatever calls to one of two disks hang, and for as long as they do, this is known within seconds, and the other disk's
// statistics and collection go on: no slot is lost, also when the tasks on the hung disk have passed their timeouts.
func TestHungDisk(t *testing.T) {
	for name, which := range map[string]func(op errorfs.Op) bool{
		"every call": func(errorfs.Op) bool { return true },
		"reads":      func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsRead },
		"lists":      func(op errorfs.Op) bool { return op.Kind == errorfs.OpList },
		"stats":      func(op errorfs.Op) bool { return op.Kind == errorfs.OpStat },
		"data reads": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt },
		"writes":     func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
		"syncs":      func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSyncData },
		"removals":   func(op errorfs.Op) bool { return op.Kind == errorfs.OpRemove },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hungDisk(t, which, name == "removals") })
		})
	}
}

// hungDisk lets the calls hang; unseen says that no statistic makes them.
func hungDisk(t *testing.T, which func(op errorfs.Op) bool, unseen bool) {
	mem := vfs.NewMem()
	h := &hanging{gone: make(chan struct{}), folder: "a"}
	fs := h.wrap(mem)
	release := sync.OnceFunc(func() { close(h.gone) })
	defer release()
	runner := newRunner(t)
	env := &disks{free: map[string]uint64{"a": 900, "b": 900}}
	d, err := NewDiskStat(DiskStatOptions{Dirs: []string{"a", "b"}, FS: fs, Runner: runner, Usage: env.usage})
	must(t, err)
	must(t, mem.MkdirAll("a", 0o755))
	must(t, mem.MkdirAll("b", 0o755))
	must(t, d.Start(ctx))
	var collectors []*Replicas
	var dropped []*Dropped
	for _, dir := range []string{"a", "b"} {
		place := NewDropped(fs, dir+"/dropped", dir+"/partitions", nil)
		r, err := NewReplicas(ReplicasOptions{Name: dir, Dropped: place, Runner: runner, Grace: time.Minute})
		must(t, err)
		must(t, r.Start(ctx))
		dropped, collectors = append(dropped, place), append(collectors, r)
	}
	drop := func(i int, dir string) {
		writeFile(t, mem, dir+"/partitions/0001/db/1.sst", 100)
		_, err := dropped[i].Drop(1, KindDropped)
		must(t, err)
	}
	drop(0, "a")
	time.Sleep(30 * time.Second)
	h.set(which)
	time.Sleep(15 * time.Second) // a run that lists and looks at the files is every ten seconds
	if st := d.Status(); st[0].Stuck == unseen || st[1].Stuck {
		t.Errorf("after seconds: %+v", st)
	}
	begun := time.Now()
	if st := collectors[0].Status(); len(st.Unlisted) == 0 && len(st.Folders) == 0 || time.Since(begun) > listPatience {
		t.Errorf("after %v: %+v", time.Since(begun), st)
	}
	for range 10 {
		drop(1, "b")
		time.Sleep(10 * time.Minute)
		if st := d.Status()[1]; time.Since(st.Measured) > 20*time.Second || st.Stuck {
			t.Fatalf("the other disk was measured %v ago: %+v", time.Since(st.Measured), st)
		}
		if left, err := dropped[1].List(); err != nil || len(left) > 0 {
			t.Fatalf("left on the other disk: %v, %v", left, err)
		}
	}
	release()
	time.Sleep(20 * time.Minute)
	if st := d.Status()[0]; st.Stuck || time.Since(st.Measured) > 20*time.Second {
		t.Errorf("it does not hang any more: %+v", st)
	}
	if left, err := dropped[0].List(); err != nil || len(left) > 0 {
		t.Errorf("left on the disk that hung: %v, %v", left, err)
	}
	must(t, d.Stop(ctx))
	for _, r := range collectors {
		must(t, r.Stop(ctx))
	}
}
