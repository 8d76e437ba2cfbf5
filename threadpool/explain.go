package threadpool

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explanation is what the pool is doing and why, as values, as JSON and, by String, as one line.
type Explanation struct {
	At       time.Time `json:"at"`
	Workers  int       `json:"workers"`
	Settings Settings  `json:"settings"`
	// Running are the tasks that hold a slot, longest first.
	Running []RunningTask `json:"running"`
	// Waiting are tasks that hold none: to be started, or parked. The next to run come first. At most the asked-for number
	// is listed; WaitingTotal counts all.
	Waiting      []WaitingTask `json:"waiting"`
	WaitingTotal int           `json:"waiting_total"`
	// Next is what a slot freed now would go to, nil when nothing is runnable.
	Next *NextPick `json:"next,omitempty"`
	// LowCredit is the slot time Low is owed, negative when it has had more than its share.
	LowCredit time.Duration `json:"low_credit_ns"`
	// Decisions are the last picks, oldest first.
	Decisions []Decision `json:"decisions"`
}

// RunningTask is a task that holds a slot.
type RunningTask struct {
	ID        uint64   `json:"id"`
	Code      string   `json:"code"`
	Key       string   `json:"key,omitempty"`
	Priority  Priority `json:"priority"`
	Effective Priority `json:"effective"`
	Cause     Cause    `json:"cause"`
	// For is the time since it last got a slot, Ran all its slot time.
	For time.Duration `json:"for_ns"`
	Ran time.Duration `json:"ran_ns"`
	// Parks is how often it has given its slot away.
	Parks uint32 `json:"parks"`
	// Cancelled is set when it has been asked to stop.
	Cancelled bool `json:"cancelled,omitempty"`
}

// WaitingTask is a task that holds no slot.
type WaitingTask struct {
	ID        uint64   `json:"id"`
	Code      string   `json:"code"`
	Key       string   `json:"key,omitempty"`
	Priority  Priority `json:"priority"`
	Effective Priority `json:"effective"`
	Cause     Cause    `json:"cause"`
	// Parked tells a task that has started from one that has not.
	Parked bool `json:"parked"`
	// Since is when this wait began, For how long ago.
	Since time.Time     `json:"since"`
	For   time.Duration `json:"for_ns"`
	// Blocker is what it waits for.
	Blocker Blocker `json:"blocker"`
}

// NextPick is what would be picked now, and why.
type NextPick struct {
	ID        uint64   `json:"id"`
	Code      string   `json:"code"`
	Key       string   `json:"key,omitempty"`
	Effective Priority `json:"effective"`
	Cause     Cause    `json:"cause"`
	Reason    Reason   `json:"reason"`
}

// Explain returns what the pool is doing and why, with at most limit waiting tasks and limit decisions.
// 0 or less: 100.
func (p *Pool) Explain(limit int) Explanation {
	if limit <= 0 {
		limit = 100
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	c := &p.c
	c.accrue(now)
	x := Explanation{
		At: p.wall(now), Workers: c.workers, LowCredit: time.Duration(c.share.credit),
		Settings: c.settings(), Running: []RunningTask{}, Waiting: []WaitingTask{},
		Decisions: p.lastDecisions(limit),
	}
	ch := c.choose(now)
	if ch.e != nil {
		x.Next = &NextPick{ID: ch.e.seq, Code: ch.e.code.name, Key: ch.e.keyName(), Effective: ch.eff, Cause: ch.e.causeOf(ch.eff), Reason: ch.reason}
	}
	for l := range c.queued {
		x.WaitingTotal += c.queued[l] + c.parked[l]
	}
	c.live(func(e *entry) bool {
		if e.state == stateRunning {
			x.Running = append(x.Running, c.runningTask(e, now))
		}
		return true
	})
	slices.SortFunc(x.Running, func(a, b RunningTask) int { return cmp.Or(cmp.Compare(b.For, a.For), cmp.Compare(a.ID, b.ID)) })
	for _, e := range p.someWaiting(limit) {
		x.Waiting = append(x.Waiting, p.waitingTask(e, ch, now))
	}
	slices.SortFunc(x.Waiting, func(a, b WaitingTask) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Effective, a.Effective), cmp.Compare(a.ID, b.ID))
	})
	if len(x.Waiting) > limit {
		x.Waiting = x.Waiting[:limit]
	}
	return x
}

// rank puts tasks that only lack a slot before those that something else holds back.
func rank(t WaitingTask) int {
	switch t.Blocker {
	case BlockedNot:
		return 0
	case BlockedSlot:
		return 1
	default:
		return 2
	}
}

