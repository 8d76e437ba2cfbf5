package threadpool

// setTimer sets the entry's one timer to the next thing that time will do to it in its present state.
func (c *core) setTimer(e *entry) {
	at := int64(never)
	switch e.state {
	case stateQueued, stateChained:
		if d := e.deadline(); d != 0 {
			at = d
		}
		if e.place != placeList {
			at = min(at, c.agesAt(e))
		}
	case stateReady:
		at = c.agesAt(e)
	case stateAsleep:
		at = min(e.wakeAt, c.timesOutAt(e))
	case stateAwaiting, stateRunning:
		at = c.timesOutAt(e)
	case stateRetrying:
		at = e.wakeAt
	}
	if at == never {
		c.clearTimer(e)
		return
	}
	if e.timerIdx < 0 {
		c.timers.push(timer{at, e})
	} else {
		c.timers[e.timerIdx].at = at
		c.timers.fix(int(e.timerIdx))
	}
	c.wakeBy(at)
}

func (c *core) clearTimer(e *entry) {
	if e.timerIdx >= 0 {
		c.timers.remove(int(e.timerIdx))
	}
}

// agesAt is when waiting next adds a level to e.
func (c *core) agesAt(e *entry) int64 {
	if c.guards.MaxWait == 0 || e.base+Priority(e.aged) >= High {
		return never
	}
	return e.since + int64(e.aged+1)*int64(c.guards.MaxWait)
}

// timesOutAt is when e will have run or waited by its own choice for its timeout.
func (c *core) timesOutAt(e *entry) int64 {
	timeout := e.timeout()
	if timeout == 0 || e.timedOut {
		return never
	}
	return after(e.since-e.ran-e.own, timeout)
}

// after is the time d after at, or the last time there is: what waits for that keeps its timer, by which Stop finds it.
func after(at, d int64) int64 {
	if d >= never-at {
		return never - 1
	}
	return at + d
}

func (c *core) wakeBy(at int64) { c.wake = min(c.wake, at) }

// advance does everything that is due by now and sets wake to the next time something will be.
func (c *core) advance(now int64) {
	c.fresh = false
	for len(c.timers) > 0 && c.timers[0].at <= now {
		c.fire(c.timers[0].e, now)
	}
	c.budget.release(c, now)
	c.wake = c.budget.nextAt(now)
	if len(c.timers) > 0 {
		c.wakeBy(c.timers[0].at)
	}
	c.accrue(now)
	if at := c.shareDueAt(now); at > now {
		c.wakeBy(at)
	}
	for _, q := range c.active {
		c.planHead(q, now)
	}
	c.refreshUrgent(now)
}

// planHead sees to it that advance is called when the head of an in-order list next ages.
func (c *core) planHead(q *queue, now int64) {
	m := int64(c.guards.MaxWait)
	if m == 0 || q.head == nil || q.base == High {
		return
	}
	at := q.head.since + m
	if at <= now && q.base == Low {
		at += m
	}
	if at > now {
		c.wakeBy(at)
	}
}

// fire does what e's timer stands for.
func (c *core) fire(e *entry, now int64) {
	switch e.state {
	case stateQueued, stateChained:
		if d := e.deadline(); d != 0 && d <= now {
			e.code.counts.expired++
			c.drop(e, now)
			c.expired = append(c.expired, e)
			return
		}
		c.age(e, now)
	case stateReady:
		c.age(e, now)
	case stateAsleep:
		if c.timesOutAt(e) <= now {
			c.timeOut(e)
		}
		if e.wakeAt <= now {
			c.makeReady(e, now)
			return
		}
		c.setTimer(e)
	case stateRetrying:
		c.clearTimer(e)
		e.state, e.since, e.aged = stateQueued, now, 0
		c.enqueue(e, now)
	default:
		c.clearTimer(e)
		c.timeOut(e)
	}
}

// age adds to e the levels its waiting has earned.
func (c *core) age(e *entry, now int64) {
	aged := c.agedBy(e.since, now)
	switch {
	case aged == e.aged:
		c.setTimer(e)
	case e.state == stateChained:
		e.aged = aged
		c.rechain(e, now)
	case e.effective() == max(min(High, e.base+Priority(aged)), e.inherited):
		e.aged = aged
		c.setTimer(e)
	default:
		c.dequeue(e, now)
		e.aged = aged
		c.enqueue(e, now)
		c.note(eventAge, e, now)
	}
}

// timeOut hands e over to be cancelled and reported.
func (c *core) timeOut(e *entry) {
	e.timedOut = true
	e.code.counts.timeouts++
	c.stuck = append(c.stuck, e)
}
