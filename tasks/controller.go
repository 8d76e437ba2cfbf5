package tasks

import (
	"maps"
	"math"
	"sync"
	"time"

	"replicanode/threadpool"
)

// controller runs a policy on a runner's pool.
type controller struct {
	r *Runner
	o AdaptiveOptions

	mu        sync.Mutex
	policy    *policy
	source    func() Signals
	last      Signals
	decisions []AdaptiveDecision
	enabled   bool
	started   bool
	quit      chan struct{}
	ended     chan struct{}
	// before is what Low had when the controller first shrank it.
	before  threadpool.Settings
	shrunk  bool
	applied threadpool.Settings
}

const keptDecisions = 100

func newController(r *Runner, o AdaptiveOptions) *controller {
	c := &controller{r: r, o: o, source: o.Source, enabled: o.Enabled}
	c.policy = newPolicy(o, c, c.configured, c.decided)
	return c
}

// SetAdaptive turns the controller on or off. Off takes back everything it did.
func (r *Runner) SetAdaptive(on bool) {
	c := r.adaptive
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enabled == on {
		return
	}
	c.enabled = on
	c.gauge()
	r.log.Info("adaptive controller", "enabled", on)
	if !on {
		c.policy.reset(time.Now(), TurnedOff)
	}
}

// SetSignals sets what the controller measures with, in place of AdaptiveOptions.Source. source must not block; with nil all
// signals are missing.
func (r *Runner) SetSignals(source func() Signals) {
	c := r.adaptive
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = source
}

// AdaptiveStatus returns what the controller has in force.
func (r *Runner) AdaptiveStatus() AdaptiveStatus { return r.adaptive.status() }

func (c *controller) gauge() {
	v := 0.0
	if c.enabled {
		v = 1
	}
	c.r.metrics.adaptiveOn.Set(v)
}

func (c *controller) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = true
	c.gauge()
	c.quit, c.ended = make(chan struct{}), make(chan struct{})
	go c.run(c.quit, c.ended)
}

// stop ends the ticks and takes everything back.
func (c *controller) stop() {
	c.mu.Lock()
	if !c.started {
		c.mu.Unlock()
		return
	}
	c.started = false
	quit, ended := c.quit, c.ended
	c.mu.Unlock()
	close(quit)
	<-ended
	c.mu.Lock()
	c.policy.reset(time.Now(), TurnedOff)
	c.mu.Unlock()
}

func (c *controller) run(quit, ended chan struct{}) {
	defer close(ended)
	t := time.NewTicker(c.o.Tick)
	defer t.Stop()
	for {
		select {
		case <-quit:
			return
		case <-t.C:
			c.tick()
		}
	}
}

func (c *controller) tick() {
	c.mu.Lock()
	source, on := c.source, c.enabled
	c.mu.Unlock()
	if !on {
		return
	}
	var s Signals
	if source != nil {
		s = source()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.enabled {
		return
	}
	c.last = s
	c.policy.step(time.Now(), s)
}

func (c *controller) status() AdaptiveStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return AdaptiveStatus{
		Enabled: c.enabled, Signals: c.last, Levels: maps.Clone(c.policy.levels), Low: c.policy.low,
		Decisions: append([]AdaptiveDecision(nil), c.decisions...),
	}
}

func (c *controller) configured(code Code) (threadpool.Priority, bool) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	st := c.r.codes[code]
	if st == nil {
		return threadpool.Low, false
	}
	return st.spec.Priority, true
}

func (c *controller) decided(d AdaptiveDecision) {
	c.r.metrics.adaptions.WithLabelValues(d.Reason.String()).Inc()
	c.r.log.Info("adaptive decision", "reason", d.Reason.String(), "lever", d.Lever, "from", d.From, "to", d.To, "signal", d.Signal)
	if len(c.decisions) >= keptDecisions {
		c.decisions = append(c.decisions[:0], c.decisions[1:]...)
	}
	c.decisions = append(c.decisions, d)
}

// moveLevel implements levers.
func (c *controller) moveLevel(code Code, to threadpool.Priority, back bool) {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.codes[code]
	st.lifted, st.isLifted = to, !back
	if err := r.install(st); err != nil {
		r.log.Error("adaptive level not set", "code", string(code), "error", err)
	}
}

// shrinkLow implements levers. What an operator changes meanwhile is kept: the controller puts back only what is still its own.
func (c *controller) shrinkLow(part float64) {
	pool := c.r.pool
	now := pool.Settings()
	if !c.shrunk {
		c.before, c.shrunk = now, true
	} else {
		if now.MaxRunning[threadpool.Low] != c.applied.MaxRunning[threadpool.Low] {
			c.before.MaxRunning[threadpool.Low] = now.MaxRunning[threadpool.Low]
		}
		if now.IO != c.applied.IO {
			c.before.IO = now.IO
		}
	}
	slots, io := c.before.MaxRunning[threadpool.Low], c.before.IO
	if slots > 0 && slots < c.before.Workers {
		// Low kept off a slot, and does with the slots that there are now.
		slots = min(slots, max(1, now.Workers-1))
	}
	if part < 1 {
		all := now.Workers
		if slots > 0 {
			all = min(all, slots)
		}
		slots = max(1, int(math.Round(part*float64(all))))
		rate := c.o.LowIORate
		if io.LowCap > 0 {
			rate = min(rate, io.LowCap)
		}
		io.LowCap = max(1, int64(part*float64(rate)))
	} else {
		c.shrunk = false
	}
	if err := pool.SetMaxRunning(threadpool.Low, slots); err != nil {
		c.r.log.Error("adaptive slots not set", "error", err)
	}
	if err := pool.SetIORate(io); err != nil {
		c.r.log.Error("adaptive I/O rate not set", "error", err)
	}
	c.applied = pool.Settings()
}
