package threadpool

import (
	"context"
	"errors"
	"fmt"
)

// What Submit, Turn and Task.Done report. Test with errors.Is.
var (
	// ErrQueueFull is returned by Submit when a queue is at its bound. The error is a *QueueFullError.
	ErrQueueFull = errors.New("threadpool: queue full")
	// ErrClosed is returned by Submit once Stop or Drain was called, and given to tasks that Stop turned away.
	ErrClosed = errors.New("threadpool: closed")
	// ErrDeadline is given to a task that was not started by its Deadline.
	ErrDeadline = errors.New("threadpool: not started before its deadline")
	// ErrTimeout is the cancellation cause of a task that ran past its Timeout. It is a context.DeadlineExceeded.
	ErrTimeout = fmt.Errorf("threadpool: ran past its timeout: %w", context.DeadlineExceeded)
	// ErrCanceled is given to a task that Handle.Cancel removed before it started, and is the cancellation
	// cause of a running one. It is a context.Canceled.
	ErrCanceled = fmt.Errorf("threadpool: task was cancelled: %w", context.Canceled)
	// ErrCoalesced is returned by Submit, with the twin's Handle, when a waiting task with the same code and
	// key already stands for the submitted one.
	ErrCoalesced = errors.New("threadpool: coalesced with a waiting twin")
	// ErrTooManyCodes is returned by Submit for a new code beyond Options.MaxCodes.
	ErrTooManyCodes = errors.New("threadpool: too many task codes")
	// ErrInvalidTask is returned by Submit for a task without Run or with a field out of range.
	ErrInvalidTask = errors.New("threadpool: invalid task")
	// ErrPanic is matched by the *PanicError given to a task that panicked.
	ErrPanic = errors.New("threadpool: task panicked")
	// ErrGoexit is given to a task that ended its goroutine with runtime.Goexit.
	ErrGoexit = errors.New("threadpool: task called runtime.Goexit")
	// ErrNotRunning is returned by Sleep and Await of a Turn that is used after its task returned, and by Yield when it has
	// something to look at.
	ErrNotRunning = errors.New("threadpool: turn used outside its task")
)

// errStopped is the cancellation cause of tasks that run when Stop is called.
var errStopped = fmt.Errorf("%w: %w", ErrClosed, context.Canceled)

// QueueFullError says which bound a submission met.
type QueueFullError struct {
	// Code is the code whose own bound was met, empty when it was the level's.
	Code string
	// Priority is the level of the task.
	Priority Priority
	// Limit is the bound.
	Limit int
}

// Error implements error.
func (e *QueueFullError) Error() string {
	if e.Code != "" {
		return fmt.Sprintf("threadpool: queue of code %s full (%d tasks)", e.Code, e.Limit)
	}
	return fmt.Sprintf("threadpool: queue of level %s full (%d tasks)", e.Priority, e.Limit)
}

// Is makes errors.Is(err, ErrQueueFull) true.
func (e *QueueFullError) Is(target error) bool { return target == ErrQueueFull }

// PanicError carries what a task panicked with.
type PanicError struct {
	// Code is the task's code.
	Code string
	// Value is the argument of panic.
	Value any
	// Stack is the goroutine's stack at the panic.
	Stack []byte
}

// Error implements error.
func (e *PanicError) Error() string {
	return fmt.Sprintf("threadpool: task %s panicked: %v", e.Code, e.Value)
}

// Is makes errors.Is(err, ErrPanic) true.
func (e *PanicError) Is(target error) bool { return target == ErrPanic }

// Unwrap returns the panic's value when it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// StopError is returned by Stop and Drain when their context ended before the last task did.
type StopError struct {
	// Running, Parked and Queued count the tasks that were left.
	Running, Parked, Queued int
	// Cause is the error of the context.
	Cause error
}

// Error implements error.
func (e *StopError) Error() string {
	return fmt.Sprintf("threadpool: %d running, %d parked and %d queued tasks left: %v", e.Running, e.Parked, e.Queued, e.Cause)
}

// Unwrap returns the error of the context.
func (e *StopError) Unwrap() error { return e.Cause }
