package threadpool

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Every counter of a code is moved by what it is named for, once.
func TestCounters(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{MaxWait: time.Minute}, Codes: map[string]CodeLimits{"full": {MaxQueued: 1}}}, func(p *Pool) {
		release := hold(t, p)
		submit(t, p, Task{Code: "old", Run: nothing})
		submit(t, p, Task{Code: "lent", Key: "k", Run: nothing})
		submit(t, p, Task{Code: "lender", Key: "k", Priority: High, Run: nothing})
		submit(t, p, Task{Code: "twin", Coalesce: true, Run: nothing})
		if _, err := p.Submit(context.Background(), Task{Code: "twin", Coalesce: true, Run: nothing}); !errors.Is(err, ErrCoalesced) {
			t.Error(err)
		}
		submit(t, p, Task{Code: "full", Run: nothing})
		if _, err := p.Submit(context.Background(), Task{Code: "full", Run: nothing}); !errors.Is(err, ErrQueueFull) {
			t.Error(err)
		}
		submit(t, p, Task{Code: "late", Deadline: time.Now().Add(time.Second), Run: nothing})
		submit(t, p, Task{Code: "unwanted", Run: nothing}).Cancel()
		time.Sleep(90 * time.Second)
		release()
		submit(t, p, Task{Code: "awaiting", Run: func(_ context.Context, turn *Turn) error {
			ready := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(ready) })
			return errors.Join(turn.Await(ready), turn.Sleep(time.Second), turn.Yield(0))
		}})
		failures := 0
		submit(t, p, Task{Code: "failing", Retry: func(error) (time.Duration, bool) { failures++; return 0, failures < 3 },
			Run: func(context.Context, *Turn) error { return errors.New("fails") }})
		submit(t, p, Task{Code: "stuck", Timeout: time.Second, Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }})
		time.Sleep(time.Minute)
		synctest.Wait()
		got := map[string]CodeStats{}
		for _, s := range p.Stats().Codes {
			got[s.Code] = s
		}
		for what, n := range map[string]uint64{
			"aged": got["old"].Aged, "inherited": got["lent"].Inherited, "coalesced": got["twin"].Coalesced, "rejected": got["full"].Rejected,
			"expired": got["late"].Expired, "canceled": got["unwanted"].Canceled, "awaited": got["awaiting"].Awaited, "slept": got["awaiting"].Slept,
			"yields": got["awaiting"].Yields, "timed out": got["stuck"].Timeouts,
		} {
			if n != 1 {
				t.Errorf("%s: counted %d times", what, n)
			}
		}
		if n := got["failing"].Retries; n != 2 {
			t.Errorf("retries: counted %d times", n)
		}
	})
	withPool(t, Options{Workers: 1, Guards: &Guards{LowShare: 0.05}}, func(p *Pool) {
		saturate(t, p, Common, time.Now().Add(2*time.Second))
		submit(t, p, Task{Code: "low", Run: nothing})
		time.Sleep(5 * time.Second)
		for _, s := range p.Stats().Codes {
			if s.Code == "low" && s.Shared != 1 {
				t.Errorf("shared: counted %d times", s.Shared)
			}
		}
	})
}

// lowTime keeps Common saturated for the given time on one slot, beside a Low task that always works, and returns how much Low had.
func lowTime(t *testing.T, p *Pool, d time.Duration) time.Duration {
	t.Helper()
	var low atomic.Int64
	var over atomic.Bool
	submit(t, p, Task{Code: "low", Run: func(_ context.Context, turn *Turn) error {
		for !over.Load() {
			time.Sleep(time.Millisecond)
			low.Add(1)
			if err := turn.Yield(0); err != nil {
				return err
			}
		}
		return nil
	}})
	saturate(t, p, Common, time.Now().Add(d))
	time.Sleep(d)
	over.Store(true)
	return time.Duration(low.Load()) * time.Millisecond
}

func TestLowSavesUpNoMoreThanSlices(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{LowShare: 0.05}}, func(p *Pool) {
		// One task that does not yield for so long that a twentieth of it is fifty slices.
		submit(t, p, Task{Code: "deaf", Priority: Common, Run: func(context.Context, *Turn) error { time.Sleep(10 * time.Second); return nil }})
		synctest.Wait()
		submit(t, p, Task{Code: "waits", Run: nothing})
		time.Sleep(10 * time.Second)
		if low := lowTime(t, p, 200*time.Millisecond); low > 50*time.Millisecond {
			t.Errorf("low had %v of the next 200ms", low)
		}
	})
}

func TestADeafLowTaskSuspendsTheShareForABoundedTime(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{LowShare: 0.5}}, func(p *Pool) {
		submit(t, p, Task{Code: "deaf", Run: func(context.Context, *Turn) error { time.Sleep(time.Hour); return nil }})
		synctest.Wait()
		submit(t, p, Task{Code: "waits", Priority: Common, Run: nothing})
		time.Sleep(time.Hour)
		// A minute of debt is paid in two.
		if low := lowTime(t, p, 3*time.Minute); low < 20*time.Second || low > 40*time.Second {
			t.Errorf("low had %v of the next three minutes", low)
		}
	})
}

func TestDrainRefusesTasksAndWaitsForThoseThereAre(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		release := hold(t, p)
		ran := false
		submit(t, p, Task{Run: func(context.Context, *Turn) error { ran = true; return nil }})
		drained := make(chan error)
		go func() { drained <- p.Drain(context.Background()) }()
		synctest.Wait()
		if _, err := p.Submit(context.Background(), Task{Run: nothing}); !errors.Is(err, ErrClosed) {
			t.Errorf("submitted to a draining pool: %v", err)
		}
		release()
		if err := <-drained; err != nil || !ran {
			t.Errorf("drained: %v, ran %v", err, ran)
		}
	})
}
