package threadpool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// The oracle is the rules of picking written down as simply as possible: it keeps a plain list of tasks and, at every
// step, works out from scratch who must be picked next and who must give way. The random test drives the core and
// the oracle through the same operations.

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

// rig drives both.
type rig struct {
	t    *testing.T
	rnd  *rand.Rand
	c    *core
	o    *oracle
	byE  map[*entry]*otask
	step int
	log  []string
	keys []string
	fail bool
	most int // tasks at a time
}

func newRig(t *testing.T, seed uint64, g Guards) *rig {
	r := &rig{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), c: new(core), byE: map[*entry]*otask{}}
	o := Options{Workers: 4, Guards: &g, MaxParked: 3, MaxQueued: Levels{1000, 1000, 1000}, NoTiming: true}
	o.EnsureDefaults()
	r.c.init(&o)
	r.o = &oracle{workers: 4, guards: g, maxParked: 3, limits: make([]CodeLimits, 5), slice: int64(o.Slice)}
	for i := range 5 {
		r.c.addCode(fmt.Sprint("code", i))
	}
	r.keys = []string{"", "k1", "k2", "k3"}
	return r
}

func (r *rig) note(format string, args ...any) {
	if len(r.log) > 60 {
		r.log = r.log[1:]
	}
	r.log = append(r.log, fmt.Sprintf("%d @%d: ", r.step, r.o.now)+fmt.Sprintf(format, args...))
}

func (r *rig) errorf(format string, args ...any) {
	if r.fail {
		return
	}
	r.fail = true
	for _, l := range r.log {
		r.t.Log(l)
	}
	r.t.Errorf("step %d at %d: %s", r.step, r.o.now, fmt.Sprintf(format, args...))
}

func (r *rig) random(want func(*otask) bool) *otask {
	if len(r.o.tasks) == 0 {
		return nil
	}
	at := r.rnd.IntN(len(r.o.tasks))
	for i := range r.o.tasks {
		if t := r.o.tasks[(at+i)%len(r.o.tasks)]; want(t) {
			return t
		}
	}
	return nil
}

func (r *rig) remove(t *otask) {
	for i, x := range r.o.tasks {
		if x == t {
			r.o.tasks = append(r.o.tasks[:i], r.o.tasks[i+1:]...)
			break
		}
	}
	delete(r.byE, t.e)
}

func (r *rig) submit() {
	if len(r.o.tasks) >= r.most {
		return
	}
	e := r.c.newEntry()
	code := r.rnd.IntN(5)
	e.code, e.base = r.c.codeList[code], Priority(r.rnd.IntN(3))
	key := 0
	if r.rnd.IntN(3) == 0 {
		key = 1 + r.rnd.IntN(3)
	}
	if r.rnd.IntN(10) == 0 {
		r.c.rare(e).deadline = r.o.now + 1 + r.rnd.Int64N(200e6)
	}
	r.c.submit(e, r.keys[key], r.o.now)
	t := &otask{e: e, seq: e.seq, base: e.base, code: code, key: key, since: r.o.now, deadline: e.deadline()}
	r.o.tasks = append(r.o.tasks, t)
	r.byE[e] = t
	r.note("submit %d code%d %s key %d", t.seq, code, t.base, key)
}

// elapse moves time on, stopping wherever the core asks to be woken.
func (r *rig) elapse(d int64) {
	end := r.o.now + d
	for {
		next := end
		for _, t := range r.o.tasks {
			if t.asleep {
				next = min(next, t.wakeAt)
			}
			if !t.started && t.deadline != 0 {
				next = min(next, t.deadline)
			}
			for k := int64(1); k <= 2 && r.o.guards.MaxWait > 0; k++ {
				if at := t.since + k*int64(r.o.guards.MaxWait); at > r.o.now {
					next = min(next, at)
				}
			}
		}
		if r.c.wake < next {
			next = max(r.c.wake, r.o.now)
		}
		r.o.now = next
		r.o.accrue()
		for _, t := range append([]*otask(nil), r.o.tasks...) {
			if !t.started && t.deadline != 0 && t.deadline <= next {
				r.remove(t)
			} else if t.asleep && t.wakeAt <= next {
				t.asleep, t.since = false, next
			}
		}
		if r.c.wake <= next {
			r.c.advance(next)
			for _, e := range r.c.expired {
				r.c.recycle(e)
			}
			r.c.expired = r.c.expired[:0]
		}
		r.fill()
		r.check()
		if next >= end || r.fail {
			return
		}
	}
}

