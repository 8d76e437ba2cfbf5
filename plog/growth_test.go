package plog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
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
