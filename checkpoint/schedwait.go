package checkpoint

import (
	runtimemetrics "runtime/metrics"
	"time"
)

// schedulerWait reads from the Go runtime how long goroutines that were ready to
// run waited until they did. It sees what waits inside this process; that other
// processes need the processors shows in it as soon as they take this one's.
type schedulerWait struct {
	sample []runtimemetrics.Sample
	before []uint64
}

func newSchedulerWait() *schedulerWait {
	return &schedulerWait{sample: []runtimemetrics.Sample{{Name: "/sched/latencies:seconds"}}}
}

// p99 is the 99th percentile since the call before; 0 for the first call, when
// nothing ran, and where the runtime does not tell.
func (w *schedulerWait) p99() time.Duration {
	runtimemetrics.Read(w.sample)
	if w.sample[0].Value.Kind() != runtimemetrics.KindFloat64Histogram {
		return 0
	}
	h := w.sample[0].Value.Float64Histogram()
	first := len(w.before) != len(h.Counts)
	if first {
		w.before = make([]uint64, len(h.Counts))
	}
	var total uint64
	for i, n := range h.Counts {
		total += n - w.before[i]
		w.before[i], h.Counts[i] = n, n-w.before[i]
	}
	if first || total == 0 {
		return 0
	}
	return time.Duration(bound(h, total-total/100) * float64(time.Second))
}

// bound is the lower bound of the bucket that holds the n-th smallest value, from 1.
func bound(h *runtimemetrics.Float64Histogram, n uint64) float64 {
	var sum uint64
	for i, c := range h.Counts {
		if sum += c; sum >= n {
			return max(0, h.Buckets[i])
		}
	}
	return 0
}
