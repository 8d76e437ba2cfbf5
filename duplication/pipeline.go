package duplication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"replicanode/peer/peerpb"
	"replicanode/plog"
	"replicanode/replica/mutation"
	"replicanode/tasks"
)

// batch is a run of decrees on its way to the remote: those in (prev, last] that are to be shipped.
type batch struct {
	prev, last uint64
	mutations  []mutation.SourceMutation
	bytes      int
	// first is the timestamp of the first mutation, newest of the last; 0 without mutations.
	first, newest mutation.Timestamp
	loaded        bool
}

func (b *batch) add(decree uint64, timestamp mutation.Timestamp, data []byte) {
	if len(b.mutations) == 0 {
		b.first = timestamp
	}
	b.newest = timestamp
	b.bytes += len(data)
	b.mutations = append(b.mutations, mutation.SourceMutation{Decree: decree, Data: data})
}

// sent is what remains of a batch until it is confirmed.
type sent struct {
	last          uint64
	only          uint64 // the decree of its mutation, when there is just one
	bytes         int
	first, newest mutation.Timestamp
}

// pipeline ships one partition to one remote. Its main goroutine connects, ships and waits; a second one receives while a stream
// is open; a job of the long pool reads the log.
type pipeline struct {
	source *Source
	o      *Options
	feed   *feed
	remote Remote
	key    string
	logger *slog.Logger
	// wake holds one signal: something that the main goroutine looks at has changed.
	wake chan struct{}
	// floor is confirmed, for those who do not hold mu.
	floor atomic.Uint64

	// Owned by the main goroutine.
	retry     *backoff.ExponentialBackOff
	loadRetry *backoff.ExponentialBackOff
	attempt   int    // which of the addresses is next
	hint      string // the address of the leader, as a follower said
	instant   bool   // the last attempt was made at once, so the next is not
	job       *tasks.Job
	records   []record
	scratch   []mutation.SourceMutation // of the batch from the tail that is being sent
	unsure    bool                      // what the remote lacks is not known from this process's own observation

	// Owned by the job that runs, or by the main goroutine when none does.
	reader   *plog.Reader
	readerAt uint64 // the decree that reader returns next

	mu sync.Mutex
	flow
	skips
	report
	paused    bool
	interrupt context.CancelCauseFunc // ends the open stream; nil without one
	kicked    bool                    // do not wait for the backoff
	recovered bool                    // the remote has answered since the last failure
}

// flow is where a pipeline stands. Decrees up to confirmed are at the remote, up to cursor they were sent, up to clean there is
// nothing more to ship; then come the batches of queue, without a gap.
type flow struct {
	started   time.Time // when the pipeline began to watch the partition
	known     bool      // the remote said what it has since this process started
	confirmed uint64
	recorded  uint64
	cursor    uint64
	clean     uint64
	passed    uint64 // the feed's count of passed bytes when the last batch was sent
	// oldest is a lower bound of the commit time of what is not confirmed, for decrees that the feed has not seen; 0: unknown.
	oldest mutation.Timestamp

	inflight      []sent
	inflightBytes int
	queue         []*batch
	queueBytes    int

	loading   bool // a job is submitted
	reading   bool // and has started
	collected bool // the job found the log collected
	progress  bool // something was confirmed on this stream
	loadAfter time.Time
	loadTimer *time.Timer // wakes the pipeline at loadAfter
	// readDecrees and readBytes count what jobs have read; skipBytes is what they found not to be shipped since the last
	// batch.
	readDecrees, readBytes, skipBytes uint64
	// watchdog ends the stream when nothing is confirmed for too long; it is stopped while nothing is in flight.
	watchdog *time.Timer
}

// report is what status tells beside flow.
type report struct {
	state     State
	since     time.Time
	address   string
	lastError error
	errorAt   time.Time
	retryAt   time.Time
	full      bool // the window is full
	idle      bool // nothing is left to send

	mutations, bytes, batches, loadedBytes uint64
	connects, failures                     uint64
}

func newPipeline(s *Source, f *feed, r Remote) *pipeline {
	id := f.partition.ID()
	return &pipeline{
		source: s, o: &s.o, feed: f, remote: r, key: fmt.Sprintf("%04d/%s", id, r.Name),
		retry: s.o.backoff(), loadRetry: s.o.backoff(),
		logger: s.o.Logger.With("partition", id, "remote", r.Name),
		wake:   make(chan struct{}, 1),
	}
}

