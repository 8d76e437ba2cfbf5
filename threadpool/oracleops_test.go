package threadpool

import (
	"os"
	"testing"
)

// submit is one of the operations, of which operate draws one after the other.
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
			g.MaxWait = 1 + g.MaxWait/2
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

// The core picks what the oracle picks, and nobody who must give way is left in the dark, whatever happens in whatever order.
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
