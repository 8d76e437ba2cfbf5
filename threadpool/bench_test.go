package threadpool

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cpuTime is the processor time this process has used: on a busy machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchPool(b *testing.B, o Options) *Pool {
	p, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return p
}

// BenchmarkBacklog measures one task from submit to finish while a given number of tasks is queued all the time.
func BenchmarkBacklog(b *testing.B) {
	for _, backlog := range []int{10, 1000, 100_000, 1_000_000} {
		for _, timing := range []bool{true, false} {
			b.Run(fmt.Sprintf("queued=%d/metrics=%v", backlog, timing), func(b *testing.B) {
				runBacklog(b, backlog, Options{Workers: 2, NoTiming: !timing, MaxQueued: Levels{2_000_000, 2_000_000, 2_000_000}})
			})
		}
	}
}

func runBacklog(b *testing.B, backlog int, o Options) {
	p := benchPool(b, o)
	ctx := context.Background()
	var finished atomic.Int64
	goal := int64(b.N + backlog)
	done := make(chan struct{})
	var began time.Duration
	resubmit := Task{Code: "empty", Priority: Common}
	resubmit.Run = func(context.Context, *Turn) error {
		switch n := finished.Add(1); {
		case n <= int64(b.N):
			if _, err := p.Submit(ctx, resubmit); err != nil {
				b.Error(err)
			}
			if n == int64(b.N) {
				b.StopTimer()
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
			}
		case n == goal:
			close(done)
		}
		return nil
	}
	for range backlog {
		if _, err := p.Submit(ctx, resubmit); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	began = cpuTime()
	b.ResetTimer()
	if err := p.Start(ctx); err != nil {
		b.Fatal(err)
	}
	<-done
}

// BenchmarkProducers measures submission by several goroutines at once, to the last finish.
func BenchmarkProducers(b *testing.B) {
	for _, producers := range []int{1, 8} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			p := benchPool(b, Options{Workers: 2, MaxQueued: Levels{1 << 30, 1 << 30, 1 << 30}})
			ctx := context.Background()
			if err := p.Start(ctx); err != nil {
				b.Fatal(err)
			}
			var wg, done sync.WaitGroup
			done.Add(b.N)
			t := Task{Code: "empty", Priority: Common, Run: func(context.Context, *Turn) error { done.Done(); return nil }}
			b.ReportAllocs()
			b.ResetTimer()
			began := cpuTime()
			for i := range producers {
				n := b.N / producers
				if i == 0 {
					n += b.N % producers
				}
				wg.Go(func() {
					for range n {
						if _, err := p.Submit(ctx, t); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			done.Wait()
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkYield measures a Yield that finds nothing more urgent, while another task of the same level waits.
func BenchmarkYield(b *testing.B) {
	p := benchPool(b, Options{Workers: 1})
	ctx := context.Background()
	if err := p.Start(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	err := p.Do(ctx, Task{Run: func(_ context.Context, t *Turn) error {
		if _, err := p.Submit(ctx, Task{Run: func(context.Context, *Turn) error { return nil }}); err != nil {
			return err
		}
		b.ResetTimer()
		for range b.N {
			if err := t.Yield(4096); err != nil {
				return err
			}
		}
		b.StopTimer()
		return nil
	}})
	if err != nil {
		b.Error(err)
	}
}
