package replica

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"replicanode/plog"
	"replicanode/replica/mapped"
)

const (
	// spaceMaxAge is how old the answer to "how much is free" may be.
	spaceMaxAge = 100 * time.Millisecond
	// spacePatience is how long the answer is waited for.
	spacePatience = 100 * time.Millisecond
	// minReserveBytes bounds the default of Options.ReserveBytes from below, maxReserveShare from above: that part of a small disk.
	minReserveBytes = 64 << 20
	maxReserveShare = 50
	// spaceRetry is how long a partition without space waits before it tries again.
	spaceRetry = 100 * time.Millisecond
	// openRetry is the same for one that could not be opened.
	openRetry = time.Second
)

// disk is one of Options.Disks and what is known of its space.
type disk struct {
	Disk
	space *space
}

func newDisk(o *Options, index int) *disk {
	placed := 0
	for _, i := range o.Placement {
		if i == index {
			placed++
		}
	}
	return &disk{Disk: o.Disks[index], space: newSpace(o, o.Disks[index].Dir, placed)}
}

// space knows how much a disk of partitions has left, and refuses writes in time: what is left is for what was accepted
// already, for memtables that become tables, and for the logs' own files.
type space struct {
	dir     string
	reserve int64 // as configured, 0 for the default
	least   int64 // the default before it is bounded by the disk's size
	free    func(dir string) (free, total int64, err error)
	frugal  *frugality

	asked   atomic.Int64 // when the disk was asked last, in nanoseconds since started
	started time.Time
	answer  atomic.Pointer[chan struct{}] // closed when the newest question was answered
	asking  atomic.Bool
	closed  atomic.Bool
	freeNow atomic.Int64
	clients atomic.Int64 // below it writes of clients are refused; those of other clusters below the half of it
}

func newSpace(o *Options, dir string, partitions int) *space {
	s := &space{
		dir: dir, reserve: o.ReserveBytes, least: max(minReserveBytes, int64(partitions)*o.MemTableBytes),
		free: mapped.Free, frugal: newFrugality(), started: time.Now(),
	}
	s.asked.Store(-int64(spaceMaxAge))
	return s
}

// look asks the disk again when the last answer is too old.
func (s *space) look() {
	now, asked := int64(time.Since(s.started)), s.asked.Load()
	if now-asked < int64(spaceMaxAge) || !s.asked.CompareAndSwap(asked, now) {
		return
	}
	s.ask()
}

// ask asks the disk, and waits as long as one that works may take. Until one that hangs has answered, what it said last holds.
func (s *space) ask() {
	if s.closed.Load() || !s.asking.CompareAndSwap(false, true) {
		return
	}
	answer := make(chan struct{})
	s.answer.Store(&answer)
	go func() {
		defer close(answer)
		defer s.asking.Store(false)
		s.measure()
	}()
	patience := time.NewTimer(spacePatience)
	defer patience.Stop()
	select {
	case <-answer:
	case <-patience.C:
	}
}

// measure makes the call. A disk that gives an error refuses nothing.
func (s *space) measure() {
	free, total, err := s.free(s.dir)
	if err != nil {
		s.clients.Store(0)
		s.frugal.set(s, false)
		return
	}
	mark := s.reserve
	if mark == 0 {
		mark = min(s.least, total/maxReserveShare)
	}
	s.freeNow.Store(free)
	s.clients.Store(mark)
	s.frugal.set(s, free < mark)
}

// close asks no more, and waits for the last answer at most until ctx ends.
func (s *space) close(ctx context.Context) {
	s.closed.Store(true)
	if answer := s.answer.Load(); answer != nil {
		select {
		case <-*answer:
		case <-ctx.Done():
		}
	}
}

// admitClients is why writes of clients are refused, nil if they are not.
func (s *space) admitClients() error {
	s.look()
	return s.admit(s.clients.Load())
}

// admitDuplicated is the same for writes of other clusters: they are told to come back later only when less is left, because their
// backup would fall behind.
func (s *space) admitDuplicated() error {
	s.look()
	return s.admit(s.clients.Load() / 2)
}

func (s *space) admit(mark int64) error {
	if free := s.freeNow.Load(); free < mark {
		return s.refusal(free, mark)
	}
	return nil
}

func (s *space) refusal(free, mark int64) error {
	return &NoSpaceError{Path: s.dir, FreeBytes: free, ResumeBytes: mark}
}

// explain is what writes are refused with when something failed for lack of space.
func (s *space) explain(reason error) error {
	if !errors.Is(reason, ErrNoSpace) {
		return reason
	}
	s.ask()
	if s.clients.Load() == 0 {
		return reason
	}
	return s.refusal(s.freeNow.Load(), s.clients.Load())
}

// outOfSpace is whether an error goes away when there is space again.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, plog.ErrDiskFull)
}
