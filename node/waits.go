package node

import (
	"sync"
	"time"

	"replicanode/threadpool"
)

// waitWindow is the time over which the waits of Common tasks are judged: long enough for a quantile to mean something, short
// enough to follow the load.
const waitWindow = 3 * time.Second

// recentWaits turns the pool's histogram of all waits into a quantile of the recent ones. The zero value is ready.
type recentWaits struct {
	mu    sync.Mutex
	taken []takenWaits // oldest first; the first is the last one from before the window
}

type takenWaits struct {
	at time.Time
	h  threadpool.Histogram
}

// p99 is the 99th percentile of what was recorded in all within the window before now, and of the tasks that wait now, which
// count with the time they have waited so far: a queue from which nothing starts shows, too.
func (r *recentWaits) p99(now time.Time, all threadpool.Histogram, waiting []time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.taken) > 1 && now.Sub(r.taken[1].at) >= waitWindow {
		r.taken = r.taken[1:]
	}
	recent := all
	if len(r.taken) > 0 {
		recent.Sub(&r.taken[0].h)
	}
	r.taken = append(r.taken, takenWaits{now, all})
	for _, w := range waiting {
		recent.Record(w)
	}
	return recent.Quantile(0.99)
}
