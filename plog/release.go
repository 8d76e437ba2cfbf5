package plog

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const ballastName = "BALLAST"

// Release forgets all decrees up to and including index, which must be durable, and gives whole segments back.
// It is durable when it returns; after a crash inside it the decrees are all there or all gone. Readers that are
// behind get ErrCompacted once they leave the segment they are in. With ErrDiskFull nothing was released.
func (l *Log) Release(index uint64) error {
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	l.mu.Lock()
	err := l.unusable()
	done := index <= l.base
	if err == nil && !done && index > min(l.done.last, l.pendingCut-1) {
		err = fmt.Errorf("%w: %d, durable is %d", ErrUnavailable, index, l.done.last)
	}
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("release plog of partition %d: %w", l.partition, err)
	}
	if done {
		return nil
	}
	if err := l.settle(); err != nil {
		return fmt.Errorf("release plog of partition %d: %w", l.partition, err)
	}
	term, err := l.Term(index)
	if err != nil {
		return fmt.Errorf("release plog of partition %d: %w", l.partition, err)
	}
	m := l.describe()
	m.base, m.baseTerm = index, term
	m.hs.Commit = max(m.hs.Commit, index)
	n := 0
	for n < len(m.segments) && m.segments[n].last <= index {
		n++
	}
	m.segments = m.segments[n:]
	if err := l.install(m, mayDropBallast); err != nil {
		return fmt.Errorf("release plog of partition %d: %w", l.partition, err)
	}
	l.mu.Lock()
	l.base, l.baseTerm = index, term
	l.dropFirst(n)
	l.mu.Unlock()
	l.refillBallast()
	return nil
}

// Trim deletes one released segment that is beyond Options.MaxSpares, and returns its size; 0 when there is none, or it cannot be
// deleted now. Stats.Excess is what there is. It does not hold up appends.
func (l *Log) Trim() (freed int64) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0
	}
	l.bg.Add(1)
	l.mu.Unlock()
	defer l.bg.Done()
	freed, done := l.files.removeSpare()
	if !done {
		return 0
	}
	return freed
}

// dropFirst lets go of the first n segments. ioMu and mu are held.
func (l *Log) dropFirst(n int) {
	for _, s := range l.segs[:n] {
		l.dropLocked(s)
	}
	l.segs = append(l.segs[:0], l.segs[n:]...)
	clear(l.segs[len(l.segs):cap(l.segs)])
	l.metrics.released(n)
}

// Reset makes the log an empty one that starts after (index, term), as when a snapshot was installed. The hard
// state stays, its Commit raised to index. Batches appended before are made durable first, and appends must not
// run at the same time. It is durable when it returns, and atomic across crashes.
func (l *Log) Reset(index, term uint64) error {
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	for l.commitLocked() {
	}
	l.mu.Lock()
	err := l.unusable()
	if err == nil && index < l.base {
		err = fmt.Errorf("%w: %d", ErrCompacted, index)
	}
	seq := l.active().seq + 1
	l.mu.Unlock()
	if err == nil {
		err = l.restart(seq, index, term)
	}
	if err != nil {
		return fmt.Errorf("reset plog of partition %d to %d: %w", l.partition, index, err)
	}
	return nil
}

