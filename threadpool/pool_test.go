package threadpool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// start makes a running pool that is stopped at the end of f.
func withPool(t *testing.T, o Options, f func(p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(p)
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		p.checkEmpty(t)
	})
}

// checkEmpty verifies that a stopped pool has forgotten every task.
func (p *Pool) checkEmpty(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	c, live := &p.c, 0
	c.live(func(*entry) bool { live++; return true })
	if c.taken != 0 || c.starting != 0 || c.waiting != 0 || c.queued != (Levels{}) || c.parked != (Levels{}) || c.running != (Levels{}) ||
		len(c.keys) != 0 || len(c.twins) != 0 || len(c.timers) != 0 || live != 0 || p.workers != 0 || p.calls != 0 || c.share.granted != 0 {
		t.Errorf("stopped pool is not empty: taken %d starting %d waiting %d queued %v parked %v running %v keys %d twins %d timers %d live %d workers %d calls %d granted %d",
			c.taken, c.starting, c.waiting, c.queued, c.parked, c.running, len(c.keys), len(c.twins), len(c.timers), live, p.workers, p.calls, c.share.granted)
	}
	for _, cd := range c.codeList {
		if cd.running != 0 || cd.started != 0 || cd.queued != 0 {
			t.Errorf("code %s: running %d started %d queued %d", cd.name, cd.running, cd.started, cd.queued)
		}
	}
}

func submit(t *testing.T, p *Pool, task Task) Handle {
	t.Helper()
	h, err := p.Submit(context.Background(), task)
	if err != nil {
		t.Fatalf("submit %s: %v", task.Code, err)
	}
	return h
}

// recorder keeps the order in which tasks did things.
type recorder struct {
	mu  sync.Mutex
	got []string
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	r.got = append(r.got, s)
	r.mu.Unlock()
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, " ")
}

func (r *recorder) task(name string, l Priority) Task {
	return Task{Code: name, Priority: l, Run: func(context.Context, *Turn) error { r.add(name); return nil }}
}

// hold occupies a slot at High until the returned function is called.
func hold(t *testing.T, p *Pool) (release func()) {
	ch := make(chan struct{})
	submit(t, p, Task{Code: "hold", Priority: High, Run: func(context.Context, *Turn) error { <-ch; return nil }})
	synctest.Wait()
	return func() { close(ch); synctest.Wait() }
}

func TestChoiceIsMadeWhenTheSlotFrees(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		release := hold(t, p)
		submit(t, p, r.task("low1", Low))
		submit(t, p, r.task("common1", Common))
		submit(t, p, r.task("low2", Low))
		submit(t, p, r.task("high1", High))
		submit(t, p, r.task("common2", Common))
		submit(t, p, r.task("high2", High))
		release()
		if want := "high1 high2 common1 common2 low1 low2"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestFreeSlotNeverWaits(t *testing.T) {
	withPool(t, Options{Workers: 4, Guards: &Guards{}}, func(p *Pool) {
		ch := make(chan struct{})
		for range 10 {
			submit(t, p, Task{Run: func(context.Context, *Turn) error { <-ch; return nil }})
		}
		synctest.Wait()
		if s := p.Stats(); s.Running != 4 || s.Queued[Low] != 6 {
			t.Errorf("%d running, %d queued; want 4 and 6", s.Running, s.Queued[Low])
		}
		if err := p.SetWorkers(7); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := p.Stats(); s.Running != 7 {
			t.Errorf("%d running after growing to 7 slots", s.Running)
		}
		close(ch)
		synctest.Wait()
	})
}

func TestYieldGivesWayAndResumes(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		submit(t, p, Task{Code: "long", Run: func(_ context.Context, turn *Turn) error {
			for i := range 3 {
				r.add(fmt.Sprint("slice", i))
				time.Sleep(10 * time.Millisecond)
				if err := turn.Yield(0); err != nil {
					return err
				}
			}
			return nil
		}})
		time.Sleep(5 * time.Millisecond)
		submit(t, p, r.task("common", Common))
		submit(t, p, r.task("low", Low))
		time.Sleep(time.Second)
		synctest.Wait()
		if want := "slice0 common slice1 slice2 low"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestSleepAndAwaitHoldNoSlot(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		ch := make(chan struct{})
		submit(t, p, Task{Code: "a", Run: func(_ context.Context, turn *Turn) error {
			r.add("sleep")
			if err := turn.Sleep(time.Minute); err != nil {
				return err
			}
			r.add("await")
			if err := turn.Await(ch); err != nil {
				return err
			}
			r.add("end")
			return nil
		}})
		synctest.Wait()
		submit(t, p, r.task("b", Low))
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		submit(t, p, r.task("c", Low))
		synctest.Wait()
		close(ch)
		synctest.Wait()
		if want := "sleep b await c end"; r.String() != want {
			t.Errorf("got %s, want %s", &r, want)
		}
	})
}

// TestAwaitEndHoldsNoSlot until its end, which neither a cancellation nor a timeout is.
func TestAwaitEndHoldsNoSlot(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		ch := make(chan struct{})
		h := submit(t, p, Task{Code: "a", Timeout: time.Minute, Run: func(_ context.Context, turn *Turn) error {
			for range 2 { // the second begins when the task is cancelled already
				if err := turn.AwaitEnd(ch); err == nil {
					t.Error("it was cancelled")
				}
				r.add("end")
			}
			return nil
		}})
		synctest.Wait()
		for i := range 3 {
			submit(t, p, r.task(fmt.Sprint(i), Low))
			synctest.Wait()
			time.Sleep(time.Minute)
		}
		h.Cancel()
		submit(t, p, r.task("3", Low))
		synctest.Wait()
		ch <- struct{}{}
		synctest.Wait()
		submit(t, p, r.task("4", Low))
		synctest.Wait()
		close(ch)
		synctest.Wait()
		if want := "0 1 2 3 end 4 end"; r.String() != want {
			t.Errorf("got %s, want %s", &r, want)
		}
	})
}

