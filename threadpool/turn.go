package threadpool

import (
	"sync/atomic"
	"time"
)

// Turn is a running task's side of the pool. It belongs to the goroutine that runs the task, and to no one once the
// task's body has returned.
//
// The one call every task author must know is Yield.
type Turn struct {
	// watch holds the bits of core.urgent that concern this task.
	watch  atomic.Uint32
	pool   *Pool
	e      *entry
	bytes  int64
	yields uint64
}

// Yield is called between slices of work, the more often the better: a call that finds nothing to do costs a few
// nanoseconds. It charges ioBytes (read and written since the last call) to the I/O budget, and gives the slot away
// if something more urgent waits or the budget is spent; then it returns when the task is picked again. It returns
// a non-nil error, matching context.Canceled or context.DeadlineExceeded, if the task is cancelled: the task should return soon.
func (t *Turn) Yield(ioBytes int) error {
	t.yields++
	t.bytes += int64(ioBytes)
	if t.pool.c.urgent.Load()&t.watch.Load() == 0 {
		return nil
	}
	return t.yield(ioBytes)
}

func (t *Turn) yield(ioBytes int) error {
	p := t.pool
	bits := p.c.urgent.Load() & t.watch.Load()
	if bits == bitBudget && ioBytes <= 0 {
		return nil
	}
	p.mu.Lock()
	e := t.e
	if err := t.check(); err != nil {
		p.mu.Unlock()
		return err
	}
	c := &p.c
	now := p.now()
	if c.wake <= now {
		c.advance(now)
	}
	n := &e.code.counts
	switch {
	case ioBytes > 0 && c.budget.charge(e, int64(ioBytes), now):
		n.throttled++
		c.park(e, stateThrottled, now)
		c.wakeBy(c.budget.nextAt(now))
	case c.shouldGive(e, now):
		n.gaveWay++
		c.park(e, stateReady, now)
	default:
		p.unlock(now)
		return nil
	}
	p.unlock(now)
	<-e.wake
	return t.cause()
}

// shouldGive says whether e is to give its slot away now.
func (c *core) shouldGive(e *entry, now int64) bool {
	if c.taken > c.workers && c.lowestRunning() >= e.level() {
		return true
	}
	if now < e.protectUntil {
		return false
	}
	if e.byShare {
		c.accrue(now)
		e.byShare = false
		c.share.granted--
	}
	if c.waiting > 0 && !(c.starting > 0 && c.starting >= c.waiting) && c.chooseOver(e, now).e != nil {
		return true
	}
	c.refreshUrgent(now)
	return false
}

// lowestRunning is the lowest base level that holds a slot.
func (c *core) lowestRunning() Priority {
	for l := Low; l < High; l++ {
		if c.running[l] > 0 {
			return l
		}
	}
	return High
}

// Sleep parks the task for d: it holds no slot meanwhile. It returns early, with an error, if the task is cancelled.
// A d of 0 or less only checks for cancellation.
func (t *Turn) Sleep(d time.Duration) error {
	p := t.pool
	p.mu.Lock()
	e := t.e
	if err := t.check(); err != nil || d <= 0 {
		p.mu.Unlock()
		return err
	}
	now := p.now()
	e.code.counts.slept++
	e.wakeAt = after(now, int64(d))
	p.c.park(e, stateAsleep, now)
	p.unlock(now)
	<-e.wake
	return t.cause()
}

// Await parks the task until ch is closed or a value can be received from it: it holds no slot meanwhile. It returns
// early, with an error, if the task is cancelled. When ch is ready at once, the task keeps its slot.
func (t *Turn) Await(ch <-chan struct{}) error {
	p := t.pool
	p.mu.Lock()
	e := t.e
	if err := t.check(); err != nil {
		p.mu.Unlock()
		return err
	}
	select {
	case <-ch:
		p.mu.Unlock()
		return nil
	default:
	}
	now := p.now()
	e.code.counts.awaited++
	p.c.park(e, stateAwaiting, now)
	p.unlock(now)
	t.awake(ch)
	return t.cause()
}

// AwaitEnd is Await for what nobody can cancel, such as a call to a disk that hangs: it returns when ch is ready and never before, and the
// task holds no slot until then, whether it is cancelled or not. The error says that it is.
func (t *Turn) AwaitEnd(ch <-chan struct{}) error {
	err := t.Await(ch)
	if err == nil {
		return nil
	}
	p := t.pool
	// A task is woken once when its time is over and once when it is cancelled; then nothing but ch ends this.
	for {
		p.mu.Lock()
		e := t.e
		running := t.check() != ErrNotRunning
		select {
		case <-ch:
			p.mu.Unlock()
			return err
		default:
		}
		if !running {
			p.mu.Unlock()
			<-ch
			return err
		}
		now := p.now()
		p.c.park(e, stateAwaiting, now)
		p.unlock(now)
		if t.awake(ch) {
			return t.cause()
		}
	}
}

// awake returns when the parked task has a slot again, and tells whether ch is why.
func (t *Turn) awake(ch <-chan struct{}) bool {
	p, e := t.pool, t.e
	select {
	case <-e.wake:
		return false
	case <-ch:
	}
	p.mu.Lock()
	now := p.now()
	if e.state == stateAwaiting {
		p.c.makeReady(e, now)
	}
	p.unlock(now)
	<-e.wake
	return true
}

// check finds use of a turn outside its task, and cancellation. The caller holds the lock.
func (t *Turn) check() error {
	e := t.e
	if e.frame == nil || &e.turn != t || e.state != stateRunning {
		return ErrNotRunning
	}
	if e.wake == nil {
		e.wake = make(chan struct{}, 1)
	}
	return e.cause
}

func (t *Turn) cause() error {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.e.cause
}

// Slice is how long the task may work between two calls of Yield.
func (t *Turn) Slice() time.Duration {
	return time.Duration(t.pool.c.sliceOf(t.e))
}

// ID is the task's number, unique in its pool and rising with the order of submission.
func (t *Turn) ID() uint64 { return t.e.seq }

// Attempt is 1 for the task's first run and counts its retries.
func (t *Turn) Attempt() int {
	if t.e.frame == nil {
		return 1
	}
	return int(t.e.attempts) + 1
}
