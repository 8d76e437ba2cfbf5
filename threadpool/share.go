package threadpool

// shareAccount keeps Low's guaranteed share of slot time. While Low work waits for a slot, or holds slots that others wait
// for, credit grows by LowShare of all slots and shrinks by the slots Low holds; it is never driven below zero while no
// one else waits. Low is due when it is owed a whole slice for each slot it has already been granted this way: that keeps
// strict priority undisturbed by short bursts of higher levels, and spreads the share evenly.
type shareAccount struct {
	// credit is in nanoseconds of slot time, at is when it was last brought up to date.
	credit float64
	at     int64
	// granted counts running tasks that were picked for the share and are in their first slice.
	granted int
}

// maxShareDebt bounds, in nanoseconds, how long one task that does not yield can suspend the share.
const maxShareDebt = 60e9

// accrue brings the credit up to now. Callers do so before they change what is running or in a queue.
func (c *core) accrue(now int64) {
	if c.inQueue[Low]|c.running[Low] == 0 {
		c.share.at = now
		return
	}
	c.accrueLow(now)
}

func (c *core) accrueLow(now int64) {
	s := &c.share
	dt := float64(now - s.at)
	s.at = now
	if dt <= 0 || c.guards.LowShare == 0 {
		return
	}
	rate, counts := c.shareRate()
	if !counts {
		return
	}
	credit := s.credit + dt*rate
	if rate < 0 && !c.wanted() {
		credit = max(credit, min(s.credit, 0))
	}
	s.credit = max(-maxShareDebt, min(credit, float64(c.slice)*float64(2+s.granted)))
}

// wanted says whether anything above Low waits for a slot.
func (c *core) wanted() bool { return c.inQueue[Common]+c.inQueue[High] > 0 }

// shareRate is how fast the credit changes, in slots, and whether it does.
func (c *core) shareRate() (float64, bool) {
	waits := c.inQueue[Low] > 0 && c.taken >= c.workers
	if !waits && !(c.wanted() && (c.inQueue[Low] > 0 || c.running[Low] > 0)) {
		return 0, false
	}
	return c.guards.LowShare*float64(c.workers) - float64(c.running[Low]), true
}

// shareDue says whether a Low task is to be picked before all others now.
func (c *core) shareDue(now int64) bool {
	if c.guards.LowShare == 0 {
		return false
	}
	c.accrue(now)
	return c.share.credit >= c.shareThreshold()
}

func (c *core) shareThreshold() float64 { return float64(c.slice) * float64(1+c.share.granted) }

// shareDueAt is when shareDue becomes true if nothing changes: now if it is, never if it will not.
func (c *core) shareDueAt(now int64) int64 {
	if c.guards.LowShare == 0 || c.inQueue[Low] == 0 {
		return never
	}
	missing := c.shareThreshold() - c.share.credit
	if missing <= 0 {
		return now
	}
	rate, counts := c.shareRate()
	if !counts || rate <= 0 {
		return never
	}
	return now + int64(missing/rate) + 1
}

// planShare sees to it that advance is called when the share becomes due. Callers do so after they have changed what is
// running or in a queue, with the credit up to date.
func (c *core) planShare(now int64) {
	if c.inQueue[Low] > 0 && c.guards.LowShare > 0 {
		c.planLow(now)
	}
}

func (c *core) planLow(now int64) {
	if at := c.shareDueAt(now); at > now || c.urgent.Load()&(1<<High) == 0 {
		c.wakeBy(at)
	}
}
