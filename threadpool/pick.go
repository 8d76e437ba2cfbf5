package threadpool

// Bits of core.urgent. The first three say, per level of a running task, that something more urgent waits which could
// use its slot. They may be set needlessly (a Yield then looks and clears them), never clear needlessly.
const (
	urgentLevels uint32 = 1<<levels - 1
	bitBudget    uint32 = 1 << 8
	bitShrink    uint32 = 1 << 9
	bitCanceled  uint32 = 1 << 31
)

// choice is the task that gets the next slot and why.
type choice struct {
	e      *entry
	eff    Priority
	reason Reason
}

// levelOpen says whether limits and reserves leave a slot for a base level.
func (c *core) levelOpen(p Priority) bool {
	if !c.bounded[p] {
		return true
	}
	if m := c.maxRunning[p]; m > 0 && c.running[p] >= m {
		return false
	}
	switch p {
	case High:
		return true
	case Common:
		return c.running[Low]+c.running[Common] < c.commonSlots
	default:
		return c.running[Low] < c.lowSlots && c.running[Low]+c.running[Common] < c.commonSlots
	}
}

// levelOpenAfter says whether they do once a running task of level l, whose base level may be lower, has given its slot away.
func (c *core) levelOpenAfter(p, l Priority) bool {
	if c.levelOpen(p) {
		return true
	}
	for b := Low; b <= l; b++ {
		if c.running[b] == 0 {
			continue
		}
		c.running[b]--
		open := c.levelOpen(p)
		c.running[b]++
		if open {
			return true
		}
	}
	return false
}

// startable says whether tasks of the queue that have not started may, as far as bounds on started ones go.
func (c *core) startable(q *queue) bool {
	return c.parked[q.base] < c.maxParked && (q.code.limits.MaxStarted == 0 || q.code.started < q.code.limits.MaxStarted)
}

// agedBy is the number of levels that waiting since then has added.
func (c *core) agedBy(since, now int64) uint8 {
	m := int64(c.guards.MaxWait)
	switch waited := now - since; {
	case m == 0 || waited < m:
		return 0
	case waited < 2*m:
		return 1
	default:
		return 2
	}
}

// search is the state of one scan of the queues.
type search struct {
	best, low choice
	rivals    int
}

func (s *search) consider(e *entry, eff Priority) {
	if e.base == Low && (s.low.e == nil || eff > s.low.eff || eff == s.low.eff && e.seq < s.low.e.seq) {
		s.low.e, s.low.eff = e, eff
	}
	switch {
	case s.best.e == nil || eff > s.best.eff:
		s.best.e, s.best.eff = e, eff
		s.rivals = 0
	case eff == s.best.eff:
		s.rivals++
		if e.seq < s.best.e.seq {
			s.best.e = e
		}
	}
}

// choose returns the task that a slot freed now goes to: the highest effective level, the earliest arrival within it,
// unless Low is owed its share. It looks at one or a few entries per code and level, however long the queues are.
func (c *core) choose(now int64) choice {
	if len(c.active) == 1 && c.active[0].late == 0 {
		return c.chooseHead(c.active[0], now)
	}
	return c.chooseAmong(now)
}

// chooseAmong is choose for when it must look at all queues.
func (c *core) chooseAmong(now int64) choice {
	var s search
	for _, q := range c.active {
		if !q.code.open() || !c.levelOpen(q.base) {
			continue
		}
		start := c.startable(q)
		if e := q.head; e != nil && start {
			s.consider(e, min(High, q.base+Priority(c.agedBy(e.since, now))))
		}
		if q.late == 0 {
			continue
		}
		for l := Low; l <= High; l++ {
			if e := q.ready[l].top(); e != nil {
				s.consider(e, l)
			}
			if e := q.fresh[l].top(); e != nil && start {
				s.consider(e, l)
			}
		}
	}
	if s.best.e == nil {
		return choice{}
	}
	if s.low.e != nil && s.best.e.base != Low && c.shareDue(now) {
		s.low.reason = ReasonShare
		return s.low
	}
	s.best.reason = c.reason(&s)
	return s.best
}

// chooseHead is choose for when nothing waits outside the list of one queue, as is the case with one code on one level.
func (c *core) chooseHead(q *queue, now int64) choice {
	if !q.code.open() || !c.levelOpen(q.base) || !c.startable(q) {
		return choice{}
	}
	ch := choice{e: q.head, eff: min(High, q.base+Priority(c.agedBy(q.head.since, now))), reason: ReasonArrival}
	if c.waiting == 1 {
		ch.reason = ReasonAlone
	}
	return ch
}

func (c *core) reason(s *search) Reason {
	e := s.best.e
	switch {
	case c.waiting == 1:
		return ReasonAlone
	case s.rivals > 0 || e.place == placeList && e.next != nil:
		return ReasonArrival
	default:
		return ReasonPriority
	}
}

// chooseOver is choose as if the running task e had just given its slot away, which it should for the result:
// something more urgent, or Low's share. The result is empty if e should go on.
func (c *core) chooseOver(e *entry, now int64) choice {
	if c.waiting == 0 {
		return choice{}
	}
	c.accrue(now)
	c.running[e.base]--
	e.code.running--
	ch := c.choose(now)
	c.running[e.base]++
	e.code.running++
	if ch.e != nil && ch.eff <= e.level() && (ch.reason != ReasonShare || e.base == Low) {
		return choice{}
	}
	return ch
}

// raise tells running tasks below a level that something of that level waits.
func (c *core) raise(p Priority) {
	bits := uint32(1)<<p - 1
	if u := c.urgent.Load(); u&bits != bits {
		c.urgent.Store(u | bits)
	}
}

// setWatch sets which bits of core.urgent a running entry looks at.
func (c *core) setWatch(e *entry) {
	w := uint32(1)<<e.level() | bitShrink
	if e.level() < High {
		w |= bitBudget
	}
	if e.cause != nil {
		w |= bitCanceled
	}
	if e.turn.watch.Load() != w {
		e.turn.watch.Store(w)
	}
}

// refreshUrgent recomputes the level bits of core.urgent.
func (c *core) refreshUrgent(now int64) {
	var bits uint32
	if c.waiting > 0 {
		due := c.inQueue[Low] > 0 && c.shareDue(now)
		for l := Low; l <= High; l++ {
			if c.wantedFrom(l, due, now) {
				bits |= 1 << l
			}
		}
	}
	u := c.urgent.Load()
	if u&urgentLevels != bits {
		c.urgent.Store(u&^urgentLevels | bits)
	}
}

// wantedFrom says whether something waits for which a running task of level l should give its slot away.
func (c *core) wantedFrom(l Priority, shareDue bool, now int64) bool {
	for _, q := range c.active {
		if !q.code.openAfter(l) || !c.levelOpenAfter(q.base, l) {
			continue
		}
		if shareDue && q.base == Low && l > Low {
			return true
		}
		start := c.startable(q)
		if e := q.head; e != nil && start && min(High, q.base+Priority(c.agedBy(e.since, now))) > l {
			return true
		}
		for t := l + 1; q.late > 0 && t <= High; t++ {
			if len(q.ready[t]) > 0 || start && len(q.fresh[t]) > 0 {
				return true
			}
		}
	}
	return false
}
