package plog

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Log is the private log of one partition. All methods may be called concurrently, except that appends must
// come from one goroutine at a time when their order matters to the caller.
//
// Lock order: ioMu, then mu, then the leaf locks of files and Syncer.
type Log struct {
	dir       string
	partition uint32
	fs        vfs.FS
	opts      Options
	log       *slog.Logger
	syncer    *Syncer
	ownSyncer bool
	metrics   *logMetrics
	files     *files
	damage    damage
	bg        sync.WaitGroup

	// ioMu serialises everything that changes files: group commits, rotation, release, reset, close.
	ioMu        sync.Mutex
	generation  uint64 // of the manifest on disk
	headerDue   bool   // the active segment's header is not written yet
	eraseDue    bool   // what a failed write left behind the end may be readable
	fixManifest bool   // the manifest announces a cut that did not happen
	header      [segmentHeaderLen]byte
	orphans     []*segment // cut off, but still named by the manifest
	ballast     bool
	id          uint64 // as in the manifest
	mark        uint64 // the journal named by the manifest on disk
	reach       Reach  // how far it went, as in the manifest on disk
	unmarked    bool   // a round wanted the log, whose manifest does not name the journal as this process began it
	ended       bool   // everything is settled, nothing more is appended
	staged      *group // written to the active segment, waits for the journal
	unsettled   bool   // part of the active segment is durable by the journal alone
	touched     uint64 // the last generation of the journal that holds bytes of this log

	// mu guards what follows.
	mu             sync.Mutex
	base, baseTerm uint64     // the decree before FirstIndex
	tail           position   // where the next batch goes
	tailCap        int64      // bytes of the tail's segment
	nextPoint      int64      // offset in the tail's segment from which the next record gets an index point
	pendingCut     uint64     // the lowest decree a batch not yet durable replaces, noCut when there is none
	done           position   // durable
	segs           []*segment // oldest first, the last one is active
	cache          cache
	pend           *group // waits for the Syncer
	idle           *group
	inflight       int64 // bytes of the group being written
	session        uint32
	queued         bool // the Syncer knows that pend is not empty
	full           bool // the last group failed for lack of space
	refuse         bool // the next Append must hear of that
	closed         bool
	filesClosed    bool // nobody writes any more; who reads closes the files it holds
	failed         error
	useClock       uint64
	prepared       uint64 // the last segment asked to be prepared ahead
	committed      uint64
	waiters        []*Reader

	waiting sync.Pool // of *waiter

	lastIndex    atomic.Uint64 // copies for lock-free accessors
	durableIndex atomic.Uint64
}

// noCut is the value of Log.pendingCut while no replacement waits for the disk.
const noCut = math.MaxUint64

// position is the state of a log after a batch.
type position struct {
	last, lastTerm uint64
	hs             HardState
	seq            uint64
	off            int64
	link           uint32
}

// active returns the segment being written. mu is held.
func (l *Log) active() *segment { return l.segs[len(l.segs)-1] }

func (l *Log) path(name string) string { return l.fs.PathJoin(l.dir, name) }

func (l *Log) corrupt(seq uint64, off int64, decree uint64, kind Kind) error {
	return &ErrCorrupt{Partition: l.partition, Segment: seq, Offset: off, Decree: decree, Kind: kind}
}

func newSession() uint32 { return rand.Uint32() & 0xffffff }

// Partition is the partition the log belongs to.
func (l *Log) Partition() uint32 { return l.partition }

// HardState returns the last appended one, durable or not. Its Commit is never below FirstIndex-1.
func (l *Log) HardState() HardState {
	l.mu.Lock()
	defer l.mu.Unlock()
	hs := l.tail.hs
	hs.Commit = max(hs.Commit, l.base)
	return hs
}

// FirstIndex is the oldest decree that is held, LastIndex+1 when there is none.
func (l *Log) FirstIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base + 1
}

// LastIndex is the newest appended decree, durable or not.
func (l *Log) LastIndex() uint64 { return l.lastIndex.Load() }

// DurableIndex is the newest durable decree. While a replaced suffix waits for the disk it can be above LastIndex.
func (l *Log) DurableIndex() uint64 { return l.durableIndex.Load() }

// SetCommitted raises the decree up to which Readers may see, and wakes them. Lower values are ignored.
func (l *Log) SetCommitted(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index <= l.committed {
		return
	}
	before := l.visible()
	l.committed = index
	if l.visible() > before {
		l.wake()
	}
}

