package threadpool

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// taskContext is the context a task's body gets. It costs nothing until someone asks for its Done channel; from then
// on a standard context does the work, which also makes contexts derived from it cheap.
type taskContext struct {
	parent context.Context
	labels context.Context
	std    atomic.Pointer[stdContext]
	mu     sync.Mutex
	// cause is why the context ended, set before std exists.
	cause error
}

type stdContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

func (c *taskContext) reset(parent, labels context.Context) {
	c.parent, c.labels = parent, labels
	c.cause = nil
}

func (c *taskContext) used() bool { return c.std.Load() != nil }

// end cancels the context.
func (c *taskContext) end(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	std := c.std.Load()
	c.mu.Unlock()
	if std != nil {
		std.cancel(cause)
	}
}

func (c *taskContext) standard() *stdContext {
	if s := c.std.Load(); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.std.Load(); s != nil {
		return s
	}
	ctx, cancel := context.WithCancelCause(c.parent)
	if c.cause != nil {
		cancel(c.cause)
	}
	s := &stdContext{Context: ctx, cancel: cancel}
	c.std.Store(s)
	return s
}

// Deadline implements context.Context.
func (c *taskContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Done implements context.Context.
func (c *taskContext) Done() <-chan struct{} { return c.standard().Done() }

// Err implements context.Context.
func (c *taskContext) Err() error {
	if s := c.std.Load(); s != nil {
		return s.Err()
	}
	c.mu.Lock()
	ended := c.cause != nil
	c.mu.Unlock()
	if ended {
		return context.Canceled
	}
	return c.parent.Err()
}

// Value implements context.Context. The profiler's labels are found here too, so that goroutines the task starts with
// pprof.Do keep the task's label.
func (c *taskContext) Value(key any) any {
	s := c.std.Load()
	if s == nil && c.Err() != nil {
		s = c.standard()
	}
	if s != nil {
		if v := s.Value(key); v != nil {
			return v
		}
	} else if v := c.parent.Value(key); v != nil {
		return v
	}
	if c.labels != nil {
		return c.labels.Value(key)
	}
	return nil
}

// endIfUsed ends the context of a task that is over, if anyone can tell.
func (c *taskContext) endIfUsed() {
	if c.used() {
		c.end(context.Canceled)
	}
}
