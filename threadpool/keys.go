package threadpool

// keyChain serialises the tasks of one key. The holder is in a queue, running or parked; the others wait behind it
// in order of submission. A waiting follower lends its effective level to the holder, so that an urgent task is
// not stuck behind a leisurely one of its key.
type keyChain struct {
	name       string
	holder     *entry
	head, tail *entry
	// followers counts the entries behind the holder by their effective level.
	followers Levels
	length    int
	next      *keyChain
}

// twinKey finds the waiting task that stands for later ones.
type twinKey struct {
	code *code
	key  string
}

// joinKey makes e the holder of its key, or puts it behind the others. It reports whether e is the holder.
func (c *core) joinKey(e *entry, name string, now int64) bool {
	k := c.keys[name]
	if k == nil {
		k = c.newKey(name)
		c.keys[name] = k
		k.holder, e.key = e, k
		return true
	}
	e.key = k
	e.state, e.place = stateChained, placeChain
	e.prev, e.next = k.tail, nil
	if k.tail == nil {
		k.head = e
	} else {
		k.tail.next = e
	}
	k.tail = e
	k.length++
	e.heapLevel = e.base
	k.followers[e.heapLevel]++
	c.setTimer(e)
	c.lend(k, now)
	return false
}

// unchain takes a follower out of its chain.
func (c *core) unchain(e *entry, now int64) {
	k := e.key
	if e.prev == nil {
		k.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		k.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.next, e.prev = nil, nil
	e.place = placeNone
	k.length--
	k.followers[e.heapLevel]--
	c.lend(k, now)
}

// leaveKey releases e's key. If e held it, the next in line takes its place and enters a queue.
func (c *core) leaveKey(e *entry, now int64) {
	k := e.key
	e.key = nil
	if k.holder != e {
		return
	}
	k.holder = nil
	n := k.head
	if n == nil {
		delete(c.keys, k.name)
		if c.freeKeysCount < maxFree {
			k.name, k.next = "", c.freeKeys
			c.freeKeys = k
			c.freeKeysCount++
		}
		return
	}
	c.unchain(n, now)
	k.holder = n
	n.state = stateQueued
	n.inherited = k.lent()
	c.enqueue(n, now)
}

// lent is the highest level among the followers.
func (k *keyChain) lent() Priority {
	for l := High; l > Low; l-- {
		if k.followers[l] > 0 {
			return l
		}
	}
	return Low
}

// lend brings the holder's inherited level up to date.
func (c *core) lend(k *keyChain, now int64) {
	if h := k.holder; h != nil && h.inherited != k.lent() {
		if k.lent() > h.inherited && k.lent() > h.base {
			h.code.counts.inherited++
		}
		c.relevel(h, h.base, k.lent(), now)
	}
}

// relevel changes an entry's base and inherited levels wherever the entry is.
func (c *core) relevel(e *entry, base, inherited Priority, now int64) {
	if e.base == base && e.inherited == inherited {
		return
	}
	c.accrue(now)
	switch {
	case e.state == stateQueued || e.state == stateReady:
		e.aged = c.agedBy(e.since, now)
		c.dequeue(e, now)
		c.moveCounts(e, base)
		e.inherited = inherited
		c.enqueue(e, now)
	case e.state == stateChained:
		e.aged = c.agedBy(e.since, now)
		c.moveCounts(e, base)
		c.rechain(e, now)
	case e.state == stateRunning:
		c.moveCounts(e, base)
		e.inherited = inherited
		c.setWatch(e)
	case e.state == stateThrottled:
		was := e.level()
		c.moveCounts(e, base)
		e.inherited = inherited
		if e.level() > was {
			// What it has charged stays charged, but it is not the one to wait for it any more.
			c.budget.forget(e)
			c.makeReady(e, now)
		}
	default:
		c.moveCounts(e, base)
		e.inherited = inherited
	}
}

// moveCounts moves e from its base level's counts to another's.
func (c *core) moveCounts(e *entry, base Priority) {
	if e.base == base {
		return
	}
	count := &c.queued
	switch {
	case e.state == stateRunning:
		count = &c.running
		e.code.runningAt[e.base]--
		e.code.runningAt[base]++
	case e.state.parked():
		count = &c.parked
	}
	count[e.base]--
	count[base]++
	e.base, e.queue = base, &e.code.queues[base]
	e.moved = true
}

// rechain recounts a follower after its effective level may have changed.
func (c *core) rechain(e *entry, now int64) {
	eff := e.effective()
	if eff != e.heapLevel {
		e.key.followers[e.heapLevel]--
		e.key.followers[eff]++
		e.heapLevel = eff
		c.lend(e.key, now)
	}
	c.setTimer(e)
}

func (c *core) newKey(name string) *keyChain {
	k := c.freeKeys
	if k == nil {
		k = new(keyChain)
	} else {
		c.freeKeys = k.next
		c.freeKeysCount--
	}
	*k = keyChain{name: name}
	return k
}

func (c *core) dropTwin(e *entry) {
	e.coalesce = false
	k := twinKey{code: e.code}
	if e.key != nil {
		k.key = e.key.name
	}
	delete(c.twins, k)
}