// fill does what the pool does when slots are free.
func (r *rig) fill() {
	for r.c.hasRoom() && !r.fail {
		ch := r.c.choose(r.o.now)
		want, share, close := r.o.pick(nil)
		if !r.same(ch, want, share, close) {
			return
		}
		if ch.e == nil {
			return
		}
		t := r.byE[ch.e]
		eff := r.o.effective(t)
		t.running, t.started = true, true
		t.byShare = ch.reason == ReasonShare
		t.protectedUntil = 0
		if t.byShare || eff > r.o.level(t) {
			t.protectedUntil = r.o.now + r.o.slice
		}
		t.since = r.o.now
		r.c.take(ch, r.o.now)
		r.note("run %d (%s)", t.seq, ch.reason)
	}
}

func (r *rig) same(ch choice, want *otask, share, close bool) bool {
	switch {
	case ch.e == nil && want == nil:
		return true
	case ch.e == nil || want == nil:
		r.errorf("core picks %v, oracle %v", ch.e, want)
		return false
	case close && (ch.reason == ReasonShare) != share:
		return true
	case r.byE[ch.e] != want || ch.eff != r.o.effective(want) || (ch.reason == ReasonShare) != share:
		r.errorf("core picks %d at %s by %s, oracle %d at %s (share %v, credit %v and %v)", ch.e.seq, ch.eff, ch.reason, want.seq, r.o.effective(want), share, r.c.share.credit, r.o.credit)
		return false
	}
	return true
}

// check compares the whole state: counts, and that no running task which must give way is left in the dark.
func (r *rig) check() {
	c, n := r.c, r.o.count()
	if c.running != n.running || c.parked != n.parked || c.taken != n.taken || c.inQueue != n.inQueue || c.share.granted != n.granted {
		r.errorf("counts: running %v %v parked %v %v taken %d %d queued %v %v granted %d %d", c.running, n.running, c.parked, n.parked, c.taken, n.taken, c.inQueue, n.inQueue, c.share.granted, n.granted)
		return
	}
	urgent := c.urgent.Load()
	for _, t := range r.o.tasks {
		if !t.running {
			continue
		}
		if e := t.e; e.level() != r.o.level(t) {
			r.errorf("%d runs at %s, oracle says %s", t.seq, e.level(), r.o.level(t))
			return
		}
		want, share, close := r.o.pick(t)
		must := want != nil && (share && t.base != Low || !share && r.o.effective(want) > r.o.level(t))
		if must && !close && r.o.now >= t.protectedUntil && urgent&t.e.turn.watch.Load() == 0 {
			r.errorf("%d at %s is not told that %d at %s waits (urgent %b, watch %b)", t.seq, r.o.level(t), want.seq, r.o.effective(want), urgent, t.e.turn.watch.Load())
			return
		}
	}
}

func (r *rig) yield(t *otask) {
	now := r.o.now
	if r.c.wake <= now {
		r.c.advance(now)
	}
	over := r.c.taken > r.c.workers && r.c.lowestRunning() >= t.e.level()
	want, share, close := r.o.pick(t)
	must := want != nil && now >= t.protectedUntil && (share && t.base != Low || !share && r.o.effective(want) > r.o.level(t))
	if now >= t.protectedUntil && !over {
		if t.byShare {
			// The grant ends with its slice, and with it the threshold for the next.
			t.byShare = false
			want, share, close = r.o.pick(t)
			must = want != nil && (share && t.base != Low || !share && r.o.effective(want) > r.o.level(t))
		}
	}
	gives := r.c.shouldGive(t.e, now)
	if gives != (must || over) && !close {
		r.errorf("yield of %d: core says %v, oracle %v or %v", t.seq, gives, must, over)
		return
	}
	if gives {
		r.note("%d gives way", t.seq)
		r.c.park(t.e, stateReady, now)
		t.running, t.byShare, t.since = false, false, now
		r.fill()
		r.c.afterLeave(now)
	}
}

