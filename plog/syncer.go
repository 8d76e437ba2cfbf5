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
	// Journal makes what is appended to several logs durable with one sync. The Syncer closes it when it is stopped. Nil: each log syncs itself.
	Journal *Journal
	// Metrics counts the rounds of the journal. Nil: not counted.
	Metrics *Metrics
}

// EnsureDefaults fills what is zero.
func (o *SyncerOptions) EnsureDefaults() {
	if o.Workers <= 0 {
		o.Workers = 16
	}
}

// Syncer writes and syncs the logs of a node: a log with something to write stands in a queue, first come first
// served, and each turn takes everything appended to it meanwhile.
//
// With a journal one worker at a time leads: it takes all logs that wait and commits them in one round, those whose groups are small and
// go on in their segments. The others go to a second queue, and the other workers commit them each by itself. A log that waits alone
// is committed by itself as well.
type Syncer struct {
	opts SyncerOptions

	mu      sync.Mutex
	work    sync.Cond
	queue   ring // wait
	direct  ring // are to be committed each by itself
	round   round
	leading bool // the round is being committed
	busy    int  // workers and callers that commit
	single  int  // workers that commit a log of direct
	workers int  // running
	jobs    []func()
	jobCond sync.Cond
	started bool
	done    bool
	always  bool // a log that waits alone goes through the journal as well
	wg      sync.WaitGroup
	journal sync.WaitGroup // the goroutine that empties it
}

// ring is a queue of logs.
type ring struct {
	logs    []*Log
	head, n int
}

func (q *ring) push(l *Log) {
	q.grow()
	q.logs[(q.head+q.n)%len(q.logs)] = l
	q.n++
}

// pushFront has l popped next.
func (q *ring) pushFront(l *Log) {
	q.grow()
	q.head = (q.head + len(q.logs) - 1) % len(q.logs)
	q.logs[q.head] = l
	q.n++
}

// grow makes room for one more.
func (q *ring) grow() {
	if q.n < len(q.logs) {
		return
	}
	grown := make([]*Log, max(64, 2*q.n))
	for i := range q.n {
		grown[i] = q.logs[(q.head+i)%q.n]
	}
	q.logs, q.head = grown, 0
}

func (q *ring) pop() *Log {
	l := q.logs[q.head]
	q.logs[q.head] = nil
	q.head = (q.head + 1) % len(q.logs)
	q.n--
	return l
}

// NewSyncer returns a Syncer; Start it before the logs that use it are appended to.
func NewSyncer(o SyncerOptions) *Syncer {
	o.EnsureDefaults()
	s := &Syncer{opts: o}
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
	if j := s.opts.Journal; j != nil {
		s.journal.Go(j.run)
	}
}

// Stop writes what was appended and ends the workers. Appends from then on fail with ErrClosed. It waits until
// ctx ends.
func (s *Syncer) Stop(ctx context.Context) error {
	s.halt()
	ended := make(chan struct{})
	go func() {
		s.wait()
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

// wait returns when the workers have ended and the journal is closed.
func (s *Syncer) wait() {
	s.wg.Wait()
	if j := s.opts.Journal; j != nil {
		j.halt()
		s.journal.Wait()
		j.close()
	}
}

// stop is Stop without a bound.
func (s *Syncer) stop() {
	s.halt()
	s.wait()
}

func (s *Syncer) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// journalID names the journal that the logs may be covered by, 0 when there is none.
func (s *Syncer) journalID() uint64 {
	if s == nil || s.opts.Journal == nil || s.opts.Journal.off {
		return 0
	}
	return s.opts.Journal.id
}

// journalReach returns how far that journal goes.
func (s *Syncer) journalReach() Reach {
	if s.journalID() == 0 {
		return Reach{}
	}
	return s.opts.Journal.reached()
}

// admit says whether the log that m describes can be opened, and whether it needs a new id.
func (s *Syncer) admit(m *manifest) (renew bool, err error) {
	var j *Journal
	if s != nil {
		j = s.opts.Journal
	}
	return j.admit(m)
}

// enqueue has l committed by a worker; when all of them have ended, by the caller.
func (s *Syncer) enqueue(l *Log) {
	s.mu.Lock()
	ended := s.done && s.workers == 0
	if !ended {
		s.queue.push(l)
	}
	s.mu.Unlock()
	if !ended {
		s.work.Signal()
		return
	}
	for l.commit() {
	}
}

func (s *Syncer) worker() {
	defer s.wg.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.direct.n > 0 && (s.opts.Workers == 1 || s.single < s.opts.Workers-1):
			s.single++
			s.commit(s.direct.pop())
			s.single--
		case s.queue.n > 0 && s.journalID() == 0:
			s.commit(s.queue.pop())
		case s.queue.n > 0 && !s.leading:
			s.lead()
		case s.done && s.queue.n == 0 && s.direct.n == 0 && !s.leading:
			s.workers--
			s.work.Broadcast()
			return
		default:
			s.work.Wait()
		}
	}
}

// commit commits l by itself. mu is held, and dropped meanwhile.
func (s *Syncer) commit(l *Log) {
	s.busy++
	s.mu.Unlock()
	again := l.commit()
	s.mu.Lock()
	s.busy--
	if again {
		s.queue.push(l)
		if s.direct.n > 0 {
			s.work.Signal() // the caller goes on with one of those
		}
	}
}

// lead commits all logs that wait. mu is held, and dropped meanwhile.
func (s *Syncer) lead() {
	r := &s.round
	for s.queue.n > 0 && len(r.logs) < maxRoundLogs {
		r.logs = append(r.logs, s.queue.pop())
	}
	s.leading = true
	s.busy++
	s.mu.Unlock()
	if len(r.logs) == 1 && !s.always && r.logs[0].small() {
		r.alone(r.logs[0])
	} else {
		r.run(s.opts.Journal, s.opts.Metrics)
	}
	s.mu.Lock()
	s.busy--
	s.leading = false
	for _, l := range r.again {
		s.queue.push(l)
	}
	for i := range r.later {
		s.queue.pushFront(r.later[len(r.later)-1-i])
	}
	for _, l := range r.direct {
		s.direct.push(l)
	}
	for range min(len(r.direct), s.opts.Workers) {
		s.work.Signal()
	}
	r.reset()
}

// enter says whether the caller may commit a log itself: nothing else is being committed or waits for it. If so, it must leave.
func (s *Syncer) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.n > 0 || s.direct.n > 0 || s.busy > 0 || s.done || s.always {
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
