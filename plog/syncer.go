package plog

import (
	"context"
	"sync"
)

// SyncerOptions tune a Syncer. The zero value is usable.
type SyncerOptions struct {
	// Workers bounds how many logs are written and synced at the same time. 0: 16. More of them share the disk's
	// flushes among more logs; each one in a sync costs a thread, and for some microseconds a processor.
	Workers int
}

// EnsureDefaults fills what is zero.
func (o *SyncerOptions) EnsureDefaults() {
	if o.Workers <= 0 {
		o.Workers = 16
	}
}

// Syncer writes and syncs the logs of a node: a log with something to write stands in a queue, first come first
// served, and each turn takes everything appended to it meanwhile.
type Syncer struct {
	opts SyncerOptions

	mu      sync.Mutex
	work    sync.Cond
	queue   []*Log // ring
	head, n int
	busy    int // logs being committed
	workers int // running
	jobs    []func()
	jobCond sync.Cond
	started bool
	done    bool
	wg      sync.WaitGroup
}

// NewSyncer returns a Syncer; Start it before the logs that use it are appended to.
func NewSyncer(o SyncerOptions) *Syncer {
	o.EnsureDefaults()
	s := &Syncer{opts: o, queue: make([]*Log, 64)}
	s.work.L, s.jobCond.L = &s.mu, &s.mu
	return s
}

func newStartedSyncer() *Syncer {
	s := NewSyncer(SyncerOptions{Workers: 1})
	s.start()
	return s
}

// Start runs the workers. Appends made before wait for it.
func (s *Syncer) Start(context.Context) error {
	s.start()
	return nil
}

func (s *Syncer) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.done {
		return
	}
	s.started = true
	s.wg.Add(s.opts.Workers + 1)
	s.workers = s.opts.Workers
	for range s.opts.Workers {
		go s.worker()
	}
	go s.background1()
}

// Stop writes what was appended and ends the workers. Appends from then on fail with ErrClosed. It waits until
// ctx ends.
func (s *Syncer) Stop(ctx context.Context) error {
	s.halt()
	ended := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Syncer) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.work.Broadcast()
	s.jobCond.Broadcast()
}

// stop is Stop without a bound.
func (s *Syncer) stop() {
	s.halt()
	s.wg.Wait()
}

func (s *Syncer) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// enqueue has l committed by a worker; when all of them have ended, by the caller.
func (s *Syncer) enqueue(l *Log) {
	s.mu.Lock()
	ended := s.done && s.workers == 0
	if !ended {
		s.push(l)
	}
	s.mu.Unlock()
	if !ended {
		s.work.Signal()
		return
	}
	for l.commit() {
	}
}

func (s *Syncer) push(l *Log) {
	if s.n == len(s.queue) {
		grown := make([]*Log, 2*s.n)
		for i := range s.n {
			grown[i] = s.queue[(s.head+i)%s.n]
		}
		s.queue, s.head = grown, 0
	}
	s.queue[(s.head+s.n)%len(s.queue)] = l
	s.n++
}

func (s *Syncer) pop() *Log {
	l := s.queue[s.head]
	s.queue[s.head] = nil
	s.head = (s.head + 1) % len(s.queue)
	s.n--
	return l
}

func (s *Syncer) worker() {
	defer s.wg.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.n == 0 {
			if s.done {
				s.workers--
				return
			}
			s.work.Wait()
		}
		l := s.pop()
		s.busy++
		s.mu.Unlock()
		again := l.commit()
		s.mu.Lock()
		s.busy--
		if again {
			s.push(l)
		}
	}
}

// enter says whether the caller may commit a log itself: nothing else is being committed or waits for it. If so, it must leave.
func (s *Syncer) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n > 0 || s.busy > 0 || s.done {
		return false
	}
	s.busy++
	return true
}

func (s *Syncer) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
}

// background has fn run by the one goroutine that prepares and deletes files. False after Stop.
func (s *Syncer) background(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	s.jobs = append(s.jobs, fn)
	s.jobCond.Signal()
	return true
}

func (s *Syncer) background1() {
	defer s.wg.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.jobs) == 0 {
			if s.done {
				return
			}
			s.jobCond.Wait()
		}
		fn := s.jobs[0]
		s.jobs = append(s.jobs[:0], s.jobs[1:]...)
		s.mu.Unlock()
		fn()
		s.mu.Lock()
	}
}
