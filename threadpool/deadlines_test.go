package threadpool

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func nothing(context.Context, *Turn) error { return nil }

// waitForContext is a body that knows its context only.
func waitForContext(ctx context.Context, _ *Turn) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAContextThatEndedAtTheTimeoutIsToldAsTimeout(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var asked error
		retry := func(err error) (time.Duration, bool) { asked = err; return 0, false }
		err := p.Do(context.Background(), Task{Timeout: time.Second, Run: waitForContext, Retry: retry})
		for _, err := range []error{err, asked} {
			if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ended with %v", err)
			}
		}
		var got error
		h := submit(t, p, Task{Timeout: time.Second, Run: waitForContext, Done: func(err error) { got = err }})
		h.Cancel()
		synctest.Wait()
		h = submit(t, p, Task{Timeout: time.Second, Run: waitForContext, Done: func(err error) { got = err }})
		synctest.Wait()
		h.Cancel()
		synctest.Wait()
		if !errors.Is(got, context.Canceled) || errors.Is(got, ErrTimeout) {
			t.Errorf("cancelled before its timeout, it ended with %v", got)
		}
	})
}

func TestCoalescingTakesTheLaterDeadline(t *testing.T) {
	for _, test := range []struct {
		later time.Duration
		ran   bool
	}{{0, true}, {time.Hour, true}, {time.Millisecond, false}} {
		withPool(t, Options{Workers: 1}, func(p *Pool) {
			release := hold(t, p)
			var r recorder
			stat := r.task("stat", Low)
			stat.Coalesce, stat.Deadline = true, time.Now().Add(time.Second)
			var got error
			stat.Done = func(err error) { got = err }
			submit(t, p, stat)
			if stat.Deadline = time.Now().Add(test.later); test.later == 0 {
				stat.Deadline = time.Time{}
			}
			if _, err := p.Submit(context.Background(), stat); !errors.Is(err, ErrCoalesced) {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
			release()
			if ran := r.String() == "stat"; ran != test.ran || errors.Is(got, ErrDeadline) == test.ran {
				t.Errorf("second deadline after %v: ran %q, ended with %v", test.later, &r, got)
			}
		})
	}
}

func TestTheLongestTimesThereAre(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		time.Sleep(time.Second)
		if err := p.Do(context.Background(), Task{Timeout: math.MaxInt64, Slice: math.MaxInt64, Run: func(ctx context.Context, turn *Turn) error {
			time.Sleep(time.Second)
			return errors.Join(ctx.Err(), turn.Yield(0))
		}}); err != nil {
			t.Errorf("with the longest timeout: %v", err)
		}
		ended := 0
		done := func(error) { ended++ }
		asleep := submit(t, p, Task{Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(math.MaxInt64) }, Done: done})
		attempts := 0
		submit(t, p, Task{Run: func(context.Context, *Turn) error { attempts++; return errors.New("fails") }, Done: done,
			Retry: func(error) (time.Duration, bool) { return math.MaxInt64, attempts < 100 }})
		time.Sleep(time.Hour)
		synctest.Wait()
		if ended != 0 || attempts != 1 {
			t.Errorf("after an hour %d have ended, and there were %d attempts", ended, attempts)
		}
		asleep.Cancel()
		// Stop finds the one that waits for its retry.
	})
	if _, err := New(Options{Guards: &Guards{MaxWait: math.MaxInt64}}); err == nil {
		t.Error("a MaxWait that cannot be doubled is accepted")
	}
	withPool(t, Options{Workers: 1, Guards: &Guards{MaxWait: maxMaxWait}}, func(p *Pool) {
		submit(t, p, Task{Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Second) }})
		time.Sleep(1500 * time.Millisecond)
	})
}

func TestLimitsOfTasksWithoutACode(t *testing.T) {
	withPool(t, Options{Workers: 4, Guards: &Guards{}, Codes: map[string]CodeLimits{"": {MaxRunning: 1}}}, func(p *Pool) {
		ch := make(chan struct{})
		for range 3 {
			submit(t, p, Task{Run: func(context.Context, *Turn) error { <-ch; return nil }})
		}
		synctest.Wait()
		if n := len(p.Explain(0).Running); n != 1 {
			t.Errorf("%d run", n)
		}
		close(ch)
	})
}

func TestExplainOfAnIdlePoolHasEmptyLists(t *testing.T) {
	withPool(t, Options{}, func(p *Pool) {
		text, err := json.Marshal(p.Explain(0))
		if err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s, %v", text, err)
		}
		submit(t, p, Task{Run: nothing})
	})
}

func TestARetryStartsAfresh(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var attempts []error
		start := time.Now()
		err := p.Do(context.Background(), Task{
			// Only the first start has a deadline; each attempt has the whole timeout.
			Deadline: start.Add(time.Second), Timeout: 10 * time.Second,
			Run: func(ctx context.Context, turn *Turn) error {
				if len(attempts) < 2 {
					err := turn.Sleep(time.Minute)
					attempts = append(attempts, err)
					return err
				}
				return errors.Join(ctx.Err(), turn.Sleep(9*time.Second), turn.Yield(0))
			},
			Retry: func(error) (time.Duration, bool) { return time.Minute, true },
		})
		if err != nil || len(attempts) != 2 || !errors.Is(attempts[1], ErrTimeout) || time.Since(start) != 2*70*time.Second+9*time.Second {
			t.Errorf("ended with %v after %v; attempts before: %v", err, time.Since(start), attempts)
		}
	})
}

func TestWaitingForBytesOrASlotIsNoPartOfTheTimeout(t *testing.T) {
	withPool(t, Options{Workers: 1, IO: IORate{BytesPerSecond: 1 << 20}}, func(p *Pool) {
		start := time.Now()
		if err := p.Do(context.Background(), Task{Timeout: time.Second, Run: func(_ context.Context, turn *Turn) error {
			return errors.Join(turn.Yield(20<<20), turn.Sleep(900*time.Millisecond))
		}}); err != nil || time.Since(start) < 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		submit(t, p, Task{Code: "urgent", Priority: High, Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(500 * time.Millisecond) }})
		ended := make(chan error, 1)
		submit(t, p, Task{Timeout: time.Second, Done: func(err error) { ended <- err }, Run: func(_ context.Context, turn *Turn) error {
			submit(t, p, Task{Code: "urgent", Priority: High, Run: func(context.Context, *Turn) error { time.Sleep(time.Minute); return nil }})
			return errors.Join(turn.Yield(0), turn.Sleep(900*time.Millisecond))
		}})
		if err := <-ended; err != nil {
			t.Errorf("a minute without a slot: %v", err)
		}
	})
}
