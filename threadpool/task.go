package threadpool

import (
	"context"
	"fmt"
	"time"
)

// Func is the body of a task. ctx is cancelled when the task is (Handle.Cancel, its Timeout, the submitter's
// context, Stop); it must not be used after Func returns. t is the task's side of the pool: a long task
// calls t.Yield between slices.
type Func func(ctx context.Context, t *Turn) error

// RetryFunc decides whether and when a failed task is started again. It must not block.
type RetryFunc func(err error) (after time.Duration, again bool)

// Task describes one piece of work. Only Run is required.
type Task struct {
	// Code is the name of the kind of task: metrics, limits and priority overrides go by it. Default "unnamed".
	Code string
	// Priority is the level, unless Pool.SetPriority overrides it for the code. Default Low.
	Priority Priority
	// Key serialises: tasks with the same key run one at a time, in the order of their submission, whatever their
	// codes. A waiting task lends its level to the one of its key that is ahead of it. Empty: no constraint.
	Key string
	// Coalesce makes a task stand for later submissions with the same Code and Key for as long as it waits to be
	// started, if those have Coalesce too. It moves to the highest of their levels and has the latest of their
	// deadlines; its body, context and Done stay its own.
	Coalesce bool
	// Deadline is the time by which the task must have started; after it the task is taken from the queue and Done
	// is given ErrDeadline. Zero: none.
	Deadline time.Time
	// Timeout bounds the time the task holds a slot or waits by its own choice (Sleep, Await); time spent waiting
	// for a slot or for I/O tokens does not count. Past it the task's context is cancelled and the task is
	// reported as stuck, once. 0: none.
	Timeout time.Duration
	// Slice overrides Options.Slice. 0: no override.
	Slice time.Duration
	// Run is the body.
	Run Func
	// Retry, if set, is asked after Run returned an error, unless the task was cancelled or the pool is closing: again
	// true keeps the task, with its key and place among its key's tasks, and starts it once more after the
	// given time with a fresh context. While it waits it holds neither slot nor goroutine.
	Retry RetryFunc
	// Done, if set, is called exactly once if Submit accepted the task: with what Run returned, or with why it never
	// ran. The context.Canceled of a task that ran past its Timeout is told as ErrTimeout, to Retry too. It is called before the task's key is released, must not block, and may call Submit.
	Done func(error)
}

// StuckTask is a report about a task that ran past its timeout.
type StuckTask struct {
	// ID, Code and Key are the task's.
	ID   uint64 `json:"id"`
	Code string `json:"code"`
	Key  string `json:"key,omitempty"`
	// Ran is how long the task has held a slot or waited by its own choice.
	Ran time.Duration `json:"ran"`
	// Stack is the stack of the task's goroutine; empty when very many tasks are stuck at different times.
	Stack string `json:"stack,omitempty"`
}

// unnamed is the code of tasks submitted without one.
const unnamed = "unnamed"

// validate checks the task's fields and fills those that are zero.
func (t *Task) validate() error {
	if t.Run == nil || t.Priority > High || t.Timeout|t.Slice < 0 {
		return t.invalid()
	}
	return nil
}

func (t *Task) invalid() error {
	switch {
	case t.Run == nil:
		return fmt.Errorf("%w: Run is nil", ErrInvalidTask)
	case t.Priority > High:
		return fmt.Errorf("%w: %s is out of range", ErrInvalidTask, t.Priority)
	case t.Timeout < 0:
		return fmt.Errorf("%w: Timeout %v is negative", ErrInvalidTask, t.Timeout)
	default:
		return fmt.Errorf("%w: Slice %v is negative", ErrInvalidTask, t.Slice)
	}
}
