package threadpool_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"replicanode/threadpool"
)

// Drain waits for what there is, as long as its context allows; Stop ends the rest.
func ExamplePool_Drain() {
	p := newPool(threadpool.Options{Workers: 1})
	_, err := p.Submit(context.Background(), threadpool.Task{
		Run:  func(_ context.Context, t *threadpool.Turn) error { return t.Sleep(time.Hour) },
		Done: func(err error) { fmt.Println("ended by Stop:", errors.Is(err, threadpool.ErrClosed)) },
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var left *threadpool.StopError
	if err := p.Drain(ctx); errors.As(err, &left) {
		fmt.Println("left:", left.Running+left.Parked+left.Queued)
	}
	_, err = p.Submit(context.Background(), threadpool.Task{Run: say("too late")})
	fmt.Println(errors.Is(err, threadpool.ErrClosed))
	stop(p)
	// Output:
	// left: 1
	// true
	// ended by Stop: true
}

// A task, queued, parked or running, can be moved to another level.
func ExampleHandle_SetPriority() {
	p, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		panic(err)
	}
	submit := func(name string) threadpool.Handle {
		h, err := p.Submit(context.Background(), threadpool.Task{Code: "gc", Run: say(name)})
		if err != nil {
			panic(err)
		}
		return h
	}
	submit("first")
	submit("second").SetPriority(threadpool.High)
	fmt.Println(p.Explain(0).Next.Cause)
	if err := p.Start(context.Background()); err != nil {
		panic(err)
	}
	if err := p.Drain(context.Background()); err != nil {
		panic(err)
	}
	stop(p)
	// Output:
	// moved
	// second
	// first
}
