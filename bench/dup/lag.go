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
}

// sampler asks for the lag at a fixed pace and keeps its distribution over time.
type sampler struct {
	ask    func(context.Context) (lagSample, error)
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex
	lag        *hdrhistogram.Histogram
	backlogMax uint64
	err        error // of the last question that was not answered
}

func startSampler(ctx context.Context, ask func(context.Context) (lagSample, error)) *sampler {
	s := &sampler{ask: ask, lag: load.NewHistogram()}
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
			load.Record(s.lag, sample.worst, weight)
			s.backlogMax = max(s.backlogMax, sample.decrees)
			last = now
		}
		s.mu.Unlock()
	}
}

// take returns what was sampled since the last take and starts anew.
func (s *sampler) take() (lag *hdrhistogram.Histogram, backlogMax uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lag, backlogMax = s.lag, s.backlogMax
	s.lag, s.backlogMax = load.NewHistogram(), 0
	return lag, backlogMax, s.err
}

func (s *sampler) stop() {
	s.cancel()
	s.wg.Wait()
}
