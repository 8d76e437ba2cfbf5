package checkpoint

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"
)

// PaceOptions say how much of the processors copies, and other work that keeps the same pace, take while clients are served.
type PaceOptions struct {
	// Busy tells whether clients are being served. It must not block. nil: never, and
	// copies are as fast as they can be.
	Busy func() bool
	// Share is the part of all processors' time that all copies together take at
	// most while Busy, above 0 and at most 1; default 0.15. A slice of a copy holds a
	// processor for a millisecond that a client's request may wait for: the share is
	// about how often that happens.
	Share float64
	// Least is the part that copies take however long others wait for a processor,
	// so that they end: above 0 and at most Share. Default a tenth of Share.
	Least float64
	// Patience is how long a copy puts up with the least share; after each such time
	// that it is under way it may take twice of that, up to Share. So copies end
	// within the time that their tasks are given. Default 10 min.
	Patience time.Duration
	// Waited is how long nearly all work that was ready to run waited for a processor
	// since the call before. It must not block; calls come one at a time. nil: the
	// 99th percentile of what the Go runtime saw of this process.
	Waited func() time.Duration
	// WaitTarget is the wait above which copies take less: the share is halved down to
	// Least, and comes back slowly. Default 1 ms, the length of a slice.
	WaitTarget time.Duration
	// Idle is the part of the machine's processors that had nothing to run since the
	// call before, 0 to 1, if that is known. Of what is idle without them copies take
	// a fifth at most: with so much to do as a processor has, requests wait in inverse
	// proportion to what it idles, so then they wait a quarter longer. It must not
	// block; calls come one at a time. nil: what the kernel tells, on Linux.
	Idle func() (part float64, known bool)
}

// ofIdle is what copies may take as a part of what is still idle beside them: a fifth of both together.
const ofIdle = 0.25

// leastPart is the default of PaceOptions.Least as a part of Share.
const leastPart = 10

// EnsureDefaults fills in the defaults.
func (o *PaceOptions) EnsureDefaults() {
	o.Share = cmp.Or(o.Share, 0.15)
	o.Least = cmp.Or(o.Least, o.Share/leastPart)
	if o.Waited == nil {
		o.Waited = newSchedulerWait().p99
	}
	if o.Idle == nil {
		o.Idle = newMachineIdle().part
	}
	o.Patience = cmp.Or(o.Patience, 10*time.Minute)
	o.WaitTarget = cmp.Or(o.WaitTarget, time.Millisecond)
}

// Validate says what is wrong with the options.
func (o *PaceOptions) Validate() error {
	switch {
	case !(o.Share > 0 && o.Share <= 1):
		return fmt.Errorf("share of %v of the processors is not above 0 and at most 1", o.Share)
	case !(o.Least > 0 && o.Least <= o.Share):
		return fmt.Errorf("least share of %v of the processors is not above 0 and at most the share of %v", o.Least, o.Share)
	case o.WaitTarget < 0 || o.Patience < 0:
		return fmt.Errorf("target of %v for waits or patience of %v is negative", o.WaitTarget, o.Patience)
	}
	return nil
}

const (
	// lookEvery is how long the answers of PaceOptions.Busy and Waited count.
	lookEvery = 100 * time.Millisecond
	// idleEvery is how long the answer of PaceOptions.Idle counts: the kernel counts in ticks of 10 ms. Of each
	// answer idleWeight counts at once.
	idleEvery  = 500 * time.Millisecond
	idleWeight = 0.3
	// leastPause is what is worth to sleep for; less is added to the next pause.
	leastPause = 200 * time.Microsecond
	// mostPause bounds one sleep, so that copies speed up soon after clients have gone.
	mostPause = 50 * time.Millisecond
	// growSteps is the number of looks in which the share comes back from 0.
	growSteps = 20
)

// Pace spreads the slices of all copies, and of other work that Turn is asked for, over
// time. How much they may take follows how long others wait for a processor: what is idle
// anyhow can be had, and what clients need is theirs but for PaceOptions.Least.
type Pace struct {
	o          PaceOptions
	processors float64

	mu    sync.Mutex
	asked time.Time
	// asking says that somebody waits for the answers: a process that stood still meanwhile has
	// others who find it time for the next.
	asking bool
	busy   bool
	share  float64   // of all processors, Least to Share
	free   time.Time // when what was used up to now is paid for

	idleAsked time.Time
	idle      float64 // a moving average; below 0: unknown
}

// NewPace checks the options.
func NewPace(o PaceOptions) (*Pace, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return newPace(o), nil
}

func newPace(o PaceOptions) *Pace {
	return &Pace{o: o, processors: float64(runtime.GOMAXPROCS(0)), share: o.Least, idle: -1}
}

