package replica

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// run is the partition's goroutine: it evaluates commands and applies the log until the partition fails or stops.
func (p *Partition) run(ev *evaluator) {
	defer close(p.loopDone)
	defer p.endRun(ev)
	defer func() {
		if v := recover(); v != nil {
			p.fail(fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	var events []partitionEvent
	for {
		var ok bool
		if events, ok = p.next(ev, events[:0]); !ok {
			return
		}
		p.retryRoom(ev)
		// Evaluating first lets the log sync the next mutation while the previous one is being applied.
		p.evaluate(ev)
		for i := range events {
			p.handle(ev, &events[i])
		}
		p.applyQueued(ev)
		clear(events)
		p.evaluate(ev)
	}
}

// next waits for something to do and takes it: all events, and the queue when the goroutine has none left.
func (p *Partition) next(ev *evaluator, empty []partitionEvent) ([]partitionEvent, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		canEvaluate := len(ev.inflight) < p.o.InFlight && ev.term != 0 && ev.noRoom == nil
		switch {
		case p.quit:
			return empty, false
		case len(p.events) > 0, p.retry, canEvaluate && (len(p.queue) > 0 || ev.next < len(ev.work)):
			events := p.events
			p.events = empty
			if len(ev.work) == 0 {
				p.queue, ev.work = ev.work, p.queue
			}
			p.queued = len(p.queue) + len(ev.work) - ev.next
			return events, true
		case p.draining && p.refuse != nil:
			return empty, false
		case p.draining && len(p.queue) == 0 && len(ev.work) == 0 && len(ev.inflight) == 0:
			return empty, false
		}
		p.idle = true
		p.wake.Wait()
	}
}

func (p *Partition) handle(ev *evaluator, e *partitionEvent) {
	switch e.kind {
	case eventCommitted:
		ev.applier.queue(e)
		return
	case eventLeader:
		// What is committed is applied first: it may hold this node's own proposals of the term that ends.
		p.applyQueued(ev)
		p.leaderChanged(ev, e)
	case eventRefused:
		if e.epoch == ev.epoch {
			p.refused(ev, e.seq, e.err)
		}
	case eventStalled:
		ev.logStalled = e.err
		p.stalled(ev)
	}
}

func (p *Partition) leaderChanged(ev *evaluator, e *partitionEvent) {
	p.lead.Store(e.lead)
	newTerm := uint64(0)
	if e.isLeader {
		newTerm = e.term
	}
	if ev.leaderTerm != newTerm {
		p.stepDown(ev, &NotLeaderError{Leader: e.lead})
		ev.leaderTerm = newTerm
	}
	p.mu.Lock()
	p.announce()
	p.mu.Unlock()
}

// stepDown ends what is pending because the overlay is no longer what the next entries follow.
func (p *Partition) stepDown(ev *evaluator, refusal error) {
	p.mu.Lock()
	p.serving.Store(false)
	waiting := p.queue
	p.queue, p.queued = nil, 0
	p.mu.Unlock()
	ev.term = 0
	p.abandon(ev, ErrResultUnknown, refusal)
	p.finishAll(waiting, refusal)
}

// becomeServing is called when the first entry of this node's own term is applied.
func (p *Partition) becomeServing(ev *evaluator) {
	ev.term = ev.leaderTerm
	p.mu.Lock()
	p.serving.Store(true)
	p.announce()
	p.mu.Unlock()
	p.log.Info("partition serves", "term", ev.term, "applied", p.Applied())
}

// outOfRoom refuses writes until there is room for more in the database.
func (p *Partition) outOfRoom(ev *evaluator, cause error) {
	if ev.noRoom == nil {
		p.log.Warn("no disk space for the database, writes are refused", "error", cause)
		ev.noRoom = p.disk.space.explain(ErrNoSpace)
		p.stalled(ev)
	}
	if ev.roomTimer == nil {
		ev.roomTimer = time.AfterFunc(spaceRetry, p.askRetry)
		return
	}
	ev.roomTimer.Reset(spaceRetry)
}

func (p *Partition) askRetry() {
	p.mu.Lock()
	p.retry, p.idle = true, false
	p.mu.Unlock()
	p.wake.Signal()
}

// retryRoom looks, when it is time, whether there is room again.
func (p *Partition) retryRoom(ev *evaluator) {
	p.mu.Lock()
	retry := p.retry
	p.retry = false
	p.mu.Unlock()
	if !retry || ev.noRoom == nil {
		return
	}
	if !p.checkRoom(ev) {
		return
	}
	p.log.Info("disk space for the database again, writes are accepted")
	ev.noRoom = nil
	p.stalled(ev)
}

// checkRoom is whether there is room for more in the database.
func (p *Partition) checkRoom(ev *evaluator) bool {
	err := p.mem.check(p.headroom())
	switch {
	case outOfSpace(err):
		p.outOfRoom(ev, err)
	case err != nil:
		p.fail(fmt.Errorf("reserve space for the database: %w", err))
	}
	return err == nil
}

// headroom is what the database must have room for before more is evaluated: what can be in flight then, unless it is very large.
func (p *Partition) headroom() int64 { return int64((p.o.InFlight + 1) * p.o.BatchBytes) }

// stalled refuses writes while the log or the database takes none, those that wait included. What is proposed stays so and takes
// effect later, so its commands end with a result that is not known.
func (p *Partition) stalled(ev *evaluator) {
	err := ev.logStalled
	if err == nil {
		err = ev.noRoom
	}
	p.disk.space.frugal.set(p, ev.noRoom != nil || errors.Is(ev.logStalled, ErrNoSpace))
	p.mu.Lock()
	p.refuse = err
	var waiting []Command
	if err != nil {
		waiting = p.queue
		p.queue, p.queued = nil, 0
	}
	p.mu.Unlock()
	if err == nil {
		return
	}
	for _, pr := range ev.inflight {
		p.finishAll(pr.commands, ErrResultUnknown)
		clear(pr.commands)
		pr.commands = pr.commands[:0]
	}
	p.finishAll(ev.work[ev.next:], err)
	clear(ev.work)
	ev.work, ev.next = ev.work[:0], 0
	p.finishAll(waiting, err)
}

// endRun ends whatever is pending when the goroutine does.
func (p *Partition) endRun(ev *evaluator) {
	p.disk.space.frugal.set(p, false)
	p.mu.Lock()
	p.serving.Store(false)
	refusal := error(ErrStopped)
	if p.phase == phaseFailed {
		refusal = &FailedError{Partition: p.id, Cause: p.err}
	} else {
		p.draining = true
	}
	waiting := p.queue
	p.queue, p.queued = nil, 0
	p.readers.end(refusal)
	p.announce()
	p.mu.Unlock()
	inflight := refusal
	if p.Err() == nil {
		inflight = ErrResultUnknown
	}
	p.abandon(ev, inflight, refusal)
	p.finishAll(waiting, refusal)
	if ev.state.txn != nil {
		ev.state.txn.Discard()
	}
	if ev.roomTimer != nil {
		ev.roomTimer.Stop()
	}
}
