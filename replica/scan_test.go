package replica

import (
	"fmt"
	"testing"
	"time"
)

func TestExpiredKeysAreAbsentAtOnce(t *testing.T) {
	clock := newFakeClock()
	o := testOptions(t, testDir(t))
	o.Clock = clock.now
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	at := uint64(clock.now().UnixMilli()) + 500
	do(t, p, func(tx *Tx) {
		must(t, tx.Put([]byte("s"), []byte("v"), at))
		_, err := tx.HashPut([]byte("h"), []byte("f"), []byte("v"))
		must(t, err)
		_, err = tx.Expire([]byte("h"), at)
		must(t, err)
	})
	count := func() uint64 {
		c, err := p.Count(t.Context(), nil)
		must(t, err)
		return c
	}
	clock.advance(499 * time.Millisecond)
	if c := count(); c != 2 {
		t.Errorf("%d keys just before", c)
	}
	clock.advance(time.Millisecond)
	if c := count(); c != 0 {
		t.Errorf("%d keys in the very millisecond", c)
	}
	// A hash that comes back has none of its old fields.
	do(t, p, func(tx *Tx) {
		if _, ok, _ := tx.HashGet([]byte("h"), []byte("f")); ok {
			t.Error("an expired field is there")
		}
		created, err := tx.HashPut([]byte("h"), []byte("g"), []byte("w"))
		if !created || err != nil {
			t.Errorf("%v %v", created, err)
		}
	})
	if got := visible(t, p); len(got) != 2 || got["h/g"] != "w" {
		t.Errorf("%v", got)
	}
	// A clock that jumps back brings nothing back.
	clock.advance(-time.Hour)
	if got := visible(t, p); len(got) != 2 {
		t.Errorf("after the clock jumped back: %v", got)
	}
}

// TestScanReturnsWhatStays while other keys come and go.
func TestScanReturnsWhatStays(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	for i := range 300 {
		set(t, p, key(i), "v")
	}
	seen, calls := map[string]int{}, 0
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		must(t, p.View(t.Context(), func(v *View) (err error) {
			inCall := 0
			cursor, err = v.Scan(cursor, 7, func(k []byte, kind Kind) {
				seen[string(k)]++
				inCall++
			})
			if inCall > 7 {
				t.Errorf("%d keys in one call", inCall)
			}
			return err
		}))
		do(t, p, func(tx *Tx) {
			_, err := tx.Delete([]byte(key(2*calls + 1)))
			must(t, err)
			must(t, tx.Put([]byte(fmt.Sprint("new", calls)), nil, 0))
		})
		if calls++; calls > 1000 {
			t.Fatal("the scan does not end")
		}
	}
	for i := 0; i < 300; i += 2 {
		if seen[key(i)] != 1 {
			t.Errorf("%s was returned %d times", key(i), seen[key(i)])
		}
	}
	for _, cursor := range []uint64{1 << CursorBits, ^uint64(0)} {
		must(t, p.View(t.Context(), func(v *View) error {
			next, err := v.Scan(cursor, 1, func([]byte, Kind) { t.Error("a key beyond the end") })
			if next != 0 {
				t.Errorf("cursor %d goes on at %d", cursor, next)
			}
			return err
		}))
	}
}

// TestScanPausesBetweenHashesOnly: keys that share a position are returned by one call, or some would never be.
func TestScanPausesBetweenHashesOnly(t *testing.T) {
	s := scanState{left: 1, work: 1}
	for i, step := range []struct {
		hash uint64
		stop bool
	}{{5, false}, {5, false}, {5, false}, {6, true}} {
		s.left--
		if got := s.stop(step.hash); got != step.stop {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if s.at != 6 {
		t.Errorf("goes on at %d", s.at)
	}
}

// TestScanWorkIsBounded: a call looks at a bounded number of deleted keys.
func TestScanWorkIsBounded(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	do(t, p, func(tx *Tx) {
		for i := range 500 {
			must(t, tx.Put([]byte(key(i)), nil, 0))
			_, err := tx.Delete([]byte(key(i)))
			must(t, err)
		}
	})
	must(t, p.View(t.Context(), func(v *View) error {
		next, err := v.Scan(0, 1, func([]byte, Kind) {})
		if next == 0 {
			t.Error("one call went through 500 deleted keys")
		}
		return err
	}))
}