func (p *pipeline) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// seed starts from what the partition remembers of the remote. It runs before the feed subscribes.
func (p *pipeline) seed() {
	recorded, _ := p.feed.partition.Confirmed(p.remote.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow = flow{started: time.Now(), confirmed: recorded, recorded: recorded, cursor: recorded, clean: recorded}
	p.floor.Store(recorded)
	p.unsure = true
}

// run is the main goroutine.
func (p *pipeline) run(ctx context.Context) {
	defer p.finish()
	for ctx.Err() == nil {
		if state, ready := p.ready(); !ready {
			p.enter(state, "")
			p.wait(ctx, nil)
			continue
		}
		if p.unsure {
			p.unsure = false
			p.prefetch(ctx)
		}
		err := p.ship(ctx)
		if ctx.Err() != nil {
			return
		}
		p.pause(ctx, err)
	}
}

// finish ends what a stopped pipeline has left.
func (p *pipeline) finish() {
	if p.job != nil {
		p.job.Cancel()
		<-p.job.Done()
		p.job = nil
	}
	p.closeReader()
	p.mu.Lock()
	if p.loadTimer != nil {
		p.loadTimer.Stop()
	}
	p.loading, p.reading = false, false
	p.queue, p.queueBytes = nil, 0
	p.mu.Unlock()
	p.enter(StateStopped, "")
}

// ready says whether the pipeline is to ship, and if not, its state. Whoever wanted an attempt before has it now; one that is wanted
// from here on is made when this one has failed.
func (p *pipeline) ready() (State, bool) {
	p.mu.Lock()
	paused := p.paused
	p.kicked = false
	p.mu.Unlock()
	if paused {
		return StatePaused, false
	}
	if _, isSelf := p.feed.partition.Leader(); !isSelf {
		return StateNotLeader, false
	}
	return 0, true
}

// wait returns when there may be something to do, timer fires, or ctx ends.
func (p *pipeline) wait(ctx context.Context, timer <-chan time.Time) {
	var ended <-chan struct{}
	if p.job != nil {
		ended = p.job.Done()
	}
	select {
	case <-ctx.Done():
	case <-timer:
	case <-p.wake:
	case <-ended:
		p.harvest()
	}
}

// pause decides, after an attempt has failed with err, how long to wait, and waits.
func (p *pipeline) pause(ctx context.Context, err error) {
	p.mu.Lock()
	progress := p.progress
	p.progress = false
	p.mu.Unlock()
	if progress {
		p.retry.Reset()
		p.instant = false
	}
	if errors.Is(err, errPaused) || errors.Is(err, errNotLeader) {
		return
	}
	state, delay := StateConnecting, time.Duration(0)
	if !p.skipRefused(err) {
		state, delay = p.judge(err)
	}
	p.warn(ctx, failureKind{message: "duplication interrupted", state: state}, err, delay, "state", state.String(), "retry_in", delay)
	p.mu.Lock()
	p.failures++
	p.lastError, p.errorAt = err, time.Now()
	p.retryAt = time.Now().Add(delay)
	p.recovered = false
	p.mu.Unlock()
	if delay == 0 {
		return
	}
	p.enter(state, "")
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for ctx.Err() == nil && !p.due() {
		p.wait(ctx, timer.C)
	}
}

// due says whether the wait between two attempts is over.
func (p *pipeline) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused || p.kicked || !time.Now().Before(p.retryAt)
}

// judge says in which state to wait after err, and how long.
func (p *pipeline) judge(err error) (State, time.Duration) {
	p.hint = ""
	var refusal *refusalError
	if errors.As(err, &refusal) {
		p.hint = refusal.leader
		again := p.hint != "" || refusal.reason == peerpb.RefusalReason_REFUSAL_REASON_GAP
		if again && !p.instant {
			p.instant = true
			return StateConnecting, 0
		}
	}
	if p.hint == "" {
		p.attempt++
	}
	p.instant = false
	slowly := time.Duration(float64(p.o.RefusedRetry) * (1 - rand.Float64()/2))
	switch {
	case errors.Is(err, errLogCollected):
		return StateLogCollected, slowly
	case permanent(err):
		return StateRefused, slowly
	}
	return StateBackoff, max(p.retry.NextBackOff(), time.Millisecond)
}

// target is the address of the next attempt.
func (p *pipeline) target() string {
	if p.hint != "" {
		return p.hint
	}
	return p.remote.Addresses[p.attempt%len(p.remote.Addresses)]
}

// enter changes the state; an empty address leaves the address as it is.
func (p *pipeline) enter(state State, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state != p.state {
		p.state, p.since = state, time.Now()
	}
	if address != "" {
		p.address = address
	}
	if state != StateBackoff && state != StateRefused && state != StateLogCollected {
		p.retryAt = time.Time{}
	}
}

// kick ends a backoff: the remote has just answered someone else.
func (p *pipeline) kick() {
	p.mu.Lock()
	waiting := p.state == StateBackoff
	p.kicked = p.kicked || waiting
	p.mu.Unlock()
	if waiting {
		p.signal()
	}
}

// setPaused pauses or resumes. Resuming ends any wait for the next attempt, also the one after an attempt that is under way.
func (p *pipeline) setPaused(paused bool) {
	p.mu.Lock()
	p.paused = paused
	p.kicked = !paused && p.state != StateShipping
	if paused && p.interrupt != nil {
		p.interrupt(errPaused)
	}
	p.mu.Unlock()
	p.signal()
}
