package replica

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"replicanode/replica/mutation"
)

// confRoom is more than a membership takes in the database.
const confRoom = 4 << 10

// applier gathers committed entries and writes them to the database in one go.
type applier struct {
	// queued are committed and not yet applied.
	queued []partitionEvent
	// steps are the decrees of the batch being written; matched of them are the first of the evaluator's inflight.
	steps   []step
	matched int
	// foreign are entries that were not evaluated by this node as the leader, and are evaluated when applied.
	// They share one arena: a replay applies very many at once.
	foreign      []*effects
	foreignArena arena

	entries []badger.Entry
	record  []byte
}

// step is one decree of a batch and what it writes, if anything.
type step struct {
	entry   *raftpb.Entry
	effects *effects
}

func (a *applier) queue(e *partitionEvent) { a.queued = append(a.queued, *e) }

// applyQueued applies everything that is committed: one database write, then everything that waited for it.
func (p *Partition) applyQueued(ev *evaluator) {
	a := &ev.applier
	if len(a.queued) == 0 {
		return
	}
	err := p.applyAll(ev)
	if outOfSpace(err) {
		p.postpone(ev, err)
		return
	}
	if err != nil {
		p.fail(fmt.Errorf("apply after decree %d: %w", p.Applied(), err))
	}
	a.forget()
}

// forget drops the batch, which is applied or never will be.
func (a *applier) forget() {
	clear(a.queued)
	clear(a.steps)
	a.queued, a.steps, a.matched = a.queued[:0], a.steps[:0], 0
}

func (p *Partition) applyAll(ev *evaluator) error {
	a := &ev.applier
	for i := range a.queued {
		for _, e := range a.queued[i].entries {
			if err := p.prepare(ev, e); err != nil {
				return fmt.Errorf("decree %d: %w", e.GetIndex(), err)
			}
		}
	}
	last := a.steps[len(a.steps)-1].entry
	room := a.room()
	if err := p.mem.reserve(room); err != nil {
		return err
	}
	err := p.write(ev, last)
	p.mem.done(room)
	if err != nil {
		// Part of it may be in the database, which only a replay can tell.
		return fmt.Errorf("write to the database: %v", err)
	}
	ev.state.moveTo(last.GetIndex())
	p.applied.Store(last.GetIndex())
	// After the decree: who reads this time first, sees at least the state that belongs to it.
	p.noteTime(a)
	p.settle(ev, last)
	return nil
}

// noteTime remembers the timestamp of the newest mutation of the batch.
func (p *Partition) noteTime(a *applier) {
	if ts := a.newestTime(); ts > 0 {
		p.entryTime.Store(uint64(ts))
	}
}

// newestTime is the timestamp of the newest mutation of the batch, 0 when there is none.
func (a *applier) newestTime() mutation.Timestamp {
	for _, st := range slices.Backward(a.steps) {
		if st.effects == nil {
			continue
		}
		if h, err := mutation.ParseHeader(st.entry.GetData()); err == nil {
			return h.Timestamp
		}
		return 0
	}
	return 0
}

// postpone forgets what was prepared of the batch, which has no room in the database; it stays queued.
func (p *Partition) postpone(ev *evaluator, cause error) {
	a := &ev.applier
	ev.dropForeign()
	clear(a.steps)
	a.steps, a.matched = a.steps[:0], 0
	p.outOfRoom(ev, cause)
}

// room bounds what the batch takes in the database.
func (a *applier) room() int64 {
	n := int64(entryRoom + len(appliedKey) + appliedRecordBytes)
	for i := range a.steps {
		if a.steps[i].effects == nil {
			continue
		}
		for _, e := range a.steps[i].effects.list {
			if !e.superseded {
				n += int64(len(e.key)+len(e.val)) + entryRoom
			}
		}
	}
	for i := range a.queued {
		n += int64(len(a.queued[i].confs)) * confRoom
	}
	return n
}

// prepare finds or makes the effects of one committed entry.
func (p *Partition) prepare(ev *evaluator, e *raftpb.Entry) error {
	a := &ev.applier
	st := step{entry: e}
	if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
		if a.matched < len(ev.inflight) {
			own := ev.inflight[a.matched]
			if !sameData(own.data, e.GetData()) {
				return errors.New("another entry than the one proposed was committed without a change of leader")
			}
			st.effects = &own.effects
			a.matched++
		} else {
			st.effects = &effects{arena: &a.foreignArena}
			a.foreign = append(a.foreign, st.effects)
			if err := p.evaluateForeign(ev, st.effects, e.GetData()); err != nil {
				return err
			}
		}
	}
	a.steps = append(a.steps, st)
	return nil
}

