package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"replicanode/plog"
)

// group is one partition's Raft state machine. Only the host's goroutine touches it.
type group struct {
	h     *Host
	p     *Partition
	rn    *raft.RawNode
	store *storage

	term     uint64
	lead     uint64
	isLeader bool
	single   bool // this node is the only voter
	conf     *raftpb.ConfState

	// hs is Raft's hard state; hsDue says that its commit index is not in the log yet. A commit index needs no sync,
	// so it waits for the next append.
	hs    plog.HardState
	hsDue bool
	// appends are given to the log, in order, and not yet known to be durable.
	appends []*appending
	// stalled appends failed because the log takes nothing for now, and are tried again at every tick. stallReason is what
	// writes are refused with meanwhile.
	stalled      bool
	stallReason  error
	refusalHeard bool

	applied uint64
	// deadEpoch is the last of the partition's epochs whose proposals are refused: one of them was dropped, and the
	// later ones were evaluated on top of it.
	deadEpoch uint64

	readSeq   uint64
	readTicks int

	// early are messages that Raft gave out while the log was replayed.
	early []*raftpb.Message

	scratch []plog.Entry
	dirty   bool
	failed  bool
}

// appending is one append and the messages that wait for it.
type appending struct {
	entries   []*raftpb.Entry
	hs        *plog.HardState
	responses []*raftpb.Message
	submitted bool
}

// ready handles everything that Raft wants done.
func (g *group) ready() {
	for !g.failed && g.rn.HasReady() {
		rd := g.rn.Ready()
		if rd.SoftState != nil || rd.HardState != nil && rd.HardState.GetTerm() != g.term {
			g.observeLeader()
		}
		for _, rs := range rd.ReadStates {
			if len(rs.RequestCtx) == readCtxBytes {
				g.p.readIndexed(binary.LittleEndian.Uint64(rs.RequestCtx[8:]), rs.Index)
			}
		}
		for _, m := range rd.Messages {
			g.dispatch(m)
		}
	}
	g.campaignIfAlone()
}

func (g *group) dispatch(m *raftpb.Message) {
	switch m.GetTo() {
	case raft.LocalAppendThread:
		g.append(m)
	case raft.LocalApplyThread:
		g.apply(m)
	default:
		g.h.send(g.p.id, m)
	}
}

// opened begins to drive the group, with what came up while it was opened.
func (g *group) opened() {
	g.h.groups = append(g.h.groups, g)
	for _, m := range g.early {
		g.dispatch(m)
	}
	g.early = nil
}

// campaignIfAlone elects the only voter at once: nobody else could.
func (g *group) campaignIfAlone() {
	if g.failed || !g.single || g.isLeader || g.applied < g.hs.Commit || g.rn.BasicStatus().RaftState != raft.StateFollower {
		return
	}
	if err := g.rn.Campaign(); err == nil && g.rn.HasReady() {
		g.ready()
	}
}

func (g *group) observeLeader() {
	st := g.rn.BasicStatus()
	isLeader := st.RaftState == raft.StateLeader
	if st.GetTerm() == g.term && st.Lead == g.lead && isLeader == g.isLeader {
		return
	}
	level := slog.LevelDebug
	if st.Lead != g.lead || isLeader != g.isLeader {
		level = slog.LevelInfo
	}
	g.term, g.lead, g.isLeader = st.GetTerm(), st.Lead, isLeader
	g.p.post(partitionEvent{kind: eventLeader, term: g.term, lead: g.lead, isLeader: isLeader})
	// A term without a leader yet is news for those who look closely only.
	g.p.log.Log(context.Background(), level, "leadership changed", "term", g.term, "leader", g.lead, "self", isLeader)
}

// append handles a MsgStorageAppend.
func (g *group) append(m *raftpb.Message) {
	mustSync := len(m.GetEntries()) > 0
	if m.Vote != nil {
		hs := plog.HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
		mustSync = mustSync || hs.Term != g.hs.Term || hs.Vote != g.hs.Vote
		g.hs, g.hsDue = hs, true
	}
	if !mustSync {
		if n := len(g.appends); n > 0 {
			g.appends[n-1].responses = append(g.appends[n-1].responses, m.GetResponses()...)
			return
		}
		g.deliver(m.GetResponses())
		return
	}
	var hs *plog.HardState
	if g.hsDue {
		hs, g.hsDue = new(g.hs), false
	}
	g.store.append(m.GetEntries())
	for _, a := range splitAppend(m.GetEntries(), hs, m.GetResponses(), maxAppendBytes) {
		g.appends = append(g.appends, a)
		if !g.stalled {
			g.submit(a)
		}
	}
}

