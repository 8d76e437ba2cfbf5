package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// newRunner starts a pool and a runner on it for an example; stop ends both.
func newRunner(o tasks.Options) (r *tasks.Runner, stop func()) {
	ctx := context.Background()
	pool, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	if err := pool.Start(ctx); err != nil {
		panic(err)
	}
	o.Pool = pool
	if r, err = tasks.New(o); err != nil {
		panic(err)
	}
	if err := r.Start(ctx); err != nil {
		panic(err)
	}
	return r, func() {
		if err := errors.Join(r.Stop(ctx), pool.Stop(ctx)); err != nil {
			fmt.Println(err)
		}
	}
}

// Codes are data: a spec each, with its level, limits and retries.
func Example() {
	r, stop := newRunner(tasks.Options{Specs: []tasks.Spec{
		{Code: "compact", Help: "merge small files", Priority: threadpool.Low, MaxRunning: 1, Timeout: time.Minute},
		{Code: "ship", Help: "send the log", Priority: threadpool.Common},
	}})
	defer stop()
	ctx := context.Background()
	job, err := r.Submit(ctx, "ship", "partition 7", func(_ context.Context, t *threadpool.Turn) error {
		fmt.Println("shipping")
		return t.Yield(64 << 10)
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(job.Wait(ctx))
	_, err = r.Submit(ctx, "defragment", "", nil)
	fmt.Println(errors.Is(err, tasks.ErrUnknownCode))
	// Output:
	// shipping
	// <nil>
	// true
}

// What is retried, how soon and how often goes by the kind of error.
func ExampleMark() {
	r, stop := newRunner(tasks.Options{Specs: []tasks.Spec{{
		Code:  "ship",
		Retry: tasks.RetryPolicy{Busy: tasks.Backoff{Initial: time.Millisecond, MaxAttempts: 5}},
	}}})
	defer stop()
	ctx := context.Background()
	job, err := r.Submit(ctx, "ship", "", func(_ context.Context, t *threadpool.Turn) error {
		fmt.Println("attempt", t.Attempt())
		if t.Attempt() < 3 {
			return tasks.Mark(tasks.Busy, errors.New("remote takes nothing now"))
		}
		return tasks.Mark(tasks.Permanent, errors.New("remote has another schema"))
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(job.Wait(ctx))
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// remote has another schema
}

// A periodic task never overlaps itself; triggers that come while it runs make one more run.
func ExampleRunner_Every() {
	r, stop := newRunner(tasks.Options{})
	defer stop()
	begun, goOn := make(chan struct{}), make(chan struct{})
	stat, err := r.Every(tasks.DiskStat, "", func(context.Context, *threadpool.Turn) error {
		begun <- struct{}{}
		<-goOn
		return nil
	})
	if err != nil {
		panic(err)
	}
	stat.Trigger()
	<-begun
	for range 3 {
		stat.Trigger()
	}
	goOn <- struct{}{}
	<-begun
	fmt.Println("once more")
	goOn <- struct{}{}
	stat.Stop()
	// Output: once more
}

// Every field can be changed while the node runs, for tasks that wait already too. Changes of one call are all made or none.
func ExampleRunner_Apply() {
	r, stop := newRunner(tasks.Options{})
	defer stop()
	var changes []tasks.Override
	for _, s := range []string{"load_private_log=high", "load_private_log.max_running=4", "checkpoint.retry.busy.max_attempts=9"} {
		o, err := tasks.ParseOverride(s)
		if err != nil {
			panic(err)
		}
		changes = append(changes, o)
	}
	fmt.Println(r.Apply(changes...))
	fmt.Println(r.Apply(tasks.Override{Code: tasks.Checkpoint, Field: "jitter", Value: "2"}))
	for _, s := range r.Specs() {
		if s.Code == tasks.LoadPrivateLog {
			fmt.Println(s.Priority, s.MaxRunning)
		}
	}
	// Output:
	// <nil>
	// override checkpoint.jitter=2: task checkpoint: jitter 2 is not within 0 and 1
	// high 4
}

// The controller acts on what it is shown, and takes everything back when it is turned off.
func ExampleRunner_SetAdaptive() {
	acted := make(chan struct{}, 1)
	r, stop := newRunner(tasks.Options{Adaptive: tasks.AdaptiveOptions{Tick: 10 * time.Millisecond}})
	defer stop()
	asked := 0
	r.SetSignals(func() tasks.Signals {
		// The tick after the second one that saw the lag sees what was decided.
		if asked++; asked == 4 {
			acted <- struct{}{}
		}
		return tasks.Signals{Lag: tasks.Measured(9, time.Now()), LagLimit: tasks.LimitScheduling}
	})
	r.SetAdaptive(true)
	<-acted
	s := r.AdaptiveStatus()
	fmt.Println(s.Levels[tasks.LoadPrivateLog], s.Decisions[0].Reason)
	r.SetAdaptive(false)
	fmt.Println(r.AdaptiveStatus())
	// Output:
	// high lag_over_target
	// adaptive off
}
