package threadpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// charge is a task that overdraws the budget by far and says when it may go on.
func charge(code string, l Priority, gone *atomic.Bool) Task {
	return Task{Code: code, Priority: l, Run: func(_ context.Context, turn *Turn) error {
		err := turn.Yield(1 << 30)
		gone.Store(true)
		return err
	}}
}

// A task that waits for its level's bytes does so no longer once it has a higher level, however it got it.
func TestAHigherLevelEndsTheWaitForBytes(t *testing.T) {
	for name, lift := range map[string]func(t *testing.T, p *Pool, h Handle){
		"the task": func(t *testing.T, _ *Pool, h Handle) {
			if !h.SetPriority(High) {
				t.Error("not there")
			}
		},
		"the code": func(t *testing.T, p *Pool, _ Handle) {
			if err := p.SetPriority("gc", High); err != nil {
				t.Error(err)
			}
		},
		"a follower": func(t *testing.T, p *Pool, _ Handle) {
			submit(t, p, Task{Code: "open", Key: "k", Priority: High, Run: func(context.Context, *Turn) error { return nil }})
		},
	} {
		withPool(t, Options{Workers: 2, IO: IORate{LowCap: 1000}}, func(p *Pool) {
			var gone atomic.Bool
			task := charge("gc", Low, &gone)
			task.Key = "k"
			h := submit(t, p, task)
			time.Sleep(time.Minute)
			synctest.Wait()
			if gone.Load() || p.Stats().Parked[Low] != 1 {
				t.Errorf("%s: the task does not wait for its bytes", name)
			}
			lift(t, p, h)
			synctest.Wait()
			if !gone.Load() {
				t.Errorf("%s is lifted, and the task still waits for Low's bytes", name)
			}
		})
	}
}

// A holder that a follower has lifted to High is not charged.
func TestAnInheritedLevelPaysAsItsOwn(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{LowCap: 1000}}, func(p *Pool) {
		var gone atomic.Bool
		ch := make(chan struct{})
		task := charge("gc", Low, &gone)
		task.Key = "k"
		run := task.Run
		task.Run = func(ctx context.Context, turn *Turn) error { <-ch; return run(ctx, turn) }
		submit(t, p, task)
		synctest.Wait()
		submit(t, p, Task{Code: "open", Key: "k", Priority: High, Run: func(context.Context, *Turn) error { return nil }})
		close(ch)
		synctest.Wait()
		if !gone.Load() {
			t.Error("High waits behind a task that waits for Low's bytes")
		}
	})
}

// The line of those who wait for bytes is never empty here; it must not remember everyone who ever stood in it.
func TestTheLineForBytesStaysShort(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{LowCap: 10_000, Burst: 100}}, func(p *Pool) {
		const tasks = 8
		for range tasks {
			submit(t, p, Task{Code: "gc", Run: func(_ context.Context, turn *Turn) error {
				for {
					if err := turn.Yield(100); err != nil {
						return err
					}
				}
			}})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := p.c.codes["gc"].counts.throttled; n < 1000 {
			t.Errorf("only %d waits for bytes", n)
		}
		if n := cap(p.c.budget.buckets[Low].waiting); n > 8*tasks {
			t.Errorf("the line of %d tasks has room for %d", tasks, n)
		}
	})
}

func TestCoalescingTakesTheHigherLevel(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		release := hold(t, p)
		var r recorder
		stat := r.task("stat", Low)
		stat.Coalesce = true
		submit(t, p, stat)
		submit(t, p, r.task("common", Common))
		stat.Priority = High
		if _, err := p.Submit(context.Background(), stat); !errors.Is(err, ErrCoalesced) {
			t.Error(err)
		}
		stat.Priority = Low
		if _, err := p.Submit(context.Background(), stat); !errors.Is(err, ErrCoalesced) {
			t.Error(err)
		}
		release()
		if want := "stat common"; r.String() != want {
			t.Errorf("ran %s, want %s", &r, want)
		}
	})
}

func TestExplainShowsTheLongestRunningFirst(t *testing.T) {
	withPool(t, Options{Workers: 2, Guards: &Guards{}}, func(p *Pool) {
		ch := make(chan struct{})
		back := submit(t, p, Task{Code: "back", Run: func(_ context.Context, turn *Turn) error {
			if err := turn.Sleep(time.Second); err != nil {
				return err
			}
			<-ch
			return nil
		}})
		submit(t, p, Task{Code: "long", Run: func(context.Context, *Turn) error { <-ch; return nil }})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r := p.Explain(0).Running; len(r) != 2 || r[0].Code != "long" || r[0].For != 2*time.Second || r[1].ID != back.ID() || r[1].For != time.Second {
			t.Errorf("running: %+v", r)
		}
		close(ch)
		synctest.Wait()
	})
}

// Done is called once even if it ends its goroutine.
func TestGoexitInDoneIsNoSecondEnd(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var calls atomic.Int32
		submit(t, p, Task{Run: func(context.Context, *Turn) error { return nil }, Done: func(error) { calls.Add(1); runtime.Goexit() }})
		synctest.Wait()
		submit(t, p, Task{Run: func(context.Context, *Turn) error { calls.Add(10); return nil }})
		synctest.Wait()
		if n := calls.Load(); n != 11 {
			t.Errorf("Done was called %d times, the next task ran %d times", n%10, n/10)
		}
	})
}

func TestEveryStuckTaskIsReportedWithItsStack(t *testing.T) {
	var mu sync.Mutex
	stacks := map[string]string{}
	onStuck := func(s StuckTask) {
		mu.Lock()
		defer mu.Unlock()
		stacks[s.Code] = s.Stack
	}
	withPool(t, Options{Workers: 8, OnStuck: onStuck}, func(p *Pool) {
		for i := range 5 {
			submit(t, p, Task{Code: fmt.Sprint("stuck", i), Priority: High, Timeout: time.Duration(i+1) * ms, Run: func(ctx context.Context, _ *Turn) error {
				<-ctx.Done()
				return nil
			}})
		}
		time.Sleep(10 * ms)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for i := range 5 {
			if s := stacks[fmt.Sprint("stuck", i)]; !strings.Contains(s, "TestEveryStuckTaskIsReportedWithItsStack") {
				t.Errorf("stack of task %d: %q", i, s)
			}
		}
	})
}

// A profile tells the codes apart, in tasks and in the goroutines that they start.
func TestProfilesAreLabelled(t *testing.T) {
	for _, off := range []bool{false, true} {
		p, err := New(Options{Workers: 1, NoProfileLabels: off})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		profile := func(code string) string {
			var b bytes.Buffer
			err := p.Do(t.Context(), Task{Code: code, Run: func(context.Context, *Turn) error {
				return pprof.Lookup("goroutine").WriteTo(&b, 1)
			}})
			if err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		for _, code := range []string{"checkpoint", "gc_logs"} {
			if got := profile(code); strings.Contains(got, `{"task":"`+code+`"}`) == off {
				t.Errorf("labels off %v, code %s:\n%s", off, code, got)
			}
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTraceShowsTasksAsRegions(t *testing.T) {
	for _, on := range []bool{true, false} {
		p, err := New(Options{Workers: 1, TraceRegions: on})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := trace.Start(&b); err != nil {
			t.Skip("tracing is on already")
		}
		err = p.Do(t.Context(), Task{Code: "a_task_to_trace", Run: func(context.Context, *Turn) error { return nil }})
		trace.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(b.Bytes(), []byte("a_task_to_trace")); got != on {
			t.Errorf("regions %v, in the trace %v", on, got)
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
