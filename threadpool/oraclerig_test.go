package threadpool

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// rig drives the core and the oracle through the same operations and compares them after each.
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
