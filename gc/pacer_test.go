package gc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/internal/dirsync"
)

func TestRate(t *testing.T) {
	p := PacerOptions{Baseline: 100}
	p.EnsureDefaults()
	for _, c := range []struct {
		backlog, shortage int64
		want              float64
	}{{0, 0, 100}, {300, 0, 101}, {0, 10, 101}, {30_000, 1000, 300}, {-5, -5, 100}} {
		if got := p.Rate(c.backlog, c.shortage); got != c.want {
			t.Errorf("backlog %d, shortage %d: %v, want %v", c.backlog, c.shortage, got, c.want)
		}
	}
	if got := p.Pause(200, 0, 0); got != 2*time.Second {
		t.Errorf("pause %v", got)
	}
	if err := (&PacerOptions{}).Validate(); err == nil {
		t.Error("zero options were accepted")
	}
}

// TestPacedDeletion deletes in virtual time and holds the time it takes against
// the closed form of the rate. All figures are scaled down: a unit is a KiB.
func TestPacedDeletion(t *testing.T) {
	const unit = 1 << 10
	for _, c := range []struct {
		name     string
		files    int
		shortage func(deleted int64) int64
		want     time.Duration
	}{
		// dB/dt = -(1 + B/300): B falls from 400 to 0 in 300·ln(1 + 400/300) s.
		{"plenty of space", 400, func(int64) int64 { return 0 }, 254200 * time.Millisecond},
		// While short: dD/dt = 1 + (400-D)/300 + (200-D)/10, so D reaches 200 after
		// ln(22.33/1.667)/0.1033 s; the rest takes 300·ln(1 + 200/300) s.
		{"short of half of it", 400, func(deleted int64) int64 { return max(0, 200*unit-deleted) }, 178400 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := vfs.NewMem()
				d := NewDropped(fs, "dropped", "partitions", nil)
				for i := range c.files {
					writeFile(t, fs, fmt.Sprintf("dropped/0001-0/db/%03d.sst", i), unit)
				}
				var r *Replicas
				r, err := NewReplicas(ReplicasOptions{Dropped: d, Runner: noRunner{},
					Pacer: PacerOptions{Baseline: unit}, Space: func() (Level, int64) {
						var deleted int64
						if r != nil {
							r.mu.Lock()
							deleted = r.status.DeletedBytes
							r.mu.Unlock()
						}
						return LevelLow, c.shortage(deleted)
					}})
				must(t, err)
				begun := time.Now()
				must(t, r.run(&turn{}))
				took := time.Since(begun)
				if (took - c.want).Abs() > 2*time.Second {
					t.Fatalf("took %v, want about %v", took, c.want)
				}
				if names, _ := fs.List("dropped"); len(names) != 0 {
					t.Fatalf("left: %v", names)
				}
			})
		})
	}
}

// TestLargeFilesShrink records the sizes a file takes on its way out.
func TestLargeFilesShrink(t *testing.T) {
	dir := t.TempDir()
	d := NewDropped(nil, filepath.Join(dir, "dropped"), filepath.Join(dir, "partitions"), nil)
	writeFile(t, vfs.Default, filepath.Join(dir, "dropped/0001-5/db/000001.vlog"), 1<<20)
	// Sparse, as badger's files are: little on the disk in spite of its length.
	sparse := filepath.Join(dir, "dropped/0001-5/db/000002.mem")
	must(t, os.WriteFile(sparse, []byte("x"), 0o600))
	must(t, os.Truncate(sparse, 1<<30))
	var sizes []int64
	r, err := NewReplicas(ReplicasOptions{Dropped: d, Runner: noRunner{}, Pacer: PacerOptions{Baseline: 1 << 40, StepBytes: 256 << 10},
		Truncate: func(path string, size int64) error {
			if !strings.HasSuffix(path, ".vlog") {
				t.Errorf("%s was shrunk", path)
			}
			sizes = append(sizes, size)
			return os.Truncate(path, size)
		}})
	must(t, err)
	must(t, r.run(&turn{}))
	if fmt.Sprint(sizes) != "[786432 524288 262144]" {
		t.Fatalf("sizes %v", sizes)
	}
	if st := r.Status(); len(st.Folders) != 0 || st.DeletedBytes < 1<<20 || st.DeletedBytes > 2<<20 {
		t.Fatalf("status %+v", st)
	}
}

func TestGraceAndUndelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		for id := range 4 {
			writeFile(t, fs, fmt.Sprintf("data/partitions/%04d/db/x", id), 100)
		}
		writeFile(t, fs, "data/dropped/notes.txt", 5)
		d := NewDropped(fs, "data/dropped", "data/partitions", nil)
		level := LevelOK
		reg := prometheus.NewRegistry()
		r, err := NewReplicas(ReplicasOptions{Dropped: d, Runner: noRunner{}, Space: func() (Level, int64) { return level, 0 }, Registerer: reg})
		must(t, err)
		var names []string
		for id, kind := range []Kind{KindDropped, KindFailed, KindDropped} {
			name, err := d.Drop(uint32(id), kind)
			must(t, err)
			names = append(names, name)
		}
		// The same partition twice within a second gets another name.
		writeFile(t, fs, "data/partitions/0000/db/x", 100)
		again, err := d.Drop(0, KindFailed)
		must(t, err)
		if strings.TrimSuffix(again, failedSuffix) == names[0] {
			t.Fatalf("both are named %s", again)
		}
		if _, err := d.Drop(9, KindDropped); err == nil {
			t.Fatal("a replica that is not there was dropped")
		}
		time.Sleep(23 * time.Hour)
		must(t, r.run(&turn{}))
		if st := r.Status(); len(st.Folders) != 4 {
			t.Fatalf("too early: %+v", st)
		}
		must(t, d.Undelete(names[2]))
		if err := d.Undelete(names[2]); !errors.Is(err, ErrInPlace) {
			t.Fatalf("undelete twice: %v", err)
		}
		if err := d.Undelete("../../etc"); !errors.Is(err, ErrNoFolder) {
			t.Fatalf("foreign name: %v", err)
		}
		if _, err := fs.Stat("data/partitions/0002/db/x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		must(t, r.run(&turn{}))
		if st := r.Status(); len(st.Folders) != 2 || st.Folders[0].Kind != KindFailed {
			t.Fatalf("after a day: %+v", st)
		}
		if err := d.Undelete(names[0]); !errors.Is(err, ErrNoFolder) {
			t.Fatalf("undelete too late: %v", err)
		}
		level = LevelCritical
		must(t, r.run(&turn{}))
		if st := r.Status(); len(st.Folders) != 0 {
			t.Fatalf("critical: %+v", st)
		}
		if left, _ := fs.List("data/dropped"); len(left) != 1 {
			t.Fatalf("left: %v", left)
		}
		_, err = reg.Gather()
		must(t, err)
	})
}

