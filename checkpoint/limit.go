package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// LimitOptions say how many checkpoints may be made at once.
type LimitOptions struct {
	// Min and Max bound the limit; defaults 1 and 32. The code's MaxStarted bounds it
	// too: a run that waits here has started.
	Min, Max int
	// Healthy tells whether foreground work and disks are within their targets. It
	// must not block. nil: the limit is always Max.
	Healthy func() bool
	// Processors is how many copies can compute at once; while so many do, the limit
	// does not grow: more would help only copies that wait for the disk or the net.
	// Default GOMAXPROCS.
	Processors int
	// Interval is the least time between two steps of the limit; default 1 s. Until
	// something was unhealthy for the first time the limit is doubled after a
	// sixteenth of it, from Processors on.
	Interval time.Duration
	// Now is the clock, default time.Now.
	Now func() time.Time
}

// EnsureDefaults fills in the defaults.
func (o *LimitOptions) EnsureDefaults() {
	o.Min = cmp.Or(o.Min, 1)
	o.Max = cmp.Or(o.Max, max(32, o.Min))
	o.Processors = cmp.Or(o.Processors, runtime.GOMAXPROCS(0))
	o.Interval = cmp.Or(o.Interval, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate says what is wrong with the options.
func (o *LimitOptions) Validate() error {
	if o.Min < 1 || o.Max < o.Min || o.Max > 1024 {
		return fmt.Errorf("limit of %d to %d checkpoints at once is not within 1 and 1024", o.Min, o.Max)
	}
	if o.Interval < 0 || o.Processors < 0 {
		return errors.New("interval or processors of the limit are negative")
	}
	return nil
}

// limit bounds the checkpoints made at once. While all is healthy, somebody waits,
// processors are idle and no copy pauses it grows: it doubles up to half of what was too much
// before, and goes on by one per interval. When something is unhealthy it is
// halved at once: it tightens fast and relaxes slowly. What already runs is never
// interrupted by it; its slices give way to more urgent work by themselves.
type limit struct {
	o LimitOptions

	mu      sync.Mutex
	allowed int
	running int
	parked  int // of those running, that wait for the disk or the net
	held    int // of those running, that pause for the pace
	careful int // up to here it doubles
	stepped time.Time
	waiting []chan struct{} // first come first
}

func newLimit(o LimitOptions) *limit {
	l := &limit{o: o, allowed: min(o.Max, max(o.Min, o.Processors)), careful: o.Max}
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
	since := now.Sub(l.stepped)
	switch {
	case !healthy && l.allowed > l.o.Min && since >= l.o.Interval:
		l.allowed = max(l.o.Min, l.allowed/2)
		l.careful = l.allowed
	case !healthy || len(l.waiting) == 0 || l.allowed >= l.o.Max || l.running-l.parked >= l.o.Processors || l.held > 0:
		return
	case l.allowed < l.careful && since >= l.o.Interval/16:
		l.allowed = min(2*l.allowed, l.careful)
	case since >= l.o.Interval:
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

// watchedTurn looks at the limit now and then while a copy is made, and keeps the pace.
type watchedTurn struct {
	*PacedTurn
	limit *limit
	last  time.Time
}

// watch makes the turn of a copy. While copies pause, more of them at once would only
// pause with them.
func (l *limit) watch(t *PacedTurn) *watchedTurn {
	w := &watchedTurn{PacedTurn: t, limit: l}
	t.resting = w.look
	t.pausing = func(begins bool) {
		if begins {
			l.hold(1)
		} else {
			l.hold(-1)
		}
	}
	return w
}

// look looks at the limit a few times per second.
func (w *watchedTurn) look(now time.Time) {
	if now.Sub(w.last) > 100*time.Millisecond {
		w.last = now
		w.limit.look()
	}
}

// Yield passes on.
func (w *watchedTurn) Yield(ioBytes int) error {
	w.look(time.Now())
	return w.PacedTurn.Yield(ioBytes)
}

// Await passes on. Whoever waits for the disk or the net leaves its processor to
// another copy.
func (w *watchedTurn) Await(ch <-chan struct{}) error { return w.awaitBy(w.Slot.Await, ch) }

// AwaitEnd passes on, as Await does.
func (w *watchedTurn) AwaitEnd(ch <-chan struct{}) error { return w.awaitBy(w.Slot.AwaitEnd, ch) }

func (w *watchedTurn) awaitBy(await func(<-chan struct{}) error, ch <-chan struct{}) error {
	now := time.Now()
	until := w.used(now)
	w.limit.park(1)
	w.look(now)
	err := await(ch)
	w.limit.park(-1)
	if err == nil {
		err = w.pause(time.Now(), until)
	}
	w.began = time.Now()
	return err
}

func (l *limit) hold(n int) {
	l.mu.Lock()
	l.held += n
	l.mu.Unlock()
}

func (l *limit) park(n int) {
	l.mu.Lock()
	l.parked += n
	l.mu.Unlock()
}
