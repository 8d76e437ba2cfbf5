package dup

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"replicanode/bench/load"
)

// lagInterval is how often the lag is asked for.
const lagInterval = 20 * time.Millisecond

// lagSample is how far the backup is behind over all partitions.
type lagSample struct {
	worst   time.Duration // of the partition that is furthest behind
	decrees uint64        // of all partitions together
	bytes   uint64        // likewise
}

// sampler asks for the lag at a fixed pace and keeps its distribution over time.
type sampler struct {
	ask    func(context.Context) (lagSample, error)
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	seen lagWindow
	err  error // of the last question that was not answered
}

// lagWindow is what was sampled in a window of time.
type lagWindow struct {
	lag     *hdrhistogram.Histogram // of the worst partition
	decrees uint64                  // the most that the backup lacked
	bytes   uint64                  // likewise
}

func startSampler(ctx context.Context, ask func(context.Context) (lagSample, error)) *sampler {
	s := &sampler{ask: ask, seen: lagWindow{lag: load.NewHistogram()}}
	ctx, s.cancel = context.WithCancel(ctx)
	s.wg.Go(func() { s.run(ctx) })
	return s
}

// run samples until ctx ends. A late answer stands for all the questions that fell due while it was awaited, so that a node that
// is too busy to answer is not sampled less while it lags more.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(lagInterval)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		sample, err := s.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		s.mu.Lock()
		if s.err = err; err == nil {
			weight := max(1, int64((now.Sub(last)+lagInterval/2)/lagInterval))
			load.Record(s.seen.lag, sample.worst, weight)
			s.seen.decrees = max(s.seen.decrees, sample.decrees)
			s.seen.bytes = max(s.seen.bytes, sample.bytes)
			last = now
		}
		s.mu.Unlock()
	}
}

// take returns what was sampled since the last take and starts anew.
func (s *sampler) take() (lagWindow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = lagWindow{lag: load.NewHistogram()}
	return seen, s.err
}

func (s *sampler) stop() {
	s.cancel()
	s.wg.Wait()
}
