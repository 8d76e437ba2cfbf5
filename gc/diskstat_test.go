package gc

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

func TestWatermarks(t *testing.T) {
	w := Watermarks{LowBytes: 100, CriticalBytes: 50, LowInodes: 10, CriticalInodes: 5, Recover: 1.2}
	for _, c := range []struct {
		cur          Level
		free, inodes uint64
		want         Level
	}{
		{LevelOK, 1000, 1000, LevelOK},
		{LevelOK, 100, 1000, LevelOK},
		{LevelOK, 99, 1000, LevelLow},
		{LevelOK, 49, 1000, LevelCritical},
		{LevelLow, 100, 1000, LevelLow},
		{LevelLow, 119, 1000, LevelLow},
		{LevelLow, 120, 1000, LevelOK},
		{LevelLow, 50, 1000, LevelLow},
		{LevelLow, 49, 1000, LevelCritical},
		{LevelCritical, 50, 1000, LevelCritical},
		{LevelCritical, 59, 1000, LevelCritical},
		{LevelCritical, 60, 1000, LevelLow},
		{LevelCritical, 119, 1000, LevelLow},
		{LevelCritical, 120, 1000, LevelOK},
		{LevelCritical, 0, 0, LevelCritical},
		{LevelOK, 1000, 9, LevelLow},
		{LevelOK, 1000, 4, LevelCritical},
		{LevelLow, 49, 4, LevelCritical},
	} {
		if got := w.Next(c.cur, Usage{FreeBytes: c.free, FreeInodes: c.inodes}); got != c.want {
			t.Errorf("%v with %d bytes, %d inodes free: %v, want %v", c.cur, c.free, c.inodes, got, c.want)
		}
	}
}

func TestWatermarkDefaults(t *testing.T) {
	small := Watermarks{}.For(Usage{TotalBytes: 1000, TotalInodes: 1000})
	if small.LowBytes != 100 || small.CriticalBytes != 30 || small.LowInodes != 20 || small.CriticalInodes != 5 {
		t.Errorf("small: %+v", small)
	}
	huge := Watermarks{}.For(Usage{TotalBytes: 100 << 40})
	if huge.LowBytes != 20<<30 || huge.CriticalBytes != 4<<30 {
		t.Errorf("huge: %+v", huge)
	}
	if low := (Watermarks{LowBytes: 300}).For(Usage{TotalBytes: 1 << 40}); low.LowBytes != 300 || low.CriticalBytes != 100 {
		t.Errorf("only low given: %+v", low)
	}
	if critical := (Watermarks{CriticalBytes: 500}).For(Usage{TotalBytes: 1000}); critical.LowBytes != 500 {
		t.Errorf("only critical given: %+v", critical)
	}
	// A file system that does not tell its inodes is never short of them.
	if l := (Watermarks{}).Next(LevelOK, Usage{TotalBytes: 1000, FreeBytes: 900}); l != LevelOK {
		t.Errorf("unknown inodes: %v", l)
	}
	for _, w := range []Watermarks{{Recover: 0.5}, {LowBytes: 1, CriticalBytes: 2}, {LowInodes: 1, CriticalInodes: 2}} {
		if w.Validate() == nil {
			t.Errorf("%+v was accepted", w)
		}
	}
}

// TestHysteresis: while free space stays between two neighbouring thresholds, the level moves at most once.
func TestHysteresis(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Watermarks{LowBytes: 1000, CriticalBytes: 500, Recover: 1.2}
		level := Level(rapid.IntRange(0, 2).Draw(t, "level"))
		band := rapid.SampledFrom([][2]int{{0, 499}, {500, 599}, {600, 999}, {1000, 1199}, {1200, 5000}}).Draw(t, "band")
		changes := 0
		for _, free := range rapid.SliceOfN(rapid.IntRange(band[0], band[1]), 1, 20).Draw(t, "free") {
			next := w.Next(level, Usage{FreeBytes: uint64(free)})
			if next != level {
				changes++
			}
			level = next
		}
		if changes > 1 {
			t.Fatalf("%d changes within %v", changes, band)
		}
		if free := band[0]; free >= 1200 && level != LevelOK || band[1] < 500 && level != LevelCritical {
			t.Fatalf("level %v within %v", level, band)
		}
	})
}

