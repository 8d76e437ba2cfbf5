package duplication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrStarted is returned by Start when the source has been started before.
var ErrStarted = errors.New("duplication was started before")

// Source ships this node's partitions to the remotes. Its methods may be called from any goroutine.
type Source struct {
	o       Options
	feeds   map[uint32]*feed
	all     []*pipeline // by partition, then by remote as given
	buffers sync.Pool
	// changed holds one signal: some remote has confirmed more.
	changed chan struct{}

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
	s := &Source{o: o, feeds: make(map[uint32]*feed), changed: make(chan struct{}, 1), done: make(chan struct{})}
	s.buffers.New = func() any { return new(buffers) }
	for _, partition := range o.Partitions {
		f := &feed{partition: partition, cluster: o.ClusterID, skipBytes: uint64(o.SkipBytes), logger: o.Logger, tail: tail{limit: o.tailLimit()}}
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
	var pipelines sync.WaitGroup
	for _, f := range s.feeds {
		if len(f.pipelines) > 0 {
			f.subscribe()
		}
	}
	for _, p := range s.all {
		pipelines.Go(func() { p.run(running) })
	}
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		s.record(running)
	}()
	go func() {
		defer close(s.done)
		pipelines.Wait()
		<-recorded
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

// dirty tells the recording goroutine that a remote has confirmed more.
func (s *Source) dirty() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// record writes what the remotes have confirmed into the partitions: at most once per RecordInterval, and once at the end.
func (s *Source) record(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.recordAll()
			return
		case <-s.changed:
		}
		timer.Reset(s.o.RecordInterval)
		select {
		case <-ctx.Done():
		case <-timer.C:
			s.recordAll()
		}
	}
}

func (s *Source) recordAll() {
	for _, p := range s.all {
		p.record()
	}
}

// record writes what the remote has confirmed into the partition, if that is news.
func (p *pipeline) record() {
	p.mu.Lock()
	confirmed, news := p.confirmed, p.known && p.confirmed != p.recorded
	p.mu.Unlock()
	if _, isSelf := p.feed.partition.Leader(); !news || !isSelf {
		return
	}
	if err := p.feed.partition.RecordConfirmed(p.remote.Name, confirmed); err != nil {
		// Nothing is lost: the remote itself knows, and the next confirmation tries again.
		p.logger.Warn("duplication progress cannot be recorded", "confirmed", confirmed, "error", err)
		return
	}
	p.mu.Lock()
	p.recorded = confirmed
	p.mu.Unlock()
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