// Committed is the highest decree told to SetCommitted, or found in the hard state at Open.
func (l *Log) Committed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// visible is the last decree a Reader may return. mu is held.
func (l *Log) visible() uint64 { return min(l.committed, l.done.last, l.pendingCut-1) }

// evict bounds the cache. What is not durable stays: it cannot be read from disk. mu is held.
func (l *Log) evict() { l.cache.evict(min(l.done.last, l.pendingCut-1)) }

// wake tells the waiting readers to look again. mu is held.
func (l *Log) wake() {
	for i, r := range l.waiters {
		select {
		case r.signal <- struct{}{}:
		default:
		}
		r.waiting = false
		l.waiters[i] = nil
	}
	l.waiters = l.waiters[:0]
}

// Failed returns why the log is dead, nil while it is not.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// fail makes the log dead. mu is held.
func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		l.log.Error("private log failed", "partition", l.partition, "error", err)
		l.metrics.failure()
		l.wake()
	}
	return l.failed
}

// unusable returns why the log takes no calls. mu is held.
func (l *Log) unusable() error {
	if l.failed != nil {
		return l.failed
	}
	if l.closed {
		return ErrClosed
	}
	return nil
}

// Stats describes a log at one moment.
type Stats struct {
	Bytes     int64  `json:"bytes"`        // of all files, spares included
	Live      int64  `json:"live"`         // bytes written in segments that are still held
	Segments  int    `json:"segments"`     // the active one included
	Spares    int    `json:"spares"`       // files ready for reuse
	Excess    int64  `json:"excess_bytes"` // of spares beyond Options.MaxSpares, which Trim deletes
	Recycled  uint64 `json:"recycled"`     // segments made from a released one since Open
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Durable   uint64 `json:"durable"`
	Committed uint64 `json:"committed"`
	Cached    int64  `json:"cached_bytes"`
	Pending   int64  `json:"pending_bytes"` // appended, not yet durable
	Full      bool   `json:"disk_full"`     // the last append failed for lack of space
	Frugal    bool   `json:"frugal"`        // no spares are kept (SetFrugal)
}

// Stats returns the log's figures.
func (l *Log) Stats() Stats {
	spares, spareBytes, recycled := l.files.stats()
	l.mu.Lock()
	defer l.mu.Unlock()
	st := Stats{Segments: len(l.segs), Spares: spares, Recycled: recycled, First: l.base + 1, Last: l.tail.last,
		Durable: l.done.last, Committed: l.committed, Cached: l.cache.bytes, Full: l.full, Frugal: l.files.isFrugal(),
		Pending: l.inflight + int64(len(l.pend.buf)), Bytes: spareBytes, Excess: l.files.excess()}
	for _, s := range l.segs {
		st.Bytes += s.size
		st.Live += s.end
	}
	return st
}

// backgroundLocked runs fn on the Syncer's background goroutine. mu is held.
func (l *Log) backgroundLocked(fn func()) {
	if l.closed {
		return
	}
	l.bg.Add(1)
	if !l.syncer.background(func() { defer l.bg.Done(); fn() }) {
		l.bg.Done()
	}
}

// Close makes everything appended durable, notes how far the log goes, and closes its files. It returns why
// the log is dead, if it is.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.ioMu.Lock()
	for l.commitLocked() {
	}
	l.noteEnd()
	l.ioMu.Unlock()
	l.bg.Wait()
	l.files.close()
	l.mu.Lock()
	l.filesClosed = true
	for _, s := range slices.Concat(l.segs, l.orphans) {
		if s.file != nil && s.refs == 0 {
			_ = s.file.Close()
			s.file = nil
		}
	}
	l.wake()
	err := l.failed
	l.mu.Unlock()
	l.metrics.close()
	if l.ownSyncer {
		l.syncer.stop()
	}
	return err
}

// noteEnd records in the manifest that the active segment is synced up to here: from now on a shorter or
// damaged one is told from a torn write. It is a help, not a duty. ioMu is held.
func (l *Log) noteEnd() {
	l.mu.Lock()
	dead := l.failed != nil
	l.mu.Unlock()
	if dead || l.settle() != nil {
		return
	}
	if l.eraseDue && (l.erase() != nil || l.eraseDue) {
		l.log.Warn("refused batches may come back when the log is opened again", "partition", l.partition)
	}
	l.ended = true
	if err := l.install(l.describe(), mayDropBallast); err != nil {
		l.log.Warn("end of private log not noted", "partition", l.partition, "error", err)
	}
}
