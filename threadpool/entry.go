package threadpool

import (
	"context"
	"sync/atomic"
)

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

// entry is one task inside the pool. A million may wait, so it is two cache lines, of which picking reads the first: what
// only a started task needs is in its frame, what few tasks have in its extras. Entries are recycled; seq tells one use
// from the next. All fields but run, done and parent, which do not change while the entry is in use, belong to the pool's lock.
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
	moved    bool
	coalesce bool
	timedOut bool
	byShare  bool

	run    Func
	done   func(error)
	parent context.Context
	*frame
	extras    *extras
	heapIndex int32
	timerIdx  int32
	// queue is the one of its code and base level.
	queue *queue
}

// frame is what an entry has from its first start to its end. Frames are recycled last in, first out, so that those of short
// tasks stay in the processor's cache. It belongs to the pool's lock but for the turn's counters, which are the task's.
type frame struct {
	turn   Turn
	ctx    *taskContext
	ctxBuf taskContext
	cause  error
	// resumedAt is when the slot was last taken; ran is the slot time before that.
	resumedAt    int64
	ran          int64
	protectUntil int64
	own          int64 // time in Sleep and Await
	wakeAt       int64
	ticket       float64
	attempts     uint32
	parks        uint32
	goid         atomic.Int64
	wake         chan struct{}
	nextFree     *frame
	index        int // in core.frames
}

// extras are what few tasks have.
type extras struct {
	deadline, timeout, slice int64
	retry                    RetryFunc
	unhook                   func() bool
	nextFree                 *extras
}

// level is the level the entry has apart from aging.
func (e *entry) level() Priority { return max(e.base, e.inherited) }

// effective is the level with aging, for entries whose aging is kept by timers.
func (e *entry) effective() Priority {
	return max(min(High, e.base+Priority(e.aged)), e.inherited)
}

// deadline is when e must have started, 0 for never.
func (e *entry) deadline() int64 {
	if e.extras == nil {
		return 0
	}
	return e.extras.deadline
}

// timeout bounds the time e runs or waits by its own choice, 0 for no bound.
func (e *entry) timeout() int64 {
	if e.extras == nil {
		return 0
	}
	return e.extras.timeout
}

// unhook ends the watch on the submitter's context.
func (e *entry) unhook() {
	if e.extras != nil && e.extras.unhook != nil {
		e.extras.unhook()
	}
}

// told says whether e was asked to stop, for another reason than its timeout.
func (e *entry) told() bool {
	return e.frame != nil && e.cause != nil && e.cause != ErrTimeout
}

// slabSize is how many entries are allocated at once; maxFree and maxFreeFrames are how many unused ones are kept.
const (
	slabSize      = 64
	maxFree       = 1 << 16
	maxFreeFrames = 1 << 10
)

// newEntry takes an entry from the free list. Its links mean nothing.
func (c *core) newEntry() *entry {
	if c.free == nil {
		c.grow()
	}
	e := c.free
	c.free = e.next
	c.freeCount--
	return e
}

// grow fills the free list, so that entries are taken in the order of their addresses.
func (c *core) grow() {
	slab := make([]entry, slabSize)
	for i := len(slab) - 1; i >= 0; i-- {
		e := &slab[i]
		e.heapIndex, e.timerIdx = -1, -1
		e.next = c.free
		c.free = e
	}
	c.freeCount += slabSize
}

// open gives e, which is started for the first time, its frame, and returns it.
func (c *core) open(e *entry) *frame {
	f := c.freeFrames
	if f == nil {
		f = &frame{index: len(c.frames)}
		f.turn.pool = c.pool
		f.ctx = &f.ctxBuf
		c.frames = append(c.frames, f)
	} else {
		c.freeFrames = f.nextFree
		c.frameCount--
	}
	e.frame = f
	f.turn.e = e
	f.ctxBuf.reset(e.parent, e.code.labels)
	return f
}

// close takes e's frame from it. A frame whose context was handed out as a standard one is left to the garbage collector, so
// that whoever kept the context never sees another task's.
func (c *core) close(e *entry) {
	f := e.frame
	e.frame = nil
	if f.ctx != &f.ctxBuf || f.ctx.used() || c.frameCount >= maxFreeFrames {
		c.forget(f)
		return
	}
	f.ctxBuf.parent, f.cause = nil, nil
	f.ran, f.own, f.attempts, f.parks = 0, 0, 0, 0
	f.nextFree = c.freeFrames
	c.freeFrames = f
	c.frameCount++
}

// forget leaves a frame to the garbage collector.
func (c *core) forget(f *frame) {
	last := len(c.frames) - 1
	c.frames[f.index] = c.frames[last]
	c.frames[f.index].index = f.index
	c.frames[last] = nil
	c.frames = c.frames[:last]
}

// live calls do for every task that has started and not finished, until it returns false.
func (c *core) live(do func(*entry) bool) {
	for _, f := range c.frames {
		if e := f.turn.e; e.frame == f && (e.state == stateRunning || e.state.parked()) && !do(e) {
			return
		}
	}
}

// rare returns e's extras, which it gets if it has none.
func (c *core) rare(e *entry) *extras {
	if e.extras == nil {
		x := c.freeExtras
		if x == nil {
			x = new(extras)
		} else {
			c.freeExtras, x.nextFree = x.nextFree, nil
			c.extrasCount--
		}
		e.extras = x
	}
	return e.extras
}

// recycle puts an entry that nothing links any more on the free list.
func (c *core) recycle(e *entry) {
	e.state = stateFree
	e.code, e.queue, e.key, e.run, e.done, e.parent = nil, nil, nil, nil, nil, nil
	if e.frame != nil {
		c.close(e)
	}
	if x := e.extras; x != nil {
		e.extras = nil
		if c.extrasCount < maxFree {
			*x = extras{nextFree: c.freeExtras}
			c.freeExtras = x
			c.extrasCount++
		}
	}
	if c.freeCount >= maxFree {
		return
	}
	e.inherited, e.aged, e.moved, e.coalesce, e.timedOut, e.byShare = Low, 0, false, false, false, false
	e.next, e.prev = c.free, nil
	c.free = e
	c.freeCount++
}
