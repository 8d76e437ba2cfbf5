package threadpool

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// saturate keeps every slot busy with tasks of a level that never stop coming and yield after each millisecond of work.
func saturate(t *testing.T, p *Pool, l Priority, until time.Time) {
	var again Task
	again = Task{Code: "busy", Priority: l, Run: func(_ context.Context, turn *Turn) error {
		for range 20 {
			time.Sleep(time.Millisecond)
			if err := turn.Yield(0); err != nil {
				return err
			}
		}
		if time.Now().Before(until) {
			_, err := p.Submit(context.Background(), again)
			return err
		}
		return nil
	}}
	for range 3 * p.Settings().Workers {
		submit(t, p, again)
	}
}

func TestLowGetsItsShare(t *testing.T) {
	for _, tc := range []struct {
		workers int
		above   Priority
		share   float64
		lows    int
	}{{4, Common, 0.05, 1}, {4, Common, 0.05, 6}, {1, Common, 0.05, 3}, {2, High, 0.05, 3}, {8, High, 0.2, 6}, {3, Common, 0.01, 2}} {
		withPool(t, Options{Workers: tc.workers, Guards: &Guards{LowShare: tc.share, CommonReserve: 1}}, func(p *Pool) {
			const length = 20 * time.Second
			saturate(t, p, tc.above, time.Now().Add(length))
			var low atomic.Int64
			for range tc.lows {
				submit(t, p, Task{Code: "low", Run: func(_ context.Context, turn *Turn) error {
					for {
						time.Sleep(time.Millisecond)
						low.Add(1)
						if err := turn.Yield(0); err != nil {
							return err
						}
					}
				}})
			}
			time.Sleep(length)
			got := float64(low.Load()) / 1000 / length.Seconds() / float64(tc.workers)
			if got < tc.share-0.01 || got > tc.share+0.01 {
				t.Errorf("%+v: low got %.3f of the slot time", tc, got)
			}
		})
	}
}

func TestLowWaitsNoLongerThanItsBound(t *testing.T) {
	withPool(t, Options{Workers: 4, Guards: &Guards{MaxWait: 2 * time.Second, LowShare: 0.05, CommonReserve: 1}}, func(p *Pool) {
		const length = 25 * time.Second
		saturate(t, p, Common, time.Now().Add(length))
		stop := time.Now().Add(length - 5*time.Second)
		for time.Now().Before(stop) {
			submit(t, p, Task{Code: "low", Run: func(context.Context, *Turn) error { time.Sleep(2 * time.Millisecond); return nil }})
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wait, _ := p.CodeDistributions("low")
		if wait.Max > 2500*time.Millisecond {
			t.Errorf("a low task waited %v", wait.Max)
		}
		if wait.Count < 900 {
			t.Errorf("only %d low tasks ran", wait.Count)
		}
	})
}

// A Low task that does not yield uses up the share for long; aging still holds for the others.
func TestAgingHoldsWhenTheShareIsOverdrawn(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		withPool(t, Options{Workers: workers, Guards: &Guards{MaxWait: 2 * time.Second, LowShare: 0.05, CommonReserve: 1}}, func(p *Pool) {
			const length = 20 * time.Second
			saturate(t, p, Common, time.Now().Add(length))
			submit(t, p, Task{Code: "hog", Run: func(context.Context, *Turn) error { time.Sleep(time.Second); return nil }})
			stop := time.Now().Add(length - 3*time.Second)
			for time.Now().Before(stop) {
				submit(t, p, Task{Code: "low", Run: func(context.Context, *Turn) error { time.Sleep(200 * time.Microsecond); return nil }})
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if wait, _ := p.CodeDistributions("low"); wait.Max > 2*time.Second+100*time.Millisecond+time.Second || wait.Max < 2*time.Second {
				t.Errorf("%d workers: waits up to %v", workers, wait.Max)
			}
		})
	}
}

func TestCommonStartsWithinASliceOfYieldingLow(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		withPool(t, Options{Workers: workers}, func(p *Pool) {
			for range 4 * workers {
				submit(t, p, Task{Code: "low", Run: func(_ context.Context, turn *Turn) error {
					for {
						time.Sleep(turn.Slice())
						if err := turn.Yield(0); err != nil {
							return err
						}
					}
				}})
			}
			for range 200 {
				time.Sleep(37 * time.Millisecond)
				submit(t, p, Task{Code: "common", Priority: Common, Run: func(context.Context, *Turn) error { return nil }})
			}
			time.Sleep(time.Second)
			if wait, _ := p.CodeDistributions("common"); wait.Max > 10*time.Millisecond || wait.Count != 200 {
				t.Errorf("%d workers: %d common tasks waited up to %v", workers, wait.Count, wait.Max)
			}
		})
	}
}

