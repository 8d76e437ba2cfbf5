package replica

import (
	"os"
	"path/filepath"
	"testing"

	"replicanode/plog"
)

// TestMarksNeverGoBack: the timestamp in a mark is that of the newest mutation, whatever else the clock gave timestamps to, which a replay
// does not know.
func TestMarksNeverGoBack(t *testing.T) {
	o := testOptions(t, t.TempDir())
	var decree, newest uint64
	for life := range 3 {
		n := startNode(t, o)
		p := n.Partition(0)
		look := func() {
			t.Helper()
			mark, err := p.Mark(p.Applied())
			if err != nil {
				t.Fatal(err)
			}
			if ts := MarkTime(mark); p.Applied() < decree || ts < newest {
				t.Errorf("life %d: mark %d at decree %d after %d at %d", life, ts, p.Applied(), newest, decree)
			} else {
				decree, newest = p.Applied(), ts
			}
		}
		look()
		do(t, p, func(tx *Tx) {
			for range 1000 {
				p.clock.Next()
			}
			if err := tx.Put([]byte("a"), []byte("value"), 0); err != nil {
				t.Error(err)
			}
		})
		look()
		n.stop(t)
	}
}

// TestMarkOfANoOpAfterReplay: a decree that is no mutation has the mark of what was applied before it, also when it is the only one that is
// replayed and those before it have no record of their own, because they were applied together.
func TestMarkOfANoOpAfterReplay(t *testing.T) {
	o := testOptions(t, t.TempDir())
	n := startNode(t, o)
	p := n.Partition(0)
	before := p.Applied()
	set(t, p, "a", "value")
	dir := p.dir()
	put := p.Applied()
	n.stop(t)
	if put != before+1 {
		t.Fatalf("the put is decree %d after %d", put, before)
	}

	// A crash leaves an old commit index and an empty database. The put is then committed again by the next leader's no-op.
	must(t, os.RemoveAll(filepath.Join(dir, "db")))
	log, err := plog.Open(filepath.Join(dir, "plog"), 0, plog.Options{SegmentBytes: 1 << 20})
	must(t, err)
	hs := log.HardState()
	hs.Commit = before
	must(t, log.AppendSync(nil, &hs))
	must(t, log.Close())

	var noOp, marked uint64
	for life := range 3 {
		n := startNode(t, o)
		p := n.Partition(0)
		if life == 0 {
			if noOp = p.Applied(); noOp != put+1 {
				t.Fatalf("decree %d is applied, not the no-op after %d", noOp, put)
			}
		}
		mark, err := p.Mark(noOp)
		must(t, err)
		switch ts := MarkTime(mark); {
		case life == 0 && ts == 0:
			t.Fatal("the put has no timestamp")
		case life == 0:
			marked = ts
		case ts != marked:
			t.Errorf("life %d: the no-op's mark is %d, not %d", life, ts, marked)
		}
		if got := uint64(p.clock.Last()); got < marked {
			t.Errorf("life %d: the clock is at %d, before %d", life, got, marked)
		}
		n.stop(t)
	}
}
