package replica

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"go.etcd.io/raft/v3/raftpb"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// phase is how far a partition has come.
type phase uint8

const (
	phaseWaiting phase = iota
	phaseOpening
	phaseOpen
	phaseFailed
	phaseStopped
)

// String is the phase's name.
func (p phase) String() string {
	return [...]string{"waiting", "opening", "open", "failed", "stopped"}[p]
}

type eventKind uint8

const (
	// eventLeader: term, leader or role changed.
	eventLeader eventKind = iota
	// eventCommitted: entries to apply.
	eventCommitted
	// eventRefused: a proposal of the epoch was dropped, and so are all others of it.
	eventRefused
	// eventStalled: the log takes nothing for now (err says why), or goes on (nil).
	eventStalled
)

// partitionEvent is something for the partition's goroutine to do, in order.
type partitionEvent struct {
	kind      eventKind
	entries   []*raftpb.Entry
	responses []*raftpb.Message
	confs     []confAt
	term      uint64
	lead      uint64
	epoch     uint64
	seq       uint64
	isLeader  bool
	err       error
}

// confAt is the membership from a decree on.
type confAt struct {
	index uint64
	conf  *raftpb.ConfState
}

// Partition is this node's replica of one partition.
//
// One goroutine evaluates its commands and applies its log, so neither waits for a lock; Raft is driven by the host's
// goroutine. Lock order: mu is a leaf, pins.mu is a leaf.
type Partition struct {
	id   uint32
	h    *Host
	o    *Options
	disk *disk
	log  *slog.Logger

	// Set by open under mu, with phaseOpen; nil again when closed. The goroutine and those who hold views read them
	// without mu.
	plog  *plog.Log
	db    *badger.DB
	mem   *memFiles
	group *group
	clock mutation.Clock

	applied atomic.Uint64
	// entryTime is the timestamp of the newest mutation that this process has applied; all later ones have greater ones.
	entryTime atomic.Uint64
	// newest is the timestamp in the newest appliedRecord: not what the clock has given out, which a replay does not know. It belongs to
	// whoever applies.
	newest mutation.Timestamp
	// decidedMs is the greatest time by which a mutation of this cluster has decided what has expired.
	decidedMs atomic.Uint64
	lead      atomic.Uint64
	// serving: this node leads and has applied everything of earlier terms.
	serving atomic.Bool
	single  atomic.Bool
	replay  replayProgress
	durable durability
	pins    pins
	metrics *partitionMetrics

	mu    sync.Mutex
	wake  sync.Cond // on mu, for the goroutine
	phase phase
	err   error // why failed
	// refuse is why commands are not taken although the partition serves.
	refuse   error
	queue    []Command
	queued   int // in queue, and taken by the goroutine but not yet evaluated
	events   []partitionEvent
	draining bool // no new commands; the goroutine ends when nothing is in flight
	quit     bool // the goroutine ends at once
	idle     bool // the goroutine waits
	retry    bool // a goroutine that is out of space is to try again
	changed  chan struct{}
	readers  readers
	subs     subscriptions

	// confirmed and progress mirror the system records.
	confirmed map[string]uint64
	loopDone  chan struct{}

	// views in progress hold the database open.
	views sync.RWMutex
}

func newPartition(h *Host, id uint32) *Partition {
	p := &Partition{
		id: id, h: h, o: &h.o, disk: h.disks[h.o.Placement[id]], log: h.o.Logger.With("partition", id),
		changed: make(chan struct{}), confirmed: make(map[string]uint64), loopDone: make(chan struct{}),
	}
	p.wake.L = &p.mu
	p.clock.Physical = h.o.Clock
	p.durable.sync = syncDir
	p.metrics = h.metrics.partition(p)
	return p
}

// ID is the partition's number, from 0.
func (p *Partition) ID() uint32 { return p.id }

// Applied is the applied decree.
func (p *Partition) Applied() uint64 { return p.applied.Load() }

// Leader is the node id of the leader (0 unknown), and whether it is this node.
func (p *Partition) Leader() (id uint64, isSelf bool) {
	lead := p.lead.Load()
	return lead, lead == p.o.NodeID
}

// Ready is whether commands and views are served.
func (p *Partition) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase == phaseOpen && p.serving.Load()
}

// Err is why the partition does not serve and will not by itself; nil while it serves, opens or replays.
func (p *Partition) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Log is the private log; nil until the partition is open and after it was closed.
func (p *Partition) Log() *plog.Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plog
}

// Propose queues a command. After an error the command's methods are not called. The errors are ErrBusy, ErrNotReady,
// ErrStopped, a NoSpaceError, ErrBacklog, a NotLeaderError, a FailedError, or what RefuseWrites was given.
func (p *Partition) Propose(c Command) error {
	if refusal := p.h.refusal.Load(); refusal != nil {
		return *refusal
	}
	if err := p.disk.space.admitClients(); err != nil {
		return err
	}
	return p.enqueue(c)
}

func (p *Partition) enqueue(c Command) error {
	p.mu.Lock()
	if err := p.unavailable(); err != nil {
		p.mu.Unlock()
		return err
	}
	if p.queued >= p.o.QueueCommands {
		p.mu.Unlock()
		p.metrics.busy.Inc()
		return ErrBusy
	}
	p.queue = append(p.queue, c)
	p.queued++
	wake := p.idle
	p.idle = false
	p.mu.Unlock()
	if wake {
		p.wake.Signal()
	}
	return nil
}

// unavailable is why commands are not taken. mu is held.
func (p *Partition) unavailable() error {
	switch {
	case p.phase == phaseFailed:
		return &FailedError{Partition: p.id, Cause: p.err}
	case p.draining || p.phase == phaseStopped:
		return ErrStopped
	case p.phase != phaseOpen:
		return ErrNotReady
	case p.refuse != nil:
		return p.refuse
	case !p.serving.Load():
		if lead := p.lead.Load(); lead != p.o.NodeID {
			return &NotLeaderError{Leader: lead}
		}
		return ErrNotReady
	}
	return nil
}

// post queues an event of the host's.
func (p *Partition) post(ev partitionEvent) {
	p.mu.Lock()
	if p.quit {
		p.mu.Unlock()
		return
	}
	p.events = append(p.events, ev)
	wake := p.idle
	p.idle = false
	p.mu.Unlock()
	if wake {
		p.wake.Signal()
	}
}

// fail stops the partition for good, from any goroutine; its own goroutine ends everything that is pending.
func (p *Partition) fail(err error) {
	p.mu.Lock()
	if p.phase == phaseFailed || p.phase == phaseStopped {
		p.mu.Unlock()
		return
	}
	p.phase, p.err, p.quit = phaseFailed, err, true
	p.idle = false
	p.events = nil
	g := p.group
	p.announce()
	p.mu.Unlock()
	p.wake.Signal()
	p.log.Error("partition failed", "error", err)
	if g != nil {
		p.h.post(hostEvent{kind: hostFailed, g: g})
	}
}

// announce wakes everybody who waits for the partition to change. mu is held.
func (p *Partition) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// waitReady waits until the partition serves, follows a leader, or has failed.
func (p *Partition) waitReady(ctx context.Context) error {
	for {
		p.mu.Lock()
		phase, err, changed, lead := p.phase, p.err, p.changed, p.lead.Load()
		p.mu.Unlock()
		switch {
		case phase == phaseFailed:
			return &FailedError{Partition: p.id, Cause: err}
		case phase == phaseStopped:
			return ErrStopped
		case phase == phaseOpen && (p.serving.Load() || lead != 0 && lead != p.o.NodeID):
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
