package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Host hosts all partitions of a node.
//
// One goroutine drives the Raft groups of all of them; each partition has one goroutine of its own for evaluating and
// applying. They talk through queues, so no lock is held while anything waits.
type Host struct {
	o          Options
	partitions []*Partition
	metrics    *hostMetrics
	refusal    atomic.Pointer[error]
	disks      []*disk

	ctx    context.Context // ends when Stop is called
	cancel context.CancelFunc

	lifecycle sync.Mutex
	started   bool
	stopped   bool
	openers   sync.WaitGroup
	stopDone  chan struct{}
	stopErr   error

	mu       sync.Mutex // guards the inbox; a leaf
	inbox    []hostEvent
	sleeping bool
	wake     chan struct{}
	loopDone chan struct{}

	// Below is the loop's.
	groups []*group
	dirty  []*group
	outbox []Message
}

// NewHost checks the options.
func NewHost(o Options) (*Host, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	h := &Host{o: o, wake: make(chan struct{}, 1), loopDone: make(chan struct{}), stopDone: make(chan struct{})}
	for i := range o.Disks {
		h.disks = append(h.disks, newDisk(&h.o, i))
	}
	h.metrics = newHostMetrics(h)
	for id := range o.Partitions {
		p := newPartition(h, id)
		h.partitions = append(h.partitions, p)
		p.disk.space.frugal.members = append(p.disk.space.frugal.members, p)
	}
	if err := h.metrics.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("replica: register metrics: %w", err)
	}
	return h, nil
}

// Start begins to open the partitions and returns; WaitReady waits for them. A partition that cannot be opened is
// left out and says why in Err. Values of ctx are passed on, its end is not.
func (h *Host) Start(ctx context.Context) error {
	h.lifecycle.Lock()
	defer h.lifecycle.Unlock()
	if h.started || h.stopped {
		return errors.New("replica: host can be started only once")
	}
	for _, d := range h.disks {
		if d.Err != nil {
			continue
		}
		if err := os.MkdirAll(d.Dir, 0o755); err != nil {
			err = fmt.Errorf("replica: create folder of partitions: %w", err)
			if len(h.disks) == 1 {
				return err
			}
			d.Err = err
		}
	}
	h.started = true
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go h.loop()
	for _, p := range h.partitions {
		h.openers.Go(func() {
			if err := h.open(p); err != nil {
				p.fail(err)
			}
		})
	}
	return nil
}

// open opens a partition, and tries again as long as the disk is full. Nothing waits on the Runner meanwhile.
func (h *Host) open(p *Partition) error {
	for {
		err := h.o.Runner.Run(h.ctx, fmt.Sprintf("partition %d", p.id), p.open)
		if err == nil || !outOfSpace(err) || !p.reopen(p.disk.space.explain(ErrNoSpace)) {
			return err
		}
		p.log.Warn("partition waits for disk space to open", "error", err)
		select {
		case <-h.ctx.Done():
			return err
		case <-time.After(openRetry):
		}
	}
}

// WaitReady waits until every partition serves, follows a leader elsewhere, or has failed, and returns the failures
// joined.
func (h *Host) WaitReady(ctx context.Context) error {
	var errs []error
	for _, p := range h.partitions {
		errs = append(errs, p.waitReady(ctx))
	}
	return errors.Join(errs...)
}

// Stop refuses new work, finishes what is in flight and closes everything. When the first call's ctx ends before
// that, what is in flight is abandoned and the rest goes on in the background; every call waits for its end or that of
// its own ctx.
func (h *Host) Stop(ctx context.Context) error {
	h.lifecycle.Lock()
	started, first := h.started, !h.stopped
	h.stopped = true
	h.lifecycle.Unlock()
	if !started {
		return nil
	}
	if first {
		go func() {
			h.stopErr = h.stop(ctx)
			close(h.stopDone)
		}()
	}
	select {
	case <-h.stopDone:
		return h.stopErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Host) stop(ctx context.Context) error {
	h.cancel()
	h.openers.Wait()
	for _, p := range h.partitions {
		p.drain()
	}
	for _, p := range h.partitions {
		p.waitEnd(ctx)
	}
	h.post(hostEvent{kind: hostClose})
	<-h.loopDone
	h.metrics.unregister(h.o.Registerer)
	for _, d := range h.disks {
		d.space.close(ctx)
	}
	errs := make([]error, len(h.partitions))
	var closers sync.WaitGroup
	for i, p := range h.partitions {
		closers.Go(func() { errs[i] = p.close() })
	}
	closers.Wait()
	return errors.Join(errs...)
}

// drain refuses new commands; the goroutine ends when those in flight have finished.
func (p *Partition) drain() {
	p.mu.Lock()
	p.draining, p.idle = true, false
	p.mu.Unlock()
	p.wake.Signal()
}

// waitEnd waits for the goroutine, if it was ever started.
func (p *Partition) waitEnd(ctx context.Context) {
	if p.Log() == nil {
		return
	}
	select {
	case <-p.loopDone:
		return
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.quit, p.idle = true, false
	p.mu.Unlock()
	p.wake.Signal()
	<-p.loopDone
}

// Partition is the partition with that number, nil beyond the last.
func (h *Host) Partition(id uint32) *Partition {
	if id >= uint32(len(h.partitions)) {
		return nil
	}
	return h.partitions[id]
}

// Partitions are all partitions, by number. The slice must not be changed.
func (h *Host) Partitions() []*Partition { return h.partitions }

// Route is the partition of a key.
func (h *Host) Route(key []byte) *Partition {
	return h.partitions[PartitionOf(key, uint32(len(h.partitions)))]
}

// maxInbox bounds how many messages of other nodes wait for the host's goroutine.
const maxInbox = 1 << 16

// Step takes a message from another node. ErrBusy drops it, which Raft tolerates.
func (h *Host) Step(m Message) error {
	p := h.Partition(m.Partition)
	if p == nil || m.Raft == nil {
		return fmt.Errorf("replica: message for partition %d of %d", m.Partition, len(h.partitions))
	}
	g := p.openGroup()
	if g == nil {
		return ErrNotReady
	}
	h.mu.Lock()
	full := len(h.inbox) >= maxInbox
	h.mu.Unlock()
	if full {
		return ErrBusy
	}
	h.post(hostEvent{kind: hostStep, g: g, msg: m.Raft})
	return nil
}

// openGroup is the group, nil unless the partition is open.
func (p *Partition) openGroup() *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseOpen {
		return nil
	}
	return p.group
}

// RefuseWrites makes Propose return err for every command, on all partitions, until it is called with nil.
// Reads, duplication and maintenance go on.
func (h *Host) RefuseWrites(err error) {
	if err == nil {
		h.refusal.Store(nil)
		return
	}
	h.refusal.Store(&err)
}

// minMatch asks the host's goroutine which decree every other member has.
func (h *Host) minMatch(g *group) uint64 {
	reply := make(chan uint64, 1)
	h.post(hostEvent{kind: hostMinMatch, g: g, reply: reply})
	select {
	case least := <-reply:
		return least
	case <-h.loopDone:
		return 0
	}
}
