package threadpool

// Handle names a submitted task. It is a small value, valid for as long as the task is in the pool and harmless
// afterwards. The zero Handle names no task.
type Handle struct {
	pool *Pool
	e    *entry
	id   uint64
}

// ID is the task's number, 0 for the zero Handle.
func (h Handle) ID() uint64 { return h.id }

// valid says whether the task is still in the pool. The caller holds the lock.
func (h Handle) valid() bool { return h.e.seq == h.id && h.e.state != stateFree }

// Cancel takes the task from its queue, so that it never starts and Done is given ErrCanceled before Cancel
// returns; or, if it has started, cancels its context and makes its next Yield, or the Sleep or Await it is in, return
// an error. It reports whether the task was still in the pool.
func (h Handle) Cancel() bool { return h.cancel(ErrCanceled) }

func (h Handle) cancel(cause error) bool {
	if h.e == nil {
		return false
	}
	p, e := h.pool, h.e
	p.mu.Lock()
	if !h.valid() {
		p.mu.Unlock()
		return false
	}
	p.cancelAndUnlock(e, cause)
	return true
}

// cancelAndUnlock cancels e, and tells its owner when it had not started. The caller holds the lock.
func (p *Pool) cancelAndUnlock(e *entry, cause error) {
	now := p.now()
	if !p.cancelEntry(e, cause, now) {
		p.unlock(now)
		return
	}
	p.calls++
	p.unlock(now)
	one := [1]*entry{e}
	p.turnAway(one[:], cause)
}

// cancelEntry cancels e and reports whether it had not started, in which case it has left its queue and the caller
// must tell its owner.
func (p *Pool) cancelEntry(e *entry, cause error, now int64) (dropped bool) {
	if e.told() {
		return false
	}
	e.code.counts.canceled++
	if e.state.waiting() {
		p.c.drop(e, now)
		return true
	}
	p.tellEntry(e, cause, now)
	return false
}

// tellEntry cancels a task that has started. The turn is told before the context, so that a task which the context woke
// finds Yield in agreement.
func (p *Pool) tellEntry(e *entry, cause error, now int64) {
	e.cause = cause
	p.c.setWatch(e)
	e.ctx.end(cause)
	switch e.state {
	case stateThrottled:
		p.c.budget.forget(e)
		p.c.makeReady(e, now)
	case stateAsleep, stateAwaiting:
		p.c.makeReady(e, now)
	}
}

// SetPriority moves the task, queued, parked or running, to another level. It reports whether the task was still in the pool.
func (h Handle) SetPriority(to Priority) bool {
	if h.e == nil || to > High {
		return false
	}
	p := h.pool
	p.mu.Lock()
	if !h.valid() {
		p.mu.Unlock()
		return false
	}
	p.moveAndUnlock(h.e, to)
	return true
}

// moveAndUnlock moves e to another level. The caller holds the lock.
func (p *Pool) moveAndUnlock(e *entry, to Priority) {
	now := p.now()
	p.c.relevel(e, to, e.inherited, now)
	p.c.refreshUrgent(now)
	p.unlock(now)
}