// TestInterruptedDeletion stops after each yield: a half-deleted folder is never
// brought back, and the next run finishes it.
func TestInterruptedDeletion(t *testing.T) {
	stop := errors.New("stopped")
	for at := 1; ; at++ {
		fs := vfs.NewMem()
		d := NewDropped(fs, "dropped", "partitions", nil)
		for i := range 5 {
			writeFile(t, fs, fmt.Sprintf("dropped/0001-7/db/%d", i), 10)
		}
		r, err := NewReplicas(ReplicasOptions{Dropped: d, Runner: noRunner{}})
		must(t, err)
		u := &turn{}
		u.onYield = func() error {
			if u.yields == at {
				return stop
			}
			return nil
		}
		err = r.run(u)
		if err == nil {
			break
		}
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		if err := d.Undelete("0001-7"); !errors.Is(err, ErrDeleting) && !errors.Is(err, ErrNoFolder) {
			t.Fatalf("undelete of half a folder: %v", err)
		}
		if st := r.Status(); len(st.Folders) > 0 && !st.Folders[0].Deleting {
			t.Fatalf("status %+v", st)
		}
		must(t, r.run(&turn{}))
		if names, _ := fs.List("dropped"); len(names) != 0 {
			t.Fatalf("left: %v", names)
		}
	}
}

func TestReplicasLifecycle(t *testing.T) {
	fs := vfs.NewMem()
	writeFile(t, fs, "dropped/0001-7/db/x", 10)
	r, err := NewReplicas(ReplicasOptions{Dropped: NewDropped(fs, "dropped", "partitions", nil), Runner: newRunner(t)})
	must(t, err)
	must(t, r.Start(ctx))
	r.Trigger()
	must(t, r.Stop(ctx))
	must(t, r.Stop(ctx))
}

func FuzzFolderName(f *testing.F) {
	for _, name := range []string{"0003-1700000000", "0003-1.failed", "0003-1.failed.deleting", "3-1", "0003--1", "0003-01"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		folder, ok := parseFolder(name)
		if ok && !strings.HasPrefix(name, folderName(folder.Partition, folder.Dropped.Unix())) {
			t.Fatalf("%q parsed as %+v", name, folder)
		}
	})
}

// TestMarkGoesBeforeFiles: that a folder is being deleted is durable before the
// first of its files goes, so that half a folder can never be brought back.
func TestMarkGoesBeforeFiles(t *testing.T) {
	mem := vfs.NewMem()
	writeFile(t, mem, "dropped/0001-7/db/x", 10)
	marked, synced, removed := false, false, 0
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpRename:
			marked = true
		case errorfs.OpFileSync:
			synced = synced || marked && op.Path == "dropped"
		case errorfs.OpRemove, errorfs.OpRemoveAll:
			if removed++; !synced {
				t.Errorf("%s is removed before the mark is synced", op.Path)
			}
		}
		return nil
	}))
	r, err := NewReplicas(ReplicasOptions{Dropped: NewDropped(fs, "dropped", "partitions", nil), Runner: noRunner{}})
	must(t, err)
	must(t, r.run(&turn{}))
	if removed < 3 {
		t.Fatalf("%d removals seen", removed)
	}
}

// TestDropSurvivesCrashes: after a crash at any operation the replica is in one
// place or the other, whole; after Drop has returned it is in its new place.
func TestDropSurvivesCrashes(t *testing.T) {
	mem := vfs.NewCrashableMem()
	writeFile(t, mem, "data/partitions/0001/db/x", 10)
	for _, dir := range []string{"", "data", "data/partitions", "data/partitions/0001", "data/partitions/0001/db"} {
		must(t, dirsync.Sync(mem, dir))
	}
	var crashes []*vfs.MemFS
	crash := func() { crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{})) }
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error { crash(); return nil }))
	d := NewDropped(fs, "data/dropped", "data/partitions", func() time.Time { return time.Unix(7, 0) })
	name, err := d.Drop(1, KindDropped)
	must(t, err)
	must(t, dirsync.Sync(mem, "data/partitions"))
	crash()
	for i, after := range crashes {
		_, old := after.Stat("data/partitions/0001/db/x")
		_, moved := after.Stat("data/dropped/" + name + "/db/x")
		if old != nil && moved != nil {
			t.Fatalf("crash %d of %d lost the replica: %v, %v", i, len(crashes), old, moved)
		}
		if i == len(crashes)-1 && (moved != nil || old == nil) {
			t.Fatalf("after Drop: %v, %v", old, moved)
		}
	}
}
