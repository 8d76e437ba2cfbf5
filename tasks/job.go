package tasks

import (
	"context"
	"errors"
	"time"

	"replicanode/threadpool"
)

// Job is one submitted task with all its attempts.
type Job struct {
	r       *Runner
	code    *codeState
	key     string
	done    chan struct{}
	err     error
	handle  threadpool.Handle
	history retries
	// then is called once with the result, before done is closed.
	then func(error)
}

// Done is closed when the job has ended.
func (j *Job) Done() <-chan struct{} { return j.done }

// Err is the job's result: nil until Done is closed, then what its last attempt returned, or why it never ran.
func (j *Job) Err() error {
	select {
	case <-j.done:
		return j.err
	default:
		return nil
	}
}

// Wait waits for the end of the job, or of ctx, whose error it then returns; the job goes on.
func (j *Job) Wait(ctx context.Context) error {
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Cancel ends the job: at once if it waits for its first or next attempt, else through its context and Turn.
func (j *Job) Cancel() { j.handle.Cancel() }

// Code and Key are what the job was submitted under.
func (j *Job) Code() Code { return j.code.code }

// Key is the job's key.
func (j *Job) Key() string { return j.key }

// retry is the pool's question after a failed attempt.
func (j *Job) retry(err error) (time.Duration, bool) {
	kind := KindOf(err)
	r := j.r
	r.mu.Lock()
	defer r.mu.Unlock()
	j.code.metrics.failed(kind)
	j.code.attemptsFailed[kind]++
	after, again := j.history.next(&j.code.spec.Retry, kind, time.Now(), r.random.Float64)
	if again {
		j.code.retried++
		r.log.Warn("task failed, will be retried", "code", string(j.code.code), "key", j.key, "kind", kind.String(), "failures", j.history.failures, "after", after, "error", err)
	}
	return after, again
}

// finish is the pool's last word.
func (j *Job) finish(err error) {
	r := j.r
	r.mu.Lock()
	delete(r.jobs, j)
	st := j.code
	st.active--
	st.metrics.ended(err)
	if err == nil {
		st.done++
	} else {
		st.failed++
		st.lastError, st.lastErrorAt = err.Error(), time.Now()
	}
	r.mu.Unlock()
	if err != nil && (!errors.Is(err, context.Canceled) || errors.Is(err, threadpool.ErrTimeout)) && !errors.Is(err, threadpool.ErrClosed) {
		r.log.Warn("task failed for good", "code", string(st.code), "key", j.key, "failures", j.history.failures, "error", err)
	}
	j.err = err
	if j.then != nil {
		j.then(err)
	}
	close(j.done)
}
