package threadpool

// shareAccount keeps Low's guaranteed share of slot time. While Low work waits, credit grows by LowShare of all
// slots; while Low work holds slots that others wait for, credit shrinks by the time it does. Low is due when it is owed
// a whole slice for each slot it has already been granted this way: that keeps strict priority undisturbed by short
// bursts of higher levels, and spreads the share evenly.
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
	s := &c.share
	dt := float64(now - s.at)
	s.at = now
	if dt <= 0 || c.guards.LowShare == 0 || c.inQueue[Low] == 0 && c.running[Low] == 0 {
		return
	}
	wanted := c.inQueue[Common]+c.inQueue[High] > 0
	if c.inQueue[Low] > 0 || wanted {
		s.credit += dt * c.guards.LowShare * float64(c.workers)
	}
	if wanted {
		s.credit -= dt * float64(c.running[Low])
	}
	s.credit = max(-maxShareDebt, min(s.credit, float64(c.slice)*float64(2+s.granted)))
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

// shareDueAt is when shareDue becomes true if nothing changes.
func (c *core) shareDueAt(now int64) int64 {
	if c.guards.LowShare == 0 || c.inQueue[Low] == 0 {
		return never
	}
	rate := c.guards.LowShare * float64(c.workers)
	if c.inQueue[Common]+c.inQueue[High] > 0 {
		rate -= float64(c.running[Low])
	}
	missing := c.shareThreshold() - c.share.credit
	switch {
	case missing <= 0:
		return never
	case rate <= 0:
		return never
	default:
		return now + int64(missing/rate) + 1
	}
}
