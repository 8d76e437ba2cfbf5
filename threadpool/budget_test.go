package threadpool

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// paid is a task that charges n bytes once and tells how it ended, and when.
func paid(l Priority, n int, ended func(error, time.Time)) Task {
	return Task{Code: "charge", Priority: l, Run: func(_ context.Context, turn *Turn) error { return turn.Yield(n) },
		Done: func(err error) { ended(err, time.Now()) }}
}

// ending is how a task ended, and how long after the beginning.
type ending struct {
	err error
	at  time.Duration
}

// Who is cancelled or moved up while it waits for bytes goes on at once and leaves the line: its place there is nobody's when the line
// moves on.
func TestWhoLeavesTheLineForBytesIsForgotten(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{BytesPerSecond: 1000, Burst: 1}}, func(p *Pool) {
		began := time.Now()
		var mu sync.Mutex
		var all [4]ending
		end := func(i int) ending {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return all[i]
		}
		var hs [4]Handle
		for i := range hs {
			hs[i] = submit(t, p, paid(Low, 100_000, func(err error, when time.Time) {
				mu.Lock()
				defer mu.Unlock()
				all[i] = ending{err, when.Sub(began)}
			}))
			synctest.Wait()
		}
		hs[0].Cancel()
		hs[2].SetPriority(High)
		if got := end(0); !errors.Is(got.err, ErrCanceled) || got.at != 0 {
			t.Errorf("the cancelled one ended with %v after %v", got.err, got.at)
		}
		if got := end(2); got.err != nil || got.at != 0 || hs[2].Cancel() {
			t.Errorf("the one that was moved up ended with %v after %v", got.err, got.at)
		}
		// What they charged stays charged.
		time.Sleep(150 * time.Second)
		if got := end(1); got.at != 0 {
			t.Errorf("the second was paid for after %v", got.at)
		}
		time.Sleep(100 * time.Second)
		if got := end(1); got.err != nil || got.at < 199*time.Second || got.at > 201*time.Second {
			t.Errorf("the second ended with %v after %v", got.err, got.at)
		}
		if err := p.SetIORate(IORate{}); err != nil {
			t.Fatal(err)
		}
		if got := end(3); got.err != nil || got.at != 250*time.Second || p.Stats().Parked != (Levels{}) {
			t.Errorf("with the budget lifted %v are parked, the last ended with %v after %v", p.Stats().Parked, got.err, got.at)
		}
	})
}

// What was saved up under a large burst is not spent under a small one.
func TestASmallerBurstTakesBackWhatWasSaved(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{BytesPerSecond: 1 << 20, Burst: 1 << 20}}, func(p *Pool) {
		began := time.Now()
		if err := p.SetIORate(IORate{BytesPerSecond: 1000, Burst: 1000}); err != nil {
			t.Fatal(err)
		}
		var took time.Duration
		submit(t, p, paid(Common, 11_000, func(_ error, when time.Time) { took = when.Sub(began) }))
		time.Sleep(time.Minute)
		synctest.Wait()
		if took < 9*time.Second || took > 12*time.Second {
			t.Errorf("10,000 bytes over the burst at 1,000 a second took %v", took)
		}
	})
}

// What Low is owed so far is counted by the slots that there were.
func TestAResizeSettlesTheShare(t *testing.T) {
	withPool(t, Options{Workers: 8, Guards: &Guards{LowShare: 0.05}}, func(p *Pool) {
		for range 20 {
			submit(t, p, Task{Code: "busy", Priority: Common, Run: func(context.Context, *Turn) error { time.Sleep(time.Second); return nil }})
		}
		submit(t, p, Task{Code: "low", Run: func(context.Context, *Turn) error { return nil }})
		// Nobody looks at the share between a change and the next, which would settle it.
		for _, tc := range []struct {
			resize func() error
			owed   time.Duration
		}{
			{func() error { return p.SetWorkers(1) }, 8 * time.Millisecond}, // 20 ms × 8 slots × 0.05
			{func() error { s := p.Settings(); s.Workers = 6; return p.Apply(s) }, 9 * time.Millisecond},
		} {
			time.Sleep(20 * time.Millisecond)
			if err := tc.resize(); err != nil {
				t.Fatal(err)
			}
			if got := p.Explain(1).LowCredit; got < tc.owed-time.Microsecond || got > tc.owed+time.Microsecond {
				t.Errorf("Low is owed %v, not %v", got, tc.owed)
			}
		}
	})
}
