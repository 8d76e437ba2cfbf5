package sched

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"replicanode/internal/pause"
	"replicanode/threadpool"
)

// work keeps the processor busy for d, as a task does that has something to do.
func work(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// lowUntil is a Low task that works in pieces of a millisecond, with a Yield after each, until it is cancelled.
func lowUntil(worked *atomic.Int64) threadpool.Func {
	return func(_ context.Context, t *threadpool.Turn) error {
		for {
			began := time.Now()
			work(time.Millisecond)
			if worked != nil {
				worked.Add(int64(time.Since(began)))
			}
			if err := t.Yield(64 << 10); err != nil {
				return nil
			}
		}
	}
}

// sampleStarts measures how long work that is begun every so often waits for its start. do runs its argument and waits for it.
func sampleStarts(ctx context.Context, r *Result, samples int, interval time.Duration, do func(work func()) error) error {
	waits := make([]time.Duration, 0, samples)
	for range samples {
		if err := pause.For(ctx, interval); err != nil {
			return err
		}
		began := time.Now()
		var wait time.Duration
		if err := do(func() { wait = time.Since(began) }); err != nil {
			return err
		}
		waits = append(waits, wait)
	}
	slices.Sort(waits)
	at := func(q float64) float64 { return float64(waits[min(len(waits)-1, int(q*float64(len(waits))))]) / 1e3 }
	r.P50Us, r.P99Us, r.MaxUs = at(0.5), at(0.99), at(1)
	return nil
}

// urgently runs work as a Common task of the pool.
func urgently(ctx context.Context, p *threadpool.Pool) func(work func()) error {
	return func(work func()) error {
		return p.Do(ctx, threadpool.Task{Code: "urgent", Priority: threadpool.Common, Run: func(context.Context, *threadpool.Turn) error {
			work()
			return nil
		}})
	}
}

// measureStartFree measures starts with a free slot, and those of bare goroutines, below which no pool can get.
func measureStartFree(ctx context.Context, o *Options) ([]Result, error) {
	r := Result{Subject: ours, Goal: "p99 at most 50 µs"}
	p, err := openPool(ctx, threadpool.Options{Workers: o.Workers})
	if err != nil {
		return nil, err
	}
	err = sampleStarts(ctx, &r, o.Samples, time.Millisecond, urgently(ctx, p))
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	r.Met = r.P99Us <= 50
	if err != nil {
		return []Result{r}, err
	}
	bare := Result{Subject: "bare goroutine"}
	err = sampleStarts(ctx, &bare, o.Samples, time.Millisecond, func(work func()) error {
		ended := make(chan struct{})
		go func() {
			work()
			close(ended)
		}()
		<-ended
		return nil
	})
	return []Result{r, bare}, err
}

// measureStartPreempt fills every slot with Low work, reserve included, so that only yielding can make room.
func measureStartPreempt(ctx context.Context, o *Options) ([]Result, error) {
	slice := 10 * time.Millisecond
	r := Result{Subject: ours, Goal: "p99 at most slice + 1 ms"}
	p, err := openPool(ctx, threadpool.Options{Workers: o.Workers, Slice: slice, Guards: &threadpool.Guards{MaxWait: 30 * time.Second, LowShare: 0.05}})
	if err != nil {
		return nil, err
	}
	for range 2 * o.Workers {
		if _, err = p.Submit(ctx, threadpool.Task{Code: "low", Run: lowUntil(nil)}); err != nil {
			break
		}
	}
	if err == nil {
		err = sampleStarts(ctx, &r, o.Samples, 3*time.Millisecond, urgently(ctx, p))
	}
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	r.Met = r.P99Us <= float64(slice+time.Millisecond)/1e3
	return []Result{r}, err
}

// measureSaturation keeps Common saturated and looks at what Low gets: its share of slot time as long tasks that yield,
// and the longest wait of short ones.
func measureSaturation(ctx context.Context, o *Options) ([]Result, error) {
	const share, maxWait = 0.05, 2 * time.Second
	r := Result{Subject: ours, Goal: "share 0.05 ± 0.01"}
	p, err := openPool(ctx, threadpool.Options{Workers: o.Workers, Guards: &threadpool.Guards{MaxWait: time.Hour, LowShare: share, CommonReserve: 1}})
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(o.Saturation)
	var low atomic.Int64
	if err = saturate(ctx, p, 4*o.Workers, end); err == nil {
		for range 3 {
			if _, err = p.Submit(ctx, threadpool.Task{Code: "low", Run: lowUntil(&low)}); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = pause.For(ctx, time.Until(end))
	}
	r.Share = float64(low.Load()) / float64(o.Saturation) / float64(o.Workers)
	r.Met = r.Share >= share-0.01 && r.Share <= share+0.01
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	if err != nil {
		return []Result{r}, err
	}
	bound, err := lowWaits(ctx, o, maxWait)
	return []Result{r, bound}, err
}

// lowWaits measures the waits of short Low tasks, fewer than their share allows, while Common is saturated.
func lowWaits(ctx context.Context, o *Options, maxWait time.Duration) (Result, error) {
	r := Result{Subject: "low's waits", Goal: fmt.Sprintf("max at most %v + 500 ms", maxWait)}
	p, err := openPool(ctx, threadpool.Options{Workers: o.Workers, Guards: &threadpool.Guards{MaxWait: maxWait, LowShare: 0.05, CommonReserve: 1}})
	if err != nil {
		return r, err
	}
	length := min(o.Saturation, 20*time.Second)
	end := time.Now().Add(length)
	err = saturate(ctx, p, 4*o.Workers, end)
	for err == nil && time.Now().Before(end) {
		if _, err = p.Submit(ctx, threadpool.Task{Code: "low", Run: func(context.Context, *threadpool.Turn) error { work(200 * time.Microsecond); return nil }}); err == nil {
			err = pause.For(ctx, 10*time.Millisecond)
		}
	}
	if err == nil {
		err = pause.For(ctx, maxWait)
	}
	wait, _ := p.CodeDistributions("low")
	r.P50Us, r.P99Us, r.MaxUs = float64(wait.P50)/1e3, float64(wait.P99)/1e3, float64(wait.Max)/1e3
	r.Met = wait.Max <= maxWait+500*time.Millisecond
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	return r, err
}

// saturate keeps n Common tasks of a few milliseconds in the pool until end.
func saturate(ctx context.Context, p *threadpool.Pool, n int, end time.Time) error {
	var again threadpool.Task
	again = threadpool.Task{Code: "busy", Priority: threadpool.Common, Run: func(_ context.Context, t *threadpool.Turn) error {
		for range 4 {
			work(time.Millisecond)
			if err := t.Yield(0); err != nil {
				return nil
			}
		}
		if time.Now().Before(end) {
			// A refusal means that the pool is being stopped, which ends the saturation anyway.
			_, err := p.Submit(ctx, again)
			return err
		}
		return nil
	}}
	for range n {
		if _, err := p.Submit(ctx, again); err != nil {
			return err
		}
	}
	return nil
}

// measureThrottled has more Low tasks than slots, all held to 1 KB/s together, and measures the starts of Common ones.
func measureThrottled(ctx context.Context, o *Options) ([]Result, error) {
	r := Result{Subject: ours, Goal: "p99 at most 1 ms"}
	p, err := openPool(ctx, threadpool.Options{Workers: o.Workers, IO: threadpool.IORate{LowCap: 1000, Burst: 1000}})
	if err != nil {
		return nil, err
	}
	for range 8 * o.Workers {
		if _, err = p.Submit(ctx, threadpool.Task{Code: "low", Run: lowUntil(nil)}); err != nil {
			break
		}
	}
	if err == nil {
		err = sampleStarts(ctx, &r, o.Samples, time.Millisecond, urgently(ctx, p))
	}
	if stopErr := stopPool(p); err == nil {
		err = stopErr
	}
	r.Met = r.P99Us <= 1000
	return []Result{r}, err
}