// look asks how things are, now and then. A share that was not needed begins with
// the least one: clients who have just come are not to wait until it has shrunk.
func (p *Pace) look(now time.Time) {
	p.mu.Lock()
	due := !p.asking && now.Sub(p.asked) >= lookEvery
	idleDue := due && now.Sub(p.idleAsked) >= idleEvery
	if due {
		p.asking, p.asked = true, now
	}
	if idleDue {
		p.idleAsked = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	busy, waited := p.o.Busy(), p.o.Waited()
	var idle float64
	var known bool
	if idleDue {
		idle, known = p.o.Idle()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking = false
	p.busy = busy
	switch {
	case known && p.idle < 0:
		p.idle = idle
	case known:
		p.idle += idleWeight * (idle - p.idle)
	}
	switch {
	case !busy:
		p.share, p.free = p.o.Least, now
	case waited > p.o.WaitTarget:
		p.share = max(p.o.Least, p.share/2)
	default:
		p.share = min(p.o.Share, p.share+p.o.Share/growSteps)
	}
	if p.idle >= 0 {
		p.share = max(p.o.Least, min(p.share, ofIdle*p.idle))
	}
}

// used charges a slice that ended now, of a copy of this age, and returns until
// when the copy should pause; the zero time: not at all.
func (p *Pace) used(now time.Time, took, age time.Duration) time.Time {
	if p.o.Busy == nil {
		return time.Time{}
	}
	p.look(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.busy {
		return time.Time{}
	}
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(took) / (max(p.share, p.least(age)) * p.processors)))
	return p.free.Add(-took)
}

// least is the share that a copy of this age may take at least.
func (p *Pace) least(age time.Duration) float64 {
	return min(p.o.Share, p.o.Least*math.Exp2(float64(age/p.o.Patience)))
}

// rest is how long a copy that pauses until then should sleep before it asks
// again; 0 when it should go on.
func (p *Pace) rest(now, until time.Time) time.Duration {
	left := until.Sub(now)
	if until.IsZero() || left < leastPause {
		return 0
	}
	p.look(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.busy {
		return 0
	}
	return min(left, mostPause)
}

// taken is the part of all processors that copies may take now; 1 when nothing bounds it.
func (p *Pace) taken() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.busy {
		return 1
	}
	return p.share
}

// Slot is a running task's side of the long pool with all that a pace needs of it;
// *threadpool.Turn satisfies it.
type Slot interface {
	Turn
	// Sleep gives the slot away for so long.
	Sleep(d time.Duration) error
}

// PacedTurn is a turn whose slices keep a pace. It belongs to the goroutine that runs the task.
type PacedTurn struct {
	Slot
	pace  *Pace
	since time.Time // when the work was begun
	began time.Time // the present slice
	// hurry, if set, tells that the work has to be done now.
	hurry func() bool
	// pausing, if set, is told when a pause begins and ends, and resting after each part of one.
	pausing func(begins bool)
	resting func(now time.Time)
}

// Turn gives work that begins now a turn that keeps the pace, but while hurry, which
// must not block, says that there is no time for that. hurry may be nil.
func (p *Pace) Turn(slot Slot, hurry func() bool) *PacedTurn {
	now := time.Now()
	return &PacedTurn{Slot: slot, pace: p, since: now, began: now, hurry: hurry}
}

// Yield passes on, and pauses as the pace demands.
func (t *PacedTurn) Yield(ioBytes int) error {
	now := time.Now()
	if err := t.pause(now, t.used(now)); err != nil {
		return err
	}
	err := t.Slot.Yield(ioBytes)
	t.began = time.Now()
	return err
}

// Await passes on, and pauses afterwards as the pace demands.
func (t *PacedTurn) Await(ch <-chan struct{}) error { return t.awaitBy(t.Slot.Await, ch) }

// AwaitEnd passes on, as Await does.
func (t *PacedTurn) AwaitEnd(ch <-chan struct{}) error { return t.awaitBy(t.Slot.AwaitEnd, ch) }

func (t *PacedTurn) awaitBy(await func(<-chan struct{}) error, ch <-chan struct{}) error {
	until := t.used(time.Now())
	err := await(ch)
	if err == nil {
		err = t.pause(time.Now(), until)
	}
	t.began = time.Now()
	return err
}

// Sleep passes on. What was used before is paid for by the pauses that follow.
func (t *PacedTurn) Sleep(d time.Duration) error {
	t.used(time.Now())
	err := t.Slot.Sleep(d)
	t.began = time.Now()
	return err
}

func (t *PacedTurn) hurries() bool { return t.hurry != nil && t.hurry() }

func (t *PacedTurn) used(now time.Time) time.Time {
	if t.hurries() {
		return time.Time{}
	}
	return t.pace.used(now, now.Sub(t.began), now.Sub(t.since))
}

// pause sleeps until then, or until nobody needs it to.
func (t *PacedTurn) pause(now, until time.Time) error {
	rest := t.pace.rest(now, until)
	if rest == 0 {
		return nil
	}
	if t.pausing != nil {
		t.pausing(true)
		defer t.pausing(false)
	}
	for ; rest > 0 && !t.hurries(); rest = t.pace.rest(time.Now(), until) {
		if err := t.Slot.Sleep(rest); err != nil {
			return err
		}
		if t.resting != nil {
			t.resting(time.Now())
		}
	}
	return nil
}