// disks are file systems whose answers a test sets.
type disks struct {
	mu    sync.Mutex
	free  map[string]uint64
	block map[string]chan struct{}
}

func (d *disks) usage(path string) (Usage, error) {
	d.mu.Lock()
	free, block := d.free[path], d.block[path]
	d.mu.Unlock()
	if block != nil {
		<-block
	}
	return Usage{TotalBytes: 1000, FreeBytes: free}, nil
}

func (d *disks) set(path string, free uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free[path] = free
}

// started makes DiskStat's goroutines without a runner.
func started(t tb, o DiskStatOptions) *DiskStat {
	t.Helper()
	o.Runner = noRunner{}
	d, err := NewDiskStat(o)
	must(t, err)
	d.begin()
	return d
}

// runAll is a run of every disk.
func runAll(d *DiskStat, u *turn) error {
	var errs []error
	for i := range d.disks {
		errs = append(errs, d.run(u, i))
	}
	return errors.Join(errs...)
}

func TestLevelsAndGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("a", 0o755))
		must(t, fs.MkdirAll("b", 0o755))
		env := &disks{free: map[string]uint64{"a": 900, "b": 900}}
		var changes []string
		d := started(t, DiskStatOptions{Dirs: []string{"a", "b"}, FS: fs, Usage: env.usage, Rechecks: 2,
			Changed: func(_ int, l Level, refuse error) {
				changes = append(changes, l.String())
				if (refuse != nil) != (l == LevelCritical) {
					t.Errorf("level %v with %v", l, refuse)
				}
			}})
		u := &turn{}
		must(t, runAll(d, u))
		if d.Gate(1) != nil || u.slept != 0 {
			t.Fatalf("gate %v, slept %v", d.Gate(1), u.slept)
		}
		env.set("b", 20)
		must(t, runAll(d, u))
		var critical *CriticalError
		if !errors.As(d.Gate(1), &critical) || critical.Path != "b" || critical.FreeBytes != 20 || critical.ResumeBytes != 36 {
			t.Fatalf("gate %v", d.Gate(1))
		}
		if text := d.Gate(1).Error(); !strings.Contains(text, "disk of b") || !strings.Contains(text, "20 bytes free") {
			t.Fatal(text)
		}
		if level, shortage := d.Space(); level != LevelCritical || shortage != 80 {
			t.Fatalf("space %v, %d", level, shortage)
		}
		// It recovers by itself, within the rechecks of the same run.
		u.slept = 0
		done := make(chan error)
		go func() { done <- runAll(d, u) }()
		time.Sleep(1500 * time.Millisecond)
		env.set("b", 500)
		must(t, <-done)
		if d.Gate(1) != nil || u.slept != 2*time.Second {
			t.Fatalf("gate %v, slept %v", d.Gate(1), u.slept)
		}
		if got := strings.Join(changes, " "); got != "critical ok" {
			t.Fatalf("changes %s", got)
		}
		must(t, d.Stop(ctx))
	})
}

// TestStuckDisk: one disk does not answer; the other is measured, no slot is
// held for longer than the timeout, and the disk is reported.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("a", 0o755))
		must(t, fs.MkdirAll("b", 0o755))
		release := make(chan struct{})
		env := &disks{free: map[string]uint64{"a": 900, "b": 800}, block: map[string]chan struct{}{"a": release}}
		d := started(t, DiskStatOptions{Dirs: []string{"a", "b"}, FS: fs, Usage: env.usage})
		begun := time.Now()
		must(t, runAll(d, &turn{}))
		if took := time.Since(begun); took != 2*time.Second {
			t.Fatalf("took %v", took)
		}
		st := d.Status()
		if !st[0].Stuck || st[0].LastError == "" || st[1].Stuck || st[1].FreeBytes != 800 {
			t.Fatalf("status %+v", st)
		}
		begun = time.Now()
		must(t, runAll(d, &turn{}))
		if took := time.Since(begun); took != 0 {
			t.Fatalf("a disk that is known to be stuck was waited for: %v", took)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := d.Stop(gone); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "disk of a") {
			t.Fatalf("stop: %v", err)
		}
		close(release)
		synctest.Wait()
	})
}

func TestStuckDiskRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("a", 0o755))
		release := make(chan struct{})
		env := &disks{free: map[string]uint64{"a": 900}, block: map[string]chan struct{}{"a": release}}
		d := started(t, DiskStatOptions{Dirs: []string{"a"}, FS: fs, Usage: env.usage})
		must(t, runAll(d, &turn{}))
		close(release)
		synctest.Wait()
		must(t, runAll(d, &turn{}))
		if st := d.Status()[0]; st.Stuck || st.LastError != "" || st.Errors != 1 || st.FreeBytes != 900 {
			t.Fatalf("status %+v", st)
		}
		must(t, d.Stop(ctx))
	})
}

func TestSizes(t *testing.T) {
	fs := vfs.NewMem()
	for path, size := range map[string]int{
		"data/NODE": 7, "data/partitions/0000/plog/1": 10, "data/partitions/0000/db/a": 20, "data/partitions/0000/db/b": 1,
		"data/partitions/0012/db/x": 40, "data/checkpoints/0012/00000000000000000005/000001.chunk": 80,
		"data/dropped/0003-7/db/x": 160, "data/dropped/0003-7/plog/x": 320, "data/partitions/stray": 3, "data/checkpoints/what/ever": 4,
	} {
		writeFile(t, fs, path, size)
	}
	reg := prometheus.NewRegistry()
	full := errors.New("no space left on device")
	broken := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, probeName) {
			return full
		}
		return nil
	}))
	d := started(t, DiskStatOptions{Dirs: []string{"data"}, FS: broken, Usage: func(string) (Usage, error) { return Usage{1000, 900, 0, 0}, nil }, Registerer: reg})
	must(t, runAll(d, &turn{}))
	st := d.Status()[0]
	want := []PartitionUsage{{0, 10, 21, 0, 0}, {12, 0, 40, 80, 0}}
	if len(st.Partitions) != 2 || st.Partitions[0] != want[0] || st.Partitions[1] != want[1] {
		t.Fatalf("partitions %+v", st.Partitions)
	}
	if st.DroppedBytes != 480 || st.OtherBytes != 14 {
		t.Fatalf("dropped %d, other %d", st.DroppedBytes, st.OtherBytes)
	}
	if !strings.Contains(st.LastError, full.Error()) || st.Errors != 1 || st.Stuck {
		t.Fatalf("status %+v", st)
	}
	_, err := json.Marshal(st)
	must(t, err)
	_, err = reg.Gather()
	must(t, err)
	must(t, d.Stop(ctx))
}

// TestDiskStatLifecycle runs on a real disk.
func TestDiskStatLifecycle(t *testing.T) {
	changed := make(chan Level, 10)
	d, err := NewDiskStat(DiskStatOptions{Dirs: []string{t.TempDir()}, Runner: newRunner(t), Rechecks: 1, Recheck: time.Millisecond,
		Watermarks: Watermarks{LowBytes: 1 << 60}, Changed: func(_ int, l Level, _ error) { changed <- l }})
	must(t, err)
	must(t, d.Start(ctx))
	if level := <-changed; level != LevelLow {
		t.Fatalf("level %v", level)
	}
	st := d.Status()[0]
	if st.TotalBytes == 0 || st.FreeBytes == 0 {
		t.Fatalf("status %+v", st)
	}
	must(t, d.Stop(ctx))
	must(t, d.Stop(ctx))
}
