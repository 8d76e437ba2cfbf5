package threadpool

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"
)

// Pool runs tasks on a bounded number of slots. Create it with New; its methods may be called from any goroutine,
// tasks included.
type Pool struct {
	o    Options
	log  *slog.Logger
	ants *ants.Pool
	// drain is p.work as a value, so that submitting it allocates nothing.
	drain func()

	// mu is alone on its cache line: who waits for it does not disturb who holds it.
	_     [64]byte
	mu    mutex
	_     [56]byte
	clock clock
	c     core
	// started and stopping are the pool's phases; idle is closed when a stopping pool has no task left.
	started  bool
	stopping bool
	idle     chan struct{}
	timer    *time.Timer
	armed    int64
	// workers counts the goroutines inside work, calls the Done callbacks outside any of them.
	workers int
	calls   int
	// lingering is set while a worker without a task looks out for nudge.
	lingering bool
	nudge     atomic.Bool
	// releaseOnce guards the end of the goroutine supply.
	releaseOnce sync.Once
	// dumped is by when the stacks that were taken are allowed for.
	dumped int64
}

// New returns a pool that takes in tasks at once and runs them when Start is called.
func New(o Options) (*Pool, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{o: o, log: o.Logger, idle: make(chan struct{}), armed: never}
	p.clock.init()
	p.c.init(&p.o)
	p.c.pool = p
	p.drain = p.work
	return p, nil
}

// Start begins to run tasks. It fails if the pool was started or stopped before. ctx bounds only the start.
func (p *Pool) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The pool bounds its goroutines itself (slots plus parked tasks), and never waits for one.
	supply, err := ants.NewPool(-1)
	if err != nil {
		return fmt.Errorf("create goroutine supply: %w", err)
	}
	p.mu.Lock()
	if p.started || p.stopping {
		p.mu.Unlock()
		supply.Release()
		return fmt.Errorf("start: %w", ErrClosed)
	}
	p.started = true
	p.ants = supply
	p.timer = time.AfterFunc(time.Hour, p.tick)
	p.armed = never
	p.timer.Stop()
	p.unlock(p.now())
	return nil
}

// now is the pool's clock: nanoseconds since it was made. The caller holds the lock.
func (p *Pool) now() int64 { return p.clock.at(p.clock.read()) }

// roughly is now, or what now was up to about a millisecond ago. With a virtual clock it is exact.
func (p *Pool) roughly() int64 {
	if p.c.fresh {
		return p.clock.last
	}
	return p.look()
}

// look reads the clock for roughly.
func (p *Pool) look() int64 {
	now := p.now()
	if p.clock.counted && p.started {
		p.c.fresh = true
		p.c.wakeBy(now + roughness)
	}
	return now
}

// roughness is how old a rough time may be, in nanoseconds; a busy process may be late to notice.
const roughness = 1_000_000

// Submit queues a task. ctx is the task's context for its whole life: when it ends, the task is cancelled. The error
// is ErrInvalidTask, a *QueueFullError, ErrClosed, ErrTooManyCodes, the context's own, or ErrCoalesced, which alone
// comes with a valid Handle; in all cases but nil Done will not be called.
func (p *Pool) Submit(ctx context.Context, t Task) (Handle, error) {
	if err := t.validate(); err != nil {
		return Handle{}, err
	}
	cancelable := ctx.Done() != nil
	if cancelable && ctx.Err() != nil {
		return Handle{}, context.Cause(ctx)
	}
	if !p.mu.TryLock() {
		p.mu.wait()
	}
	c := &p.c
	if c.closed {
		p.mu.Unlock()
		return Handle{}, ErrClosed
	}
	cd := c.lastCode
	if cd == nil || cd.name != t.Code {
		cd = c.codeNamed(t.Code)
	}
	if cd == nil {
		p.mu.Unlock()
		return Handle{}, ErrTooManyCodes
	}
	base := t.Priority
	if cd.overridden {
		base = cd.override
	}
	if t.Coalesce {
		if twin := c.twins[twinKey{cd, t.Key}]; twin != nil {
			return p.coalesce(twin, base, &t), ErrCoalesced
		}
	}
	if err := c.admit(cd, base); err != nil {
		p.mu.Unlock()
		return Handle{}, err
	}
	var now int64
	if c.waiting > 0 && !c.hasRoom() {
		now = p.roughly()
	} else {
		now = p.now()
	}
	e := c.newEntry()
	p.fill(e, ctx, &t, cd, base, cancelable)
	c.submit(e, t.Key, now)
	h := Handle{pool: p, e: e, id: e.seq}
	p.unlock(now)
	if cancelable {
		p.hook(ctx, h)
	}
	return h, nil
}

// coalesce lets a waiting task stand for another one, at the higher of their levels and with the later of their deadlines, and
// unlocks.
func (p *Pool) coalesce(twin *entry, base Priority, t *Task) Handle {
	c, h := &p.c, Handle{pool: p, e: twin, id: twin.seq}
	twin.code.counts.coalesced++
	if d := twin.deadline(); d != 0 {
		if own := p.deadline(t); own == 0 || own > d {
			twin.extras.deadline = own
			c.setTimer(twin)
		}
	}
	if base <= twin.base {
		p.mu.Unlock()
		return h
	}
	now := p.now()
	c.relevel(twin, base, twin.inherited, now)
	c.refreshUrgent(now)
	p.unlock(now)
	return h
}

