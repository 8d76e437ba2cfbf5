package replica

import "testing"

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
