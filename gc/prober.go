package gc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoAnswer means that a disk did not answer a call in time.
var ErrNoAnswer = errors.New("the disk does not answer")

// prober makes all calls to one disk on one goroutine of its own, so that a
// disk that does not answer holds up nothing else: not a slot, not another disk.
type prober struct {
	calls chan *call
	quit  chan struct{}
	done  chan struct{}
	end   func() // closes quit, once

	// mu guards what follows.
	mu    sync.Mutex
	busy  bool // a call is being made, also when nobody waits for it any more
	since time.Time
}

// call is one call. It is settled when it has returned or nobody waits for it
// any more; returned tells which, and err is valid only then.
type call struct {
	f        func() error
	settled  chan struct{}
	settle   func() // closes settled, once
	returned chan struct{}
	err      error
}

func newProber() *prober {
	p := &prober{calls: make(chan *call), quit: make(chan struct{}), done: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.quit) })
	go p.serve()
	return p
}

func (p *prober) serve() {
	defer close(p.done)
	for {
		select {
		case <-p.quit:
			return
		case c := <-p.calls:
			c.err = c.f()
			p.mu.Lock()
			p.busy = false
			p.mu.Unlock()
			close(c.returned)
			c.settle()
		}
	}
}

// busySince tells since when the present call is being made; false when none is.
func (p *prober) busySince() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.busy
}

// do makes a call and waits for it without holding the slot. After timeout, or
// while an earlier call has not returned, the error is ErrNoAnswer; f may then
// still be running and must own all that it touches.
func (p *prober) do(turn Turn, timeout time.Duration, f func() error) error {
	p.mu.Lock()
	if p.busy {
		since := p.since
		p.mu.Unlock()
		return fmt.Errorf("%w since %v", ErrNoAnswer, since.UTC().Format(time.RFC3339))
	}
	p.busy, p.since = true, time.Now()
	p.mu.Unlock()
	c := &call{f: f, settled: make(chan struct{}), returned: make(chan struct{})}
	c.settle = sync.OnceFunc(func() { close(c.settled) })
	select {
	case p.calls <- c: // received at once: nothing else is being made
	case <-p.quit:
		return errors.New("disk statistics are stopped")
	}
	timer := time.AfterFunc(timeout, c.settle)
	defer timer.Stop()
	if err := turn.Await(c.settled); err != nil {
		return err
	}
	select {
	case <-c.returned:
		return c.err
	default:
		return fmt.Errorf("%w within %v", ErrNoAnswer, timeout)
	}
}

// stop ends the goroutine, and waits for it at most until ctx ends.
func (p *prober) stop(ctx context.Context) error {
	p.end()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
}
