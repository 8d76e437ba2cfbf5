package threadpool

import (
	"context"
	"time"
)

// Drain takes in no more tasks and waits until all that it has are done, or ctx ends, which gives a *StopError and leaves
// the rest to Stop.
func (p *Pool) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.c.closed = true
	p.stopping = true
	p.unlock(p.now())
	return p.wait(ctx)
}

// Stop ends the pool: no new tasks; queued ones are given ErrClosed; running and parked ones have their contexts
// cancelled. It waits for them to return, at most until ctx ends, which gives a *StopError; calling Stop again waits again.
func (p *Pool) Stop(ctx context.Context) error {
	p.mu.Lock()
	now := p.now()
	c := &p.c
	c.closed, p.stopping = true, true
	var away []*entry
	for _, e := range p.everyEntry() {
		if p.cancelEntry(e, stopCause(e), now) {
			away = append(away, e)
		}
	}
	p.calls++
	p.unlock(now)
	p.turnAway(away, ErrClosed)
	if err := p.wait(ctx); err != nil {
		return err
	}
	p.release(ctx)
	return nil
}

func stopCause(e *entry) error {
	if e.state.waiting() {
		return ErrClosed
	}
	return errStopped
}

// everyEntry lists all tasks in the pool.
func (p *Pool) everyEntry() []*entry {
	var all []*entry
	p.c.each(func(e *entry) bool {
		all = append(all, e)
		return true
	})
	return all
}

// each calls do for every task in the pool, until it returns false. do must not change anything.
func (c *core) each(do func(*entry) bool) {
	more := true
	with := func(e *entry) bool {
		more = do(e)
		return more
	}
	c.live(with)
	for _, q := range c.active {
		if !more {
			return
		}
		q.each(func(e *entry) bool { return e.state != stateQueued || with(e) })
	}
	for _, k := range c.keys {
		for e := k.head; e != nil && more; e = e.next {
			with(e)
		}
	}
	for _, t := range c.timers {
		if more && t.e.state == stateRetrying {
			with(t.e)
		}
	}
}

// wait waits for a stopping pool to be idle.
func (p *Pool) wait(ctx context.Context) error {
	p.mu.Lock()
	p.checkIdle()
	p.mu.Unlock()
	select {
	case <-p.idle:
		return nil
	default:
	}
	select {
	case <-p.idle:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.c
	err := &StopError{Running: c.taken, Cause: ctx.Err()}
	for l := range c.parked {
		err.Parked += c.parked[l]
		err.Queued += c.queued[l]
	}
	return err
}

// release ends the timer and the goroutine supply.
func (p *Pool) release(ctx context.Context) {
	p.releaseOnce.Do(func() {
		p.mu.Lock()
		supply := p.ants
		if p.timer != nil {
			p.timer.Stop()
		}
		p.mu.Unlock()
		if supply == nil {
			return
		}
		// The workers are idle: only the supply's own goroutines take a moment to leave.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := supply.ReleaseContext(ctx); err != nil {
			p.log.Warn("goroutine supply did not end in time", "error", err)
		}
	})
}