func TestThrottledLowDelaysNobody(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{LowCap: 1024, Burst: 1024}}, func(p *Pool) {
		for range 50 {
			submit(t, p, Task{Code: "low", Run: func(_ context.Context, turn *Turn) error {
				for {
					if err := turn.Yield(64 << 10); err != nil {
						return err
					}
				}
			}})
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			submit(t, p, Task{Code: "common", Priority: Common, Run: func(context.Context, *Turn) error { return nil }})
			submit(t, p, Task{Code: "other low", Run: func(context.Context, *Turn) error { return nil }})
		}
		synctest.Wait()
		for _, code := range []string{"common", "other low"} {
			if wait, _ := p.CodeDistributions(code); wait.Max > 0 || wait.Count != 100 {
				t.Errorf("%s: %d ran, waited up to %v", code, wait.Count, wait.Max)
			}
		}
	})
}

func TestBudgetIsKeptAndShared(t *testing.T) {
	// Each level charges 100 KB at a time for as long as the test runs, as fast as it may.
	const rate, length = 10 << 20, 20
	for _, tc := range []struct {
		name              string
		io                IORate
		low, common       bool
		wantLow, wantComm float64
	}{
		{"both", IORate{BytesPerSecond: rate}, true, true, 0.1, 0.9},
		{"low alone", IORate{BytesPerSecond: rate}, true, false, 1, 0},
		{"common alone", IORate{BytesPerSecond: rate}, false, true, 0, 1},
		{"capped low", IORate{BytesPerSecond: rate, LowFloor: 0.5, LowCap: rate / 4}, true, true, 0.25, 0.75},
		{"only low capped", IORate{LowCap: rate / 2}, true, false, 0.5, 0},
	} {
		withPool(t, Options{Workers: 4, IO: tc.io}, func(p *Pool) {
			var bytes [2]atomic.Int64
			var over atomic.Bool
			run := func(l Priority) {
				submit(t, p, Task{Code: l.String(), Priority: l, Run: func(_ context.Context, turn *Turn) error {
					for !over.Load() {
						bytes[l].Add(100 << 10)
						if err := turn.Yield(100 << 10); err != nil {
							return err
						}
					}
					return nil
				}})
			}
			for range 3 {
				if tc.low {
					run(Low)
				}
				if tc.common {
					run(Common)
				}
			}
			time.Sleep(length * time.Second)
			for l, want := range []float64{tc.wantLow, tc.wantComm} {
				if got := float64(bytes[l].Load()) / length / rate; got < want-0.02 || got > want+0.02 {
					t.Errorf("%s: level %s moved %.3f of the budget, want %.2f", tc.name, Priority(l), got, want)
				}
			}
			// Without a budget those who wait for it go on at once.
			over.Store(true)
			if err := p.SetIORate(IORate{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if s := p.Stats(); s.Running != 0 || s.Parked != (Levels{}) {
				t.Errorf("%s: %d running, %v parked after the budget was lifted", tc.name, s.Running, s.Parked)
			}
		})
	}
}

func TestGuardsOffIsStrictPriority(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{}}, func(p *Pool) {
		saturate(t, p, Common, time.Now().Add(time.Minute))
		ran := false
		submit(t, p, Task{Code: "low", Run: func(context.Context, *Turn) error { ran = true; return nil }})
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if ran {
			t.Error("low ran although nothing guards it")
		}
	})
}

func TestShrinkParksTheLowestFirst(t *testing.T) {
	withPool(t, Options{Workers: 4, Guards: &Guards{}}, func(p *Pool) {
		var running [levels]atomic.Int32
		for _, l := range []Priority{Low, Low, Common, High} {
			submit(t, p, Task{Code: l.String(), Priority: l, Run: func(_ context.Context, turn *Turn) error {
				for {
					running[l].Add(1)
					time.Sleep(time.Millisecond)
					running[l].Add(-1)
					if err := turn.Yield(0); err != nil {
						return err
					}
				}
			}})
		}
		time.Sleep(10 * time.Millisecond)
		if err := p.SetWorkers(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Millisecond + time.Microsecond)
		if running[Low].Load() != 0 || running[Common].Load() != 1 || running[High].Load() != 1 {
			t.Errorf("running %d %d %d", running[Low].Load(), running[Common].Load(), running[High].Load())
		}
		if err := p.SetWorkers(4); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond + time.Microsecond)
		if running[Low].Load() != 2 {
			t.Errorf("%d low tasks run after growing again", running[Low].Load())
		}
	})
}
