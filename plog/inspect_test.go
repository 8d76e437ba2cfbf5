package plog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchedFS calls read after each read of a file opened through it.
type watchedFS struct {
	vfs.FS
	read func(name string, b []byte, off int64)
}

func (w watchedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w, name}, nil
}

type watchedFile struct {
	vfs.File
	w    watchedFS
	name string
}

func (f watchedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.w.read(f.w.PathBase(f.name), b, off)
	return n, err
}

// TestInspectMovingEnd appends right behind every read of an inspection, so that what it holds is always older than what
// it reads next: a whole log must not look damaged, and the inspection must end.
func TestInspectMovingEnd(t *testing.T) {
	for _, appends := range []int{1, 5, 10 * inspectChase} {
		mem := vfs.NewMem()
		l := open(t, mem, Options{Syncer: startSyncer(t), SegmentBytes: 8 << 20})
		next := uint64(1)
		add := func(size int) {
			mustAppend(t, l, batch(next, 1, 1, size), nil)
			next++
		}
		for l.active().size < 3*scanBuffer {
			add(300 << 10)
		}
		active, seq, left, reads := segmentName(l.active().seq), l.active().seq, appends, 0
		fs := watchedFS{mem, func(name string, b []byte, off int64) {
			if name != active || off < segmentHeaderLen {
				return
			}
			reads++
			if left > 0 {
				left--
				add(100)
				add(100)
			}
		}}
		before := next - 1
		rep, err := inspect(fs, "/plog", func(Item) error { return nil })
		if err != nil || len(rep.Damage) != 0 || rep.Torn != nil {
			t.Fatalf("%d appends: %v, %v, %+v", appends, err, rep.Damage, rep.Torn)
		}
		if l.active().seq != seq || left == appends {
			t.Fatalf("%d appends: nothing tested", appends)
		}
		if rep.Last <= before || rep.Last >= next || reads > 4*inspectChase {
			t.Fatalf("%d appends: %d reads, from %d to %d of %d", appends, reads, before, rep.Last, next-1)
		}
		closeLog(t, l)
	}
}
