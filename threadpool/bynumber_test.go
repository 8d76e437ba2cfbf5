package threadpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Every kind of waiting and running task is found by its number, moved and cancelled, and no other one.
func TestTasksByNumber(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{BytesPerSecond: 1}}, func(p *Pool) {
		var mu sync.Mutex
		ended := map[string]error{}
		codes := map[uint64]string{}
		put := func(task Task) uint64 {
			task.Done = func(err error) {
				mu.Lock()
				ended[task.Code] = err
				mu.Unlock()
			}
			id := submit(t, p, task).ID()
			codes[id] = task.Code
			synctest.Wait()
			return id
		}
		forever := func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }
		failed := Task{Code: "failed", Run: func(context.Context, *Turn) error { return errors.New("no") }, Retry: func(error) (time.Duration, bool) { return time.Hour, true }}
		want := map[uint64]TaskState{
			put(Task{Code: "asleep", Run: forever}):            TaskParked,
			put(Task{Code: "behind", Key: "k", Run: forever}):  TaskParked,
			put(Task{Code: "chained", Key: "k", Run: forever}): TaskQueued,
			put(Task{Code: "last", Key: "k", Run: forever}):    TaskQueued,
			put(failed): TaskRetrying,
			put(Task{Code: "charged", Run: func(_ context.Context, turn *Turn) error { return turn.Yield(1 << 40) }}): TaskParked,
			put(Task{Code: "runs", Run: func(ctx context.Context, _ *Turn) error { <-ctx.Done(); return ctx.Err() }}): TaskRunning,
		}
		release := hold(t, p)
		want[put(Task{Code: "queued", Run: forever})] = TaskQueued
		want[put(Task{Code: "aged", Priority: Common, Run: forever})] = TaskQueued
		for id, state := range want {
			f, err := p.MoveTask(id, Common)
			if err != nil || f.ID != id || f.State != state || f.Cancelled {
				t.Errorf("task %d: %+v, %v, want %s", id, f, err, state)
			}
			if again, err := p.MoveTask(id, Low); err != nil || again.Priority != Common {
				// What charged goes on when it is moved up.
				t.Errorf("moved task %d: %+v, %v", id, again, err)
			}
		}
		var full *QueueFullError
		if _, err := p.MoveTask(1, High+1); !errors.Is(err, ErrInvalidTask) || errors.As(err, &full) {
			t.Errorf("level out of range: %v", err)
		}
		for id := range want {
			if f, err := p.CancelTask(id); err != nil || f.ID != id || f.Priority != Low {
				t.Errorf("cancel %d: %+v, %v", id, f, err)
			}
		}
		release()
		for id := range want {
			if err := ended[codes[id]]; !errors.Is(err, context.Canceled) {
				t.Errorf("task %d ended with %v", id, err)
			}
			for _, err := range []error{second(p.CancelTask(id)), second(p.MoveTask(id, High))} {
				if !errors.Is(err, ErrTaskEnded) {
					t.Errorf("ended task %d: %v", id, err)
				}
			}
		}
		for _, id := range []uint64{0, 1000, 1<<64 - 1} {
			if _, err := p.CancelTask(id); !errors.Is(err, ErrUnknownTask) || errors.Is(err, ErrTaskEnded) {
				t.Errorf("task %d: %v", id, err)
			}
		}
	})
}

func second(_ FoundTask, err error) error { return err }

// A task moved by its number is picked accordingly; one that was told to stop says so.
func TestAMovedTaskGoesFirst(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		release := hold(t, p)
		submit(t, p, r.task("first", Low))
		submit(t, p, r.task("second", Common))
		id := submit(t, p, r.task("third", Low)).ID()
		if _, err := p.MoveTask(id, High); err != nil {
			t.Error(err)
		}
		if w := p.Explain(0).Waiting[0]; w.ID != id || w.Cause != CauseMoved || w.Effective != High {
			t.Errorf("the first to go is %+v", w)
		}
		release()
		if r.String() != "third second first" {
			t.Errorf("ran %s", &r)
		}
		stop := make(chan struct{})
		id = submit(t, p, Task{Run: func(context.Context, *Turn) error { <-stop; return nil }}).ID()
		synctest.Wait()
		for _, before := range []bool{false, true} {
			if f, err := p.CancelTask(id); err != nil || f.Cancelled != before {
				t.Errorf("told to stop: %+v, %v", f, err)
			}
		}
		close(stop)
		for s := TaskQueued; s <= TaskRetrying; s++ {
			var back TaskState
			if text, err := s.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != s {
				t.Error(fmt.Sprint(s), "is read as", back)
			}
		}
	})
}
