package checkpoint

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// LimitOptions say how many checkpoints may be made at once.
type LimitOptions struct {
	// Min and Max bound the limit; defaults 1 and 8. The code's MaxStarted bounds it
	// too: a run that waits here has started.
	Min, Max int
	// Healthy tells whether foreground work and disks are within their targets. It
	// must not block. nil: the limit is always Max.
	Healthy func() bool
	// Interval is the least time between two steps of the limit; default 1 s.
	Interval time.Duration
	// Now is the clock, default time.Now.
	Now func() time.Time
}

// EnsureDefaults fills in the defaults.
func (o *LimitOptions) EnsureDefaults() {
	if o.Min == 0 {
		o.Min = 1
	}
	if o.Max == 0 {
		o.Max = max(8, o.Min)
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate says what is wrong with the options.
func (o *LimitOptions) Validate() error {
	if o.Min < 1 || o.Max < o.Min || o.Max > 1024 {
		return fmt.Errorf("limit of %d to %d checkpoints at once is not within 1 and 1024", o.Min, o.Max)
	}
	if o.Interval < 0 {
		return errors.New("interval of the limit is negative")
	}
	return nil
}

// limit bounds the checkpoints made at once. It grows by one per interval while
// all is healthy and somebody waits, and is halved at once when it is not: it
// tightens fast and relaxes slowly. What already runs is never interrupted by it;
// its slices give way to more urgent work by themselves.
type limit struct {
	o LimitOptions

	mu      sync.Mutex
	allowed int
	running int
	stepped time.Time
	waiting []chan struct{} // first come first
}

func newLimit(o LimitOptions) *limit {
	l := &limit{o: o, allowed: o.Min}
	if o.Healthy == nil {
		l.allowed = o.Max
	}
	return l
}

// step moves the limit. mu is held; healthy was asked without it.
func (l *limit) step(healthy bool) {
	if l.o.Healthy == nil {
		return
	}
	now := l.o.Now()
	if now.Sub(l.stepped) < l.o.Interval {
		return
	}
	switch {
	case !healthy && l.allowed > l.o.Min:
		l.allowed = max(l.o.Min, l.allowed/2)
	case healthy && len(l.waiting) > 0 && l.allowed < l.o.Max:
		l.allowed++
	default:
		return
	}
	l.stepped = now
}

// admit lets in as many as may run. mu is held.
func (l *limit) admit() {
	for len(l.waiting) > 0 && l.running < l.allowed {
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		l.running++
	}
}

func (l *limit) healthy() bool { return l.o.Healthy == nil || l.o.Healthy() }

// look moves the limit by one step if it is time; running copies call it
// between slices, so that the limit follows the load without a clock of its own.
func (l *limit) look() {
	healthy := l.healthy()
	l.mu.Lock()
	l.step(healthy)
	l.admit()
	l.mu.Unlock()
}

// enter waits, without holding a slot, until the caller may run. The caller
// must leave afterwards, unless there was an error.
func (l *limit) enter(turn Turn) error {
	healthy := l.healthy()
	me := make(chan struct{})
	l.mu.Lock()
	l.waiting = append(l.waiting, me)
	l.step(healthy)
	l.admit()
	l.mu.Unlock()
	select {
	case <-me:
		return nil
	default:
	}
	err := turn.Await(me)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, ch := range l.waiting {
		if ch == me {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return err
		}
	}
	// Let in at the very moment of the cancellation.
	l.running--
	l.admit()
	return err
}

func (l *limit) leave() {
	l.mu.Lock()
	l.running--
	l.mu.Unlock()
	l.look()
}

// figures are the limit, and how many run and wait.
func (l *limit) figures() (allowed, running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allowed, l.running, len(l.waiting)
}

// watchedTurn looks at the limit now and then while a copy is made.
type watchedTurn struct {
	Turn
	limit *limit
	last  time.Time
}

// Yield passes on, and looks at the limit a few times per second.
func (w *watchedTurn) Yield(ioBytes int) error {
	if now := time.Now(); now.Sub(w.last) > 100*time.Millisecond {
		w.last = now
		w.limit.look()
	}
	return w.Turn.Yield(ioBytes)
}
