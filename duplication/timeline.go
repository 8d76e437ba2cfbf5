package duplication

import (
	"sort"
	"time"

	"replicanode/replica/mutation"
)

// Bounds of a timeline: it holds at most timelinePoints points, none finer than timelineResolution.
const (
	timelinePoints     = 2048
	timelineResolution = mutation.Timestamp(time.Millisecond/time.Microsecond) << 12
)

// timeline remembers, in bounded memory, when the shippable decrees of one partition were committed and how many bytes they have:
// enough to say how far behind any confirmed decree is, although the decrees themselves are in the log only. Decrees committed
// close to each other share a point; when there are too many points, neighbours are merged, so an answer
// is too early by at most a millisecond or about a thousandth of the longest time that had to be spanned, whichever is more. It is not safe for concurrent use.
type timeline struct {
	points     []point
	resolution mutation.Timestamp
	last       uint64 // the newest shippable decree
	bytes      uint64 // of all shippable decrees that were ever added
}

// point is a run of shippable decrees.
type point struct {
	first, last uint64
	timestamp   mutation.Timestamp // of first
	before      uint64             // timeline.bytes before first
}

// add notes a shippable decree; decrees must ascend.
func (t *timeline) add(decree uint64, timestamp mutation.Timestamp, bytes int) {
	before := t.bytes
	t.bytes += uint64(bytes)
	t.last = decree
	if n := len(t.points); n > 0 {
		newest := &t.points[n-1]
		if timestamp < newest.timestamp+max(t.resolution, timelineResolution) {
			newest.last = decree
			return
		}
		if n == timelinePoints {
			t.merge()
		}
	}
	t.points = append(t.points, point{first: decree, last: decree, timestamp: timestamp, before: before})
}

// merge halves the number of points.
func (t *timeline) merge() {
	n := len(t.points)
	span := t.points[n-1].timestamp - t.points[0].timestamp
	merged := t.points[:0]
	for i := 0; i < n; i += 2 {
		p := t.points[i]
		p.last = t.points[min(i+1, n-1)].last
		merged = append(merged, p)
	}
	t.points = merged
	t.resolution = span / (timelinePoints / 2)
}

// trim forgets the decrees up to and including confirmed.
func (t *timeline) trim(confirmed uint64) {
	n := t.search(confirmed)
	if n == 0 {
		return
	}
	t.points = t.points[:copy(t.points, t.points[n:])]
	if len(t.points) < timelinePoints/4 {
		t.resolution = 0
	}
}

// after says when the oldest shippable decree beyond confirmed was committed, and how many bytes there are beyond confirmed.
// It reports false when there is none.
func (t *timeline) after(confirmed uint64) (oldest mutation.Timestamp, bytes uint64, ok bool) {
	n := t.search(confirmed)
	if n == len(t.points) {
		return 0, 0, false
	}
	p := t.points[n]
	bytes = t.bytes - p.before
	if confirmed >= p.first {
		// Within the point only the share of decrees is known.
		end := t.bytes
		if n+1 < len(t.points) {
			end = t.points[n+1].before
		}
		done := float64(confirmed-p.first+1) / float64(p.last-p.first+1)
		bytes -= uint64(float64(end-p.before) * done)
	}
	return p.timestamp, bytes, true
}

// search finds the first point with a decree beyond confirmed.
func (t *timeline) search(confirmed uint64) int {
	return sort.Search(len(t.points), func(i int) bool { return t.points[i].last > confirmed })
}
