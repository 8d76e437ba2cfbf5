package threadpool

import "fmt"

// change runs f under the lock and lets its effects reach queued, parked and running tasks at once.
func (p *Pool) change(f func(c *core, now int64)) {
	p.mu.Lock()
	now := p.now()
	f(&p.c, now)
	p.c.setGates()
	p.c.refreshUrgent(now)
	p.unlock(now)
}

// SetWorkers changes the number of slots. More take effect at once; when fewer, running tasks finish or yield, lowest level
// first, until the number is met.
func (p *Pool) SetWorkers(n int) error {
	if err := validateWorkers(n); err != nil {
		return err
	}
	p.change(func(c *core, now int64) {
		c.accrue(now)
		c.workers = n
	})
	return nil
}

// SetGuards changes the guards, for waiting tasks too.
func (p *Pool) SetGuards(g Guards) error {
	if err := g.Validate(); err != nil {
		return err
	}
	p.change(func(c *core, now int64) { c.setGuards(g, now) })
	return nil
}

// SetMaxRunning changes how many slots tasks of a level may hold. 0: no bound.
func (p *Pool) SetMaxRunning(l Priority, n int) error {
	if l > High || n < 0 {
		return fmt.Errorf("set MaxRunning of level %s to %d: out of range", l, n)
	}
	p.change(func(c *core, _ int64) { c.maxRunning[l] = n })
	return nil
}

// SetCodeLimits changes the limits of a code, known or not yet seen. Tasks beyond a lowered limit keep what they have.
func (p *Pool) SetCodeLimits(name string, l CodeLimits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	return p.changeCode(name, func(_ *core, cd *code, _ int64) { cd.setLimits(l) })
}

// SetPriority gives all tasks of a code another level: queued, parked and running ones at once, later ones whatever
// they are submitted with, until ResetPriority.
func (p *Pool) SetPriority(name string, to Priority) error {
	if to > High {
		return fmt.Errorf("set priority of %s: %s is out of range", name, to)
	}
	return p.changeCode(name, func(c *core, cd *code, now int64) {
		cd.override, cd.overridden = to, true
		for _, e := range p.everyEntry() {
			if e.code == cd {
				c.relevel(e, to, e.inherited, now)
			}
		}
	})
}

// ResetPriority ends what SetPriority began, for tasks submitted from now on.
func (p *Pool) ResetPriority(name string) error {
	return p.changeCode(name, func(_ *core, cd *code, _ int64) { cd.overridden = false })
}

func (p *Pool) changeCode(name string, f func(c *core, cd *code, now int64)) error {
	if name == "" {
		name = unnamed
	}
	var err error
	p.change(func(c *core, now int64) {
		cd := c.codeNamed(name)
		if cd == nil {
			err = fmt.Errorf("code %s: %w", name, ErrTooManyCodes)
			return
		}
		f(c, cd, now)
	})
	return err
}

// SetIORate changes the I/O budget. What was charged stays charged; with an unlimited budget all who waited for it resume.
func (p *Pool) SetIORate(r IORate) error {
	r.EnsureDefaults()
	if err := r.Validate(); err != nil {
		return err
	}
	p.change(func(c *core, now int64) {
		c.budget.set(r, now)
		c.advance(now)
	})
	return nil
}

// setGuards changes the guards and recomputes the aging of everything that waits.
func (c *core) setGuards(g Guards, now int64) {
	c.accrue(now)
	if g.LowShare != c.guards.LowShare {
		c.share.credit, c.share.at = 0, now
	}
	aging := g.MaxWait != c.guards.MaxWait
	c.guards = g
	if aging {
		c.ageAll(now)
	}
	c.advance(now)
}

// ageAll recomputes the aging of all entries whose aging is kept by timers.
func (c *core) ageAll(now int64) {
	var late []*entry
	for _, q := range c.active {
		q.each(func(e *entry) bool {
			if e.place != placeList {
				late = append(late, e)
			}
			return true
		})
	}
	for _, e := range late {
		c.dequeue(e, now)
		e.aged = c.agedBy(e.since, now)
		c.enqueue(e, now)
	}
	for _, k := range c.keys {
		for e := k.head; e != nil; e = e.next {
			e.aged = c.agedBy(e.since, now)
			c.rechain(e, now)
		}
	}
}
