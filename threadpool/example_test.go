package threadpool_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"replicanode/threadpool"
)

// newPool starts a pool for an example.
func newPool(o threadpool.Options) *threadpool.Pool {
	p, err := threadpool.New(o)
	if err != nil {
		panic(err)
	}
	if err := p.Start(context.Background()); err != nil {
		panic(err)
	}
	return p
}

func stop(p *threadpool.Pool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		fmt.Println(err)
	}
}

func say(s string) threadpool.Func {
	return func(context.Context, *threadpool.Turn) error {
		fmt.Println(s)
		return nil
	}
}

// A pool takes tasks before it is started: here that shows the order it picks them in.
func Example() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for _, t := range []threadpool.Task{
		{Code: "disk_stat", Priority: threadpool.Low, Run: say("measure the disk")},
		{Code: "load_private_log", Priority: threadpool.Common, Run: say("load the log")},
		{Code: "open_replica", Priority: threadpool.High, Run: say("open a replica")},
	} {
		if _, err := p.Submit(ctx, t); err != nil {
			panic(err)
		}
	}
	if err := p.Start(ctx); err != nil {
		panic(err)
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// open a replica
	// load the log
	// measure the disk
}

// A long task yields between slices. When something more urgent waits, it gets the slot.
func ExampleTurn_Yield() {
	p := newPool(threadpool.Options{Workers: 1})
	ctx := context.Background()
	started, urgent := make(chan struct{}), make(chan struct{})
	long := func(_ context.Context, t *threadpool.Turn) error {
		close(started)
		<-urgent
		for part := range 2 {
			fmt.Println("part", part)
			if err := t.Yield(64 << 10); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := p.Submit(ctx, threadpool.Task{Code: "checkpoint", Run: long}); err != nil {
		panic(err)
	}
	<-started
	if _, err := p.Submit(ctx, threadpool.Task{Code: "load", Priority: threadpool.Common, Run: say("urgent")}); err != nil {
		panic(err)
	}
	close(urgent)
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// part 0
	// urgent
	// part 1
}

// A task that sleeps holds no slot.
func ExampleTurn_Sleep() {
	p := newPool(threadpool.Options{Workers: 1})
	ctx := context.Background()
	_, err := p.Submit(ctx, threadpool.Task{Code: "poll", Run: func(_ context.Context, t *threadpool.Turn) error {
		if err := t.Sleep(20 * time.Millisecond); err != nil {
			return err
		}
		fmt.Println("slept")
		return nil
	}})
	if err != nil {
		panic(err)
	}
	if err := p.Do(ctx, threadpool.Task{Code: "other", Run: say("ran meanwhile")}); err != nil {
		panic(err)
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// ran meanwhile
	// slept
}

// A throttled task is parked until the budget has paid for what it moved: here 128 KiB at 1 MiB/s, beyond a burst of 64 KiB.
func ExampleIORate() {
	p := newPool(threadpool.Options{Workers: 1, IO: threadpool.IORate{BytesPerSecond: 1 << 20, Burst: 64 << 10, LowFloor: 0.5}})
	began := time.Now()
	err := p.Do(context.Background(), threadpool.Task{Code: "checkpoint", Run: func(_ context.Context, t *threadpool.Turn) error {
		for range 2 {
			if err := t.Yield(64 << 10); err != nil {
				return err
			}
		}
		return nil
	}})
	fmt.Println(err, time.Since(began) > 50*time.Millisecond)
	stop(p)
	// Output: <nil> true
}

// With one slot and a guaranteed share, a Low task runs although Common never drains.
func ExampleGuards() {
	p := newPool(threadpool.Options{Workers: 1, Slice: time.Millisecond, Guards: &threadpool.Guards{LowShare: 0.2}})
	ctx, cancel := context.WithCancel(context.Background())
	busy := func(_ context.Context, t *threadpool.Turn) error {
		for {
			for began := time.Now(); time.Since(began) < 100*time.Microsecond; { // work
			}
			if err := t.Yield(0); err != nil {
				return nil
			}
		}
	}
	for range 2 {
		if _, err := p.Submit(ctx, threadpool.Task{Code: "load", Priority: threadpool.Common, Run: busy}); err != nil {
			panic(err)
		}
	}
	fmt.Println(p.Do(context.Background(), threadpool.Task{Code: "gc_logs", Run: say("collected")}))
	cancel()
	stop(p)
	// Output:
	// collected
	// <nil>
}

// Limits hold for codes and levels, and can be changed at any time, as can the number of slots.
func ExamplePool_SetCodeLimits() {
	p, err := threadpool.New(threadpool.Options{Workers: 2, Codes: map[string]threadpool.CodeLimits{"checkpoint": {MaxRunning: 1}}})
	if err != nil {
		panic(err)
	}
	if err := p.Start(context.Background()); err != nil {
		panic(err)
	}
	if err := p.SetWorkers(4); err != nil {
		panic(err)
	}
	if err := p.SetCodeLimits("checkpoint", threadpool.CodeLimits{MaxRunning: 3, MaxStarted: 8}); err != nil {
		panic(err)
	}
	if err := p.SetMaxRunning(threadpool.Low, 2); err != nil {
		panic(err)
	}
	fmt.Println(p.Settings().Workers, p.Settings().MaxRunning)
	stop(p)
	// Output: 4 [2 0 0]
}

// Settings change together or not at all, also from text.
func ExamplePool_Apply() {
	p := newPool(threadpool.Options{Workers: 4})
	s := p.Settings()
	for _, change := range [][2]string{{"workers", "8"}, {"low_limit", "6"}, {"io_rate", "67108864"}, {"max_wait", "10s"}} {
		if err := s.Set(change[0], change[1]); err != nil {
			panic(err)
		}
	}
	fmt.Println(p.Apply(s))
	fmt.Println(p.Settings().Workers, p.Settings().MaxRunning, p.Settings().IO.BytesPerSecond, p.Settings().Guards.MaxWait)
	s.Workers, s.Guards.LowShare = 2, 0.9
	fmt.Println(p.Apply(s))
	fmt.Println(p.Settings().Workers)
	stop(p)
	// Output:
	// <nil>
	// 8 [6 0 0] 67108864 10s
	// settings of the pool: guards: LowShare 0.9 is not within 0 and 0.5
	// 8
}

// A task past its timeout has its context cancelled, and is reported once.
func ExampleTask_timeout() {
	reported := make(chan threadpool.StuckTask, 1)
	p := newPool(threadpool.Options{Workers: 1, OnStuck: func(s threadpool.StuckTask) { reported <- s }})
	err := p.Do(context.Background(), threadpool.Task{Code: "verify", Timeout: 20 * time.Millisecond, Run: func(ctx context.Context, _ *threadpool.Turn) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	fmt.Println(errors.Is(err, threadpool.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	fmt.Println((<-reported).Code)
	stop(p)
	// Output:
	// true true
	// verify
}

// Stats are the figures since the pool was made; Waits and a subtraction give those of a period.
func ExamplePool_Waits() {
	p := newPool(threadpool.Options{Workers: 1})
	run := func(n int) {
		for range n {
			if err := p.Do(context.Background(), threadpool.Task{Code: "load", Priority: threadpool.Common, Run: func(context.Context, *threadpool.Turn) error { return nil }}); err != nil {
				panic(err)
			}
		}
	}
	run(3)
	before := p.Waits(threadpool.Common)
	run(2)
	period := p.Waits(threadpool.Common)
	period.Sub(&before)
	fmt.Println(p.Stats().Codes[0].Levels[threadpool.Common].Started, period.Count(), period.Quantile(0.99) < time.Minute)
	stop(p)
	// Output: 5 2 true
}

// Await parks until a channel is closed.
func ExampleTurn_Await() {
	p := newPool(threadpool.Options{Workers: 1})
	ctx := context.Background()
	ready := make(chan struct{})
	_, err := p.Submit(ctx, threadpool.Task{Code: "waits", Run: func(_ context.Context, t *threadpool.Turn) error {
		if err := t.Await(ready); err != nil {
			return err
		}
		fmt.Println("dependency is there")
		return nil
	}})
	if err != nil {
		panic(err)
	}
	if err := p.Do(ctx, threadpool.Task{Code: "makes", Run: func(context.Context, *threadpool.Turn) error { close(ready); return nil }}); err != nil {
		panic(err)
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output: dependency is there
}

// Tasks with one key run one at a time, in order, however many slots there are.
func ExampleTask_key() {
	p := newPool(threadpool.Options{Workers: 4})
	ctx := context.Background()
	for i := range 3 {
		if _, err := p.Submit(ctx, threadpool.Task{Code: "apply", Key: "partition 7", Run: say(fmt.Sprint("step ", i))}); err != nil {
			panic(err)
		}
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// step 0
	// step 1
	// step 2
}

// A failed task is asked when it wants to be started again; waiting for that, it holds no slot.
func ExampleTask_retry() {
	p := newPool(threadpool.Options{Workers: 1})
	err := p.Do(context.Background(), threadpool.Task{
		Code: "ship",
		Run: func(_ context.Context, t *threadpool.Turn) error {
			fmt.Println("attempt", t.Attempt())
			if t.Attempt() < 2 {
				return errors.New("remote is busy")
			}
			return nil
		},
		Retry: func(error) (time.Duration, bool) { return time.Millisecond, true },
	})
	fmt.Println(err)
	stop(p)
	// Output:
	// attempt 1
	// attempt 2
	// <nil>
}

// While a coalescing task waits, it stands for later ones with the same code and key.
func ExampleTask_coalesce() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	stat := threadpool.Task{Code: "disk_stat", Coalesce: true, Run: say("measured once")}
	_, err = p.Submit(ctx, stat)
	fmt.Println(err)
	_, err = p.Submit(ctx, stat)
	fmt.Println(errors.Is(err, threadpool.ErrCoalesced))
	if err := p.Start(ctx); err != nil {
		panic(err)
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// <nil>
	// true
	// measured once
}

// A task that has not started by its deadline goes back to its owner.
func ExampleTask_deadline() {
	p := newPool(threadpool.Options{Workers: 1})
	err := p.Do(context.Background(), threadpool.Task{
		Code: "probe", Priority: threadpool.High,
		Run: func(ctx context.Context, _ *threadpool.Turn) error {
			// The only slot is taken: the inner task cannot start in time.
			late := make(chan error, 1)
			_, err := p.Submit(ctx, threadpool.Task{
				Code: "late", Deadline: time.Now().Add(time.Millisecond), Run: say("never"), Done: func(err error) { late <- err },
			})
			if err != nil {
				return err
			}
			fmt.Println(errors.Is(<-late, threadpool.ErrDeadline))
			return nil
		},
	})
	fmt.Println(err)
	stop(p)
	// Output:
	// true
	// <nil>
}

// A full queue refuses at once, with an error that says which bound was met.
func ExamplePool_Submit_full() {
	p, err := threadpool.New(threadpool.Options{Workers: 1, MaxQueued: threadpool.Levels{1, 1, 1}})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for range 2 {
		_, err = p.Submit(ctx, threadpool.Task{Code: "gc", Run: say("collected")})
	}
	var full *threadpool.QueueFullError
	fmt.Println(errors.As(err, &full), full.Priority, full.Limit)
	stop(p)
	// Output: true low 1
}

// A queued task is cancelled at once; a running one through its context and its next Yield.
func ExampleHandle_Cancel() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	h, err := p.Submit(context.Background(), threadpool.Task{Code: "gc", Run: say("never"), Done: func(err error) {
		fmt.Println(errors.Is(err, context.Canceled))
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(h.Cancel(), h.Cancel())
	stop(p)
	// Output:
	// true
	// true false
}

// Everything can be changed while tasks wait and run.
func ExamplePool_SetPriority() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for _, code := range []string{"checkpoint", "load"} {
		if _, err := p.Submit(ctx, threadpool.Task{Code: code, Run: say(code)}); err != nil {
			panic(err)
		}
	}
	if err := p.SetPriority("load", threadpool.High); err != nil {
		panic(err)
	}
	if err := p.SetGuards(threadpool.Guards{MaxWait: time.Minute}); err != nil {
		panic(err)
	}
	if err := p.SetIORate(threadpool.IORate{BytesPerSecond: 64 << 20}); err != nil {
		panic(err)
	}
	if err := p.Start(ctx); err != nil {
		panic(err)
	}
	if err := p.Drain(ctx); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// load
	// checkpoint
}

// Explain says who runs, who waits for what, and what would be picked next.
func ExamplePool_Explain() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	nop := func(context.Context, *threadpool.Turn) error { return nil }
	for i, l := range []threadpool.Priority{threadpool.Common, threadpool.Low, threadpool.High} {
		if _, err := p.Submit(ctx, threadpool.Task{Code: fmt.Sprint("task", i), Key: "k", Priority: l, Run: nop}); err != nil {
			panic(err)
		}
	}
	x := p.Explain(10)
	fmt.Println(x.Next.Code, x.Next.Effective, x.Next.Cause, x.Next.Reason)
	for _, w := range x.Waiting {
		fmt.Println(w.Code, w.Priority, w.Effective, w.Cause, w.Blocker)
	}
	stop(p)
	// Output:
	// task0 high inherited alone
	// task0 common high inherited paused
	// task2 high high submitted key
	// task1 low low submitted key
}
