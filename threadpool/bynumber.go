package threadpool

import (
	"errors"
	"fmt"
)

// What CancelTask and MoveTask report of a number that no task in the pool has.
var (
	// ErrUnknownTask: no task has had this number yet.
	ErrUnknownTask = errors.New("threadpool: no task has had this number")
	// ErrTaskEnded: the task has ended.
	ErrTaskEnded = errors.New("threadpool: task has ended")
)

// FoundTask is a task that was found by its number, as it was before what was asked for was done.
type FoundTask struct {
	ID       uint64    `json:"id"`
	Code     string    `json:"code"`
	Key      string    `json:"key,omitempty"`
	State    TaskState `json:"state"`
	Priority Priority  `json:"priority"`
	// Cancelled is set when it had been asked to stop before.
	Cancelled bool `json:"cancelled,omitempty"`
}

// CancelTask is Handle.Cancel for who has only a task's number, from Explain for example. It looks at every task in the pool, at some
// 25 ns each, and nobody else does anything with the pool meanwhile. Errors match ErrUnknownTask or ErrTaskEnded.
func (p *Pool) CancelTask(id uint64) (FoundTask, error) {
	return p.atNumber(id, func(e *entry) { p.cancelAndUnlock(e, ErrCanceled) })
}

// MoveTask is Handle.SetPriority for who has only a task's number. It costs what CancelTask does. Errors are those of
// CancelTask, or match ErrInvalidTask when the level is out of range.
func (p *Pool) MoveTask(id uint64, to Priority) (FoundTask, error) {
	if to > High {
		return FoundTask{}, fmt.Errorf("%w: %s is out of range", ErrInvalidTask, to)
	}
	return p.atNumber(id, func(e *entry) { p.moveAndUnlock(e, to) })
}

// atNumber finds the task of that number and does something to it, which gives the lock back.
func (p *Pool) atNumber(id uint64, doAndUnlock func(*entry)) (FoundTask, error) {
	p.mu.Lock()
	e, err := p.numbered(id)
	if err != nil {
		p.mu.Unlock()
		return FoundTask{}, err
	}
	found := e.found()
	doAndUnlock(e)
	return found, nil
}

// numbered finds the task of that number. The caller holds the lock.
func (p *Pool) numbered(id uint64) (*entry, error) {
	if id == 0 || id > p.c.seq {
		return nil, fmt.Errorf("task %d: %w", id, ErrUnknownTask)
	}
	var found *entry
	p.c.each(func(e *entry) bool {
		if e.seq == id {
			found = e
		}
		return found == nil
	})
	if found == nil {
		return nil, fmt.Errorf("task %d: %w", id, ErrTaskEnded)
	}
	return found, nil
}

func (e *entry) found() FoundTask {
	f := FoundTask{ID: e.seq, Code: e.code.name, Key: e.keyName(), State: TaskQueued, Priority: e.base}
	switch {
	case e.state == stateRunning:
		f.State = TaskRunning
	case e.state.parked():
		f.State = TaskParked
	case e.state == stateRetrying:
		f.State = TaskRetrying
	}
	f.Cancelled = e.told()
	return f
}

// TaskState is where a task in the pool is.
type TaskState uint8

// The states.
const (
	// TaskQueued: waits to be started.
	TaskQueued TaskState = iota
	// TaskRunning: holds a slot.
	TaskRunning
	// TaskParked: has started and holds no slot.
	TaskParked
	// TaskRetrying: has failed and waits to be started again.
	TaskRetrying
)

var taskStateNames = [...]string{"queued", "running", "parked", "retrying"}

// String returns a stable name.
func (s TaskState) String() string { return name(taskStateNames[:], int(s)) }

// MarshalText implements encoding.TextMarshaler.
func (s TaskState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (s *TaskState) UnmarshalText(text []byte) error {
	i, err := named(taskStateNames[:], "task state", string(text))
	*s = TaskState(i)
	return err
}