// someWaiting collects up to limit entries from each place where entries wait.
func (p *Pool) someWaiting(limit int) []*entry {
	c := &p.c
	var out []*entry
	for _, q := range c.active {
		n := 0
		q.each(func(e *entry) bool {
			if e.state == stateQueued {
				out = append(out, e)
				n++
			}
			return n < limit
		})
	}
	n := 0
	c.live(func(e *entry) bool {
		if e.state.parked() {
			out = append(out, e)
			n++
		}
		return n < limit
	})
	n = 0
	for _, k := range c.keys {
		for e := k.head; e != nil && n < limit; e = e.next {
			out = append(out, e)
			n++
		}
		if n >= limit {
			break
		}
	}
	for i, n := 0, 0; i < len(c.timers) && n < limit; i++ {
		if c.timers[i].e.state == stateRetrying {
			out = append(out, c.timers[i].e)
			n++
		}
	}
	return out
}

func (c *core) runningTask(e *entry, now int64) RunningTask {
	eff := e.level()
	return RunningTask{
		ID: e.seq, Code: e.code.name, Key: e.keyName(), Priority: e.base, Effective: eff, Cause: e.causeOf(eff),
		For: time.Duration(now - e.resumedAt), Ran: time.Duration(e.ran + now - e.resumedAt), Parks: e.parks, Cancelled: e.cause != nil,
	}
}

func (p *Pool) waitingTask(e *entry, next choice, now int64) WaitingTask {
	eff := e.effective()
	if e.place == placeList {
		eff = min(High, e.base+Priority(p.c.agedBy(e.since, now)))
	}
	return WaitingTask{
		ID: e.seq, Code: e.code.name, Key: e.keyName(), Priority: e.base, Effective: eff, Cause: e.causeOf(eff),
		Parked: e.state.parked(), Since: p.wall(e.since), For: time.Duration(now - e.since), Blocker: p.blocker(e, next),
	}
}

// blocker says what keeps e from running.
func (p *Pool) blocker(e *entry, next choice) Blocker {
	c := &p.c
	switch e.state {
	case stateChained:
		return BlockedKey
	case stateRetrying:
		return BlockedRetry
	case stateAsleep:
		return BlockedSleep
	case stateAwaiting:
		return BlockedAwait
	case stateThrottled:
		return BlockedBudget
	}
	q := e.queue
	fresh := e.state == stateQueued
	switch {
	case !p.started:
		return BlockedPaused
	case !e.code.open(), fresh && e.code.limits.MaxStarted > 0 && e.code.started >= e.code.limits.MaxStarted:
		return BlockedCode
	case fresh && !c.startable(q):
		return BlockedParked
	case c.maxRunning[e.base] > 0 && c.running[e.base] >= c.maxRunning[e.base]:
		return BlockedLevel
	case c.taken < c.workers && !c.levelOpen(e.base):
		return BlockedReserve
	case e == next.e && c.hasRoom():
		return BlockedNot
	default:
		return BlockedSlot
	}
}

func (e *entry) keyName() string {
	if e.key == nil {
		return ""
	}
	return e.key.name
}

func (p *Pool) wall(at int64) time.Time { return p.clock.epoch.Add(time.Duration(at)) }

// lastDecisions copies up to limit of the last decisions, oldest first.
func (p *Pool) lastDecisions(limit int) []Decision {
	r := &p.c.decisions
	kept := r.next
	if r.full {
		kept = len(r.all)
	}
	n := min(limit, kept)
	out := make([]Decision, 0, n)
	for i := range n {
		at := (r.next - n + i + len(r.all)) % len(r.all)
		d, key := &r.all[at], ""
		if d.keyed {
			key = r.keys[at]
		}
		out = append(out, Decision{
			At: p.wall(d.at), ID: d.seq, Code: d.code.name, Key: key, Priority: d.base, Effective: d.eff, Cause: d.cause,
			Reason: d.reason, Others: int(d.others), Resumed: d.resumed, Waited: time.Duration(d.waited),
		})
	}
	return out
}

// String is the explanation in one line.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d slots taken", len(x.Running), x.Workers)
	for i, r := range x.Running {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more", len(x.Running)-i)
			break
		}
		fmt.Fprintf(&b, "; %s runs for %v at %s", taskName(r.Code, r.Key, r.ID), r.For, r.Effective)
		if r.Cause != CauseSubmitted {
			fmt.Fprintf(&b, " (%s)", r.Cause)
		}
	}
	fmt.Fprintf(&b, "; %d waiting", x.WaitingTotal)
	if len(x.Waiting) > 0 {
		w := x.Waiting[0]
		fmt.Fprintf(&b, ", first %s for %v at %s, blocked by %s", taskName(w.Code, w.Key, w.ID), w.For, w.Effective, w.Blocker)
	}
	if n := x.Next; n != nil {
		fmt.Fprintf(&b, "; next %s at %s (%s) by %s", taskName(n.Code, n.Key, n.ID), n.Effective, n.Cause, n.Reason)
	} else {
		b.WriteString("; nothing to pick")
	}
	return b.String()
}

// taskName is what a line calls a task. A key that begins with the code says it already.
func taskName(code, key string, id uint64) string {
	switch {
	case key == "":
		return fmt.Sprintf("%s#%d", code, id)
	case strings.HasPrefix(key, code):
		return fmt.Sprintf("%s#%d", key, id)
	}
	return fmt.Sprintf("%s[%s]#%d", code, key, id)
}
