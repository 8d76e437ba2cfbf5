package redis

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// A latency in microseconds falls into one of 8 buckets per power of two, from 1 µs to about 67 s: an error of at most 12.5 %.
	subBits        = 3
	latencyBuckets = 24 << subBits

	windowSlots = 5
	windowSlot  = 2 * time.Second
)

// latencyWindow knows the latencies of the last 8 to 10 seconds. It is safe for concurrent use; a record that races with the turn of a
// slot may be lost or counted in the next one, which a statistic can bear.
type latencyWindow struct {
	slots [windowSlots]latencySlot
}

type latencySlot struct {
	epoch  atomic.Int64
	counts [latencyBuckets]atomic.Uint32
}

// bucketOf returns the bucket of a latency.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 1<<subBits {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return min((shift+1)<<subBits+int(us>>shift)&(1<<subBits-1), latencyBuckets-1)
}

// bucketTop is the greatest latency that falls into a bucket.
func bucketTop(i int) time.Duration {
	if i < 1<<subBits {
		return time.Duration(i+1) * time.Microsecond
	}
	shift := i>>subBits - 1
	return time.Duration((1<<subBits+i&(1<<subBits-1)+1)<<shift) * time.Microsecond
}

// record counts n commands that took d and ended at now.
func (w *latencyWindow) record(now time.Time, d time.Duration, n uint32) {
	epoch := now.UnixNano() / int64(windowSlot)
	slot := &w.slots[epoch%windowSlots]
	if old := slot.epoch.Load(); old != epoch && slot.epoch.CompareAndSwap(old, epoch) {
		for i := range slot.counts {
			slot.counts[i].Store(0)
		}
	}
	slot.counts[bucketOf(d)].Add(n)
}

// quantile returns the latency that the share q of the window's commands did not exceed; 0 without commands.
func (w *latencyWindow) quantile(now time.Time, q float64) time.Duration {
	epoch := now.UnixNano() / int64(windowSlot)
	var counts [latencyBuckets]uint64
	var total uint64
	for i := range w.slots {
		slot := &w.slots[i]
		if e := slot.epoch.Load(); e <= epoch-windowSlots || e > epoch {
			continue
		}
		for b := range counts {
			n := uint64(slot.counts[b].Load())
			counts[b] += n
			total += n
		}
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q*float64(total-1)) + 1
	for b, n := range counts {
		if rank <= n {
			return bucketTop(b)
		}
		rank -= n
	}
	return bucketTop(latencyBuckets - 1)
}
