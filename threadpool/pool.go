// Package threadpool is a priority pool for long background tasks.
package threadpool

import (
	"container/list"
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/panjf2000/ants/v2"
)

// Pool runs tasks on a fixed number of slots, higher levels first.
type Pool struct {
	o       Options
	ants    *ants.Pool
	mu      sync.Mutex
	queues  [levels]list.List
	busy    map[string]bool
	free    int
	next    uint64
	started bool
	closed  bool
	idle    sync.Cond
	active  int
}

type entry struct {
	Task
	id     uint64
	ctx    context.Context
	cancel context.CancelCauseFunc
	elem   *list.Element
	q      *list.List
}

// New returns a pool that accepts tasks and runs them once Start is called.
func New(o Options) (*Pool, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	a, err := ants.NewPool(-1)
	if err != nil {
		return nil, fmt.Errorf("create goroutine supply: %w", err)
	}
	p := &Pool{o: o, ants: a, free: o.Workers, busy: map[string]bool{}}
	p.idle.L = &p.mu
	return p, nil
}

// Start begins to run tasks.
func (p *Pool) Start(context.Context) error {
	p.mu.Lock()
	p.started = true
	p.dispatch()
	p.mu.Unlock()
	return nil
}

// Stop turns queued tasks away, cancels running ones and waits for them.
func (p *Pool) Stop(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	var out []*entry
	for i := range p.queues {
		for p.queues[i].Len() > 0 {
			out = append(out, p.queues[i].Remove(p.queues[i].Front()).(*entry))
		}
	}
	p.mu.Unlock()
	for _, e := range out {
		e.cancel(ErrClosed)
		if e.Done != nil {
			e.Done(ErrClosed)
		}
	}
	p.mu.Lock()
	for p.active > 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
	p.ants.Release()
	return ctx.Err()
}

// Submit queues a task. ctx is the task's context for its whole life.
func (p *Pool) Submit(ctx context.Context, t Task) (Handle, error) {
	if t.Run == nil || t.Priority > High {
		return Handle{}, ErrInvalidTask
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return Handle{}, ErrClosed
	}
	q := &p.queues[t.Priority]
	if q.Len() >= p.o.MaxQueued[t.Priority] {
		return Handle{}, &QueueFullError{Priority: t.Priority, Limit: p.o.MaxQueued[t.Priority]}
	}
	p.next++
	e := &entry{Task: t, id: p.next, q: q}
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	e.elem = q.PushBack(e)
	p.dispatch()
	return Handle{pool: p, e: e}, nil
}

func (p *Pool) dispatch() {
	for p.started && p.free > 0 {
		e := p.pick()
		if e == nil {
			return
		}
		p.free--
		p.active++
		if err := p.ants.Submit(func() { p.run(e) }); err != nil {
			panic(err)
		}
	}
}

func (p *Pool) pick() *entry {
	for l := int(High); l >= 0; l-- {
		for el := p.queues[l].Front(); el != nil; el = el.Next() {
			e := el.Value.(*entry)
			if e.Key != "" && p.busy[e.Key] {
				continue
			}
			if e.Key != "" {
				p.busy[e.Key] = true
			}
			p.queues[l].Remove(el)
			e.elem = nil
			return e
		}
	}
	return nil
}

func (p *Pool) run(e *entry) {
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Code: e.Code, Value: v, Stack: debug.Stack()}
			}
		}()
		return e.Run(e.ctx, &Turn{pool: p, e: e})
	}()
	e.cancel(nil)
	if e.Done != nil {
		e.Done(err)
	}
	p.mu.Lock()
	delete(p.busy, e.Key)
	p.free++
	p.active--
	p.dispatch()
	p.idle.Broadcast()
	p.mu.Unlock()
}

// Handle names a submitted task. The zero Handle names none.
type Handle struct {
	pool *Pool
	e    *entry
}

// Cancel removes the task if it has not started, else cancels its context. It reports whether the task was still there.
func (h Handle) Cancel() bool {
	if h.e == nil {
		return false
	}
	h.pool.mu.Lock()
	removed := h.e.elem != nil
	if removed {
		h.e.q.Remove(h.e.elem)
		h.e.elem = nil
	}
	h.pool.mu.Unlock()
	h.e.cancel(ErrCanceled)
	if removed && h.e.Done != nil {
		h.e.Done(ErrCanceled)
	}
	return true
}

// Turn is a running task's side of the pool.
type Turn struct {
	pool *Pool
	e    *entry
}

// Yield is called between slices: it charges ioBytes and gives the slot away when something more urgent waits.
func (t *Turn) Yield(ioBytes int) error { return context.Cause(t.e.ctx) }

// Slice is how long the task may work between two Yields.
func (t *Turn) Slice() time.Duration { return t.pool.o.Slice }

// Sleep parks the task for d: it holds no slot meanwhile.
func (t *Turn) Sleep(d time.Duration) error {
	tm := time.NewTimer(d)
	defer tm.Stop()
	select {
	case <-tm.C:
		return nil
	case <-t.e.ctx.Done():
		return context.Cause(t.e.ctx)
	}
}

// Await parks the task until ch is closed or receives.
func (t *Turn) Await(ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-t.e.ctx.Done():
		return context.Cause(t.e.ctx)
	}
}
