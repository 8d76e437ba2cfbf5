package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"replicanode/replica"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// openRunner opens replicas as tasks of the long pool and counts them as progress of the start-up phase.
type openRunner struct {
	tasks  *tasks.Runner
	phases *phases
	total  int
	done   atomic.Int64
}

// queueRetry is how soon an opening that found its queue full asks again.
const queueRetry = 5 * time.Millisecond

// Run implements replica.Runner. An opening that finds no room in its queue waits for it: a partition is never left out.
func (r *openRunner) Run(ctx context.Context, name string, f func(ctx context.Context) error) error {
	job, err := r.submit(ctx, name, f)
	if err != nil {
		return fmt.Errorf("queue the opening of %s: %w", name, err)
	}
	<-job.Done()
	// A partition that waits for disk space is opened more than once.
	r.phases.progress(min(int(r.done.Add(1)), r.total), r.total)
	if m := (*missing)(nil); errors.As(job.Err(), &m) {
		return m.err
	}
	return job.Err()
}

// missing is a *replica.MissingError in brief, for the task's log line: the partition's own tells all of it.
type missing struct{ err error }

func (m *missing) Error() string { return "its data has vanished" }

func (m *missing) Unwrap() error { return m.err }

func (r *openRunner) submit(ctx context.Context, name string, f func(ctx context.Context) error) (*tasks.Job, error) {
	for {
		job, err := r.tasks.Submit(ctx, tasks.OpenReplica, name, func(ctx context.Context, _ *threadpool.Turn) error {
			err := f(ctx)
			if errors.As(err, new(*replica.MissingError)) {
				return tasks.Mark(tasks.Permanent, &missing{err})
			}
			return err
		})
		if !errors.Is(err, threadpool.ErrQueueFull) {
			return job, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(queueRetry):
		}
	}
}

// guards are the long pool's rules against starvation as the options ask for them.
func (o *Options) guards() *threadpool.Guards {
	return &threadpool.Guards{MaxWait: max(0, o.MaxWait), LowShare: max(0, o.LowShare)}
}