func (l *Log) restart(seq, index, term uint64) error {
	if err := l.settle(); err != nil {
		return err
	}
	f, err := l.files.take(seq, min(l.opts.SegmentBytes, firstSegmentBytes))
	if err != nil {
		return l.fileFailed(err)
	}
	m := l.describe()
	m.base, m.baseTerm, m.segments = index, term, nil
	m.hs.Commit = max(m.hs.Commit, index)
	m.activeSeq, m.activeFirst, m.activeSize, m.activeSynced = seq, index+1, f.size, 0
	if err := l.install(m, mayDropBallast); err != nil {
		l.files.giveBack(seq, f, err)
		l.trimIfFrugal()
		return err
	}
	key := segmentKey(l.partition, seq)
	next := &segment{seq: seq, key: key, size: f.size, file: f.file, first: index + 1, last: index,
		end: segmentHeaderLen, link: firstLink(key)}
	if err := l.writeHeader(next); err != nil && !isDiskFull(err) {
		return l.fileFailed(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropFirst(len(l.segs))
	l.segs = append(l.segs, next)
	l.base, l.baseTerm = index, term
	l.done = position{last: index, lastTerm: term, hs: m.hs, seq: seq, off: segmentHeaderLen, link: firstLink(key)}
	l.tail, l.tailCap, l.nextPoint = l.done, f.size, 0
	l.cache.truncate(0)
	l.committed = max(l.committed, index)
	l.lastIndex.Store(index)
	l.durableIndex.Store(index)
	l.wake()
	return nil
}

// writeHeader writes and syncs the header of s ahead of its first frame, so that an older manifest is noticed. When it
// fails for lack of space it is written with the first frame. ioMu is held.
func (l *Log) writeHeader(s *segment) error {
	l.headerDue, l.eraseDue = true, false
	l.encodeHeader(s)
	if _, err := s.file.WriteAt(l.header[:], 0); err != nil {
		return fmt.Errorf("write header of plog segment %d: %w", s.seq, err)
	}
	if err := s.file.SyncData(); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(fmt.Errorf("sync header of plog segment %d: %w", s.seq, err))
	}
	l.headerDue = false
	return nil
}

// encodeHeader puts the header of s into l.header. ioMu is held.
func (l *Log) encodeHeader(s *segment) {
	h := segmentHeader{partition: l.partition, seq: s.seq, generation: l.generation, first: s.first, created: time.Now().UnixNano()}
	h.put(l.header[:])
}

// SetFrugal is for a disk that is nearly full: while it is on, released segments are deleted instead of kept as spares, and no segment
// is prepared ahead, so that a rotation makes its file while appends wait for it. What was kept and prepared before is deleted soon
// after the call, which waits for no disk.
func (l *Log) SetFrugal(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.files.setFrugal(on) {
		return
	}
	if on {
		l.backgroundLocked(l.files.trim)
		return
	}
	l.prepared = min(l.prepared, l.active().seq)
}

// trimIfFrugal deletes what was given back just now. mu is not held.
func (l *Log) trimIfFrugal() {
	if !l.files.isFrugal() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backgroundLocked(l.files.trim)
}

// openBallast finds or makes the reserve. Without room for it the log works all the same.
func (l *Log) openBallast() {
	st, err := l.fs.Stat(l.path(ballastName))
	l.ballast = err == nil && st.Size() > 0
	l.refillBallast()
}

// ballastUse says whether the reserve may be given up to write a manifest: what frees space may, what takes space may not.
type ballastUse bool

const (
	keepBallast    ballastUse = false
	mayDropBallast ballastUse = true
)

// refillBallast takes the reserve back once there is room. ioMu is held, or the log is not shared yet.
func (l *Log) refillBallast() {
	if l.ballast || l.opts.BallastBytes == 0 {
		return
	}
	f, err := l.fs.Create(l.path(ballastName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	err = zero(f, 0, l.opts.BallastBytes)
	_ = f.Close()
	if err != nil {
		_ = l.fs.Remove(l.path(ballastName))
		return
	}
	l.ballast = true
}

// RemoveBallast deletes the reserve of the log in dir, which is not open; false when there is none. Opening the log makes it again.
func RemoveBallast(fs vfs.FS, dir string) bool {
	return fs.Remove(fs.PathJoin(dir, ballastName)) == nil
}

// dropBallast gives the reserve up; false when there is none. ioMu is held.
func (l *Log) dropBallast() bool {
	if !l.ballast {
		return false
	}
	l.ballast = false
	if err := l.fs.Remove(l.path(ballastName)); err != nil {
		return false
	}
	l.log.Warn("private log: ballast given up", "partition", l.partition, "bytes", l.opts.BallastBytes)
	return true
}
