package threadpool

import (
	"math"
	"sync/atomic"
)

// core is the pool without goroutines, locks and clocks: a state machine that is told what happened and when, in
// nanoseconds since the pool was made, and says what to do. Its caller holds the pool's lock around every call.
type core struct {
	// What every task touches comes first, on few cache lines.
	seq        uint64
	free       *entry
	freeCount  int
	freeFrames *frame
	frameCount int
	// waiting is the sum of inQueue, taken that of running; starting are slots promised to workers that have not yet asked for
	// their first task.
	waiting, taken, starting int
	// Counts by base level: entries in a queue, to be started (wherever), holding a slot, parked.
	inQueue, queued, running, parked Levels
	// wake is the earliest time at which advance has something to do; it may be early, never late.
	wake     int64
	lastCode *code
	share    shareAccount
	urgent   atomic.Uint32
	// bounded says of each level whether a limit or reserve may keep it from a free slot.
	bounded [levels]bool
	// reopened is set by leave for afterLeave.
	reopened bool
	closed   bool
	// fresh says that the pool's last look at the clock is good enough for who waits anyway; advance, which is called within a
	// millisecond of that look, takes it back.
	fresh     bool
	workers   int
	active    []*queue
	decisions ring
	observe   func(event)

	// What can be changed at run time.
	guards      Guards
	maxRunning  Levels
	lowSlots    int
	commonSlots int

	// What is set at the start.
	pool      *Pool
	slice     int64
	maxParked int
	maxQueued Levels
	maxCodes  int
	noTiming  bool
	fullLevel [levels]*QueueFullError

	// Tasks.
	freeExtras *extras
	// extrasCount is the length of the list of freeExtras, at most maxFree.
	extrasCount int
	// frames are all there are, in use or not: what is started is found through them.
	frames   []*frame
	codes    map[string]*code
	codeList []*code
	keys     map[string]*keyChain
	freeKeys *keyChain
	// freeKeysCount is the length of the list of freeKeys.
	freeKeysCount int
	twins         map[twinKey]*entry
	timers        timerHeap
	budget        budget

	// What the caller must do outside its lock.
	expired []*entry
	stuck   []*entry
}

const never = math.MaxInt64

func (c *core) init(o *Options) {
	*c = core{
		slice: int64(o.Slice), maxParked: o.MaxParked, maxQueued: o.MaxQueued, maxCodes: o.MaxCodes, noTiming: o.NoTiming,
		workers: o.Workers, guards: *o.Guards, maxRunning: o.MaxRunning,
		codes: map[string]*code{}, keys: map[string]*keyChain{}, twins: map[twinKey]*entry{},
		wake: never,
	}
	for l := range c.fullLevel {
		c.fullLevel[l] = &QueueFullError{Priority: Priority(l), Limit: o.MaxQueued[l]}
	}
	for name, l := range o.Codes {
		c.codeNamed(name).setLimits(l)
	}
	c.decisions.init(o.Decisions)
	c.budget.set(o.IO, 0)
	c.setGates()
}

// setGates works out how many slots the reserves leave.
func (c *core) setGates() {
	c.commonSlots, c.lowSlots = math.MaxInt, math.MaxInt
	if n := c.guards.HighReserve; n > 0 {
		c.commonSlots = max(1, c.workers-n)
	}
	if n := c.guards.HighReserve + c.guards.CommonReserve; n > 0 {
		c.lowSlots = max(1, c.workers-n)
	}
	for l := range c.bounded {
		c.bounded[l] = c.maxRunning[l] > 0 || l < int(High) && c.commonSlots < math.MaxInt || l == int(Low) && c.lowSlots < math.MaxInt
	}
	var bits uint32 = bitCanceled
	if c.budget.limited() {
		bits |= bitBudget
	}
	if c.taken > c.workers {
		bits |= bitShrink
	}
	c.urgent.Store(c.urgent.Load()&urgentLevels | bits)
}

// admit checks the bounds for one more waiting task of a code and level.
func (c *core) admit(cd *code, p Priority) error {
	if c.queued[p] >= c.maxQueued[p] {
		cd.counts.rejected++
		return c.fullLevel[p]
	}
	if cd.limits.MaxQueued > 0 && cd.queued >= cd.limits.MaxQueued {
		cd.counts.rejected++
		return &QueueFullError{Code: cd.name, Priority: p, Limit: cd.limits.MaxQueued}
	}
	return nil
}

