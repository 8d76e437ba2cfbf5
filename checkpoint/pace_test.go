package checkpoint

import (
	"runtime"
	"testing"
	"time"
)

// TestPace runs two copies against the pacer in a clock of its own, and counts what they got.
func TestPace(t *testing.T) {
	busy := true
	p := newPace(PaceOptions{Busy: func() bool { return busy }, Share: 0.5 / float64(runtime.GOMAXPROCS(0))})
	start := time.Unix(1000, 0)
	const slice = time.Millisecond
	run := func(from time.Time, length time.Duration) (worked time.Duration) {
		at := []time.Time{from, from}
		for {
			i := 0
			if at[1].Before(at[0]) {
				i = 1
			}
			if at[i].Sub(from) > length {
				return worked
			}
			at[i] = at[i].Add(slice)
			worked += slice
			at[i] = at[i].Add(p.used(at[i], slice))
		}
	}
	if got := run(start, time.Second); got < 450*time.Millisecond || got > 550*time.Millisecond {
		t.Errorf("two copies worked %v of a second, half of one processor was theirs", got)
	}
	busy = false
	if got := run(start.Add(time.Minute), time.Second); got < 1900*time.Millisecond {
		t.Errorf("two copies worked only %v of a second while nobody else was there", got)
	}
	for _, bad := range []float64{-1, 1.5} {
		o := PaceOptions{Share: bad}
		o.EnsureDefaults()
		if o.Validate() == nil {
			t.Errorf("share %v was accepted", bad)
		}
	}
}
