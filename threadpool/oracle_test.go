package threadpool

import "math"

// The oracle is the rules of picking written down as simply as possible: it keeps a plain list of tasks and, at every
// step, works out from scratch who must be picked next and who must give way.

// otask is a task as the oracle knows it.
type otask struct {
	e              *entry
	seq            uint64
	base           Priority
	code           int
	key            int // 0: none
	since          int64
	deadline       int64
	started        bool
	running        bool
	asleep         bool
	wakeAt         int64
	protectedUntil int64
	byShare        bool
}

type oracle struct {
	now        int64
	tasks      []*otask // in order of arrival
	workers    int
	guards     Guards
	maxRunning Levels
	maxParked  int
	limits     []CodeLimits
	slice      int64
	credit     float64
	at         int64
}

func (o *oracle) aged(t *otask) Priority {
	if o.guards.MaxWait == 0 {
		return t.base
	}
	steps := (o.now - t.since) / int64(o.guards.MaxWait)
	return min(High, t.base+Priority(min(steps, 2)))
}

// ahead finds the first unfinished task of t's key.
func (o *oracle) ahead(t *otask) *otask {
	for _, x := range o.tasks {
		if t.key != 0 && x.key == t.key {
			return x
		}
	}
	return t
}

// lent is the highest level that tasks of t's key behind t lend it.
func (o *oracle) lent(t *otask) Priority {
	lent := Low
	for _, x := range o.tasks {
		if t.key != 0 && x.key == t.key && x != t {
			lent = max(lent, o.aged(x))
		}
	}
	return lent
}

func (o *oracle) level(t *otask) Priority { return max(t.base, o.lent(t)) }

func (o *oracle) waits(t *otask) bool { return !t.running && !t.asleep && o.ahead(t) == t }

func (o *oracle) effective(t *otask) Priority { return max(o.aged(t), o.lent(t)) }

type ocounts struct {
	running, parked Levels
	taken           int
	codeRunning     []int
	codeStarted     []int
	inQueue         Levels
	granted         int
}

func (o *oracle) count() ocounts {
	c := ocounts{codeRunning: make([]int, len(o.limits)), codeStarted: make([]int, len(o.limits))}
	for _, t := range o.tasks {
		if t.running {
			c.running[t.base]++
			c.taken++
			c.codeRunning[t.code]++
			if t.byShare {
				c.granted++
			}
		} else if t.started {
			c.parked[t.base]++
		}
		if t.started {
			c.codeStarted[t.code]++
		}
		if o.waits(t) {
			c.inQueue[t.base]++
		}
	}
	return c
}

func (o *oracle) runnable(t *otask, c *ocounts) bool {
	if !o.waits(t) {
		return false
	}
	l := o.limits[t.code]
	if l.MaxRunning > 0 && c.codeRunning[t.code] >= l.MaxRunning {
		return false
	}
	if !t.started && (c.parked[t.base] >= o.maxParked || l.MaxStarted > 0 && c.codeStarted[t.code] >= l.MaxStarted) {
		return false
	}
	if o.maxRunning[t.base] > 0 && c.running[t.base] >= o.maxRunning[t.base] {
		return false
	}
	common, low := math.MaxInt, math.MaxInt
	if o.guards.HighReserve > 0 {
		common = max(1, o.workers-o.guards.HighReserve)
	}
	if n := o.guards.HighReserve + o.guards.CommonReserve; n > 0 {
		low = max(1, o.workers-n)
	}
	if t.base <= Common && c.running[Low]+c.running[Common] >= common {
		return false
	}
	return t.base != Low || c.running[Low] < low
}

// accrue integrates Low's credit over the time since the last operation, in which nothing changed.
func (o *oracle) accrue() {
	dt := float64(o.now - o.at)
	o.at = o.now
	if o.guards.LowShare == 0 || dt == 0 {
		return
	}
	c := o.count()
	wanted := c.inQueue[Common]+c.inQueue[High] > 0
	if !(c.inQueue[Low] > 0 && c.taken >= o.workers) && !(wanted && c.inQueue[Low]+c.running[Low] > 0) {
		return
	}
	rate := o.guards.LowShare*float64(o.workers) - float64(c.running[Low])
	credit := o.credit + dt*rate
	if rate < 0 && !wanted && credit < 0 {
		credit = min(o.credit, 0)
	}
	o.credit = math.Max(-maxShareDebt, math.Min(credit, float64(o.slice)*float64(2+c.granted)))
}

// pick says who must get the next slot, as if the task `without` had none.
func (o *oracle) pick(without *otask) (t *otask, share, close bool) {
	c := o.count()
	if without != nil {
		c.running[without.base]--
		c.codeRunning[without.code]--
	}
	var best, low *otask
	better := func(a, b *otask) bool {
		return b == nil || o.effective(a) > o.effective(b) || o.effective(a) == o.effective(b) && a.seq < b.seq
	}
	for _, t := range o.tasks {
		if !o.runnable(t, &c) {
			continue
		}
		if better(t, best) {
			best = t
		}
		if t.base == Low && better(t, low) {
			low = t
		}
	}
	threshold := float64(o.slice) * float64(1+c.granted)
	close = o.guards.LowShare > 0 && math.Abs(o.credit-threshold) < 1000
	if low != nil && best.base != Low && o.guards.LowShare > 0 && o.credit >= threshold {
		return low, true, close
	}
	return best, false, close
}
