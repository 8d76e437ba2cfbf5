package duplication

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrStarted is returned by Start when the source has been started before.
var ErrStarted = errors.New("duplication was started before")

// Source ships this node's partitions to the remotes. Its methods may be called from any goroutine.
type Source struct {
	o       Options
	feeds   map[uint32]*feed
	all     []*pipeline // by partition, then by remote as given
	buffers sync.Pool

	mu      sync.Mutex
	started bool
	stopped bool
	cancel  context.CancelFunc
	done    chan struct{} // closed when all goroutines have ended
}

// New checks the options and prepares the pipelines; nothing runs before Start.
func New(o Options) (*Source, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Source{o: o, feeds: make(map[uint32]*feed), done: make(chan struct{})}
	s.buffers.New = func() any { return new(buffers) }
	for _, partition := range o.Partitions {
		f := newFeed(partition, &s.o)
		for _, remote := range o.Remotes {
			f.pipelines = append(f.pipelines, newPipeline(s, f, remote))
		}
		s.feeds[partition.ID()] = f
		s.all = append(s.all, f.pipelines...)
	}
	if o.Registerer != nil && len(s.all) > 0 {
		if err := o.Registerer.Register(newCollector(s)); err != nil {
			return nil, fmt.Errorf("register duplication metrics: %w", err)
		}
	}
	return s, nil
}

// Start subscribes to the partitions and starts the pipelines. The partitions must be open. The context only bounds the start.
func (s *Source) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start duplication: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopped {
		return ErrStarted
	}
	s.started = true
	running, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, p := range s.all {
		p.seed()
	}
	var feeds sync.WaitGroup
	for _, f := range s.feeds {
		if len(f.pipelines) > 0 {
			f.subscribe()
			feeds.Go(func() { f.run(running) })
		}
	}
	go func() {
		defer close(s.done)
		feeds.Wait()
	}()
	return nil
}

// Stop ends the streams without waiting for any remote, records in the partitions what is confirmed, and waits for all
// goroutines until ctx ends. It may be called again and before Start.
func (s *Source) Stop(ctx context.Context) error {
	s.mu.Lock()
	first := s.started && !s.stopped
	started := s.started
	s.stopped = true
	s.mu.Unlock()
	if !started {
		return nil
	}
	if first {
		for _, f := range s.feeds {
			if f.cancel != nil {
				f.cancel()
			}
		}
		s.cancel()
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop duplication: %w", ctx.Err())
	}
}

// reachable lets the other pipelines to the same remote try at once instead of waiting for their backoff.
func (s *Source) reachable(by *pipeline) {
	by.mu.Lock()
	recovered := by.lastError != nil && !by.recovered
	by.recovered = true
	by.mu.Unlock()
	if !recovered {
		return
	}
	for _, p := range s.all {
		if p != by && p.remote.Name == by.remote.Name {
			p.kick()
		}
	}
}

// Pause ends the streams to a remote and keeps them closed until Resume. The log is kept for it meanwhile.
func (s *Source) Pause(remote string) error { return s.setPaused(remote, true) }

// Resume continues a remote that was paused.
func (s *Source) Resume(remote string) error { return s.setPaused(remote, false) }

func (s *Source) setPaused(remote string, paused bool) error {
	if !s.hasRemote(remote) {
		return fmt.Errorf("%w: %q", ErrUnknownRemote, remote)
	}
	s.o.Logger.Info("duplication paused or resumed", "remote", remote, "paused", paused)
	for _, p := range s.all {
		if p.remote.Name == remote {
			p.setPaused(paused)
		}
	}
	return nil
}

func (s *Source) hasRemote(name string) bool {
	for _, r := range s.o.Remotes {
		if r.Name == name {
			return true
		}
	}
	return false
}
