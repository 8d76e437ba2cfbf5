package replica

import (
	"bytes"
	"errors"
	"runtime/debug"
	"time"

	"replicanode/replica/mutation"
)

// proposal is one mutation between its evaluation and its application.
type proposal struct {
	effects
	memory   arena
	data     []byte
	commands []Command
	seq      uint64
	// wasted is the size of the writes that were taken back while the mutation was made: their memory is still taken.
	wasted int
}

// evaluator is the part of a partition that only its goroutine touches.
type evaluator struct {
	state state
	tx    Tx

	// work are commands that were taken from the queue and not evaluated yet.
	work []Command
	next int

	// inflight are proposed and not yet applied, in order.
	inflight []*proposal
	// doomed were refused by Raft. Their effects stay in the overlay until everything proposed before is applied.
	doomed []*proposal
	spare  []*proposal

	// leaderTerm is the term that this node leads, 0 when it does not. term is the same once everything of earlier
	// terms is applied, and 0 until then: only then is the state known that commands are evaluated against.
	leaderTerm uint64
	term       uint64
	// epoch changes whenever proposals are given up; seq numbers them.
	epoch uint64
	seq   uint64

	applier applier
	// opening: the log is replayed before the host knows of the group.
	opening bool

	// logStalled and noRoom are why writes are refused for now: by the log, and for lack of space for the database.
	logStalled, noRoom error
	roomTimer          *time.Timer
}

// evaluate turns queued commands into mutations as long as there is room in flight.
func (p *Partition) evaluate(ev *evaluator) {
	if ev.next < len(ev.work) && ev.term != 0 && ev.noRoom == nil {
		p.checkRoom(ev)
	}
	for ev.next < len(ev.work) && len(ev.inflight) < p.o.InFlight && ev.term != 0 && ev.noRoom == nil {
		if own, ok := ev.work[ev.next].(ownMutation); ok {
			ev.next++
			p.proposeOwn(ev, own)
			continue
		}
		p.proposeBatch(ev)
	}
	if ev.next == len(ev.work) {
		clear(ev.work)
		ev.work, ev.next = ev.work[:0], 0
	}
}

// proposeBatch evaluates commands, up to the limits, into one mutation.
func (p *Partition) proposeBatch(ev *evaluator) {
	pr := ev.newProposal()
	tx := &ev.tx
	h := mutation.Header{Kind: mutation.User, Timestamp: p.clock.Next(), Cluster: p.o.ClusterID}
	tx.mu.enter(&pr.effects, h.Timestamp)
	tx.mu.begin(h, true)
	tx.b.Reset(h)
	// Clusters with a faster clock push the timestamps ahead; what expires does so by the clock of this one all the same.
	if now := p.nowMs(); now < tx.mu.nowMs {
		tx.mu.nowMs = now
		tx.b.Now(now)
	}
	p.noteDecided(tx.mu.nowMs)
	for ev.next < len(ev.work) && len(pr.commands) < p.o.BatchCommands && tx.b.Len()+pr.wasted < p.o.BatchBytes {
		c := ev.work[ev.next]
		if _, ok := c.(ownMutation); ok {
			break
		}
		ev.next++
		if err := ev.execute(c, pr); err != nil {
			p.noteFailure(err)
			p.finish(c, err)
			continue
		}
		pr.commands = append(pr.commands, c)
	}
	p.metrics.batchCommands.Observe(float64(len(pr.commands)))
	switch {
	case len(pr.commands) == 0:
		ev.recycle(pr)
	case tx.b.Ops() > 0 || len(ev.inflight) == 0 && !p.single.Load():
		// Reads that have nothing to wait for are only known to be current on a leader that can still commit.
		p.propose(ev, pr, bytes.Clone(tx.b.Bytes()))
	case len(ev.inflight) > 0:
		last := ev.inflight[len(ev.inflight)-1]
		last.commands = append(last.commands, pr.commands...)
		ev.recycle(pr)
	default:
		p.finishAll(pr.commands, nil)
		ev.recycle(pr)
	}
}