func TestLowNeverHoldsAllSlots(t *testing.T) {
	for _, tc := range []struct{ workers, common, high, wantLow int }{{4, 1, 0, 3}, {2, 1, 0, 1}, {1, 1, 0, 1}, {4, 1, 1, 2}, {4, 0, 0, 4}, {2, 5, 5, 1}} {
		withPool(t, Options{Workers: tc.workers, Guards: &Guards{CommonReserve: tc.common, HighReserve: tc.high}}, func(p *Pool) {
			ch := make(chan struct{})
			for range 10 {
				submit(t, p, Task{Run: func(context.Context, *Turn) error { <-ch; return nil }})
			}
			synctest.Wait()
			if s := p.Stats(); s.Running != tc.wantLow {
				t.Errorf("%+v: %d low tasks run", tc, s.Running)
			}
			close(ch)
			synctest.Wait()
		})
	}
}

func TestAging(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{MaxWait: time.Second}}, func(p *Pool) {
		var r recorder
		release := hold(t, p)
		submit(t, p, r.task("low", Low))
		time.Sleep(1100 * time.Millisecond)
		submit(t, p, r.task("common", Common))
		submit(t, p, r.task("high", High))
		release()
		if want := "high low common"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
		r.got = nil
		release = hold(t, p)
		submit(t, p, r.task("low", Low))
		time.Sleep(2100 * time.Millisecond)
		submit(t, p, r.task("high", High))
		release()
		if want := "low high"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestKeysRunOneAtATimeInOrder(t *testing.T) {
	withPool(t, Options{Workers: 4}, func(p *Pool) {
		var r recorder
		step := make(chan struct{})
		for i := range 4 {
			tk := r.task(fmt.Sprint("k", i), Priority(i%3))
			run := tk.Run
			tk.Key = "k"
			tk.Run = func(ctx context.Context, turn *Turn) error { <-step; return run(ctx, turn) }
			submit(t, p, tk)
		}
		synctest.Wait()
		if s := p.Stats(); s.Running != 1 {
			t.Errorf("%d tasks of one key run", s.Running)
		}
		submit(t, p, r.task("other", Low))
		synctest.Wait()
		close(step)
		synctest.Wait()
		if want := "other k0 k1 k2 k3"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestFollowerLendsItsLevel(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		release := hold(t, p)
		submit(t, p, r.task("common", Common))
		low := r.task("low", Low)
		low.Key = "k"
		submit(t, p, low)
		high := r.task("high", High)
		high.Key = "k"
		h := submit(t, p, high)
		if n := p.Explain(0).Next; n.Code != "low" || n.Cause != CauseInherited || n.Effective != High {
			t.Errorf("next is %+v", n)
		}
		release()
		if want := "low high common"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
		_ = h
	})
}

func TestBoundsAndTypedErrors(t *testing.T) {
	withPool(t, Options{Workers: 1, MaxQueued: Levels{2, 1, 1}, MaxCodes: 3, Codes: map[string]CodeLimits{"c": {MaxQueued: 1}}}, func(p *Pool) {
		release := hold(t, p)
		nop := func(context.Context, *Turn) error { return nil }
		submit(t, p, Task{Code: "c", Run: nop})
		_, err := p.Submit(context.Background(), Task{Code: "c", Run: nop})
		var full *QueueFullError
		if !errors.Is(err, ErrQueueFull) || !errors.As(err, &full) || full.Code != "c" {
			t.Errorf("code bound: %v", err)
		}
		submit(t, p, Task{Code: "d", Run: nop})
		if _, err = p.Submit(context.Background(), Task{Code: "d", Run: nop}); !errors.Is(err, ErrQueueFull) {
			t.Errorf("level bound: %v", err)
		}
		if _, err = p.Submit(context.Background(), Task{Code: "e", Run: nop}); !errors.Is(err, ErrTooManyCodes) {
			t.Errorf("fourth code: %v", err)
		}
		for _, bad := range []Task{{}, {Run: nop, Priority: 3}, {Run: nop, Timeout: -1}, {Run: nop, Slice: -1}} {
			if _, err = p.Submit(context.Background(), bad); !errors.Is(err, ErrInvalidTask) {
				t.Errorf("bad task: %v", err)
			}
		}
		release()
		if err := p.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err = p.Submit(context.Background(), Task{Code: "c", Run: nop}); !errors.Is(err, ErrClosed) {
			t.Errorf("after stop: %v", err)
		}
	})
}

func TestCoalescing(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		release := hold(t, p)
		var r recorder
		tk := r.task("stat", Low)
		tk.Coalesce = true
		first := submit(t, p, tk)
		h, err := p.Submit(context.Background(), tk)
		if !errors.Is(err, ErrCoalesced) || h != first {
			t.Errorf("twin: %v %v", h, err)
		}
		tk.Key = "other"
		submit(t, p, tk)
		release()
		if r.String() != "stat stat" {
			t.Errorf("ran %s", &r)
		}
		submit(t, p, tk)
		synctest.Wait()
	})
}