// maxAppendBytes is how much goes to the log in one append, unless a single entry is larger: Raft may hand over any number of entries
// at once.
const maxAppendBytes = plog.MaxBatchBytes / 4

// entryOverhead is more than the log adds to an entry.
const entryOverhead = 128

// splitAppend makes appends of at most limit bytes, or one entry. The messages wait for the last of them. Each has the hard state, since
// no entry may be in the log before its term is, but with a commit index that the log has reached with it.
func splitAppend(entries []*raftpb.Entry, hs *plog.HardState, responses []*raftpb.Message, limit int) (appends []*appending) {
	from, size := 0, 0
	for i, e := range entries {
		n := len(e.GetData()) + entryOverhead
		if i > from && size+n > limit {
			a := &appending{entries: entries[from:i]}
			if hs != nil {
				a.hs = &plog.HardState{Term: hs.Term, Vote: hs.Vote, Commit: min(hs.Commit, entries[i-1].GetIndex())}
			}
			appends = append(appends, a)
			from, size = i, 0
		}
		size += n
	}
	return append(appends, &appending{entries: entries[from:], hs: hs, responses: responses})
}

// submit gives an append to the log.
func (g *group) submit(a *appending) {
	g.scratch = fromRaft(g.scratch[:0], a.entries)
	a.submitted = true
	err := g.store.log.Append(g.scratch, a.hs, func(err error) {
		g.h.post(hostEvent{kind: hostDurable, g: g, appending: a, err: err})
	})
	clear(g.scratch)
	if err != nil {
		a.submitted = false
		g.appendFailed(err)
	}
}

// reasonToStall is what writes are refused with while appends fail with err; nil when waiting cannot help.
func reasonToStall(err error) error {
	switch {
	case errors.Is(err, plog.ErrDiskFull):
		return ErrNoSpace
	case errors.Is(err, plog.ErrBacklog):
		return ErrBacklog
	}
	return nil
}

// appendFailed stalls the group when waiting can help, and stops it otherwise.
func (g *group) appendFailed(err error) {
	reason := reasonToStall(err)
	if reason == nil {
		g.fail(fmt.Errorf("append to the private log: %w", err))
		return
	}
	if !g.stalled {
		g.p.log.Warn("private log takes no more for now, writes are refused", "error", err)
	}
	if !g.stalled || g.stallReason != reason {
		g.stalled, g.stallReason = true, reason
		g.p.post(partitionEvent{kind: eventStalled, err: g.p.disk.space.explain(reason)})
	}
}

// durable handles the end of one append.
func (g *group) durable(a *appending, err error) {
	a.submitted = false
	if err != nil {
		g.refusalHeard = false
		g.appendFailed(err)
		return
	}
	if len(g.appends) == 0 || g.appends[0] != a {
		g.fail(errors.New("private log reported appends out of order"))
		return
	}
	g.appends = slices.Delete(g.appends, 0, 1)
	if g.stalled && len(g.appends) == 0 {
		g.stalled = false
		g.p.log.Info("private log goes on, writes are accepted")
		g.p.post(partitionEvent{kind: eventStalled})
	}
	g.deliver(a.responses)
}

// retry submits what the log did not take, from the first one on, once nothing is under way any more.
func (g *group) retry() {
	if !g.stalled || slices.ContainsFunc(g.appends, func(a *appending) bool { return a.submitted }) {
		return
	}
	for _, a := range g.appends {
		g.submit(a)
		if !a.submitted && !g.refusalHeard {
			// After a failure the log refuses one append, in case its owner has not heard of it.
			g.refusalHeard = true
			g.submit(a)
		}
		if !a.submitted {
			return
		}
	}
}

func (g *group) deliver(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() != g.h.o.NodeID {
			g.h.send(g.p.id, m)
			continue
		}
		// Raft refuses what a change of term has made stale.
		_ = g.rn.Step(m)
	}
}

