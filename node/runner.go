package node

import (
	"context"
	"fmt"
	"sync/atomic"

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

// Run implements replica.Runner.
func (r *openRunner) Run(ctx context.Context, name string, f func(ctx context.Context) error) error {
	job, err := r.tasks.Submit(ctx, tasks.OpenReplica, name, func(ctx context.Context, _ *threadpool.Turn) error {
		return f(ctx)
	})
	if err != nil {
		return fmt.Errorf("queue the opening of %s: %w", name, err)
	}
	<-job.Done()
	r.phases.progress(int(r.done.Add(1)), r.total)
	return job.Err()
}

// guards are the long pool's rules against starvation as the options ask for them.
func (o *Options) guards() *threadpool.Guards {
	return &threadpool.Guards{MaxWait: max(0, o.MaxWait), LowShare: max(0, o.LowShare)}
}
