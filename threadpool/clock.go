package threadpool

import (
	"math"
	"time"
)

// clock tells the pool's time: nanoseconds since the pool was made, never going back. Reading the system's clock is a third of
// what an empty task costs, so between two readings, a millisecond apart at most, the processor's own counter is
// scaled instead, where there is one. A clock that does not run with the counter, as the virtual one of
// testing/synctest, is found out at the start and is always read itself.
type clock struct {
	epoch time.Time
	// counted says whether the counter is used. It does not change.
	counted bool
	// scale is nanoseconds per tick in units of 2^-32; reach is how many ticks a reading of the system's clock is good for.
	scale uint64
	reach uint64
	// ticks and base are the counter and the clock at the last reading of both, last is the latest time told.
	ticks, base, last int64
	// odd counts readings in a row that did not fit scale.
	odd int
}

const (
	// clockReach is how long a reading is good for, in nanoseconds.
	clockReach = 1_000_000
	// clockProbes is how often the clock is read to find out how fast the counter runs.
	clockProbes = 256
	// closeTicks is how many ticks apart readings of the counter and the clock count as made at one moment.
	closeTicks = 2000
	// maxOdd is how often in a row the counter may be out of step before it is not used any more.
	maxOdd = 16
)

func (k *clock) init() {
	k.epoch = time.Now()
	if !hasCounter {
		return
	}
	began, from := k.both()
	for range clockProbes {
		k.system()
	}
	middle, to := k.both()
	for range clockProbes {
		counter()
	}
	// A virtual clock stands still; a counter that the machine emulates is slower than the clock.
	if end := k.system(); middle > began && to > from && end-to < to-from {
		k.counted = true
		k.setScale(to-from, middle-began)
		k.ticks, k.base, k.last = middle, to, to
	}
}

//go:noinline
func (k *clock) system() int64 { return int64(time.Since(k.epoch)) }

// both reads the counter and the clock at one moment, or at the closest moments of a few when it is interrupted.
func (k *clock) both() (ticks, ns int64) {
	closest := int64(math.MaxInt64)
	for range 4 {
		before := counter()
		at := k.system()
		apart := counter() - before
		if apart >= 0 && apart < closest {
			closest, ticks, ns = apart, before+apart/2, at
		}
		if closest < closeTicks {
			break
		}
	}
	return ticks, ns
}

func (k *clock) setScale(ns, ticks int64) {
	k.scale = uint64(float64(ns) / float64(ticks) * (1 << 32))
	k.reach = uint64(float64(clockReach) * float64(ticks) / float64(ns))
}

// read takes a reading, outside any lock, that at turns into a time.
func (k *clock) read() int64 {
	if k.counted {
		return counter()
	}
	return k.system()
}

// at turns a reading into a time. Its caller holds the pool's lock. Readings may come out of order: their times do not.
func (k *clock) at(reading int64) int64 {
	since := uint64(reading - k.ticks)
	if since > k.reach {
		return k.far(reading)
	}
	k.last = max(k.last, k.base+int64(since*k.scale>>32))
	return k.last
}

// far is at for readings that the last one of the system's clock does not reach.
func (k *clock) far(reading int64) int64 {
	if k.counted {
		return k.resync(reading - k.ticks)
	}
	k.last = max(k.last, reading)
	k.ticks = k.last
	return k.last
}

// resync reads the system's clock, for a reading so many ticks from the last one.
func (k *clock) resync(since int64) int64 {
	if since < 0 && uint64(-since) < k.reach {
		// It was taken before the last one and had to wait for the lock.
		return k.last
	}
	ticks, ns := k.both()
	k.rescale(ticks-k.ticks, ns-k.base)
	k.ticks, k.base = ticks, ns
	k.last = max(k.last, ns)
	return k.last
}

// rescale corrects the scale by what the clock says of so many ticks. A counter that is never as fast as it was is given up.
func (k *clock) rescale(ticks, ns int64) {
	want := float64(ticks) * float64(k.scale) / (1 << 32)
	switch fits := want > float64(ns)*0.95 && want < float64(ns)*1.05; {
	case k.odd >= maxOdd || ns < clockReach/2 && !fits:
		return
	case fits:
		k.odd = 0
	default:
		k.odd++
	}
	if k.odd == maxOdd || ticks <= 0 {
		k.reach = 0
		return
	}
	k.setScale(ns, ticks)
}
