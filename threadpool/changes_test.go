package threadpool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Each attempt has the whole timeout, however much of it the one before used up.
func TestWhatAnAttemptRanIsNotTheNextOnes(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		attempts := 0
		err := p.Do(context.Background(), Task{
			Timeout: 10 * time.Second,
			Run: func(ctx context.Context, _ *Turn) error {
				time.Sleep(6 * time.Second)
				if attempts++; attempts < 3 {
					return errors.New("again")
				}
				return ctx.Err()
			},
			Retry: func(error) (time.Duration, bool) { return time.Second, attempts < 5 },
		})
		if n := p.Stats().Codes[0].Timeouts; err != nil || attempts != 3 || n != 0 {
			t.Errorf("ended with %v after %d attempts and %d timeouts", err, attempts, n)
		}
	})
}

// A code's own level goes before the one of a submission, also when a waiting twin stands for it, and until it is reset.
func TestACodesLevelEndsWithItsReset(t *testing.T) {
	withPool(t, Options{Workers: 1}, func(p *Pool) {
		var r recorder
		stat := r.task("stat", Low)
		stat.Coalesce = true
		run := func() {
			release := hold(t, p)
			r.got = nil
			submit(t, p, stat)
			urgent := stat
			urgent.Priority = High
			if _, err := p.Submit(context.Background(), urgent); !errors.Is(err, ErrCoalesced) {
				t.Error(err)
			}
			submit(t, p, r.task("common", Common))
			release()
		}
		if err := p.SetPriority("stat", Low); err != nil {
			t.Fatal(err)
		}
		if run(); r.String() != "common stat" {
			t.Errorf("with stat set to low ran %s", &r)
		}
		if err := p.ResetPriority("stat"); err != nil {
			t.Fatal(err)
		}
		if run(); r.String() != "stat common" {
			t.Errorf("with stat reset ran %s", &r)
		}
	})
}

// A holder that a follower has lifted to Common is charged as Common, which has bytes here.
func TestALiftedHolderIsChargedAtItsNewLevel(t *testing.T) {
	withPool(t, Options{Workers: 2, IO: IORate{LowCap: 1000}}, func(p *Pool) {
		ch, gone := make(chan struct{}), make(chan struct{})
		submit(t, p, Task{Code: "gc", Key: "k", Run: func(_ context.Context, turn *Turn) error {
			<-ch
			defer close(gone)
			return turn.Yield(1 << 30)
		}})
		synctest.Wait()
		submit(t, p, Task{Code: "load", Key: "k", Priority: Common, Run: func(context.Context, *Turn) error { return nil }})
		close(ch)
		synctest.Wait()
		select {
		case <-gone:
		default:
			t.Error("Common waits behind a task that waits for Low's bytes")
		}
	})
}

// What Low was owed under one share is not owed under another.
func TestAnotherShareBeginsAnew(t *testing.T) {
	withPool(t, Options{Workers: 1, Guards: &Guards{LowShare: 0.1}}, func(p *Pool) {
		release := hold(t, p)
		submit(t, p, Task{Code: "low", Run: func(context.Context, *Turn) error { return nil }})
		time.Sleep(50 * time.Millisecond)
		if got := p.Explain(1).LowCredit; got != 5*time.Millisecond {
			t.Errorf("Low is owed %v", got)
		}
		for _, share := range []float64{0.2, 0} {
			if err := p.SetGuards(Guards{LowShare: share}); err != nil {
				t.Fatal(err)
			}
			if got := p.Explain(1).LowCredit; got != 0 {
				t.Errorf("with a share of %v Low is owed %v at once", share, got)
			}
			time.Sleep(10 * time.Millisecond)
		}
		release()
	})
}
