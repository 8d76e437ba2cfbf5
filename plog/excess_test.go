package plog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestExcessWaitsForTrim: released segments beyond the spares stay until their owner deletes them one at a time, are used again meanwhile,
// survive a restart, and go at once on a disk that is nearly full.
func TestExcessWaitsForTrim(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{KeepExcess: true}
	l := open(t, fs, o)
	last := uint64(0)
	add := func(n int) {
		for range n {
			mustAppend(t, l, batch(last+1, 1, 1, 900), nil)
			last++
		}
	}
	release := func() {
		t.Helper()
		if err := l.Release(last - 1); err != nil {
			t.Fatal(err)
		}
	}
	add(60)
	release()
	kept := 0
	checkSegmentFiles(t, l, "released", func(files int, st Stats) bool {
		kept = st.Spares
		return st.Spares > 5 && st.Excess > 0 && files == st.Segments+st.Spares
	})
	before := l.Stats()
	freed := l.Trim()
	checkSegmentFiles(t, l, "one deleted", func(_ int, st Stats) bool {
		return freed > 0 && st.Excess == before.Excess-freed && st.Bytes == before.Bytes-freed && st.Spares == kept-1
	})
	add(20)
	checkSegmentFiles(t, l, "used again", func(_ int, st Stats) bool { return st.Recycled > 3 && st.Excess < before.Excess-freed })
	release()
	spares := l.Stats().Spares
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Trim() != 0 {
		t.Fatal("a closed log deleted a file")
	}
	l = open(t, fs, o)
	checkSegmentFiles(t, l, "opened again", func(_ int, st Stats) bool { return st.Excess > 0 && st.Spares >= spares-1 })
	for l.Trim() > 0 {
	}
	checkSegmentFiles(t, l, "all deleted", func(_ int, st Stats) bool { return st.Excess == 0 && st.Spares >= 2 && st.Spares <= 3 })
	add(60)
	l.SetFrugal(true)
	release()
	checkSegmentFiles(t, l, "frugal", nothingSpare)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
