package threadpool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"time"
)

// worker is what a goroutine of the supply keeps while it works for the pool.
type worker struct {
	goid int64
	// labelled is the code whose profiler labels the goroutine has.
	labelled *code
}

// lingerRounds is how often a worker without a task lets others run and looks again before it leaves: some microseconds,
// in which the next submission costs no new worker.
const lingerRounds = 64

// work runs tasks until its slot is taken away or nothing is runnable.
func (p *Pool) work() {
	var w worker
	defer w.clearLabels()
	for e := p.first(); e != nil; e = p.linger() {
		for e != nil {
			e = p.execute(&w, e)
		}
	}
}

// linger waits a moment for another task; the worker has just been let go. Only one worker lingers at a time. Its slot counts as
// promised meanwhile.
func (p *Pool) linger() *entry {
	p.mu.Lock()
	c := &p.c
	if p.stopping || c.starting > 0 || c.waiting > 0 || !c.hasRoom() {
		p.mu.Unlock()
		return nil
	}
	c.starting++
	p.workers++
	p.lingering = true
	p.nudge.Store(false)
	p.mu.Unlock()
	for range lingerRounds {
		if p.nudge.Load() {
			break
		}
		runtime.Gosched()
	}
	p.mu.Lock()
	p.lingering = false
	p.mu.Unlock()
	return p.first()
}

// first turns the slot promised to a new worker into a task.
func (p *Pool) first() *entry {
	p.mu.Lock()
	now := p.now()
	p.c.starting--
	return p.next(now)
}

// next gives the slot that has just become free to a task and unlocks. It returns nil when the calling worker is to
// leave: nothing is runnable, the pool has shrunk, or the slot went to a parked task, whose goroutine goes on with it.
func (p *Pool) next(now int64) *entry {
	c := &p.c
	if c.wake <= now {
		c.advance(now)
	}
	var e *entry
	if c.waiting > 0 && c.hasRoom() && p.started {
		switch ch := c.choose(now); {
		case ch.e == nil:
		case ch.e.state == stateReady:
			p.resume(ch, now)
		default:
			e = ch.e
			c.take(ch, now)
		}
	}
	if e == nil {
		p.workers--
	}
	p.unlock(now)
	return e
}

// execute runs tasks, one after the other, until there is none or one has panicked; then it returns the slot's next one. A panic and
// runtime.Goexit cost no slot.
func (p *Pool) execute(w *worker, e *entry) (next *entry) {
	defer func() {
		if e == nil {
			return
		}
		if v := recover(); v != nil {
			err := &PanicError{Code: e.code.name, Value: v, Stack: debug.Stack()}
			p.log.Error("task panicked", "code", err.Code, "id", e.seq, "panic", v, "stack", string(err.Stack))
			next = p.end(e, err, true)
			return
		}
		p.log.Error("task called runtime.Goexit", "code", e.code.name, "id", e.seq)
		p.end(e, ErrGoexit, false)
	}()
	for e != nil {
		w.enter(p, e)
		var err error
		if p.o.TraceRegions && trace.IsEnabled() {
			err = p.traced(e)
		} else {
			err = e.run(e.ctx, &e.turn)
		}
		if err != nil && e.timeout() > 0 {
			err = p.timedOut(e, err)
		}
		e = p.end(e, err, true)
	}
	return nil
}

func (p *Pool) traced(e *entry) error {
	defer trace.StartRegion(e.ctx, e.code.name).End()
	return e.run(e.ctx, &e.turn)
}

// enter prepares the goroutine for e.
func (w *worker) enter(p *Pool, e *entry) {
	if w.labelled != e.code && e.code.labels != nil {
		pprof.SetGoroutineLabels(e.code.labels)
		w.labelled = e.code
	}
	if e.timeout() > 0 {
		if w.goid == 0 {
			w.goid = goroutineID()
		}
		e.goid.Store(w.goid)
	}
}

func (w *worker) clearLabels() {
	if w.labelled != nil {
		pprof.SetGoroutineLabels(context.Background())
	}
}

// end finishes e and returns the slot's next task. goOn is false when the goroutine is about to die.
func (p *Pool) end(e *entry, err error, goOn bool) *entry {
	if err != nil && goOn && e.extras != nil && e.extras.retry != nil {
		if next, again := p.tryAgain(e, err); again {
			return next
		}
	}
	if e.done != nil {
		p.callDone(e, err)
	}
	e.ctx.endIfUsed()
	var reading, now int64
	if !p.o.NoTiming {
		reading = p.clock.read()
	}
	if !p.mu.TryLock() {
		p.mu.wait()
	}
	e.unhook()
	if p.o.NoTiming {
		now = p.roughly()
	} else {
		now = p.clock.at(reading)
	}
	c := &p.c
	p.flush(e, err)
	c.finish(e, now, err != nil)
	c.recycle(e)
	return p.leave(now, goOn)
}

// timedOut makes ErrTimeout of the context.Canceled with which a task ends that saw its context end at its timeout.
func (p *Pool) timedOut(e *entry, err error) error {
	if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.cause != ErrTimeout {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTimeout, err)
}

// leave passes on the slot that a task has left.
func (p *Pool) leave(now int64, goOn bool) *entry {
	if goOn {
		return p.next(now)
	}
	p.workers--
	p.c.refreshUrgent(now)
	p.unlock(now)
	return nil
}

// flush books what the task's turn has counted. The caller holds the lock.
func (p *Pool) flush(e *entry, err error) {
	n := &e.code.counts
	if e.turn.yields > 0 {
		n.yields += e.turn.yields
		n.bytes += e.turn.bytes
		e.turn.yields, e.turn.bytes = 0, 0
	}
	if err == nil {
		return
	}
	if _, ok := err.(*PanicError); ok {
		n.panics++
	}
}

// tryAgain asks the task's owner about a failed attempt.
func (p *Pool) tryAgain(e *entry, err error) (next *entry, again bool) {
	after, again := p.callRetry(e, err)
	if !again {
		return nil, false
	}
	p.mu.Lock()
	if e.told() || p.c.closed {
		p.mu.Unlock()
		return nil, false
	}
	now := p.now()
	p.flush(e, err)
	old := e.ctx
	e.cause = nil
	if old.used() || old.cause != nil {
		e.ctx = new(taskContext)
		e.ctx.reset(old.parent, e.code.labels)
	}
	p.c.again(e, int64(after), now)
	next = p.leave(now, true)
	old.endIfUsed()
	return next, true
}

func (p *Pool) callRetry(e *entry, err error) (_ time.Duration, again bool) {
	defer p.survive(e, "Retry", func() { again = false })
	return e.extras.retry(err)
}

func (p *Pool) callDone(e *entry, err error) {
	done := e.done
	if done == nil {
		return
	}
	// Should done end the goroutine, the task ends once more, without it.
	e.done = nil
	defer p.survive(e, "Done", nil)
	done(err)
}

// survive recovers a panic of one of the task's callbacks.
func (p *Pool) survive(e *entry, callback string, then func()) {
	v := recover()
	if v == nil {
		return
	}
	if then != nil {
		then()
	}
	p.log.Error("task callback panicked", "callback", callback, "code", e.code.name, "id", e.seq, "panic", v, "stack", string(debug.Stack()))
	p.mu.Lock()
	e.code.counts.panics++
	p.mu.Unlock()
}