// submit takes in a new task. The caller has filled e's code, base, run, done, deadline, timeout and slice.
func (c *core) submit(e *entry, key string, now int64) {
	c.seq++
	e.seq, e.since = c.seq, now
	cd, l := e.code, e.base
	e.queue = &cd.queues[l]
	e.queue.stats.submitted++
	cd.queued++
	c.queued[l]++
	if e.coalesce {
		c.twins[twinKey{cd, key}] = e
	}
	c.note(eventSubmit, e, now)
	if key == "" || c.joinKey(e, key, now) {
		e.state = stateQueued
		c.enqueue(e, now)
	}
}

// enqueue puts e, whose state is stateQueued or stateReady, where choose finds it.
func (c *core) enqueue(e *entry, now int64) {
	c.accrue(now)
	cd, l := e.code, e.base
	q := e.queue
	if q.active < 0 {
		q.active = len(c.active)
		c.active = append(c.active, q)
	}
	eff := e.effective()
	if q.inOrder(e, eff) {
		q.append(e)
	} else {
		q.pushLate(e, eff)
	}
	c.inQueue[l]++
	c.waiting++
	switch {
	case e.place != placeList:
		c.setTimer(e)
	case e.extras != nil:
		c.setTimer(e)
		fallthrough
	default:
		if q.head == e {
			c.planHead(q, now)
		}
	}
	if cd.openAfter(High) {
		c.raise(eff)
	}
	c.planShare(now)
}

// dequeue takes e out of its queue.
func (c *core) dequeue(e *entry, now int64) {
	c.accrue(now)
	l := e.base
	q := e.queue
	wasHead := q.head == e
	if e.place == placeList {
		q.unlist(e)
	} else {
		q.removeLate(e)
	}
	e.place = placeNone
	if wasHead && now-e.since >= int64(c.guards.MaxWait) {
		// The next head may age before e would have aged again. Had e not aged at all, its time would be the earlier one.
		c.planHead(q, now)
	}
	c.inQueue[l]--
	c.waiting--
	if q.head == nil && q.late == 0 {
		last := len(c.active) - 1
		c.active[q.active] = c.active[last]
		c.active[q.active].active = q.active
		c.active[last] = nil
		c.active = c.active[:last]
		q.active = -1
	}
	c.clearTimer(e)
	if c.waiting == 0 {
		if u := c.urgent.Load(); u&urgentLevels != 0 {
			c.urgent.Store(u &^ urgentLevels)
		}
	}
}

// take gives e, just chosen from its queue, a slot.
func (c *core) take(ch choice, now int64) {
	e := ch.e
	cd, l, f := e.code, e.base, e.frame
	resumed := e.state == stateReady
	c.decide(ch, now)
	c.dequeue(e, now)
	waited := now - e.since
	if resumed {
		c.parked[l]--
	} else {
		c.queued[l]--
		cd.queued--
		cd.started++
		if f == nil {
			f = c.open(e)
		}
		if e.coalesce {
			c.dropTwin(e)
		}
		st := &e.queue.stats
		st.started++
		if st.wait != nil {
			st.wait.record(waited)
		}
	}
	e.state = stateRunning
	e.aged = 0
	f.resumedAt, e.since = now, now
	c.running[l]++
	c.taken++
	cd.running++
	cd.runningAt[l]++
	e.byShare = ch.reason == ReasonShare
	f.protectUntil = 0
	if e.byShare || ch.eff > e.level() {
		f.protectUntil = after(now, c.sliceOf(e))
	}
	if e.byShare {
		c.share.granted++
		cd.counts.shared++
	}
	c.planShare(now)
	c.setWatch(e)
	if e.extras != nil {
		c.setTimer(e)
	}
	if resumed && c.parked[l] == c.maxParked-1 && c.waiting > 0 {
		// Tasks of the level that the bound on parked ones held back may be more urgent than this one.
		c.refreshUrgent(now)
	}
	if c.observe != nil {
		kind := eventStart
		if resumed {
			kind = eventResume
		}
		c.observe(event{kind: kind, e: e, at: now, reason: ch.reason, eff: ch.eff})
	}
}

