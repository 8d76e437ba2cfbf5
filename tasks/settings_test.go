package tasks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"replicanode/threadpool"
)

// Whatever a spec says reaches the pool.
func TestASpecIsWhatItsTasksGet(t *testing.T) {
	specs := []Spec{{Code: "x", MaxRunning: 1, MaxQueued: 1, Slice: 3 * time.Millisecond, Timeout: time.Second}}
	withRunner(t, threadpool.Options{Workers: 4}, Options{Specs: specs}, func(t *testing.T, r *Runner) {
		var slice time.Duration
		began := time.Now()
		job, err := r.Submit(t.Context(), "x", "", func(ctx context.Context, turn *threadpool.Turn) error {
			slice = turn.Slice()
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := r.Submit(t.Context(), "x", "", nop); err != nil {
			t.Error(err)
		}
		// What is refused leaves nothing behind that Stop would wait for.
		for range 3 {
			_, err := r.Submit(t.Context(), "x", "", nop)
			if !errors.Is(err, threadpool.ErrQueueFull) || KindOf(err) != Busy || KindOf(fmt.Errorf("wrapped: %w", err)) != Busy {
				t.Errorf("beyond max_queued: %v, %s", err, KindOf(err))
			}
		}
		if err := job.Wait(t.Context()); !errors.Is(err, threadpool.ErrTimeout) || time.Since(began) != time.Second || slice != 3*time.Millisecond {
			t.Errorf("a slice of %v, ended with %v after %v", slice, err, time.Since(began))
		}
	})
}

// Intervals vary either way by the jitter, and first runs are spread over a whole period.
func TestIntervalsVaryEitherWay(t *testing.T) {
	specs := []Spec{{Code: "x", Period: 100 * time.Second, Jitter: 0.2}}
	withRunner(t, threadpool.Options{Workers: 4}, Options{Specs: specs}, func(t *testing.T, r *Runner) {
		st := r.codes["x"]
		least, most, first, last := time.Hour, time.Duration(0), time.Hour, time.Duration(0)
		var sum float64
		const n = 2000
		for range n {
			d, f := r.delay(st), r.firstDelay(st)
			least, most, first, last = min(least, d), max(most, d), min(first, f), max(last, f)
			sum += d.Seconds() / n
		}
		if least < 80*time.Second || least > 81*time.Second || most > 120*time.Second || most < 119*time.Second || math.Abs(sum-100) > 2 {
			t.Errorf("intervals of %v to %v, %.1f s on average", least, most, sum)
		}
		if first > time.Second || last > 100*time.Second || last < 99*time.Second {
			t.Errorf("first runs after %v to %v", first, last)
		}
	})
}

// Common's waits alone make Low shrink, for their own reason, and the end of the runner gives back what the controller took.
func TestWaitsOfCommonShrinkLowUntilTheEnd(t *testing.T) {
	var pool *threadpool.Pool
	withRunner(t, threadpool.Options{Workers: 8}, Options{}, func(t *testing.T, r *Runner) {
		pool = r.pool
		r.SetSignals(func() Signals {
			now := time.Now()
			return Signals{CommonWait: Measured(0.2, now), ForegroundWrite: Measured(0.001, now), Lag: Measured(9, now), LagLimit: LimitScheduling}
		})
		r.SetAdaptive(true)
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		st := r.AdaptiveStatus()
		if st.Low > 0.2 || st.Levels[LoadPrivateLog] != threadpool.High {
			t.Errorf("it has %+v", st)
		}
		for _, d := range st.Decisions {
			if d.Lever == "low" && (d.Reason != WaitOverTarget || d.Signal != 0.2) {
				t.Errorf("low was moved by %+v", d)
			}
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if set := pool.Settings(); set.MaxRunning != (threadpool.Levels{}) || set.IO.LowCap != 0 {
			t.Errorf("the end leaves %+v", set)
		}
		if st := r.AdaptiveStatus(); st.Low != 1 || len(st.Levels) != 0 || len(r.Overridden()) != 0 {
			t.Errorf("the end leaves %+v, %v", st, r.Overridden())
		}
	})
}