// fill copies what an entry keeps of its task.
func (p *Pool) fill(e *entry, ctx context.Context, t *Task, cd *code, base Priority, cancelable bool) {
	e.code, e.base, e.moved = cd, base, base != t.Priority
	e.run, e.done, e.parent = t.Run, t.Done, ctx
	e.coalesce = t.Coalesce
	if cancelable || t.Timeout != 0 || t.Slice != 0 || t.Retry != nil || !t.Deadline.IsZero() {
		x := p.c.rare(e)
		x.timeout, x.slice, x.retry, x.deadline = int64(t.Timeout), int64(t.Slice), t.Retry, p.deadline(t)
	}
	if cd.labels == nil && !p.o.NoProfileLabels {
		cd.labels = pprof.WithLabels(context.Background(), pprof.Labels("task", cd.name))
	}
}

// deadline is when t must have started, on the pool's clock, 0 for never.
func (p *Pool) deadline(t *Task) int64 {
	if t.Deadline.IsZero() {
		return 0
	}
	return max(1, int64(t.Deadline.Sub(p.clock.epoch)))
}

// hook cancels the task when the submitter's context ends.
func (p *Pool) hook(ctx context.Context, h Handle) {
	unhook := context.AfterFunc(ctx, func() { h.cancel(context.Cause(ctx)) })
	p.mu.Lock()
	if h.valid() {
		h.e.extras.unhook = unhook
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	unhook()
}

// Do submits a task and waits for it to end. When ctx ends first, Do cancels the task and still waits for it, so
// that nothing of it runs once Do has returned.
func (p *Pool) Do(ctx context.Context, t Task) error {
	ended := make(chan error, 1)
	done := t.Done
	t.Done = func(err error) {
		if done != nil {
			done(err)
		}
		ended <- err
	}
	if _, err := p.Submit(ctx, t); err != nil {
		return err
	}
	return <-ended
}

// unlock ends every section that may have made a task runnable: it resumes parked tasks and starts workers for free
// slots, sets the timer, hands over what must happen outside the lock, and unlocks.
func (p *Pool) unlock(now int64) {
	c := &p.c
	spawn := 0
	if c.waiting > c.starting && c.hasRoom() && p.started {
		spawn = p.fillSlots(now)
	}
	if p.lingering && c.waiting > 0 {
		p.nudge.Store(true)
	}
	if c.reopened && spawn == 0 {
		c.afterLeave(now)
	}
	if c.wake < p.armed && p.started {
		p.armed = c.wake
		p.timer.Reset(time.Duration(max(0, c.wake-p.now())))
	}
	if len(c.expired)+len(c.stuck) > 0 || p.stopping {
		p.unlockRare(now)
	} else {
		p.mu.Unlock()
	}
	for range spawn {
		p.spawn()
	}
}

// fillSlots gives free slots to parked tasks, and says whether a worker is to be started for one that has not
// started. One at a time is enough: each worker looks for more when it has its task.
func (p *Pool) fillSlots(now int64) int {
	c := &p.c
	for c.hasRoom() && c.waiting > c.starting {
		ch := c.choose(now)
		if ch.e == nil {
			return 0
		}
		if ch.e.state == stateReady {
			p.resume(ch, now)
			continue
		}
		c.starting++
		p.workers++
		return 1
	}
	return 0
}

func (p *Pool) resume(ch choice, now int64) {
	p.c.take(ch, now)
	ch.e.wake <- struct{}{}
}

// spawn starts one worker.
func (p *Pool) spawn() {
	if err := p.ants.Submit(p.drain); err != nil {
		// The supply is unbounded and outlives all workers, so this cannot happen; losing a slot silently would be worse.
		go p.work()
	}
}

// unlockRare hands over expired and stuck tasks and notices the end of a stopping pool.
func (p *Pool) unlockRare(now int64) {
	c := &p.c
	expired := c.expired
	c.expired = nil
	var stuck []stuckEntry
	for _, e := range c.stuck {
		stuck = append(stuck, p.stuckEntry(e, now))
	}
	c.stuck = c.stuck[:0]
	if len(expired) > 0 {
		p.calls++
	}
	if len(stuck) > 0 {
		p.calls++
	}
	p.checkIdle()
	p.mu.Unlock()
	if len(expired) > 0 {
		p.turnAway(expired, ErrDeadline)
	}
	if len(stuck) > 0 {
		p.cancelStuck(stuck)
	}
}

// turnAway tells the owners of tasks that never ran. The caller has counted itself in calls.
func (p *Pool) turnAway(es []*entry, err error) {
	for _, e := range es {
		p.callDone(e, err)
		if e.frame != nil {
			e.ctx.endIfUsed()
		}
	}
	p.mu.Lock()
	for _, e := range es {
		e.unhook()
		p.c.recycle(e)
	}
	p.calls--
	p.unlock(p.now())
}

// tick is the timer's function.
func (p *Pool) tick() {
	p.mu.Lock()
	now := p.now()
	p.armed = never
	if p.c.wake <= now {
		p.c.advance(now)
	}
	p.unlock(now)
}

// checkIdle closes idle when a stopping pool has nothing left.
func (p *Pool) checkIdle() {
	c := &p.c
	if !p.stopping || p.workers > 0 || p.calls > 0 || c.taken > 0 || c.parked != (Levels{}) || c.queued != (Levels{}) {
		return
	}
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}
