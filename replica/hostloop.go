package replica

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

type hostEventKind uint8

const (
	hostOpened hostEventKind = iota
	hostPropose
	hostDurable
	hostApplied
	hostStep
	hostReadIndex
	hostMinMatch
	hostFailed
	hostClose
)

// hostEvent is something for the host's goroutine to do.
type hostEvent struct {
	kind      hostEventKind
	g         *group
	appending *appending
	data      []byte
	term      uint64
	epoch     uint64
	index     uint64
	msg       *raftpb.Message
	responses []*raftpb.Message
	err       error
	reply     chan<- uint64
}

// post queues an event and wakes the host's goroutine if it sleeps.
func (h *Host) post(ev hostEvent) {
	h.mu.Lock()
	h.inbox = append(h.inbox, ev)
	wake := h.sleeping
	h.sleeping = false
	h.mu.Unlock()
	if wake {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// take swaps the inbox with an empty one; when it is empty, the goroutine counts as asleep from now on.
func (h *Host) take(empty []hostEvent) []hostEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.inbox) == 0 {
		h.sleeping = true
		return empty
	}
	got := h.inbox
	h.inbox = empty
	return got
}

// loop drives all groups until a hostClose event.
func (h *Host) loop() {
	defer close(h.loopDone)
	ticker := time.NewTicker(h.o.Tick)
	defer ticker.Stop()
	var batch []hostEvent
	for {
		batch = h.take(batch[:0])
		if len(batch) == 0 {
			select {
			case <-h.wake:
			case <-ticker.C:
				h.tick()
			}
			h.finishRound()
			continue
		}
		for i := range batch {
			if batch[i].kind == hostClose {
				h.closeGroups()
				return
			}
			h.handle(&batch[i])
		}
		clear(batch)
		select {
		case <-ticker.C:
			h.tick()
		default:
		}
		h.finishRound()
	}
}

// finishRound handles what the groups touched in this round want done, and sends their messages together.
func (h *Host) finishRound() {
	for _, g := range h.dirty {
		g.dirty = false
		g.guard(g.ready)
	}
	clear(h.dirty)
	h.dirty = h.dirty[:0]
	if len(h.outbox) > 0 {
		if h.o.Transport != nil {
			h.o.Transport.Send(h.outbox)
		}
		clear(h.outbox)
		h.outbox = h.outbox[:0]
	}
}

func (h *Host) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		h.dirty = append(h.dirty, g)
	}
}

func (h *Host) tick() {
	for _, g := range h.groups {
		g.guard(g.tick)
		if !g.single || g.stalled {
			h.touch(g)
		}
	}
}

func (h *Host) send(partition uint32, m *raftpb.Message) {
	h.outbox = append(h.outbox, Message{Partition: partition, Raft: m})
}

func (h *Host) handle(ev *hostEvent) {
	g := ev.g
	if ev.kind == hostMinMatch {
		least := uint64(0)
		g.guard(func() { least = g.minMatch() })
		ev.reply <- least
		return
	}
	g.guard(func() {
		switch ev.kind {
		case hostOpened:
			g.opened()
		case hostPropose:
			g.propose(ev.term, ev.epoch, ev.index, ev.data)
		case hostDurable:
			g.durable(ev.appending, ev.err)
		case hostApplied:
			g.appliedUpTo(ev.index, ev.responses)
		case hostStep:
			// Raft refuses messages that make no sense in its state.
			_ = g.rn.Step(ev.msg)
		case hostReadIndex:
			g.readIndex()
		case hostFailed:
			g.failed = true
		}
	})
	h.touch(g)
}

// closeGroups writes the commit indexes that waited for an append, so that less is to be replayed.
func (h *Host) closeGroups() {
	for _, g := range h.groups {
		if !g.failed && g.hsDue && !g.stalled {
			hs := g.hs
			// The log's Close makes it durable; losing it costs nothing.
			_ = g.store.log.Append(nil, &hs, nil)
		}
	}
}

// decodeConfChange reads a membership change entry of either version.
func decodeConfChange(e *raftpb.Entry) (raftpb.ConfChangeI, error) {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		cc := new(raftpb.ConfChange)
		return cc, proto.Unmarshal(e.GetData(), cc)
	case raftpb.EntryConfChangeV2:
		cc := new(raftpb.ConfChangeV2)
		return cc, proto.Unmarshal(e.GetData(), cc)
	}
	return nil, fmt.Errorf("unknown entry type %d", e.GetType())
}
