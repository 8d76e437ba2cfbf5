package threadpool

import (
	"math"
	"math/bits"
	"time"
)

// histogram counts durations in buckets that grow by an eighth of a power of two, so that a quantile is off by
// 1/16 at most. The first buckets are 1 ns wide; everything from 2^43 ns (2.4 h) on falls into the last.
type histogram struct {
	buckets [histogramBuckets]uint64
	sum     int64
	max     int64
}

const (
	histogramSub     = 8
	histogramSubBits = 3
	histogramBuckets = (44 - histogramSubBits) * histogramSub
)

func bucketOf(v int64) int {
	if v < histogramSub {
		return int(v)
	}
	exp := bits.Len64(uint64(v)) - histogramSubBits - 1
	return min(exp*histogramSub+int(v>>exp), histogramBuckets-1)
}

// bucketEnd is the first value beyond bucket i.
func bucketEnd(i int) int64 {
	if i < histogramSub {
		return int64(i) + 1
	}
	exp := i/histogramSub - 1
	return int64(i-exp*histogramSub+1) << exp
}

func bucketStart(i int) int64 {
	if i == 0 {
		return 0
	}
	return bucketEnd(i - 1)
}

func (h *histogram) record(v int64) {
	v = max(v, 0)
	h.buckets[bucketOf(v)]++
	h.sum += v
	h.max = max(h.max, v)
}

// add merges o into h.
func (h *histogram) add(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// count is how many values were recorded.
func (h *histogram) count() uint64 {
	var n uint64
	for _, b := range h.buckets {
		n += b
	}
	return n
}

// quantile returns the value below which the share q of the recorded ones lies.
func (h *histogram) quantile(q float64) int64 {
	rank := max(1, uint64(math.Ceil(q*float64(h.count()))))
	var seen uint64
	for i, n := range h.buckets {
		seen += n
		if seen >= rank {
			return min((bucketStart(i)+bucketEnd(i))/2, h.max)
		}
	}
	return h.max
}

// Distribution sums up durations.
type Distribution struct {
	Count uint64        `json:"count"`
	Sum   time.Duration `json:"sum_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
	// Buckets are the cumulative counts at the bounds DistributionBounds returns.
	Buckets []uint64 `json:"-"`
}

// DistributionBounds returns the upper bounds of Distribution.Buckets: powers of four nanoseconds from 2^10 (1 µs) to 2^42 (73 min).
func DistributionBounds() []time.Duration {
	out := make([]time.Duration, 0, distributionBounds)
	for i := range distributionBounds {
		out = append(out, time.Duration(1)<<(10+2*i))
	}
	return out
}

const distributionBounds = 17

func (h *histogram) distribution() Distribution {
	if h == nil {
		return Distribution{}
	}
	d := Distribution{
		Count: h.count(), Sum: time.Duration(h.sum), Max: time.Duration(h.max),
		P50: time.Duration(h.quantile(0.5)), P90: time.Duration(h.quantile(0.9)), P99: time.Duration(h.quantile(0.99)),
		Buckets: make([]uint64, distributionBounds),
	}
	var seen uint64
	next := 0
	for i, n := range h.buckets {
		for next < distributionBounds && bucketStart(i) >= 1<<(10+2*next) {
			d.Buckets[next] = seen
			next++
		}
		seen += n
	}
	for ; next < distributionBounds; next++ {
		d.Buckets[next] = seen
	}
	return d
}
