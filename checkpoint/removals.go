package checkpoint

import (
	"context"
	"sync"
	"time"

	"replicanode/internal/pause"
)

// PaceRemovals makes the store remove no more than rate(backlog) bytes a second,
// all partitions together; backlog is what is known to be still removed after
// that. It is called before the store is used. Without it, and with a nil rate,
// files are removed as fast as the disk does it.
//
// A chunk, which is removed at once, is what one step of any other removal is:
// its size is bounded (CreateOptions.ChunkBytes).
func (s *Store) PaceRemovals(rate func(backlog int64) float64) { s.removals.rate = rate }

// removals spread what all partitions remove over time.
type removals struct {
	rate func(backlog int64) float64 // bytes a second; nil = no bound

	mu      sync.Mutex
	backlog int64
	free    time.Time // when what was removed up to now is paid for
}

// expect adds to the backlog; less than 0 takes from it.
func (r *removals) expect(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backlog += bytes
}

// removed charges bytes, and returns how long to pause.
func (r *removals) removed(now time.Time, bytes int64) time.Duration {
	if r.rate == nil || bytes <= 0 {
		return 0
	}
	r.mu.Lock()
	backlog := r.backlog
	r.mu.Unlock()
	rate := r.rate(backlog)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.free.Before(now) {
		r.free = now
	}
	r.free = r.free.Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	return r.free.Sub(now)
}

// each makes the calls of a removal without the slot, and paces them.
func (s *Store) each(ctx context.Context, turn Turn) Each {
	slices := newSlicer(ctx, turn, time.Millisecond)
	return func(bytes int64, call func() error) error {
		if err := slices.await(call); err != nil {
			return err
		}
		wait := s.removals.removed(time.Now(), bytes)
		if wait <= 0 {
			return nil
		}
		return slices.await(func() error { return pause.For(ctx, wait) })
	}
}
