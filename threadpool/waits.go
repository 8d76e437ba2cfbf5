package threadpool

import "time"

// Histogram is a distribution of durations, exact to 1/16. The zero Histogram is empty. Histograms of one pool taken at
// different times can be subtracted, which gives the distribution over the time between.
type Histogram struct{ h histogram }

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.h.count() }

// Quantile is the duration below which the part q of all lies, 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.h.quantile(q))
}

// Record adds a duration.
func (h *Histogram) Record(d time.Duration) { h.h.record(int64(d)) }

// Sub takes away what an earlier Histogram of the same durations held.
func (h *Histogram) Sub(earlier *Histogram) {
	for i, n := range earlier.h.buckets {
		h.h.buckets[i] -= n
	}
	h.h.sum -= earlier.h.sum
}

// Waits returns how long the tasks of a level, of all codes, waited from submission to start, since the pool was made. It is empty
// with Options.NoTiming.
func (p *Pool) Waits(l Priority) Histogram {
	var out Histogram
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cd := range p.c.codeList {
		if h := cd.queues[min(l, High)].stats.wait; h != nil {
			out.h.add(h)
		}
	}
	return out
}
