package duplication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"replicanode/peer/peerpb"
)

// ErrStarted is returned by Start when the source has been started before.
var ErrStarted = errors.New("duplication was started before")

// Source ships this node's partitions to the remotes. Its methods may be called from any goroutine.
type Source struct {
	o       Options
	feeds   map[uint32]*feed
	all     []*pipeline // by partition, then by remote as given
	buffers sync.Pool

	// pausing is held while a remote is paused or resumed; paused are those that are.
	pausing sync.Mutex
	paused  map[string]bool

	mu      sync.Mutex
	warned  map[failureKind]time.Time // until when further failures of a kind are not worth a warning
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
	s := &Source{
		o: o, feeds: make(map[uint32]*feed), done: make(chan struct{}), paused: make(map[string]bool), warned: make(map[failureKind]time.Time),
	}
	for _, remote := range o.Paused {
		s.paused[remote] = true
	}
	s.buffers.New = func() any { return new(buffers) }
	for _, partition := range o.Partitions {
		f := newFeed(partition, &s.o)
		for _, remote := range o.Remotes {
			p := newPipeline(s, f, remote)
			p.paused = s.paused[remote.Name]
			f.pipelines = append(f.pipelines, p)
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

// Resume continues a remote that was paused. Its pipelines try at once, whatever they were waiting for, paused or not.
func (s *Source) Resume(remote string) error { return s.setPaused(remote, false) }

func (s *Source) setPaused(remote string, paused bool) error {
	if !s.hasRemote(remote) {
		return fmt.Errorf("%w: %q", ErrUnknownRemote, remote)
	}
	s.pausing.Lock()
	defer s.pausing.Unlock()
	if err := s.savePaused(remote, paused); err != nil {
		return err
	}
	s.o.Logger.Info("duplication paused or resumed", "remote", remote, "paused", paused)
	for _, p := range s.all {
		if p.remote.Name == remote {
			p.setPaused(paused)
		}
	}
	return nil
}

// savePaused remembers which remotes are paused. The caller holds pausing.
func (s *Source) savePaused(remote string, paused bool) error {
	after := maps.Clone(s.paused)
	if paused {
		after[remote] = true
	} else {
		delete(after, remote)
	}
	if s.o.SavePaused != nil && !maps.Equal(s.paused, after) {
		if err := s.o.SavePaused(slices.Sorted(maps.Keys(after))); err != nil {
			return fmt.Errorf("remember that remote %q is paused or not: %w", remote, err)
		}
	}
	s.paused = after
	return nil
}

// failureKind is what a failure of one partition usually has in common with those of the others.
type failureKind struct {
	message string
	remote  string
	state   State
	reason  peerpb.RefusalReason
}

// level is how loud a failure is to be logged. All partitions meet the same one at about the same time, so only the first of a
// kind warns until a pause, of RetryMax at least, has passed.
func (s *Source) level(kind failureKind, err error, pause time.Duration) slog.Level {
	if refusal := (*refusalError)(nil); errors.As(err, &refusal) {
		kind.reason = refusal.reason
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.warned[kind]) {
		return slog.LevelDebug
	}
	s.warned[kind] = now.Add(max(pause, s.o.RetryMax))
	return slog.LevelWarn
}

// warn logs a failure, as loud as its kind deserves.
func (p *pipeline) warn(ctx context.Context, kind failureKind, err error, pause time.Duration, attrs ...any) {
	kind.remote = p.remote.Name
	p.logger.Log(ctx, p.source.level(kind, err, pause), kind.message, append(attrs, "error", err)...)
}

func (s *Source) hasRemote(name string) bool {
	for _, r := range s.o.Remotes {
		if r.Name == name {
			return true
		}
	}
	return false
}
