package threadpool

import (
	"fmt"
	"time"
)

// Model is the pool's rules without goroutines and clocks: it is told what happens and when, and says which task gets
// a slot. It is the very code that a Pool decides with, for simulations and for tests of policies. Times are durations since the
// model's beginning and must not go back. A Model is not safe for concurrent use.
//
// A driver calls Advance at or after the time Wake names, Next until it says no after every change, and, for each running
// task, Yield after each slice and Finish at its end.
type Model struct {
	c     core
	tasks map[uint64]*entry
}

// ModelTask is a task in a Model.
type ModelTask struct {
	// Code, Priority and Key are as in Task.
	Code     string
	Priority Priority
	Key      string
}

// ModelStart is a slot given to a task.
type ModelStart struct {
	ID        uint64
	Code      string
	Effective Priority
	Reason    Reason
	// Resumed tells a parked task's return from a start. Waited is how long it waited for this.
	Resumed bool
	Waited  time.Duration
}

// NewModel returns a model of a pool with the given options. Callbacks, logging and profiling options have no effect.
func NewModel(o Options) (*Model, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &Model{tasks: map[uint64]*entry{}}
	m.c.init(&o)
	return m, nil
}

// Submit queues a task and returns its number.
func (m *Model) Submit(now time.Duration, t ModelTask) (uint64, error) {
	c := &m.c
	if t.Priority > High {
		return 0, fmt.Errorf("%w: %s is out of range", ErrInvalidTask, t.Priority)
	}
	cd := c.codeNamed(t.Code)
	if cd == nil {
		return 0, ErrTooManyCodes
	}
	base := t.Priority
	if cd.overridden {
		base = cd.override
	}
	if err := c.admit(cd, base); err != nil {
		return 0, err
	}
	e := c.newEntry()
	e.code, e.base = cd, base
	c.submit(e, t.Key, int64(now))
	m.tasks[e.seq] = e
	return e.seq, nil
}

// Next gives a free slot to the task that is to have it. It reports false when no slot is free or no task can run.
func (m *Model) Next(now time.Duration) (ModelStart, bool) {
	c := &m.c
	if !c.hasRoom() || c.waiting == 0 {
		c.afterLeave(int64(now))
		return ModelStart{}, false
	}
	ch := c.choose(int64(now))
	if ch.e == nil {
		c.afterLeave(int64(now))
		return ModelStart{}, false
	}
	s := ModelStart{
		ID: ch.e.seq, Code: ch.e.code.name, Effective: ch.eff, Reason: ch.reason,
		Resumed: ch.e.state == stateReady, Waited: now - time.Duration(ch.e.since),
	}
	c.take(ch, int64(now))
	return s, true
}

// Yield is Turn.Yield of a running task: it reports whether the task has given its slot away.
func (m *Model) Yield(now time.Duration, id uint64, ioBytes int64) bool {
	c, e := &m.c, m.tasks[id]
	if e == nil || e.state != stateRunning {
		return false
	}
	switch {
	case ioBytes > 0 && c.budget.charge(e, ioBytes, int64(now)):
		e.code.counts.throttled++
		c.park(e, stateThrottled, int64(now))
		c.wakeBy(c.budget.nextAt(int64(now)))
	case c.urgent.Load()&e.turn.watch.Load() != 0 && c.shouldGive(e, int64(now)):
		e.code.counts.gaveWay++
		c.park(e, stateReady, int64(now))
	default:
		return false
	}
	return true
}

// Finish ends a running task.
func (m *Model) Finish(now time.Duration, id uint64) {
	e := m.tasks[id]
	if e == nil || e.state != stateRunning {
		return
	}
	delete(m.tasks, id)
	m.c.finish(e, int64(now), false)
	m.c.recycle(e)
}

// Wake is when Advance must next be called; false: not for any reason now known.
func (m *Model) Wake() (time.Duration, bool) {
	return time.Duration(m.c.wake), m.c.wake != never
}

// Advance does what time alone does: aging, the end of waits for I/O tokens, Low's share.
func (m *Model) Advance(now time.Duration) {
	if m.c.wake <= int64(now) {
		m.c.advance(int64(now))
	}
}

// Waiting is the number of tasks that hold no slot.
func (m *Model) Waiting() int { return len(m.tasks) - m.c.taken }