func (r *rig) operate() {
	now := r.o.now
	running := func(t *otask) bool { return t.running }
	switch op := r.rnd.IntN(100); {
	case op < 35:
		r.submit()
	case op < 55:
		if t := r.random(running); t != nil {
			r.note("finish %d", t.seq)
			r.c.finish(t.e, now, false)
			r.remove(t)
			r.c.recycle(t.e)
			r.fill()
			r.c.afterLeave(now)
		}
	case op < 70:
		if t := r.random(running); t != nil {
			r.yield(t)
		}
	case op < 75:
		if t := r.random(running); t != nil {
			r.note("sleep %d", t.seq)
			t.e.wakeAt = now + 1 + r.rnd.Int64N(50e6)
			t.running, t.byShare, t.asleep, t.wakeAt, t.since = false, false, true, t.e.wakeAt, now
			r.c.park(t.e, stateAsleep, now)
			r.fill()
			r.c.afterLeave(now)
		}
	case op < 80:
		if t := r.random(func(t *otask) bool { return !t.started }); t != nil {
			r.note("cancel %d", t.seq)
			r.remove(t)
			r.c.drop(t.e, now)
			r.c.recycle(t.e)
		}
	case op < 85:
		if t := r.random(func(*otask) bool { return true }); t != nil {
			to := Priority(r.rnd.IntN(3))
			r.note("move %d to %s", t.seq, to)
			t.base = to
			r.c.relevel(t.e, to, t.e.inherited, now)
			r.c.refreshUrgent(now)
		}
	case op < 92:
		r.change()
	}
	r.fill()
	if r.c.wake <= now {
		r.c.advance(now)
	}
	r.check()
}

// change is one of the changes at run time.
func (r *rig) change() {
	now := r.o.now
	switch r.rnd.IntN(6) {
	case 0:
		n := 1 + r.rnd.IntN(6)
		r.note("workers %d", n)
		r.c.accrue(now)
		r.c.workers, r.o.workers = n, n
	case 1:
		l, n := Priority(r.rnd.IntN(3)), r.rnd.IntN(4)
		r.note("level %s at most %d", l, n)
		r.c.maxRunning[l], r.o.maxRunning[l] = n, n
	case 2, 3:
		i := r.rnd.IntN(5)
		l := CodeLimits{MaxRunning: r.rnd.IntN(3), MaxStarted: r.rnd.IntN(3)}
		r.note("code%d %+v", i, l)
		r.o.limits[i] = l
		r.c.codeList[i].setLimits(l)
	case 4:
		g := r.o.guards
		g.CommonReserve, g.HighReserve = r.rnd.IntN(3), r.rnd.IntN(2)
		r.note("guards %+v", g)
		r.o.guards = g
		r.c.setGuards(g, now)
	case 5:
		g := r.o.guards
		if g.MaxWait > 0 {
			g.MaxWait = (1 + g.MaxWait/2) * 1
			if g.MaxWait < 1e6 {
				g.MaxWait = 64e6
			}
		}
		r.note("guards %+v", g)
		r.o.guards = g
		r.c.setGuards(g, now)
	}
	r.c.setGates()
	r.c.refreshUrgent(now)
}

func TestAgainstOracle(t *testing.T) {
	total := 50_000
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		total = 1_000_000
	}
	guards := []Guards{
		{},
		{MaxWait: 20e6},
		{LowShare: 0.1, CommonReserve: 1},
		{MaxWait: 50e6, LowShare: 0.05, CommonReserve: 1, HighReserve: 1},
	}
	const perRun = 500
	for run := range total / perRun {
		r := newRig(t, uint64(run), guards[run%len(guards)])
		if r.most = 14; run%16 < len(guards) {
			r.most = 40
		}
		for r.step = range perRun {
			r.operate()
			if !r.fail && r.rnd.IntN(2) == 0 {
				r.elapse(r.rnd.Int64N(8e6))
			}
			if r.fail {
				t.Fatalf("seed %d, guards %+v", run, guards[run%len(guards)])
			}
		}
	}
}
