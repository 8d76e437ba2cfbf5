package threadpool

import "sync/atomic"

// state is where an entry is in its life.
type state uint8

const (
	// stateFree: on the free list, names no task.
	stateFree state = iota
	// stateQueued: in a queue, to be started.
	stateQueued
	// stateChained: behind another task of its key, to be started.
	stateChained
	// stateRetrying: failed; goes back to stateQueued at wakeAt. Holds no goroutine.
	stateRetrying
	// stateRunning: holds a slot.
	stateRunning
	// stateReady: parked, in a queue, to be resumed.
	stateReady
	// stateAsleep: parked until wakeAt.
	stateAsleep
	// stateAwaiting: parked until its goroutine calls back.
	stateAwaiting
	// stateThrottled: parked until the I/O budget pays for what it charged.
	stateThrottled
)

func (s state) waiting() bool { return s == stateQueued || s == stateChained || s == stateRetrying }
func (s state) parked() bool  { return s >= stateReady }

// place is which structure links an entry.
type place uint8

const (
	placeNone place = iota
	placeList
	placeFresh
	placeReady
	placeChain
)

// entry is one task inside the pool. Entries are recycled; seq tells one use from the next. All fields but
// turn, run, ctx and goid belong to the pool's lock.
type entry struct {
	next, prev *entry
	code       *code
	key        *keyChain
	seq        uint64
	// since is when the entry began to wait in its present state; aging counts from it.
	since int64

	state     state
	place     place
	base      Priority
	inherited Priority
	// heapLevel is the effective level of the heap that holds the entry, or the level it counts for in its key's chain.
	heapLevel Priority
	// aged is the number of levels that waiting has added, kept by timers for entries outside the in-order lists.
	aged uint8
	// moved is set when the base level is not the one the task was submitted with.
	moved     bool
	coalesce  bool
	timedOut  bool
	byShare   bool
	heapIndex int32
	timerIdx  int32
	liveIndex int32

	run  Func
	done func(error)
	ctx  *taskContext
	turn Turn

	// resumedAt is when the slot was last taken; ran is the slot time before that.
	resumedAt    int64
	ran          int64
	protectUntil int64
	deadline     int64
	timeout      int64
	slice        int64
	retry        RetryFunc
	unhook       func() bool
	cause        error
	ctxBuf       taskContext

	// What few tasks use.
	timerAt  int64
	wakeAt   int64
	own      int64 // time in Sleep and Await
	ticket   float64
	attempts uint32
	parks    uint32
	goid     atomic.Int64
	wake     chan struct{}
}

// level is the level the entry has apart from aging.
func (e *entry) level() Priority { return max(e.base, e.inherited) }

// effective is the level with aging, for entries whose aging is kept by timers.
func (e *entry) effective() Priority {
	return max(min(High, e.base+Priority(e.aged)), e.inherited)
}

// slabSize is how many entries are allocated at once, maxFree how many unused ones are kept.
const (
	slabSize = 64
	maxFree  = 1 << 14
)

// newEntry takes an entry from the free list.
func (c *core) newEntry() *entry {
	e := c.free
	if e == nil {
		slab := make([]entry, slabSize)
		for i := range slab {
			slab[i].heapIndex, slab[i].timerIdx, slab[i].liveIndex = -1, -1, -1
			slab[i].next = c.free
			c.free = &slab[i]
		}
		c.freeCount += slabSize
		e = c.free
	}
	c.free = e.next
	c.freeCount--
	e.next = nil
	return e
}

// recycle puts an entry that nothing links any more on the free list. An entry whose context was handed out as a
// standard one is left to the garbage collector, so that whoever kept the context never sees another task's.
func (c *core) recycle(e *entry) {
	e.state = stateFree
	e.code, e.key, e.run, e.done, e.retry, e.cause, e.unhook = nil, nil, nil, nil, nil, nil, nil
	if e.ctx != &e.ctxBuf || e.ctx.used() || c.freeCount >= maxFree {
		e.ctx = nil
		return
	}
	e.aged, e.moved, e.coalesce, e.timedOut, e.byShare = 0, false, false, false, false
	e.attempts, e.parks, e.ran, e.own, e.protectUntil, e.timerAt = 0, 0, 0, 0, 0, 0
	e.inherited = Low
	e.next, e.prev = c.free, nil
	c.free = e
	c.freeCount++
}
