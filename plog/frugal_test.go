package plog

import (
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// checkSegmentFiles looks at the segment files once the background has done what it was asked so far.
func checkSegmentFiles(t *testing.T, l *Log, what string, ok func(files int, st Stats) bool) {
	t.Helper()
	idle := make(chan struct{})
	if !l.syncer.background(func() { close(idle) }) {
		t.Fatal("the syncer has stopped")
	}
	<-idle
	names, err := l.fs.List(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			n++
		}
	}
	if st := l.Stats(); !ok(n, st) {
		t.Fatalf("%s: %d segment files, %+v", what, n, st)
	}
}

func nothingSpare(files int, st Stats) bool { return files == st.Segments && st.Spares == 0 }

// TestFrugalLogKeepsNoSpares: what is kept and prepared is deleted, the log goes on, and keeps spares again afterwards.
func TestFrugalLogKeepsNoSpares(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, Options{})
	var want []Entry
	add := func(n int) {
		for range n {
			es := batch(uint64(len(want)+1), 1, 1, 900)
			want = append(want, es...)
			mustAppend(t, l, es, nil)
		}
	}
	base := uint64(0)
	release := func() {
		t.Helper()
		base = uint64(len(want)) - 1
		if err := l.Release(base); err != nil {
			t.Fatal(err)
		}
	}
	add(30)
	release()
	hasSpares := func(_ int, st Stats) bool { return st.Spares >= 2 }
	checkSegmentFiles(t, l, "before", hasSpares)

	l.SetFrugal(true)
	checkSegmentFiles(t, l, "frugal", nothingSpare)
	add(30)
	if st := l.Stats(); st.Segments < 3 {
		t.Fatalf("no rotation: %+v", st)
	}
	checkSegmentFiles(t, l, "after rotations", nothingSpare)
	release()
	checkSegmentFiles(t, l, "after a release", nothingSpare)

	l.SetFrugal(false)
	add(30)
	release()
	checkSegmentFiles(t, l, "afterwards", hasSpares)
	check(t, l, base, want[base:])
	closeLog(t, l)
	l = open(t, fs, Options{})
	defer closeLog(t, l)
	check(t, l, base, want[base:])
}

// TestFrugalLogOnFullDisk: a rotation without room for the manifest leaves no file behind, and works once there is room.
func TestFrugalLogOnFullDisk(t *testing.T) {
	f := &faults{n: -1, err: syscall.ENOSPC, only: func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, manifestTmpName)
	}}
	l := open(t, errorfs.Wrap(vfs.NewMem(), f), Options{})
	defer closeLog(t, l)
	l.SetFrugal(true)
	f.mu.Lock()
	f.n, f.sticky = 1, true
	f.mu.Unlock()
	n := uint64(0)
	for {
		if err := appendSync(l, batch(n+1, 1, 1, 900), nil); err != nil {
			if !isDiskFull(err) {
				t.Fatal(err)
			}
			break
		}
		n++
	}
	checkSegmentFiles(t, l, "full", nothingSpare)
	f.heal()
	for l.Stats().Segments < 3 {
		if err := appendSync(l, batch(n+1, 1, 1, 900), nil); err == nil {
			n++
		} else if !isDiskFull(err) {
			t.Fatal(err)
		}
	}
	var want []Entry
	for i := range n {
		want = append(want, batch(i+1, 1, 1, 900)...)
	}
	check(t, l, 0, want)
}