// leave takes the slot from e, which goes on to be parked or finished.
func (c *core) leave(e *entry, now int64) {
	c.accrue(now)
	cd, l, f := e.code, e.base, e.frame
	c.running[l]--
	c.taken--
	cd.running--
	cd.runningAt[l]--
	f.ran += now - f.resumedAt
	if e.byShare {
		e.byShare = false
		c.share.granted--
	}
	c.clearTimer(e)
	if c.bounded[l] || e.key != nil || cd.limited {
		c.reopened = c.reopened || c.reopens(e)
	}
	c.planShare(now)
	if u := c.urgent.Load(); u&bitShrink != 0 && c.taken <= c.workers {
		c.urgent.Store(u &^ bitShrink)
	}
}

// park takes the slot from e and leaves it in the given parked state.
func (c *core) park(e *entry, to state, now int64) {
	c.leave(e, now)
	c.parked[e.base]++
	e.parks++
	e.since = now
	e.state = to
	if c.observe != nil {
		c.observe(event{kind: eventPark, e: e, at: now})
	}
	if to == stateReady {
		c.enqueue(e, now)
		return
	}
	c.setTimer(e)
}

// makeReady puts a parked entry in line for a slot.
func (c *core) makeReady(e *entry, now int64) {
	if e.state != stateThrottled {
		e.own += now - e.since
	}
	c.clearTimer(e)
	e.state, e.since, e.aged = stateReady, now, 0
	c.note(eventReady, e, now)
	c.enqueue(e, now)
}

// finish ends a running entry: it is linked nowhere afterwards.
func (c *core) finish(e *entry, now int64, failed bool) {
	c.leave(e, now)
	cd := e.code
	st := &e.queue.stats
	st.finished++
	if failed {
		st.failed++
	}
	if st.run != nil {
		st.run.record(e.ran)
	}
	cd.started--
	c.note(eventFinish, e, now)
	if e.key != nil {
		c.leaveKey(e, now)
	}
}

// again ends a running entry's attempt and keeps the entry, with its key, to be started once more after d.
func (c *core) again(e *entry, d, now int64) {
	c.leave(e, now)
	if st := &e.queue.stats; st.run != nil {
		st.run.record(e.ran)
	}
	e.code.started--
	e.code.counts.retries++
	e.attempts++
	e.ran, e.own, e.since = 0, 0, now
	e.timedOut = false
	if e.extras != nil {
		e.extras.deadline = 0
	}
	e.state = stateRetrying
	e.wakeAt = after(now, max(d, 0))
	e.code.queued++
	c.queued[e.base]++
	c.note(eventRetry, e, now)
	c.setTimer(e)
}

// drop removes an entry that has not started.
func (c *core) drop(e *entry, now int64) {
	switch e.state {
	case stateQueued:
		c.dequeue(e, now)
	case stateChained:
		c.unchain(e, now)
	}
	c.clearTimer(e)
	c.queued[e.base]--
	e.code.queued--
	if e.coalesce {
		c.dropTwin(e)
	}
	if e.key != nil {
		c.leaveKey(e, now)
	}
	e.state = stateFree
	c.note(eventDrop, e, now)
}

func (c *core) sliceOf(e *entry) int64 {
	if e.extras != nil && e.extras.slice > 0 {
		return e.extras.slice
	}
	return c.slice
}

// afterLeave keeps what running tasks see in Yield true once the slot that a task has left was given on: the limit, reserve
// or key that the task held may have let go of more than the slot took.
func (c *core) afterLeave(now int64) {
	if c.reopened && c.waiting > 0 {
		c.refreshUrgent(now)
	}
	c.reopened = false
}

// reopens says whether e, which has just left its slot, held back others by more than the slot: a bound is met no more, or
// would not be if one more running task gave way.
func (c *core) reopens(e *entry) bool {
	l := e.base
	if e.key != nil || e.code.limited {
		return true
	}
	freed := func(n, bound int) bool { return bound > 0 && (n == bound || n == bound-1) }
	return freed(c.running[l], c.maxRunning[l]) ||
		l < High && freed(c.running[Low]+c.running[Common], c.commonSlots) || l == Low && freed(c.running[Low], c.lowSlots)
}

// hasRoom says whether a slot is neither taken nor promised.
func (c *core) hasRoom() bool { return c.taken+c.starting < c.workers }
