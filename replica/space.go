package replica

import (
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
	// minReserveBytes bounds the default of Options.ReserveBytes from below, maxReserveShare from above: that part of a small disk.
	minReserveBytes = 64 << 20
	maxReserveShare = 50
	// spaceRetry is how long a partition without space waits before it tries again.
	spaceRetry = 100 * time.Millisecond
	// openRetry is the same for one that could not be opened.
	openRetry = time.Second
)

// space knows how much the disk of the partitions has left, and refuses writes in time: what is left is for what was accepted
// already, for memtables that become tables, and for the logs' own files.
type space struct {
	dir     string
	reserve int64 // as configured, 0 for the default
	least   int64 // the default before it is bounded by the disk's size
	free    func(dir string) (free, total int64, err error)
	frugal  *frugality

	asked   atomic.Int64 // when the disk was asked last, in nanoseconds since started
	started time.Time
	freeNow atomic.Int64
	clients atomic.Int64 // below it writes of clients are refused; those of other clusters below the half of it
}

func newSpace(o *Options) *space {
	s := &space{
		dir: o.Dir, reserve: o.ReserveBytes, least: max(minReserveBytes, int64(o.Partitions)*o.MemTableBytes),
		free: mapped.Free, frugal: newFrugality(), started: time.Now(),
	}
	s.asked.Store(-int64(spaceMaxAge))
	return s
}

// look asks the disk again when the last answer is too old. A disk that does not answer refuses nothing.
func (s *space) look() {
	now, asked := int64(time.Since(s.started)), s.asked.Load()
	if now-asked < int64(spaceMaxAge) || !s.asked.CompareAndSwap(asked, now) {
		return
	}
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
	free, _, err := s.free(s.dir)
	if err != nil {
		return reason
	}
	s.look()
	return s.refusal(free, s.clients.Load())
}

// outOfSpace is whether an error goes away when there is space again.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, plog.ErrDiskFull)
}