// apply handles a MsgStorageApply: membership changes here, everything else by the partition.
func (g *group) apply(m *raftpb.Message) {
	ev, err := g.committed(m)
	if err != nil {
		g.fail(err)
		return
	}
	g.p.post(ev)
}

// committed applies the membership changes of a MsgStorageApply, and makes an event for the partition of it.
func (g *group) committed(m *raftpb.Message) (partitionEvent, error) {
	entries := m.GetEntries()
	ev := partitionEvent{kind: eventCommitted, entries: entries, responses: m.GetResponses()}
	for _, e := range entries {
		if e.GetType() == raftpb.EntryNormal {
			continue
		}
		conf, err := g.applyConf(e)
		if err != nil {
			return ev, err
		}
		ev.confs = append(ev.confs, confAt{e.GetIndex(), conf})
	}
	g.store.log.SetCommitted(entries[len(entries)-1].GetIndex())
	return ev, nil
}

func (g *group) applyConf(e *raftpb.Entry) (*raftpb.ConfState, error) {
	change, err := decodeConfChange(e)
	if err != nil {
		return nil, fmt.Errorf("membership change at decree %d: %w", e.GetIndex(), err)
	}
	g.setConf(g.rn.ApplyConfChange(change))
	return g.conf, nil
}

func (g *group) setConf(conf *raftpb.ConfState) {
	g.conf = conf
	g.single = len(conf.GetVoters()) == 1 && conf.GetVoters()[0] == g.h.o.NodeID && len(conf.GetVotersOutgoing()) == 0
	g.p.single.Store(g.single)
}

// appliedUpTo handles the end of an apply.
func (g *group) appliedUpTo(index uint64, responses []*raftpb.Message) {
	g.applied = index
	g.store.forget(index)
	g.deliver(responses)
}

// propose hands one evaluated mutation to Raft, or refuses it.
func (g *group) propose(term, epoch, seq uint64, data []byte) {
	if epoch <= g.deadEpoch {
		return
	}
	err := error(&NotLeaderError{Leader: g.lead})
	if g.isLeader && term == g.term {
		err = g.rn.Step(&raftpb.Message{
			Type: raftpb.MsgProp.Enum(), From: &g.h.o.NodeID, Entries: []*raftpb.Entry{{Data: data}},
		})
	}
	if err != nil {
		g.deadEpoch = epoch
		g.p.post(partitionEvent{kind: eventRefused, epoch: epoch, seq: seq, err: err})
	}
}

const readCtxBytes = 16

// readIndex asks for the index at which the views that wait now may read.
func (g *group) readIndex() {
	if g.p.issueReads(g.readSeq + 1) {
		g.askReadIndex()
	}
}

func (g *group) askReadIndex() {
	g.readSeq++
	ctx := binary.LittleEndian.AppendUint64(make([]byte, 0, readCtxBytes), g.h.o.NodeID)
	g.rn.ReadIndex(binary.LittleEndian.AppendUint64(ctx, g.readSeq))
}

// readRetryTicks is how long a view waits for an answer before it asks once more: messages get lost. The answers to
// all of its questions are good for it, so that it does not matter how long they take.
const readRetryTicks = 3

func (g *group) tick() {
	g.retry()
	if g.single {
		return
	}
	g.rn.Tick()
	if g.readTicks++; g.readTicks >= readRetryTicks {
		g.readTicks = 0
		if g.p.unanswered() {
			g.askReadIndex()
		}
	}
}

// minMatch is the last decree that every other member is known to have. Only a leader knows, so a follower answers 0:
// it could be the next leader, and must then have what the others lack.
func (g *group) minMatch() uint64 {
	if !g.isLeader {
		return 0
	}
	least := g.applied
	for id, pr := range g.rn.Status().Progress {
		if id != g.h.o.NodeID {
			least = min(least, pr.Match)
		}
	}
	return least
}

// fail stops the group for good.
func (g *group) fail(err error) {
	if g.failed {
		return
	}
	g.failed = true
	g.p.fail(g.store.reason(err))
}

// guard runs f and turns a panic, which is how Raft reports a broken log, into the group's failure.
func (g *group) guard(f func()) {
	if g.failed {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			g.fail(fmt.Errorf("raft: %v", v))
		}
	}()
	f()
}