// execute runs one command; an error means that it left no trace.
func (ev *evaluator) execute(c Command, pr *proposal) (err error) {
	tx := &ev.tx
	tx.begin()
	mark, effects, generations := tx.b.Mark(), len(pr.list), pr.generations
	rollback := func() {
		pr.wasted += tx.b.Len() - tx.start
		tx.b.Rollback(mark)
		ev.state.overlay.undo(&pr.effects, effects)
		pr.generations = generations
	}
	defer func() {
		if v := recover(); v != nil {
			rollback()
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	c.Execute(tx)
	if tx.err != nil || tx.void {
		rollback()
	}
	return tx.err
}

func (p *Partition) noteFailure(err error) {
	var panicked *PanicError
	if errors.As(err, &panicked) {
		p.metrics.panics.Inc()
		p.log.Error("command panicked", "panic", panicked.Value, "stack", string(panicked.Stack))
	}
}

// propose sends a mutation to the host's goroutine.
func (p *Partition) propose(ev *evaluator, pr *proposal, data []byte) {
	ev.seq++
	pr.data, pr.seq = data, ev.seq
	ev.inflight = append(ev.inflight, pr)
	p.h.post(hostEvent{kind: hostPropose, g: p.group, term: ev.term, epoch: ev.epoch, index: ev.seq, data: data})
}

// ownMutation is a command that becomes a mutation of its own.
type ownMutation interface {
	Command
	// mutate checks the command against the state and, unless it returns an error or no data, adds its effects.
	mutate(p *Partition, mu *mutator) (data []byte, err error)
}

func (p *Partition) proposeOwn(ev *evaluator, c ownMutation) {
	pr := ev.newProposal()
	ev.tx.mu.set = &pr.effects
	data, err := p.mutateOwn(ev, c, pr)
	switch {
	case err != nil:
		ev.recycle(pr)
		p.noteFailure(err)
		p.finish(c, err)
	case data != nil:
		pr.commands = append(pr.commands, c)
		p.propose(ev, pr, data)
	case len(ev.inflight) > 0:
		ev.recycle(pr)
		last := ev.inflight[len(ev.inflight)-1]
		last.commands = append(last.commands, c)
	default:
		ev.recycle(pr)
		p.finish(c, nil)
	}
}

func (p *Partition) mutateOwn(ev *evaluator, c ownMutation, pr *proposal) (data []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			data, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
		if err != nil {
			ev.state.overlay.undo(&pr.effects, 0)
		}
	}()
	return c.mutate(p, &ev.tx.mu)
}

func (ev *evaluator) newProposal() *proposal {
	if n := len(ev.spare); n > 0 {
		pr := ev.spare[n-1]
		ev.spare = ev.spare[:n-1]
		return pr
	}
	pr := new(proposal)
	pr.arena = &pr.memory
	return pr
}

// recycle forgets a proposal whose effects are in the database, or never will be.
func (ev *evaluator) recycle(pr *proposal) {
	ev.state.overlay.drop(&pr.effects)
	pr.memory.reset()
	clear(pr.commands)
	pr.commands, pr.data, pr.wasted = pr.commands[:0], nil, 0
	ev.spare = append(ev.spare, pr)
}

// abandon ends everything proposed and everything taken: the overlay they were evaluated against is gone.
func (p *Partition) abandon(ev *evaluator, inflight, waiting error) {
	ev.epoch++
	for _, pr := range append(ev.inflight, ev.doomed...) {
		p.finishAll(pr.commands, inflight)
		ev.recycle(pr)
	}
	clear(ev.inflight)
	clear(ev.doomed)
	ev.inflight, ev.doomed = ev.inflight[:0], ev.doomed[:0]
	p.finishAll(ev.work[ev.next:], waiting)
	clear(ev.work)
	ev.work, ev.next = ev.work[:0], 0
}

// refused ends the proposals from seq on, which Raft did not take. Those before it are in its log, so evaluation goes on
// when they are applied.
func (p *Partition) refused(ev *evaluator, seq uint64, err error) {
	ev.epoch++
	ev.term = 0
	at := 0
	for at < len(ev.inflight) && ev.inflight[at].seq < seq {
		at++
	}
	for _, pr := range ev.inflight[at:] {
		p.finishAll(pr.commands, err)
		clear(pr.commands)
		pr.commands = pr.commands[:0]
		ev.doomed = append(ev.doomed, pr)
	}
	clear(ev.inflight[at:])
	ev.inflight = ev.inflight[:at]
	if at == 0 {
		ev.forgetDoomed()
		ev.term = ev.leaderTerm
	}
}

func (ev *evaluator) forgetDoomed() {
	for _, pr := range ev.doomed {
		ev.recycle(pr)
	}
	clear(ev.doomed)
	ev.doomed = ev.doomed[:0]
}

func (p *Partition) finishAll(commands []Command, err error) {
	for _, c := range commands {
		p.finish(c, err)
	}
}

func (p *Partition) finish(c Command, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("command panicked while finishing", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	c.Finish(err)
}