func sameData(a, b []byte) bool {
	return len(a) == len(b) && (&a[0] == &b[0] || bytes.Equal(a, b))
}

// evaluateForeign turns a log entry into effects.
func (p *Partition) evaluateForeign(ev *evaluator, set *effects, data []byte) error {
	h, err := mutation.ParseHeader(data)
	if err != nil {
		return err
	}
	p.clock.Observe(h.Timestamp)
	mu := &ev.tx.mu
	mu.enter(set, h.Timestamp)
	switch h.Kind {
	case mutation.User:
		err := mu.applyUser(data, true)
		p.noteDecided(mu.nowMs)
		return err
	case mutation.Duplicated:
		return p.mutateDuplicated(mu, data)
	}
	return mu.applyProgress(data)
}

// applyUser does all operations of a user mutation.
func (mu *mutator) applyUser(data []byte, local bool) error {
	h, d, err := mutation.Decode(data)
	if err != nil {
		return err
	}
	mu.begin(h, local)
	for op := (mutation.Op{}); d.Next(&op); {
		if err := mu.apply(&op); err != nil {
			return err
		}
	}
	return d.Err()
}

// write puts the batch into the database, each decree's effects at its own version.
func (p *Partition) write(ev *evaluator, last *raftpb.Entry) error {
	a := &ev.applier
	a.entries = a.entries[:0]
	total := 1
	for i := range a.steps {
		if s := a.steps[i].effects; s != nil {
			total += len(s.list)
		}
	}
	if cap(a.entries) < total {
		a.entries = make([]badger.Entry, 0, total+total/2)
	}
	wb := p.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for i := range a.steps {
		st := &a.steps[i]
		if st.effects == nil {
			continue
		}
		for _, e := range st.effects.list {
			if e.superseded {
				continue
			}
			a.entries = append(a.entries, badger.Entry{Key: e.key, Value: e.val, UserMeta: e.val[0], ExpiresAt: e.expiresAt})
			if err := wb.SetEntryAt(&a.entries[len(a.entries)-1], st.entry.GetIndex()); err != nil {
				return err
			}
		}
	}
	for i := range a.queued {
		for _, c := range a.queued[i].confs {
			rec, err := proto.Marshal(c.conf)
			if err != nil {
				return err
			}
			if err := wb.SetEntryAt(badger.NewEntry(confKey, rec), c.index); err != nil {
				return err
			}
		}
	}
	p.newest = max(p.newest, a.newestTime())
	a.record = appliedRecord{last.GetTerm(), p.newest}.append(a.record[:0])
	a.entries = append(a.entries, badger.Entry{Key: appliedKey, Value: a.record})
	if err := wb.SetEntryAt(&a.entries[len(a.entries)-1], last.GetIndex()); err != nil {
		return err
	}
	return wb.Flush()
}

// settle tells everybody who waits for what has just been applied.
func (p *Partition) settle(ev *evaluator, last *raftpb.Entry) {
	a := &ev.applier
	p.noteProgress(a)
	p.publish(a)
	for _, pr := range ev.inflight[:a.matched] {
		p.finishAll(pr.commands, nil)
		ev.recycle(pr)
	}
	rest := copy(ev.inflight, ev.inflight[a.matched:])
	clear(ev.inflight[rest:])
	ev.inflight = ev.inflight[:rest]
	ev.dropForeign()
	if !ev.opening {
		p.tellHost(a, last)
	}
	p.metrics.applied(a.steps)
	p.durable.wrote(p, a.entries)
	p.replay.passed(last.GetIndex(), p.o.Clock())
	p.wakeReaders(last.GetIndex())
	p.resume(ev, last)
}

func (p *Partition) tellHost(a *applier, last *raftpb.Entry) {
	var responses []*raftpb.Message
	for i := range a.queued {
		responses = append(responses, a.queued[i].responses...)
	}
	p.h.post(hostEvent{kind: hostApplied, g: p.group, index: last.GetIndex(), responses: responses})
}

func (ev *evaluator) dropForeign() {
	a := &ev.applier
	for _, set := range a.foreign {
		ev.state.overlay.drop(set)
	}
	clear(a.foreign)
	a.foreign = a.foreign[:0]
	a.foreignArena.reset()
}

// resume lets commands be evaluated (again) once the state is what the next entry of this leader follows.
func (p *Partition) resume(ev *evaluator, last *raftpb.Entry) {
	if ev.term != 0 || ev.leaderTerm == 0 || last.GetTerm() != ev.leaderTerm || len(ev.inflight) > 0 {
		return
	}
	ev.forgetDoomed()
	p.becomeServing(ev)
}
