package threadpool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCancelQueuedAndRunning(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		release := hold(t, p)
		var got error
		h := submit(t, p, Task{Run: func(context.Context, *Turn) error { t.Error("a cancelled task ran"); return nil }, Done: func(err error) { got = err }})
		if !h.Cancel() || !errors.Is(got, ErrCanceled) || !errors.Is(got, context.Canceled) {
			t.Errorf("cancelled: %v", got)
		}
		if h.Cancel() || p.Stats().Queued[Low] != 0 {
			t.Error("cancelled task is still there")
		}
		release()
		var seen, cause error
		h = submit(t, p, Task{Run: func(ctx context.Context, turn *Turn) error {
			<-ctx.Done()
			seen, cause = turn.Yield(0), context.Cause(ctx)
			return ctx.Err()
		}, Done: func(err error) { got = err }})
		synctest.Wait()
		h.Cancel()
		synctest.Wait()
		if !errors.Is(seen, ErrCanceled) || !errors.Is(cause, ErrCanceled) || !errors.Is(got, context.Canceled) {
			t.Errorf("yield %v, cause %v, result %v", seen, cause, got)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := p.Submit(ctx, Task{Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }, Done: func(err error) { got = err }}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(got, context.Canceled) {
			t.Errorf("sleeping task ended with %v", got)
		}
		if _, err := p.Submit(ctx, Task{Run: func(context.Context, *Turn) error { return nil }}); !errors.Is(err, context.Canceled) {
			t.Errorf("submit with a cancelled context: %v", err)
		}
	})
}

func TestPanicAndGoexitCostNoSlot(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		errs := make(chan error, 3)
		done := func(err error) { errs <- err }
		submit(t, p, Task{Code: "p", Key: "k", Run: func(context.Context, *Turn) error { panic("boom") }, Done: done})
		submit(t, p, Task{Code: "g", Key: "k", Run: func(context.Context, *Turn) error { runtime.Goexit(); return nil }, Done: done})
		submit(t, p, Task{Code: "d", Key: "k", Run: func(context.Context, *Turn) error { return nil }, Done: func(err error) { errs <- err; panic("in done") }})
		synctest.Wait()
		var pe *PanicError
		if err := <-errs; !errors.As(err, &pe) || pe.Value != "boom" || !errors.Is(err, ErrPanic) {
			t.Errorf("panic reported as %v", err)
		}
		if err := <-errs; !errors.Is(err, ErrGoexit) {
			t.Errorf("goexit reported as %v", err)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Running != 0 {
			t.Errorf("%d slots lost", s.Running)
		}
	})
}

func TestDeadlineAndTimeout(t *testing.T) {
	var mu sync.Mutex
	var all []StuckTask
	reports := func() []StuckTask {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
	onStuck := func(s StuckTask) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, s)
	}
	withPool(t, Options{Workers: 1, OnStuck: onStuck}, func(p *Pool) {
		release := hold(t, p)
		var got error
		submit(t, p, Task{Deadline: time.Now().Add(time.Second), Key: "k", Run: func(context.Context, *Turn) error { t.Error("ran too late"); return nil }, Done: func(err error) { got = err }})
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		if !errors.Is(got, ErrDeadline) {
			t.Errorf("late task: %v", got)
		}
		release()
		submit(t, p, Task{Code: "slow", Timeout: time.Second, Run: func(ctx context.Context, turn *Turn) error {
			<-ctx.Done()
			return turn.Yield(0)
		}, Done: func(err error) { got = err }})
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if len(reports()) != 0 {
			t.Error("reported too early")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		stuck := reports()
		if !errors.Is(got, ErrTimeout) || !errors.Is(got, context.DeadlineExceeded) || len(stuck) != 1 || stuck[0].Code != "slow" || !strings.Contains(stuck[0].Stack, "TestDeadlineAndTimeout") {
			t.Errorf("timeout: %v, reports %+v", got, stuck)
		}
		submit(t, p, Task{Code: "asleep", Timeout: time.Second, Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }, Done: func(err error) { got = err }})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !errors.Is(got, ErrTimeout) {
			t.Errorf("sleeping beyond the timeout: %v", got)
		}
	})
}

func TestRetryKeepsKeyAndHoldsNoSlot(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		submit(t, p, Task{Code: "a", Key: "k", Run: func(ctx context.Context, turn *Turn) error {
			r.add(fmt.Sprint("a", turn.Attempt()))
			// The context is used, and that of the attempt before has ended.
			select {
			case <-ctx.Done():
				t.Errorf("attempt %d begins with a context that has ended: %v", turn.Attempt(), ctx.Err())
			default:
			}
			if turn.Attempt() < 3 {
				return errors.New("again")
			}
			return nil
		}, Retry: func(error) (time.Duration, bool) { return time.Second, true }})
		submit(t, p, Task{Code: "b", Key: "k", Run: func(context.Context, *Turn) error { r.add("b"); return nil }})
		synctest.Wait()
		submit(t, p, r.task("c", Low))
		synctest.Wait()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if want := "a1 c a2 a3 b"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	withPool(t, Options{Workers: 2}, func(p *Pool) {
		ch := make(chan struct{})
		var queued error
		submit(t, p, Task{Priority: High, Run: func(context.Context, *Turn) error { <-ch; return nil }})
		submit(t, p, Task{Key: "x", Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }})
		submit(t, p, Task{Key: "x", Run: func(context.Context, *Turn) error { return nil }, Done: func(err error) { queued = err }})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := p.Stop(ctx)
		var left *StopError
		if !errors.As(err, &left) || left.Running != 1 || left.Parked != 0 || left.Queued != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if !errors.Is(queued, ErrClosed) {
			t.Errorf("queued task: %v", queued)
		}
		close(ch)
	})
}
