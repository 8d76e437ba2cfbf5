package plog

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestNewLogsAreSmall: a partition that holds little takes little, and its log opens at once; segments grow with the log.
func TestNewLogsAreSmall(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, Options{SegmentBytes: 16 << 20})
	if got := l.Stats().Bytes; got != firstSegmentBytes {
		t.Errorf("a new log takes %d bytes", got)
	}
	var sizes []int64
	for i := range uint64(300) {
		mustAppend(t, l, batch(1+i, 1, 1, 100<<10), nil)
	}
	l.mu.Lock()
	for _, s := range l.segs {
		sizes = append(sizes, s.size)
	}
	l.mu.Unlock()
	want := []int64{512 << 10, 2 << 20, 8 << 20, 16 << 20, 16 << 20}
	if len(sizes) != len(want) {
		t.Fatalf("segments of %v bytes", sizes)
	}
	for i, size := range sizes {
		if size != want[i] {
			t.Errorf("segment %d has %d bytes, expected %d", i, size, want[i])
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, fs, Options{SegmentBytes: 16 << 20})
	defer l.Close()
	if l.LastIndex() != 300 {
		t.Errorf("%d decrees are left", l.LastIndex())
	}
}

// TestResetStartsSmall: installing a snapshot does not fill a whole segment while everybody waits.
func TestResetStartsSmall(t *testing.T) {
	l := open(t, vfs.NewMem(), Options{SegmentBytes: 16 << 20})
	defer closeLog(t, l)
	mustAppend(t, l, batch(1, 3, 1, 100), nil)
	if err := l.Reset(100, 2); err != nil {
		t.Fatal(err)
	}
	if size := l.active().size; size != firstSegmentBytes {
		t.Errorf("the segment behind a snapshot has %d bytes", size)
	}
	mustAppend(t, l, batch(101, 8, 2, 100<<10), nil)
	if size := l.active().size; size != segmentGrowth*firstSegmentBytes {
		t.Errorf("the one after it has %d bytes", size)
	}
}

// openFiles are this process's open files below a folder.
func openFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		t.Skip("open files cannot be listed here")
	}
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

// TestCloseLeavesNoFileOpen, whether readers are closed before it or after.
func TestCloseLeavesNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, 7, Options{SegmentBytes: MinSegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, batch(1, 50, 1, 300), nil)
	l.SetCommitted(50)
	var readers []*Reader
	for _, from := range []uint64{1, 1, 50} {
		r, err := l.NewReader(from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	if err := readers[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers[1:] {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left := openFiles(t, dir); len(left) > 0 {
		t.Errorf("open files are left: %v", left)
	}
}

// TestCloseOnFullDiskLeavesNoFileOpen: segments that were replaced stay in the manifest while it cannot be written, but not open.
func TestCloseOnFullDiskLeavesNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	f := &faults{n: -1, err: syscall.ENOSPC, only: func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, manifestTmpName)
	}}
	l, err := Open(dir, 7, Options{FS: errorfs.Wrap(vfs.Default, f), SegmentBytes: MinSegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, batch(1, 10, 1, 900), nil)
	mustAppend(t, l, batch(11, 2, 1, 900), nil)
	f.mu.Lock()
	f.n, f.sticky = 2, true // the manifest that announces the cut is written, the one without it is not
	f.mu.Unlock()
	mustAppend(t, l, batch(1, 2, 2, 900), nil)
	l.ioMu.Lock()
	orphans := len(l.orphans)
	l.ioMu.Unlock()
	if orphans == 0 {
		t.Fatal("nothing tested")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left := openFiles(t, dir); len(left) > 0 {
		t.Errorf("open files are left: %v", left)
	}
	f.heal()
	if l, err = Open(dir, 7, Options{SegmentBytes: MinSegmentBytes}); err != nil {
		t.Fatal(err)
	}
	check(t, l, 0, batch(1, 2, 2, 900))
	closeLog(t, l)
}
