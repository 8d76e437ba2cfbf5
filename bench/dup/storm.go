package dup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxStormFailures = 20                    // in a row, of one asker
	stormRetry       = 50 * time.Millisecond // after a failure
)

// storm asks a node for maintenance, at a fixed concurrency: each asker has one request open at any time. A cycle of an asker is
// one checkpoint of a partition, one run of the disk statistics and one of each kind of garbage collection, so that however slowly
// a policy lets maintenance run, equal numbers of cycles are equal work.
type storm struct {
	cycle  func(ctx context.Context, asker int) error
	quota  []int // cycles of each asker; nil: until finish
	done   []int // each written by its asker, read once ended is closed
	asking atomic.Bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ended  chan struct{}

	mu  sync.Mutex
	err error
}

func startStorm(ctx context.Context, askers int, quota []int, cycle func(ctx context.Context, asker int) error) *storm {
	s := &storm{cycle: cycle, quota: quota, done: make([]int, askers), ended: make(chan struct{})}
	s.asking.Store(true)
	ctx, s.cancel = context.WithCancel(ctx)
	for i := range askers {
		s.wg.Go(func() { s.ask(ctx, i) })
	}
	go func() {
		s.wg.Wait()
		close(s.ended)
	}()
	return s
}

func (s *storm) ask(ctx context.Context, asker int) {
	for failures := 0; ctx.Err() == nil; {
		if s.quota == nil && !s.asking.Load() || s.quota != nil && s.done[asker] >= s.quota[asker] {
			return
		}
		err := s.cycle(ctx, asker)
		if err == nil {
			s.done[asker]++
			failures = 0
			continue
		}
		if failures++; failures >= maxStormFailures && ctx.Err() == nil {
			s.fail(fmt.Errorf("maintenance fails: %w", err))
			return
		}
		select {
		case <-time.After(stormRetry):
		case <-ctx.Done():
		}
	}
}

func (s *storm) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// finish waits until all askers have had their quota; without one they begin no further cycle. It returns the cycles that each
// asker has had.
func (s *storm) finish(ctx context.Context) ([]int, error) {
	s.asking.Store(false)
	var late error
	select {
	case <-s.ended:
	case <-ctx.Done():
		late = fmt.Errorf("maintenance did not finish: %w", ctx.Err())
	}
	s.abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done, errors.Join(s.err, late)
}

// abort gives up what is open and waits for the askers.
func (s *storm) abort() {
	s.cancel()
	<-s.ended
}
